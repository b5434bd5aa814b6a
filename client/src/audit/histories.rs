//! The comparison of the two histories: the mirror of the server's, and the device's own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use keypool_ledger::{
    Event, EventEnvelope, GroupId, KeyPackageRef, PoolId, ReleaseReason, ReservationId,
    RevokeReason, Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{AuditFinding, WELCOME_GRACE_H};

/// How far the two histories were, when the server's was last fetched to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fetched {
    /// The version of the own history before it was asked: packages joined by then were reserved before.
    pub(crate) own: u64,
    /// The version of the mirror afterwards.
    pub(crate) mirror: u64,
    /// The version of the own history when the mirror began anew, because the server was rolled back:
    /// packages joined by then need not be in it.
    #[serde(default)]
    pub(crate) anew_after: u64,
}

/// The input of the comparison.
#[derive(Debug)]
pub(crate) struct Histories<'a> {
    /// The server's history, from its first event on.
    pub(crate) mirror: &'a [EventEnvelope],
    /// The device's own.
    pub(crate) own: &'a [EventEnvelope],
    /// How far both were at the last fetch.
    pub(crate) fetched: Fetched,
    /// When the device heard first of spent packages for which no Welcome had come.
    pub(crate) awaited: &'a BTreeMap<KeyPackageRef, Timestamp>,
    /// When the refresh before the last one was: Welcomes there by then could have been joined.
    pub(crate) present: Timestamp,
}

/// One package as the server's history tells it.
#[derive(Default)]
struct MirroredPackage {
    last_resort: bool,
    reservations: BTreeMap<ReservationId, MirroredReservation>,
    open: Option<ReservationId>,
    spent: Option<Spend>,
}

/// One reservation.
struct MirroredReservation {
    holder: PoolId,
    deadline: Timestamp,
}

/// How a package was spent.
struct Spend {
    holder: Option<PoolId>,
    group: GroupId,
    at: Timestamp,
}

/// A Welcome that was joined.
struct Join<'a> {
    keypackage_ref: &'a KeyPackageRef,
    group: &'a GroupId,
    inviter: Option<&'a PoolId>,
    version: u64,
}

impl Histories<'_> {
    /// Compares the two histories.
    pub(crate) fn examine(&self) -> Vec<AuditFinding> {
        let (mut packages, mut findings) = (BTreeMap::new(), Vec::new());
        for envelope in self.mirror {
            if let Some(keypackage_ref) = envelope.event.keypackage_ref() {
                let told: &mut MirroredPackage =
                    packages.entry(keypackage_ref.clone()).or_default();
                findings.extend(told.hear(keypackage_ref, &envelope.event, envelope.at));
            }
        }
        let joins: Vec<Join<'_>> = self.own.iter().filter_map(join_of).collect();
        findings.extend(self.missing_welcomes(&packages, &joins));
        for join in &joins {
            findings.extend(self.misfit(join, packages.get(join.keypackage_ref)));
        }
        findings
    }

    /// How many Welcomes were joined.
    pub(crate) fn joined(&self) -> u64 {
        self.own.iter().filter_map(join_of).count() as u64
    }

    /// Packages of this device that were spent long ago, and for which no Welcome was joined though the
    /// device was there to take it in. Those of a device's life before a backup are not its own any more.
    fn missing_welcomes(
        &self,
        packages: &BTreeMap<KeyPackageRef, MirroredPackage>,
        joins: &[Join<'_>],
    ) -> Vec<AuditFinding> {
        let made: BTreeSet<_> =
            self.own.iter().filter_map(|it| it.event.keypackage_ref()).collect();
        let joined: BTreeSet<_> = joins.iter().map(|join| join.keypackage_ref).collect();
        let missing = packages.iter().filter_map(|(keypackage_ref, told)| {
            let spend = told.spent.as_ref().filter(|_| !told.last_resort)?;
            let heard = self.awaited.get(keypackage_ref).copied().unwrap_or(spend.at);
            let due = heard.max(spend.at).after(Duration::from_hours(WELCOME_GRACE_H));
            let is_missing = made.contains(keypackage_ref) && !joined.contains(keypackage_ref);
            if !is_missing || self.present < due {
                return None;
            }
            Some(AuditFinding::SpentWithoutWelcome {
                keypackage_ref: keypackage_ref.clone(),
                holder: spend.holder.clone(),
                group: spend.group.clone(),
                at: spend.at,
            })
        });
        missing.collect()
    }

    /// The contradictions between a Welcome and the server's history of its package. Nothing is said of
    /// one that was joined after the server's history was fetched.
    fn misfit(&self, join: &Join<'_>, told: Option<&MirroredPackage>) -> Option<AuditFinding> {
        let is_known = (self.mirror.len() as u64) >= self.fetched.mirror;
        let is_older = join.version <= self.fetched.anew_after;
        if !is_known || is_older || self.fetched.own < join.version {
            return None;
        }
        let keypackage_ref = join.keypackage_ref.clone();
        let Some(told) = told.filter(|told| !told.reservations.is_empty()) else {
            let group = join.group.clone();
            return Some(AuditFinding::WelcomeWithoutReservation { keypackage_ref, group });
        };
        let inviter = join.inviter?.clone();
        let spender = told.spent.as_ref().and_then(|spend| spend.holder.as_ref());
        let named = match spender.filter(|_| !told.last_resort) {
            Some(spender) => vec![spender],
            None => told.reservations.values().map(|claim| &claim.holder).collect(),
        };
        // Nobody can say any more who an erased user was.
        let may_be = |named: &&PoolId| named.is_pseudonym() || **named == inviter;
        let first = named.first().filter(|_| !named.iter().any(may_be))?;
        Some(AuditFinding::OtherInviter { keypackage_ref, named: (*first).clone(), inviter })
    }
}

