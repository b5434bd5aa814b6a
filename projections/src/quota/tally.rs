//! The counts of inviters, and of the pools they ask for packages of.
//!
//! The keys are hashes with a secret of the process: no name is copied, an entry has a few bytes, and
//! nobody can look for two names that share one.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use keypool_ledger::{PoolId, ReservationId, Timestamp};

use super::{Bucket, OverQuota, Quota, Quotas, Rate};

/// Makes names into keys.
#[derive(Clone, Debug, Default)]
pub struct Keys(RandomState);

impl Keys {
    /// The key of a user, whose devices are one inviter.
    #[must_use]
    pub fn user(&self, user: &str) -> u64 {
        self.0.hash_one(user)
    }

    /// The key of a pool.
    #[must_use]
    pub fn pool(&self, pool: &PoolId) -> u64 {
        self.0.hash_one(pool)
    }

    fn pair(&self, inviter: u64, pool: u64) -> u64 {
        self.0.hash_one((inviter, pool))
    }
}

/// One inviter who asks for one package of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The inviter, by [`Keys::user`].
    pub inviter: u64,
    /// The pool, by [`Keys::pool`].
    pub pool: u64,
    /// Both together.
    pub pair: u64,
    /// The claim.
    pub reservation: ReservationId,
    /// The relation of the inviter to the pool's owner.
    pub relation: Relation,
    /// When the claim lapses, if nothing else happens.
    pub until: Timestamp,
}

/// The relation of an inviter to the owner of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// A contact, somebody introduced, or another device of the user.
    Contact,
    /// A stranger. All strangers together may have packages of the pool at this rate.
    Stranger(Rate),
    /// A stranger who may have the last-resort package only, which no rate for all of them limits.
    LastResort,
}

impl Ask {
    /// An inviter who asks.
    #[must_use]
    pub fn new(
        keys: &Keys,
        inviter: &PoolId,
        pool: &PoolId,
        (reservation, relation, until): (ReservationId, Relation, Timestamp),
    ) -> Self {
        let (inviter, pool) = (keys.user(inviter.user()), keys.pool(pool));
        Self { inviter, pool, pair: keys.pair(inviter, pool), reservation, relation, until }
    }

    /// The quota for this inviter and this pool.
    const fn pair_quota(&self, quotas: &Quotas) -> (Quota, Rate) {
        match self.relation {
            Relation::Contact => (Quota::ContactPair, quotas.contact_pair),
            Relation::Stranger(_) | Relation::LastResort => (Quota::Pair, quotas.pair),
        }
    }

    /// The same ask for the last-resort package only.
    #[must_use]
    pub const fn last_resort(self) -> Self {
        Self { relation: Relation::LastResort, ..self }
    }

    const fn held_max(&self, quotas: &Quotas) -> usize {
        match self.relation {
            Relation::Contact => quotas.contact_held_max,
            Relation::Stranger(_) | Relation::LastResort => quotas.pair_held_max,
        }
    }
}

/// The counts of inviters.
#[derive(Clone, Debug, Default)]
pub struct Inviters(HashMap<u64, InviterTally>);

#[derive(Clone, Debug, Default)]
struct InviterTally {
    requests: Bucket,
    held: Vec<OpenReservation>,
}

/// A reservation that is open.
#[derive(Clone, Copy, Debug)]
struct OpenReservation {
    reservation: ReservationId,
    pool: u64,
    until: Timestamp,
}

/// The counts of pools.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    pairs: HashMap<u64, Bucket>,
    contacts: HashMap<u64, Bucket>,
    strangers: HashMap<u64, Bucket>,
    /// The counts of devices, by quota.
    devices: HashMap<(Quota, u64), Bucket>,
    /// When there is room again; in the past if there is.
    full_until: Timestamp,
}

/// The outcome of one ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// The ask is within the limits, and is counted.
    Counted,
    /// The ask is over the limit of all strangers together, and nothing else is in the way of an inviter who
    /// has had no package of the pool lately: the last-resort package may be had. It is counted as that.
    LastResort(OverQuota),
    /// The claim is held already: nothing is counted twice.
    Repeated,
}

