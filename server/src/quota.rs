//! Rate limits, counted beside the committer: taken before a package is reserved, and given back where
//! none was.
//!
//! Counting holds one of many locks for a few hundred nanoseconds, and does not read the log. Counts of
//! reservations and uploads are restored from the log: see [`restore`].

mod addresses;

mod restore;

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use keypool_ledger::{PoolId, ReservationId, Timestamp};
use keypool_projections::quota::{
    Ask, Granted, Inviters, Keys, OverQuota, Quota, Quotas, Rate, Relation, Targets,
};

pub(crate) use self::addresses::Addresses;

/// Parts of the counts: requests only wait for others of the same part.
const SHARDS: usize = 32;

/// Counts that lie in parts, by key.
#[derive(Debug)]
struct Shards<T>(Vec<Mutex<T>>);

impl<T: Default> Default for Shards<T> {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl<T> Shards<T> {
    /// The part that a key is in, locked. A thread that has panicked leaves counts, and nothing half.
    fn of(&self, key: u64) -> Option<MutexGuard<'_, T>> {
        let place = usize::try_from(key % SHARDS as u64).unwrap_or_default();
        self.0.get(place).map(|part| part.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn each(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.0.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The counts of all inviters and all pools.
///
/// If both parts are locked, the inviter's is locked first.
#[derive(Debug)]
pub(crate) struct Counter {
    quotas: Quotas,
    keys: Keys,
    inviters: Shards<Inviters>,
    targets: Shards<Targets>,
}

/// A package that was counted before it is reserved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    ask: Ask,
    granted: Granted,
    at: Timestamp,
}

impl Taken {
    /// Returns the limit that leaves only the last-resort package; `None` if others may be had.
    pub(crate) const fn last_resort_only(&self) -> Option<OverQuota> {
        match self.granted {
            Granted::LastResort(over) => Some(over),
            Granted::Counted | Granted::Repeated => None,
        }
    }
}

/// The outcome of a reservation that was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// A package was handed out, until it lapses at this moment.
    Reserved(Timestamp),
    /// It was handed out before.
    Repeated,
    /// None was handed out.
    Refused,
}

impl Counter {
    pub(crate) fn new(quotas: &Quotas) -> Self {
        let (inviters, targets) = (Shards::default(), Shards::default());
        Self { quotas: *quotas, keys: Keys::default(), inviters, targets }
    }

    /// Counts a package for an inviter, if there may be one.
    pub(crate) fn take(
        &self,
        inviter: &PoolId,
        pool: &PoolId,
        claim: (ReservationId, Relation, Timestamp),
        now: Timestamp,
    ) -> Result<Taken, OverQuota> {
        let ask = Ask::new(&self.keys, inviter, pool, claim);
        let granted =
            self.both(&ask, |inviters, targets| inviters.ask(targets, &ask, &self.quotas, now));
        let granted = granted.unwrap_or(Ok(Granted::Counted))?;
        let ask = if matches!(granted, Granted::LastResort(_)) { ask.last_resort() } else { ask };
        Ok(Taken { ask, granted, at: now })
    }

    /// The relation of an inviter to a pool's owner: a stranger, unless something says otherwise.
    pub(crate) fn stranger(&self, strangers_per_hour: Option<u32>) -> Relation {
        Relation::Stranger(strangers_per_hour.map_or(self.quotas.strangers, Rate::hourly))
    }

    /// Counts something that a device does, if it may.
    pub(crate) fn device(
        &self,
        quota: Quota,
        pool: &PoolId,
        count: u32,
        now: Timestamp,
    ) -> Result<(), OverQuota> {
        let key = self.keys.pool(pool);
        let counted = self.targets.of(key).zip(self.quotas.of_device(quota));
        counted.map_or(Ok(()), |(mut all, rate)| all.device((quota, key), count, &rate, now))
    }

