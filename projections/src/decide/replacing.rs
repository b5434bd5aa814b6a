//! The replacement of all live packages: by those of another key or credential, or by nothing,
//! when the device is removed.

use keypool_ledger::{Event, KeyPackageRef, RevokeReason};

use super::Draft;
use crate::{
    command::{Answer, ItemOutcome, LeafKey, NewPackage, NextKey, Rejection, RevokeScope},
    lifecycle::Stage,
};

impl Draft<'_> {
    /// Removes the registered key and withdraws the pool's packages. Reserved ones can still be spent,
    /// because their Commit may be posted already.
    pub(super) fn remove(&mut self) -> Result<Answer, Rejection> {
        if self.pool.registration().is_none() {
            return Err(Rejection::NotRegistered);
        }
        self.record(Event::DeviceRemoved {})?;
        self.revoke(&RevokeScope::All, RevokeReason::Withdrawn)?;
        Ok(Answer::Removed)
    }

    /// Releases the name for anyone to register, after ending the packages under it as a removal does.
    pub(super) fn release_name(&mut self) -> Result<Answer, Rejection> {
        if self.pool.is_released() {
            return Ok(Answer::Removed);
        }
        if self.pool.registration().is_some() {
            self.remove()?;
        }
        self.record(Event::NameReleased {})?;
        Ok(Answer::Removed)
    }

    /// The live packages are withdrawn and the new ones taken in; if none of these is acceptable, it is as
    /// if nothing had been asked for.
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
        next.map_or(Ok(()), |next| self.follow(next))?;
        let is_new = |keypackage_ref: &KeyPackageRef| {
            packages.iter().any(|package| package.facts.keypackage_ref == *keypackage_ref)
        };
        let old = self.live_refs(|package, _| !is_new(&package.facts.keypackage_ref));
        let revoked = self.revoke_each(old, RevokeReason::Rotated)?;
        let outcomes = self.upload(packages)?;
        if outcomes.iter().any(is_acceptable) {
            return Ok(Answer::Replaced { outcomes, revoked });
        }
        self.pool = before;
        self.events.truncate(recorded);
        Ok(Answer::Replaced { outcomes, revoked: Vec::new() })
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

/// Whether a new package is in the pool, by this request or before, and may still be used.
fn is_acceptable(outcome: &ItemOutcome) -> bool {
    match outcome {
        ItemOutcome::Stored(_) => true,
        ItemOutcome::Known(_, stage) => *stage < Stage::Spent,
        ItemOutcome::Refused(..) => false,
    }
}
