//! The replacement of live packages: by fresh ones of their ciphersuite, by those of another key or
//! credential, or by nothing, when the device is removed.

use std::{collections::BTreeSet, iter::zip};

use keypool_ledger::{Event, KeyPackageRef, RevokeReason};

use super::Draft;
use crate::{
    command::{Answer, ItemOutcome, LeafKey, NewPackage, NextKey, Rejection, Remover, RevokeScope},
    lifecycle::Stage,
};

impl Draft<'_> {
    /// Removes the registered key and withdraws the pool's packages. Reserved ones can still be spent,
    /// because their Commit may be posted already.
    pub(super) fn remove(&mut self, by: &Remover) -> Result<Answer, Rejection> {
        if self.pool.registration().is_none() {
            return Err(Rejection::NotRegistered);
        }
        let by_operator = *by == Remover::Operator;
        self.record(Event::DeviceRemoved { by_operator })?;
        let reason = if by_operator { RevokeReason::Operator } else { RevokeReason::Withdrawn };
        self.revoke(&RevokeScope::All, reason)?;
        Ok(Answer::Removed)
    }

    /// Releases the name for anyone to register, after ending the packages under it as a removal does.
    pub(super) fn release_name(&mut self) -> Result<Answer, Rejection> {
        if self.pool.is_released() {
            return Ok(Answer::Removed);
        }
        if self.pool.registration().is_some() {
            self.remove(&Remover::Operator)?;
        }
        self.record(Event::NameReleased {})?;
        Ok(Answer::Removed)
    }

    /// Replaces the live packages of each ciphersuite that has an acceptable new one; with another key, all
    /// live packages. If no new package is acceptable, nothing changes.
    ///
    /// The withdrawals are recorded first, so that at no place of the history the pool holds more than it
    /// may, or two last-resort packages of one ciphersuite. Nobody sees the pool between the two: the
    /// batch is written whole.
    pub(super) fn replace(
        &mut self,
        packages: &[NewPackage],
        next: Option<&NextKey>,
    ) -> Result<Answer, Rejection> {
        let (before, recorded) = (self.pool.clone(), self.events.len());
        let mut suites: BTreeSet<u16> = packages.iter().map(suite_of).collect();
        loop {
            let (outcomes, revoked) = self.exchange(packages, next, &suites)?;
            let accepted: BTreeSet<u16> = zip(packages, &outcomes)
                .filter(|(_, outcome)| is_acceptable(outcome))
                .map(|(package, _)| suite_of(package))
                .collect();
            let is_done = match next {
                Some(_) => !accepted.is_empty(),
                None => !suites.is_empty() && suites.is_subset(&accepted),
            };
            if is_done {
                return Ok(Answer::Replaced { outcomes, revoked });
            }
            self.pool = before.clone();
            self.events.truncate(recorded);
            suites.retain(|suite| accepted.contains(suite));
            if suites.is_empty() {
                return Ok(Answer::Replaced { outcomes, revoked: Vec::new() });
            }
        }
    }

    /// Withdraws the live packages of these ciphersuites, or all with another key, and uploads the new ones.
    fn exchange(
        &mut self,
        packages: &[NewPackage],
        next: Option<&NextKey>,
        suites: &BTreeSet<u16>,
    ) -> Result<(Vec<ItemOutcome>, Vec<KeyPackageRef>), Rejection> {
        next.map_or(Ok(()), |next| self.follow(next))?;
        let is_new = |keypackage_ref: &KeyPackageRef| {
            packages.iter().any(|package| package.facts.keypackage_ref == *keypackage_ref)
        };
        let old = self.live_refs(|package, _| {
            let is_replaced = next.is_some() || suites.contains(&package.facts.ciphersuite);
            is_replaced && !is_new(&package.facts.keypackage_ref)
        });
        let revoked = self.revoke_each(old, RevokeReason::Rotated)?;
        Ok((self.upload(packages)?, revoked))
    }

    /// Lets the next key speak for the pool, if it does not already.
    fn follow(&mut self, next: &NextKey) -> Result<(), Rejection> {
        let NextKey { statement, signature_key, credential, leaf_keys } = next;
        match self.pool.registration() {
            Some(known) if known.signature_key == *signature_key => Ok(()),
            Some(known) if known.signature_key == statement.by => {
                let (signature_key, credential) = (signature_key.clone(), credential.clone());
                let statement = Some(statement.clone());
                self.record(Event::KeyRotated { signature_key, credential, statement })?;
                for (statement, LeafKey { signature_scheme, signature_key }) in leaf_keys {
                    self.record(Event::LeafKeyPinned {
                        signature_scheme: *signature_scheme,
                        signature_key: signature_key.clone(),
                        statement: Some(statement.clone()),
                    })?;
                }
                Ok(())
            }
            _ => Err(Rejection::IdentityBound),
        }
    }
}

fn suite_of(package: &NewPackage) -> u16 {
    package.facts.ciphersuite
}

/// Whether a new package is in the pool, by this request or before, and may still be used.
fn is_acceptable(outcome: &ItemOutcome) -> bool {
    match outcome {
        ItemOutcome::Stored(_) => true,
        ItemOutcome::Known(_, stage) => *stage < Stage::Spent,
        ItemOutcome::Refused(..) => false,
    }
}