    /// Counts something that a device has done, by the log.
    fn count_device(&self, quota: Quota, pool: &PoolId, count: u32, at: Timestamp) {
        let key = self.keys.pool(pool);
        if let Some((mut all, rate)) = self.targets.of(key).zip(self.quotas.of_device(quota)) {
            all.count_device((quota, key), count, &rate, at);
        }
    }

    /// Forgets something that a device has not done.
    pub(crate) fn give_back_device(&self, quota: Quota, pool: &PoolId, count: u32) {
        let key = self.keys.pool(pool);
        if let Some((mut all, rate)) = self.targets.of(key).zip(self.quotas.of_device(quota)) {
            all.give_back_device((quota, key), count, &rate);
        }
    }

    /// Notes the outcome of a package that was counted. A request that was cut off has no known outcome: it
    /// stays counted, and is held until it would have lapsed.
    pub(crate) fn settle(&self, taken: Taken, came: Came) {
        let Taken { ask, granted, at } = taken;
        self.both(&ask, |inviters, targets| match (granted, came) {
            (_, Came::Reserved(until)) => {
                if granted == Granted::Repeated {
                    // It was counted for a request that was refused meanwhile.
                    inviters.end(ask.inviter, ask.reservation);
                    inviters.count(targets, &ask, &self.quotas, at);
                }
                inviters.extend(ask.inviter, ask.reservation, until);
            }
            (Granted::Counted | Granted::LastResort(_), Came::Repeated) => {
                inviters.give_back(targets, &ask, &self.quotas, true);
            }
            (Granted::Counted | Granted::LastResort(_), Came::Refused) => {
                inviters.give_back(targets, &ask, &self.quotas, false);
                targets.forget_full(&ask, at);
            }
            (Granted::Repeated, Came::Repeated | Came::Refused) => {}
        });
    }

    fn both<T>(&self, ask: &Ask, work: impl FnOnce(&mut Inviters, &mut Targets) -> T) -> Option<T> {
        let (mut inviters, mut targets) =
            self.inviters.of(ask.inviter).zip(self.targets.of(ask.pool))?;
        Some(work(&mut inviters, &mut targets))
    }

    /// Takes in that an inviter's claim has ended: spent, given back, reported.
    pub(crate) fn end(&self, inviter: &PoolId, reservation: ReservationId) {
        let key = self.keys.user(inviter.user());
        if let Some(mut inviters) = self.inviters.of(key) {
            inviters.end(key, reservation);
        }
    }

    /// Takes in until when an inviter's claim lasts.
    pub(crate) fn extend(&self, inviter: &PoolId, reservation: ReservationId, until: Timestamp) {
        let key = self.keys.user(inviter.user());
        if let Some(mut inviters) = self.inviters.of(key) {
            inviters.extend(key, reservation, until);
        }
    }

    /// Counts packages that a device uploads, if it may.
    pub(crate) fn upload(
        &self,
        pool: &PoolId,
        count: usize,
        now: Timestamp,
    ) -> Result<(), OverQuota> {
        self.device(Quota::Uploads, pool, u32::try_from(count).unwrap_or(u32::MAX), now)
    }

    /// Forgets packages that were not taken in.
    pub(crate) fn give_back_upload(&self, pool: &PoolId, count: usize) {
        self.give_back_device(Quota::Uploads, pool, u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Drops counts that are over.
    pub(crate) fn sweep(&self, now: Timestamp) {
        self.inviters.each().for_each(|mut inviters| inviters.sweep(now));
        self.targets.each().for_each(|mut targets| targets.sweep(now));
    }

    /// How many entries there are: of inviters, and of pools.
    pub(crate) fn len(&self) -> (usize, usize) {
        let inviters = self.inviters.each().map(|inviters| inviters.len()).sum();
        (inviters, self.targets.each().map(|targets| targets.len()).sum())
    }
}

/// A random secret and the hash it makes of a key, for maps that lie in parts.
#[derive(Debug, Default)]
struct Secret(RandomState);

impl Secret {
    fn of(&self, key: impl std::hash::Hash) -> u64 {
        self.0.hash_one(key)
    }
}
