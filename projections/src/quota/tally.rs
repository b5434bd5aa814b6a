//! What is counted of inviters and of the pools they ask for packages of.
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
    /// Who the inviter is to the pool's owner.
    pub relation: Relation,
    /// When the claim lapses, if nothing else happens.
    pub until: Timestamp,
}

/// Who an inviter is to the owner of a pool.
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

/// What is counted of inviters.
#[derive(Clone, Debug, Default)]
pub struct Inviters(HashMap<u64, Inviter>);

#[derive(Clone, Debug, Default)]
struct Inviter {
    requests: Bucket,
    held: Vec<Held>,
}

/// A reservation that is open.
#[derive(Clone, Copy, Debug)]
struct Held {
    reservation: ReservationId,
    pool: u64,
    until: Timestamp,
}

/// What is counted of pools.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    pairs: HashMap<u64, Bucket>,
    contacts: HashMap<u64, Bucket>,
    strangers: HashMap<u64, Bucket>,
    uploads: HashMap<u64, Bucket>,
    policies: HashMap<u64, Bucket>,
    /// When there is room again; in the past if there is.
    full_until: Timestamp,
}

/// What one ask comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// It is within the limits, and is counted.
    Counted,
    /// It is over the limit of all strangers together, and nothing else is in the way of an inviter who
    /// has had no package of the pool lately: the last-resort package may be had. It is counted as that.
    LastResort(OverQuota),
    /// The claim is held already: nothing is counted twice.
    Repeated,
}

impl Inviters {
    /// Whether an inviter may have a package, and if so, counts it; what was asked for is counted in any
    /// case.
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

    /// Counts what does not depend on who the inviter is to the pool's owner.
    pub fn count_held(&mut self, ask: &Ask, quotas: &Quotas, now: Timestamp) {
        let inviter = self.0.entry(ask.inviter).or_default();
        inviter.requests.take(&quotas.requests, 1, now);
        inviter.hold(ask);
    }

    /// Forgets what was counted for a package that was not handed out; `repeated` if it was handed out
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

    /// Forgets what counts no more.
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

impl Inviter {
    fn hold(&mut self, ask: &Ask) {
        let Ask { reservation, pool, until, .. } = *ask;
        self.held.push(Held { reservation, pool, until });
    }

    /// When fewer than so many of the claims are left; the beginning of time if there are fewer now.
    fn until_fewer(&self, max: usize, counts: impl Fn(&Held) -> bool) -> Timestamp {
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

    /// Counts packages that a device uploads, if it may.
    ///
    /// # Errors
    ///
    /// Returns an [`OverQuota`] if it may not; nothing is counted then.
    pub fn upload(
        &mut self,
        pool: u64,
        count: u32,
        rate: &Rate,
        now: Timestamp,
    ) -> Result<(), OverQuota> {
        let wait = wait_of_many(&self.uploads, pool, (rate, count), now);
        if !wait.is_zero() {
            return Err(OverQuota { quota: Quota::Uploads, wait });
        }
        self.count_upload(pool, count, rate, now);
        Ok(())
    }

    /// Counts packages that a device has uploaded, whether or not it was within the limits.
    pub fn count_upload(&mut self, pool: u64, count: u32, rate: &Rate, now: Timestamp) {
        self.uploads.entry(pool).or_default().take(rate, count, now);
    }

    /// Forgets packages that were not taken in.
    pub fn give_back_upload(&mut self, pool: u64, count: u32, rate: &Rate) {
        if let Some(bucket) = self.uploads.get_mut(&pool) {
            bucket.give_back(rate, count);
        }
    }

    /// Counts a change of a device's policy, if it may make one.
    ///
    /// # Errors
    ///
    /// Returns an [`OverQuota`] if it may not; nothing is counted then.
    pub fn policy(&mut self, pool: u64, rate: &Rate, now: Timestamp) -> Result<(), OverQuota> {
        let wait = wait_of(&self.policies, pool, rate, now);
        if !wait.is_zero() {
            return Err(OverQuota { quota: Quota::Policy, wait });
        }
        self.count_policy(pool, rate, now);
        Ok(())
    }

    /// Counts a change of a device's policy, whether or not it was within the limits.
    pub fn count_policy(&mut self, pool: u64, rate: &Rate, now: Timestamp) {
        self.policies.entry(pool).or_default().take(rate, 1, now);
    }

    /// Forgets a change of a device's policy that was none.
    pub fn give_back_policy(&mut self, pool: u64, rate: &Rate) {
        if let Some(bucket) = self.policies.get_mut(&pool) {
            bucket.give_back(rate, 1);
        }
    }

    /// Forgets an inviter of whom nothing counts after all.
    pub fn forget_full(&mut self, ask: &Ask, now: Timestamp) {
        let pairs = self.pairs_of_mut(ask);
        if pairs.get(&ask.pair).is_some_and(|bucket| bucket.is_full(now)) {
            pairs.remove(&ask.pair);
        }
    }

    const fn kinds(&self) -> [&HashMap<u64, Bucket>; 5] {
        [&self.pairs, &self.contacts, &self.strangers, &self.uploads, &self.policies]
    }

    /// Forgets what counts no more.
    pub fn sweep(&mut self, now: Timestamp) {
        let pairs = [&mut self.pairs, &mut self.contacts, &mut self.strangers];
        for buckets in pairs.into_iter().chain([&mut self.uploads, &mut self.policies]) {
            buckets.retain(|_, bucket| !bucket.is_full(now));
        }
    }

    /// How many buckets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kinds().iter().map(|buckets| buckets.len()).sum()
    }

