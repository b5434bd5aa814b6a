//! Pool health computed from the mirrored history.

use keypool_ledger::Timestamp;
use keypool_projections::{Package, PoolState, Stage};

use super::{KeyPackagePool, last_resort::Worn};
use crate::{StorageError, mls::CLOCK_SKEW};

impl KeyPackagePool {
    /// How many packages can be handed out, by the server's history as it is mirrored, if the pool is well:
    /// not low, with a package of last resort that is not to be replaced; nothing if it is not.
    ///
    /// A package whose reservation has run out counts once the history tells that it is back, and one whose
    /// end is less than an hour away does not: where it is not sure, the pool is not well.
    pub(crate) fn available_if_well(
        &self,
        told: &PoolState,
        now: Timestamp,
    ) -> Result<Option<u64>, StorageError> {
        let is_offered = |package: &&Package| {
            let facts = &package.facts;
            let is_in_time = facts.not_before <= now && now.after(CLOCK_SKEW) < facts.not_after;
            package.stage == Stage::Available && !facts.last_resort && is_in_time
        };
        let offered_of = |suite: u16| {
            told.live().filter(is_offered).filter(|it| it.facts.ciphersuite == suite).count()
        };
        let stands = |suite: u16| {
            let is_it = |it: &Package| it.facts.last_resort && it.facts.ciphersuite == suite;
            !self.config.last_resort || told.live().any(is_it)
        };
        let is_kept = |suite: u16| !self.config.is_low(offered_of(suite)) && stands(suite);
        if !self.suites().map(u16::from).all(is_kept) {
            return Ok(None);
        }
        let is_worn = self.worn_last_resort(now)? != Worn::default();
        Ok((!is_worn).then(|| told.live().filter(is_offered).count() as u64))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use keypool_ledger::{Event, GroupId, PackageFacts, ReservationId};
    use tempfile::TempDir;

    use super::*;
    use crate::{DeviceIdentity, LocalStore, PoolConfig, fresh_command};

    const MADE: Timestamp = Timestamp::from_secs(1_766_400_000);

    /// Ten packages and one of last resort, all of them taken in by the server.
    struct Filled {
        pool: KeyPackagePool,
        single: Vec<PackageFacts>,
        last: PackageFacts,
        told: PoolState,
        _folder: TempDir,
    }

    impl Filled {
        fn new() -> Self {
            let folder = TempDir::new().unwrap();
            let store = LocalStore::open(folder.path(), &"bob".parse().unwrap()).unwrap();
            let store = Arc::new(store);
            let identity = DeviceIdentity::load_or_create(&store).unwrap();
            let last_resort_lifetime = Duration::from_hours(14 * 24);
            let config = PoolConfig { last_resort_lifetime, ..PoolConfig::default() };
            let pool = KeyPackagePool::new(store, identity, config).unwrap();
            let made = pool.generate_and_store(10, MADE).unwrap();
            let single: Vec<PackageFacts> = made.into_iter().map(|made| made.facts).collect();
            let last = pool.last_resort_to_upload(MADE).unwrap().remove(0).facts;
            let all: Vec<PackageFacts> = single.iter().chain([&last]).cloned().collect();
            let refs: Vec<_> = all.iter().map(|facts| facts.keypackage_ref.clone()).collect();
            pool.mark_uploaded(&refs, MADE, fresh_command()).unwrap();
            let mut told = PoolState::default();
            for facts in all {
                told.evolve(&Event::Uploaded(facts), MADE).unwrap();
            }
            Self { pool, single, last, told, _folder: folder }
        }

        fn reserve(&mut self, number: usize) {
            let event = Event::Reserved {
                keypackage_ref: self.single[number].keypackage_ref.clone(),
                reservation: ReservationId(fresh_command().0),
                generation: 1,
                holder: "alice".parse().unwrap(),
                group: GroupId::new(b"g").unwrap(),
                deadline: MADE.after(Duration::from_mins(1)),
            };
            self.told.evolve(&event, MADE).unwrap();
        }

        fn available_at(&self, now: Timestamp) -> Option<u64> {
            self.pool.available_if_well(&self.told, now).unwrap()
        }
    }

    #[test]
    fn a_pool_is_well_while_more_than_the_watermark_is_offered() {
        let mut filled = Filled::new();
        assert_eq!(filled.available_at(MADE), Some(10));
        filled.reserve(0);
        assert_eq!(filled.available_at(MADE), Some(9));
        // It would count again if it were certain when the reservation ends.
        assert_eq!(filled.available_at(MADE.after(Duration::from_mins(10))), Some(9));
        filled.reserve(1);
        assert_eq!(filled.available_at(MADE), None);
    }

    #[test]
    fn a_pool_is_not_well_without_a_package_of_last_resort() {
        let mut filled = Filled::new();
        let gone = Event::Expired { keypackage_ref: filled.last.keypackage_ref.clone() };
        filled.told.evolve(&gone, MADE).unwrap();
        assert_eq!(filled.available_at(MADE), None);
    }

    #[test]
    fn a_pool_is_not_well_once_half_of_the_life_of_its_last_resort_is_over() {
        let filled = Filled::new();
        assert_eq!(filled.available_at(MADE.after(Duration::from_hours(6 * 24))), Some(10));
        assert_eq!(filled.available_at(MADE.after(Duration::from_hours(8 * 24))), None);
    }

    #[test]
    fn packages_near_their_end_are_not_counted() {
        let mut filled = Filled::new();
        filled.pool.config.last_resort = false;
        let end = filled.single[0].not_after;
        filled
            .told
            .evolve(&Event::Expired { keypackage_ref: filled.last.keypackage_ref.clone() }, MADE)
            .unwrap();
        let own = [filled.last.keypackage_ref.clone()];
        let why = keypool_ledger::RevokeReason::Withdrawn;
        filled.pool.mark_revoked(&own, why, MADE, fresh_command()).unwrap();
        assert_eq!(filled.available_at(end.before(CLOCK_SKEW + Duration::from_secs(1))), Some(10));
        assert_eq!(filled.available_at(end.before(CLOCK_SKEW)), None);
    }
}