impl Inviters {
    /// Whether an inviter may have a package, and if so, counts it; the request is counted in any case.
    ///
    /// # Errors
    ///
    /// Returns an [`OverQuota`] with the longest of the waits there are: then nothing else is in the way.
    pub fn ask(
        &mut self,
        targets: &mut Targets,
        ask: &Ask,
        quotas: &Quotas,
        now: Timestamp,
    ) -> Result<Granted, OverQuota> {
        let inviter = self.0.entry(ask.inviter).or_default();
        inviter.held.retain(|held| now < held.until);
        if inviter.held.iter().any(|held| held.reservation == ask.reservation) {
            return Ok(Granted::Repeated);
        }
        let asked = inviter.requests.wait(&quotas.requests, 1, now);
        if asked.is_zero() {
            inviter.requests.take(&quotas.requests, 1, now);
        }
        let all = inviter.until_fewer(quotas.held_max, |_| true);
        let of_pool = inviter.until_fewer(ask.held_max(quotas), |held| held.pool == ask.pool);
        let (pair_quota, rate) = ask.pair_quota(quotas);
        let strangers = targets.wait_of_stranger(ask, now);
        let waits = [
            (Quota::Requests, asked),
            (Quota::Held, all.since(now)),
            (Quota::PairHeld, of_pool.since(now)),
            (pair_quota, wait_of(targets.pairs_of(ask), ask.pair, &rate, now)),
            (Quota::Room, targets.wait_for_room(ask, now)),
            (Quota::Strangers, strangers),
        ];
        let before = targets.pairs_of(ask).get(&ask.pair);
        let is_new = before.is_none_or(|bucket| bucket.is_full(now));
        let is_free = waits.iter().rev().skip(1).all(|(_, wait)| wait.is_zero());
        let longest = waits.into_iter().max_by_key(|(_, wait)| *wait);
        match longest.filter(|(_, wait)| !wait.is_zero()) {
            Some((quota, wait)) if is_free && is_new => {
                inviter.hold(ask);
                targets.count(&ask.last_resort(), quotas, now);
                Ok(Granted::LastResort(OverQuota { quota, wait }))
            }
            Some((quota, wait)) => Err(OverQuota { quota, wait }),
            None => {
                inviter.hold(ask);
                targets.count(ask, quotas, now);
                Ok(Granted::Counted)
            }
        }
    }

    /// Counts a package that was handed out, whether or not it was within the limits.
    pub fn count(&mut self, targets: &mut Targets, ask: &Ask, quotas: &Quotas, now: Timestamp) {
        self.count_held(ask, quotas, now);
        targets.count(ask, quotas, now);
    }

    /// Counts a held package against the limits that hold for contacts and strangers alike.
    pub fn count_held(&mut self, ask: &Ask, quotas: &Quotas, now: Timestamp) {
        let inviter = self.0.entry(ask.inviter).or_default();
        inviter.requests.take(&quotas.requests, 1, now);
        inviter.hold(ask);
    }

    /// Reverts the counts for a package that was not handed out; `repeated` if it was handed out
    /// before: then it was not asked for either.
    pub fn give_back(&mut self, targets: &mut Targets, ask: &Ask, quotas: &Quotas, repeated: bool) {
        self.end(ask.inviter, ask.reservation);
        if let Some(inviter) = self.0.get_mut(&ask.inviter).filter(|_| repeated) {
            inviter.requests.give_back(&quotas.requests, 1);
        }
        let (_, rate) = ask.pair_quota(quotas);
        if let Some(bucket) = targets.pairs_of_mut(ask).get_mut(&ask.pair) {
            bucket.give_back(&rate, 1);
        }
        if let Relation::Stranger(rate) = ask.relation
            && let Some(bucket) = targets.strangers.get_mut(&ask.pool)
        {
            bucket.give_back(&rate, 1);
        }
    }

    /// Takes in that a claim has ended.
    pub fn end(&mut self, inviter: u64, reservation: ReservationId) {
        if let Some(inviter) = self.0.get_mut(&inviter) {
            inviter.held.retain(|held| held.reservation != reservation);
        }
    }

    /// Takes in until when a claim lasts now.
    pub fn extend(&mut self, inviter: u64, reservation: ReservationId, until: Timestamp) {
        let held = self.0.get_mut(&inviter).map(|inviter| &mut inviter.held);
        let mut held = held.into_iter().flatten();
        if let Some(held) = held.find(|held| held.reservation == reservation) {
            held.until = until;
        }
    }

    /// Drops counts that have expired.
    pub fn sweep(&mut self, now: Timestamp) {
        self.0.retain(|_, inviter| {
            inviter.held.retain(|held| now < held.until);
            !inviter.held.is_empty() || !inviter.requests.is_full(now)
        });
    }

    /// How many inviters something is counted of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl InviterTally {
    fn hold(&mut self, ask: &Ask) {
        let Ask { reservation, pool, until, .. } = *ask;
        self.held.push(OpenReservation { reservation, pool, until });
    }

    /// When fewer than so many of the claims are left; the beginning of time if there are fewer now.
    fn until_fewer(&self, max: usize, counts: impl Fn(&OpenReservation) -> bool) -> Timestamp {
        let mut ends: Vec<Timestamp> = Vec::new();
        ends.extend(self.held.iter().filter(|held| counts(held)).map(|held| held.until));
        let Some(too_many) = ends.len().checked_sub(max.max(1)) else {
            return Timestamp::default();
        };
        ends.sort_unstable();
        ends.get(too_many).copied().unwrap_or_default()
    }
}