    /// Whether nothing is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn wait_of(buckets: &HashMap<u64, Bucket>, key: u64, rate: &Rate, now: Timestamp) -> Duration {
    wait_of_many(buckets, key, (rate, 1), now)
}

fn wait_of_many(
    buckets: &HashMap<u64, Bucket>,
    key: u64,
    (rate, count): (&Rate, u32),
    now: Timestamp,
) -> Duration {
    buckets.get(&key).copied().unwrap_or_default().wait(rate, count, now)
}

#[cfg(test)]
mod tests {
    use quickcheck::{Arbitrary, Gen, quickcheck};
    use uuid::Uuid;

    use super::*;

    const QUOTAS: Quotas = Quotas {
        pair: Rate::new(3, Duration::from_secs(50)),
        pair_held_max: 2,
        held_max: 4,
        requests: Rate::new(20, Duration::from_secs(1)),
        strangers: Rate::new(5, Duration::from_secs(20)),
        ..Quotas::STANDARD
    };
    const HELD_FOR: Duration = Duration::from_mins(2);

    /// One of four inviters asks one of three pools, so many seconds after the one before, and later ends
    /// the claim or not.
    #[derive(Clone, Debug)]
    struct Step {
        inviter: u8,
        pool: u8,
        gap_s: u8,
        ends: bool,
    }

    impl Arbitrary for Step {
        fn arbitrary(g: &mut Gen) -> Self {
            let small = |g: &mut Gen, max: u8| u8::arbitrary(g) % max;
            Self {
                inviter: small(g, 4),
                pool: small(g, 3),
                gap_s: small(g, 12),
                ends: bool::arbitrary(g),
            }
        }
    }

    fn ask(keys: &Keys, step: &Step, number: usize, now: Timestamp) -> Ask {
        let device = |kind: &str, number: u8| PoolId::of(&format!("{kind}{number}"), None).unwrap();
        let reservation = ReservationId(Uuid::from_u128(number as u128));
        let stranger = Relation::Stranger(QUOTAS.strangers);
        let relation = if 0 < step.inviter { stranger } else { Relation::Contact };
        let claim = (reservation, relation, now.after(HELD_FOR));
        Ask::new(keys, &device("inviter", step.inviter), &device("pool", step.pool), claim)
    }

    /// Plays steps, and shows each ask that was granted, and each refusal before anything has changed.
    fn play(
        steps: &[Step],
        mut see: impl FnMut(&Inviters, &Targets, &Ask, Timestamp, Result<Granted, OverQuota>),
    ) -> (Inviters, Targets, Timestamp) {
        let (keys, mut now) = (Keys::default(), Timestamp::from_secs(10_000));
        let (mut inviters, mut targets) = (Inviters::default(), Targets::default());
        for (number, step) in steps.iter().enumerate() {
            now = now.after(Duration::from_secs(u64::from(step.gap_s)));
            let ask = ask(&keys, step, number, now);
            let answer = inviters.ask(&mut targets, &ask, &QUOTAS, now);
            see(&inviters, &targets, &ask, now, answer);
            if step.ends {
                inviters.end(ask.inviter, ask.reservation);
            }
        }
        (inviters, targets, now)
    }