impl MirroredPackage {
    /// Applies the next event of the package's history, and returns its fault. This knows
    /// nothing of the rules the server decides by, so that a fault there does not hide itself.
    fn hear(
        &mut self,
        keypackage_ref: &KeyPackageRef,
        event: &Event,
        at: Timestamp,
    ) -> Option<AuditFinding> {
        match event {
            Event::Created(facts) | Event::Uploaded(facts) => {
                self.last_resort = facts.last_resort;
                None
            }
            Event::Reserved { reservation, holder, deadline, .. } => {
                let found = self.second(keypackage_ref, holder, at);
                let claim = MirroredReservation { holder: holder.clone(), deadline: *deadline };
                self.reservations.insert(*reservation, claim);
                self.open = Some(*reservation);
                found
            }
            Event::Renewed { reservation, deadline, .. } => {
                if let Some(claim) = self.reservations.get_mut(reservation) {
                    claim.deadline = *deadline;
                }
                None
            }
            Event::Released { reservation, reason, .. } => {
                self.open.take_if(|open| open == reservation);
                let claim = self.reservations.get(reservation)?;
                let early = *reason == ReleaseReason::Lapsed && at < claim.deadline;
                early.then(|| AuditFinding::LapsedEarly {
                    keypackage_ref: keypackage_ref.clone(),
                    reservation: *reservation,
                    holder: claim.holder.clone(),
                    at,
                })
            }
            Event::Spent { reservation, holder, group, .. } => {
                let by = holder.clone().or_else(|| self.holder_of((*reservation)?).cloned());
                let is_open = self.open.is_some() && self.open == *reservation;
                let found = by.as_ref().filter(|_| !is_open);
                let found = found.and_then(|by| self.second(keypackage_ref, by, at));
                self.open = None;
                self.spent = Some(Spend { holder: by, group: group.clone(), at });
                found
            }
            Event::Revoked { reason: RevokeReason::Reported, check, .. } => {
                let holder = self.open.and_then(|open| self.holder_of(open)).cloned();
                let (keypackage_ref, check) = (keypackage_ref.clone(), check.clone());
                Some(AuditFinding::Reported { keypackage_ref, holder, check, at })
            }
            Event::Conflict { lost, holds, .. } => Some(AuditFinding::Conflict {
                keypackage_ref: keypackage_ref.clone(),
                lost: *lost,
                holds: *holds,
                at,
            }),
            _ => None,
        }
    }

    /// A second inviter, where the first still holds the package or has used it.
    fn second(
        &self,
        keypackage_ref: &KeyPackageRef,
        second: &PoolId,
        at: Timestamp,
    ) -> Option<AuditFinding> {
        let spender = self.spent.as_ref().and_then(|spend| spend.holder.as_ref());
        let first = spender.or_else(|| self.holder_of(self.open?));
        let first = first.filter(|_| !self.last_resort)?.clone();
        let (keypackage_ref, second) = (keypackage_ref.clone(), second.clone());
        Some(AuditFinding::HandedOutTwice { keypackage_ref, first, second, at })
    }

    fn holder_of(&self, reservation: ReservationId) -> Option<&PoolId> {
        self.reservations.get(&reservation).map(|claim| &claim.holder)
    }
}

fn join_of(envelope: &EventEnvelope) -> Option<Join<'_>> {
    match &envelope.event {
        Event::Spent { keypackage_ref, group, holder, .. } => {
            let (inviter, version) = (holder.as_ref(), envelope.version);
            Some(Join { keypackage_ref, group, inviter, version })
        }
        _ => None,
    }
}
