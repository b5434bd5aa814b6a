//! The pool by ciphersuite: each has its own target, low watermark and package of last resort.

use keypool_ledger::{Event, Timestamp};
use openmls_traits::types::Ciphersuite;

use super::{
    CreatedPackage, KeyPackagePool, RefillCounts, Replenishment, ServerStatus, counts,
    status::counts_of,
};
use crate::{ConfigError, PoolError, StorageError, mls::usable_suite, storage::fresh_command};

impl KeyPackagePool {
    /// The counts that the size of a refill depends on, for each ciphersuite in the order of the configuration.
    /// `live` is that of the whole pool.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn counts_by_suite(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(u16, RefillCounts)>, StorageError> {
        let staged = self.store.stage()?;
        let is_only = self.suites.len() == 1;
        let of = |suite: Ciphersuite| {
            let number = suite.into();
            Ok((number, counts_of(&staged, (number, is_only), now)?))
        };
        self.suites().map(of).collect()
    }

    /// Computes the next refill of each ciphersuite.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn replenishments(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(u16, Replenishment)>, StorageError> {
        Ok(self.config.replenishments(&self.counts_by_suite(now)?))
    }

    /// Makes `count` packages of a ciphersuite and stores their private halves, all in one write.
    ///
    /// # Errors
    ///
    /// Returns [`PoolError::AboveCap`] if the server would have no room for them, [`PoolError::Config`] if
    /// the pool keeps none of the ciphersuite, and otherwise a [`PoolError`] of the store or of MLS. No
    /// package has been made then.
    pub fn generate_and_store_of(
        &self,
        ciphersuite: u16,
        count: usize,
        now: Timestamp,
    ) -> Result<Vec<CreatedPackage>, PoolError> {
        let taken = counts(&self.store.stage()?, now)?;
        let room = self.config.hard_cap.saturating_sub(taken.live.saturating_add(taken.pending));
        if count > room {
            return Err(PoolError::AboveCap { asked: count, room });
        }
        self.generate_by_suite(&[(ciphersuite, Replenishment { reupload: 0, create: count })], now)
    }

    /// Makes the packages of a refill, all in one write.
    pub(in crate::mls) fn generate_by_suite(
        &self,
        needed: &[(u16, Replenishment)],
        now: Timestamp,
    ) -> Result<Vec<CreatedPackage>, PoolError> {
        let staged = self.store.stage()?;
        let (command, mut made) = (fresh_command(), Vec::new());
        for (number, Replenishment { create, .. }) in needed {
            let suite = usable_suite(*number).filter(|suite| self.suites.contains(suite));
            let suite = suite.ok_or(ConfigError::Ciphersuite(*number))?;
            for _ in 0..*create {
                let package = self.make_package(&staged, (suite, false), now)?;
                staged.record(Event::Created(package.facts.clone()), now, command)?;
                made.push(package);
            }
        }
        staged.commit()?;
        Ok(made)
    }

    /// The packages that a refill uploads of those that are made already.
    pub(in crate::mls) fn again_by_suite(
        &self,
        needed: &[(u16, Replenishment)],
        now: Timestamp,
    ) -> Result<Vec<CreatedPackage>, StorageError> {
        let pending = self.pending_upload(now)?;
        let of_suite = |(number, its): &(u16, Replenishment)| {
            let number = *number;
            let made = pending.iter().filter(move |made| made.facts.ciphersuite == number);
            made.take(its.reupload).cloned()
        };
        Ok(needed.iter().flat_map(of_suite).collect())
    }

    /// The ciphersuites that packages are kept of.
    pub(super) fn suites(&self) -> impl Iterator<Item = Ciphersuite> + use<'_> {
        self.suites.iter().copied()
    }
}

impl ServerStatus {
    /// Counts one more package of a ciphersuite, if the server counts them apart.
    pub(super) fn note_uploaded(&mut self, suite: u16) {
        let Some(suites) = &mut self.suites else { return };
        match suites.iter_mut().find(|(named, _)| *named == suite) {
            Some((_, available)) => *available = available.saturating_add(1),
            None => suites.push((suite, 1)),
        }
    }
}
