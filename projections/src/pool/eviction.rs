//! The eviction of finished packages from a pool, and their return when somebody asks.
//!
//! A pool that is served keeps packages and reservations that may still change. The others stand in the
//! log, where a package's own records tell its whole life: a package that was evicted is reloaded before a
//! command that names it is decided, and the rules see the pool as if it had never forgotten.

use std::{mem, sync::Arc};

use imbl::{HashSet, Vector};
use keypool_ledger::{Hash, KeyPackageRef, Record, ReservationId, Timestamp};

use super::{Package, PoolState, Reservation};
use crate::{
    command::{Claim, Command, Limits, NewPackage, PolicyChange, RevokeScope},
    decide::is_lapse_exhausted,
    lifecycle::{IllegalChange, Stage},
};

/// Something that a command names and a pool does not remember. It may never have been there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evicted {
    /// A package, with all its reservations.
    Package(KeyPackageRef),
    /// A reservation, and the package it is of.
    Reservation(ReservationId),
    /// The `init_key` of a package that is new.
    InitKey(Hash),
}

impl PoolState {
    /// Evicts state that only a command naming it would need: ended packages that nobody holds, ended
    /// reservations, and the `init_key`s seen. The counts
    /// stay.
    pub fn forget(&mut self) {
        let Self { ended, reservations, open, .. } = self;
        if reservations.len() != open.len() {
            let still_open = |id: &ReservationId| Some((*id, reservations.get(id)?.clone()));
            *reservations = open.iter().filter_map(still_open).collect();
        }
        if !ended.is_empty() {
            let held = |keypackage_ref: &KeyPackageRef| {
                reservations.values().any(|made| made.keypackage_ref == *keypackage_ref)
            };
            let kept = mem::take(ended).into_iter();
            *ended = kept.filter(|(keypackage_ref, _)| held(keypackage_ref)).collect();
        }
        if !self.init_keys.is_empty() {
            self.init_keys = HashSet::new();
        }
    }

    /// The names in a command that the pool does not remember.
    pub fn evicted_by(&self, command: &Command) -> Vec<Evicted> {
        let unless_known = |keypackage_ref: &KeyPackageRef| {
            let unknown = self.get(keypackage_ref).is_none();
            unknown.then(|| Evicted::Package(keypackage_ref.clone()))
        };
        match command {
            Command::Upload(packages) | Command::Replace { packages, .. } => {
                let named = |NewPackage { facts, .. }: &NewPackage| {
                    let init_key = Some(Evicted::InitKey(facts.init_key));
                    [unless_known(&facts.keypackage_ref), init_key]
                };
                packages.iter().flat_map(named).flatten().collect()
            }
            Command::Reserve { reservation, .. } => {
                let known = self.reservation(*reservation).is_some();
                if known { Vec::new() } else { vec![Evicted::Reservation(*reservation)] }
            }
            Command::Renew(claim)
            | Command::Release(claim)
            | Command::Report { claim, .. }
            | Command::Spend { claim, .. } => self.forgotten_of(claim).into_iter().collect(),
            Command::Revoke { which: RevokeScope::Refs(refs), .. } => {
                refs.iter().filter_map(unless_known).collect()
            }
            Command::SetPolicy(PolicyChange { joined, .. }) => {
                let unknown = joined.iter().filter(|id| self.reservation(**id).is_none());
                unknown.map(|id| Evicted::Reservation(*id)).collect()
            }
            Command::Revoke { which: RevokeScope::Credential(_) | RevokeScope::All, .. }
            | Command::Register { .. }
            | Command::Rotate { .. }
            | Command::Admit { .. }
            | Command::Remove { .. }
            | Command::DeclareLeafKey { .. }
            | Command::DeclareCredential { .. }
            | Command::SetRecoveryKey { .. }
            | Command::Recover { .. }
            | Command::ReleaseName
            | Command::Settle => Vec::new(),
        }
    }