    quickcheck! {
        fn whoever_is_refused_and_comes_back_when_told_is_granted_it(steps: Vec<Step>) -> bool {
            let mut is_right = true;
            play(&steps, |inviters, targets, ask, now, answer| {
                let Err(over) = answer else { return };
                let again = |then| {
                    let (mut inviters, mut targets) = (inviters.clone(), targets.clone());
                    inviters.ask(&mut targets, ask, &QUOTAS, then) == Ok(Granted::Counted)
                };
                is_right &= again(now.after(over.wait));
                is_right &= again(now.after(Duration::from_secs(over.retry_after_s())));
                is_right &= !again(now.after(over.wait).before(Duration::from_millis(1)));
            });
            is_right
        }

        fn nobody_holds_or_gets_more_than_they_may(steps: Vec<Step>) -> bool {
            let mut granted: HashMap<u64, Vec<Timestamp>> = HashMap::new();
            let mut is_right = true;
            play(&steps, |inviters, _, ask, now, answer| {
                if answer.is_ok() && ask.relation != Relation::Contact {
                    granted.entry(ask.pair).or_default().push(now);
                }
                let held = inviters.0.get(&ask.inviter).map_or(0, |inviter| inviter.held.len());
                is_right &= held <= QUOTAS.held_max;
            });
            let fits = |times: &Vec<Timestamp>| {
                let span = times.last().copied().unwrap_or_default().since(*times.first().unwrap());
                times.len() as u128 <= 3 + span.as_millis() / QUOTAS.pair.every.as_millis()
            };
            is_right && granted.values().all(fits)
        }

        fn what_was_granted_and_counted_anew_is_what_was_counted(steps: Vec<Step>) -> bool {
            let (mut inviters, mut targets) = (Inviters::default(), Targets::default());
            let mut number = 0;
            let (live, counted, now) = play(&steps, |_, _, ask, now, answer| {
                match answer {
                    Ok(Granted::LastResort(_)) => {
                        inviters.count(&mut targets, &ask.last_resort(), &QUOTAS, now);
                    }
                    Ok(_) => inviters.count(&mut targets, ask, &QUOTAS, now),
                    Err(_) => {}
                }
                if steps.get(number).is_some_and(|step: &Step| step.ends) {
                    inviters.end(ask.inviter, ask.reservation);
                }
                number += 1;
            });
            let held = |all: &Inviters| -> HashMap<u64, usize> {
                let open = |inviter: &Inviter| {
                    inviter.held.iter().filter(|held| now < held.until).count()
                };
                let all = all.0.iter().map(|(key, inviter)| (*key, open(inviter)));
                all.filter(|(_, count)| 0 < *count).collect()
            };
            held(&live) == held(&inviters)
                && counted.pairs == targets.pairs
                && counted.contacts == targets.contacts
                && counted.strangers == targets.strangers
        }

        fn what_is_swept_away_makes_no_difference(steps: Vec<Step>) -> bool {
            let (mut inviters, mut targets, now) = play(&steps, |_, _, _, _, _| {});
            let keys = Keys::default();
            let (before, at) = ((inviters.clone(), targets.clone()), now.after(HELD_FOR / 2));
            inviters.sweep(at);
            targets.sweep(at);
            let mut is_right = true;
            for (inviter, pool) in [(0, 0), (1, 1), (2, 2), (3, 0)] {
                let step = Step { inviter, pool, gap_s: 0, ends: false };
                let asked = ask(&keys, &step, 1000, at);
                let (mut all, mut others) = before.clone();
                is_right &= inviters.clone().ask(&mut targets.clone(), &asked, &QUOTAS, at)
                    == all.ask(&mut others, &asked, &QUOTAS, at);
            }
            let after = at.after(Duration::from_hours(1));
            inviters.sweep(after);
            targets.sweep(after);
            is_right && inviters.is_empty() && targets.is_empty()
        }
    }

    #[test]
    fn there_is_room_for_so_many_and_then_one_waits_for_the_first_to_go() {
        let (keys, now) = (Keys::default(), Timestamp::from_secs(10_000));
        let mut targets = Targets::default();
        for pair in 0..ENTRIES_MAX as u64 {
            let at = now.before(Duration::from_millis(pair % 1000));
            targets.pairs.entry(pair).or_default().take(&QUOTAS.pair, 1, at);
        }
        let step = Step { inviter: 1, pool: 1, gap_s: 0, ends: false };
        let mut refuse =
            |at| Inviters::default().ask(&mut targets, &ask(&keys, &step, 1, at), &QUOTAS, at);
        let over = refuse(now).unwrap_err();
        assert_eq!((over.quota, over.wait), (Quota::Room, Duration::from_millis(50_000 - 999)));
        assert_eq!(refuse(now.after(over.wait)), Ok(Granted::Counted));
    }
}