/// How many buckets of one kind are kept.
const ENTRIES_MAX: usize = 1 << 16;

impl Targets {
    /// Counts a package for an inviter and a pool.
    pub fn count(&mut self, ask: &Ask, quotas: &Quotas, now: Timestamp) {
        let (_, rate) = ask.pair_quota(quotas);
        self.pairs_of_mut(ask).entry(ask.pair).or_default().take(&rate, 1, now);
        if let Relation::Stranger(rate) = ask.relation {
            self.strangers.entry(ask.pool).or_default().take(&rate, 1, now);
        }
    }

    const fn pairs_of(&self, ask: &Ask) -> &HashMap<u64, Bucket> {
        match ask.relation {
            Relation::Contact => &self.contacts,
            Relation::Stranger(_) | Relation::LastResort => &self.pairs,
        }
    }

    const fn pairs_of_mut(&mut self, ask: &Ask) -> &mut HashMap<u64, Bucket> {
        match ask.relation {
            Relation::Contact => &mut self.contacts,
            Relation::Stranger(_) | Relation::LastResort => &mut self.pairs,
        }
    }

    fn wait_of_stranger(&self, ask: &Ask, now: Timestamp) -> Duration {
        match &ask.relation {
            Relation::Stranger(rate) => wait_of(&self.strangers, ask.pool, rate, now),
            Relation::Contact | Relation::LastResort => Duration::ZERO,
        }
    }

    /// How long until there is room for another pair.
    fn wait_for_room(&mut self, ask: &Ask, now: Timestamp) -> Duration {
        let is_known = self.pairs_of(ask).contains_key(&ask.pair);
        if self.pairs.len() + self.contacts.len() < ENTRIES_MAX || is_known {
            return Duration::ZERO;
        }
        if self.full_until <= now {
            self.sweep(now);
            let all = self.pairs.values().chain(self.contacts.values());
            let first = all.map(|bucket| bucket.full_at()).min();
            let is_full = ENTRIES_MAX <= self.pairs.len() + self.contacts.len();
            self.full_until = first.filter(|_| is_full).unwrap_or_default();
        }
        self.full_until.since(now)
    }

    /// Counts something that a device does, if it may.
    ///
    /// # Errors
    ///
    /// Returns an [`OverQuota`] if it may not; nothing is counted then.
    pub fn device(
        &mut self,
        (quota, pool): (Quota, u64),
        count: u32,
        rate: &Rate,
        now: Timestamp,
    ) -> Result<(), OverQuota> {
        let bucket = self.devices.get(&(quota, pool)).copied().unwrap_or_default();
        let wait = bucket.wait(rate, count, now);
        if !wait.is_zero() {
            return Err(OverQuota { quota, wait });
        }
        self.count_device((quota, pool), count, rate, now);
        Ok(())
    }

    /// Counts something that a device has done, whether or not it was within the limits.
    pub fn count_device(&mut self, of: (Quota, u64), count: u32, rate: &Rate, now: Timestamp) {
        self.devices.entry(of).or_default().take(rate, count, now);
    }

    /// Forgets something that a device has not done.
    pub fn give_back_device(&mut self, of: (Quota, u64), count: u32, rate: &Rate) {
        if let Some(bucket) = self.devices.get_mut(&of) {
            bucket.give_back(rate, count);
        }
    }

    /// Drops an inviter whose counts are all zero.
    pub fn forget_full(&mut self, ask: &Ask, now: Timestamp) {
        let pairs = self.pairs_of_mut(ask);
        if pairs.get(&ask.pair).is_some_and(|bucket| bucket.is_full(now)) {
            pairs.remove(&ask.pair);
        }
    }

    const fn kinds(&self) -> [&HashMap<u64, Bucket>; 3] {
        [&self.pairs, &self.contacts, &self.strangers]
    }

    /// Drops counts that have expired.
    pub fn sweep(&mut self, now: Timestamp) {
        for buckets in [&mut self.pairs, &mut self.contacts, &mut self.strangers] {
            buckets.retain(|_, bucket| !bucket.is_full(now));
        }
        self.devices.retain(|_, bucket| !bucket.is_full(now));
    }

    /// How many buckets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.devices.len() + self.kinds().iter().map(|buckets| buckets.len()).sum::<usize>()
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn wait_of(buckets: &HashMap<u64, Bucket>, key: u64, rate: &Rate, now: Timestamp) -> Duration {
    buckets.get(&key).copied().unwrap_or_default().wait(rate, 1, now)
}

#[cfg(test)]
mod tests;