    fn forgotten_of(&self, claim: &Claim) -> Option<Evicted> {
        let known = self.get(&claim.keypackage_ref).is_some()
            && self.reservation(claim.reservation).is_some();
        (!known).then(|| Evicted::Package(claim.keypackage_ref.clone()))
    }

    /// Remembers a package and its reservations again, from its own records.
    ///
    /// # Errors
    ///
    /// Returns an [`IllegalChange`] if they are not the life of a package, and changes nothing.
    pub fn recall(&mut self, records: &[Record]) -> Result<(), IllegalChange> {
        let until_now = |record: &&Record| record.envelope.version <= self.version;
        let own = Self::of_package(records.iter().take_while(until_now))?;
        for (keypackage_ref, package) in own.live.into_iter().chain(own.ended) {
            // What is live was never forgotten.
            if Stage::Spent <= package.stage && self.get(&keypackage_ref).is_none() {
                self.ended.insert(keypackage_ref, package);
            }
        }
        for (id, made) in own.reservations {
            if !self.reservations.contains_key(&id) {
                self.reservations.insert(id, made);
            }
        }
        Ok(())
    }

    /// A pool of one package, from the package's own records.
    ///
    /// # Errors
    ///
    /// Returns an [`IllegalChange`] if the lifecycle forbids one of the records.
    pub fn of_package<'a>(
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Result<Self, IllegalChange> {
        let mut own = Self::default();
        for record in records {
            // A package's place in the order of uploads is the version that brought it.
            own.version = record.envelope.version.saturating_sub(1);
            own.evolve(&record.envelope.event, record.envelope.at)?;
        }
        Ok(own)
    }

    /// A package as its own records have left it; `None` if they are not the life of one.
    #[must_use]
    pub fn life_of(keypackage_ref: &KeyPackageRef, records: &[Record]) -> Option<Package> {
        Self::of_package(records).ok()?.get(keypackage_ref).cloned()
    }

    /// Remembers that an `init_key` was seen.
    pub fn recall_init_key(&mut self, init_key: Hash) {
        self.init_keys.insert(init_key);
    }

    /// When time does something to the pool next, if nobody else does: a reservation lapses, a lifetime
    /// ends. At once where the pool holds packages that are not offered any more.
    pub fn next_due(&self, limits: &Limits) -> Option<Timestamp> {
        let lapses = self.open_reservations().map(|(_, made)| limits.lapses_at(made.deadline));
        let ends = self.live().map(|package| {
            if is_lapse_exhausted(package, limits) {
                Timestamp::default()
            } else {
                package.facts.not_after
            }
        });
        lapses.chain(ends).min()
    }

    /// Counts an event that concerns evicted state only.
    pub fn pass_over(&mut self) {
        self.version = self.version.saturating_add(1);
    }

    /// How many packages are known whose fate is sealed.
    pub fn n_ended(&self) -> usize {
        self.ended.len()
    }

    /// Forgets, for a fold that nothing is decided on, the packages that nothing can happen to any more,
    /// and their reservations: those that were spent, and those that have ended otherwise and whose
    /// lifetime was over at `before`. The counts stay.
    pub fn forget_ended(&mut self, before: Timestamp) {
        let may_change =
            |package: &Package| package.stage != Stage::Spent && before < package.facts.not_after;
        let ended = mem::take(&mut self.ended).into_iter();
        self.ended = ended.filter(|(_, package): &(_, Arc<_>)| may_change(package)).collect();
        let (live, ended) = (&self.live, &self.ended);
        let known = |(_, made): &(ReservationId, Arc<Reservation>)| {
            live.contains_key(&made.keypackage_ref) || ended.contains_key(&made.keypackage_ref)
        };
        self.reservations = mem::take(&mut self.reservations).into_iter().filter(known).collect();
        let reservations = &self.reservations;
        self.open = self.open.iter().filter(|id| reservations.contains_key(*id)).copied().collect();
        self.init_keys = HashSet::new();
        self.spent_lately = Vector::new();
    }
}
