//! Rate limits, and the counts against them. Pure: time is an argument.
//!
//! A rate is a bucket of tokens that fills at an even pace. A bucket is one number, the moment at which
//! it will be full again (the generic cell rate algorithm): it needs no timer, and a bucket that is full
//! need not be remembered. Grants stand in the log, so the same numbers can be computed from its end.

mod tally;

use std::time::Duration;

use keypool_ledger::Timestamp;

pub use self::tally::{Ask, Granted, Inviters, Keys, Relation, Targets};

/// The highest count of an hourly rate.
const HOURLY_MAX: u32 = 100_000;

/// How much may be asked for at once, and how fast it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How much at once.
    pub burst: u32,
    /// After how long one more.
    pub every: Duration,
}

impl Rate {
    /// So much at once, and one more after each such time.
    #[must_use]
    pub const fn new(burst: u32, every: Duration) -> Self {
        Self { burst, every }
    }

    /// The rate by which about `count` are had in an hour, a sixth of them at once.
    #[must_use]
    pub fn hourly(count: u32) -> Self {
        let count = count.clamp(1, HOURLY_MAX);
        Self::new(count / 6 + 1, Duration::from_hours(1) / count)
    }

    /// How long an empty bucket takes to be full again.
    #[must_use]
    pub const fn window(&self) -> Duration {
        self.every.saturating_mul(self.burst)
    }

    fn cost(&self, count: u32) -> Duration {
        self.every.saturating_mul(count)
    }
}

/// The rest of a rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at: Timestamp,
}

impl Bucket {
    /// How long until so much may be taken; zero if it may be now. More than a whole bucket is never
    /// there: a whole one is enough then.
    #[must_use]
    pub fn wait(self, rate: &Rate, count: u32, now: Timestamp) -> Duration {
        let then = self.full_at.max(now).after(rate.cost(count.min(rate.burst)));
        then.since(now.after(rate.window()))
    }

    /// Takes so much, whether it may be taken or not.
    pub fn take(&mut self, rate: &Rate, count: u32, now: Timestamp) {
        self.full_at = self.full_at.max(now).after(rate.cost(count));
    }

    /// Returns tokens to the bucket.
    pub fn give_back(&mut self, rate: &Rate, count: u32) {
        self.full_at = self.full_at.before(rate.cost(count));
    }

    /// Whether nothing is missing: then it need not be remembered.
    #[must_use]
    pub fn is_full(self, now: Timestamp) -> bool {
        self.full_at <= now
    }

    /// When nothing is missing any more.
    #[must_use]
    pub const fn full_at(self) -> Timestamp {
        self.full_at
    }
}

/// The subject of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quota {
    /// Packages of one pool for one inviter who is a stranger to its owner.
    Pair,
    /// Packages of one pool for one inviter who is a contact of its owner.
    ContactPair,
    /// Reservations of one pool that one inviter holds at once.
    PairHeld,
    /// Reservations that one inviter holds at once.
    Held,
    /// Packages that one inviter asks for.
    Requests,
    /// Packages of one pool for all strangers together.
    Strangers,
    /// Devices that are registered from one address.
    Devices,
    /// Packages that one device uploads.
    Uploads,
    /// Changes of one device's policy.
    Policy,
    /// Commits and messages that one device posts.
    Posts,
    /// Bytes that one device posts, in KiB.
    PostBytes,
    /// Groups that one device makes.
    Groups,
    /// Requests from one address whose signature was wrong.
    Failures,
    /// How much is counted at all.
    Room,
}

impl Quota {
    /// Every quota.
    pub const ALL: [Self; 14] = [
        Self::Pair,
        Self::ContactPair,
        Self::PairHeld,
        Self::Held,
        Self::Requests,
        Self::Strangers,
        Self::Devices,
        Self::Uploads,
        Self::Policy,
        Self::Posts,
        Self::PostBytes,
        Self::Groups,
        Self::Failures,
        Self::Room,
    ];

    /// The word, as the metrics use it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::ContactPair => "contact_pair",
            Self::PairHeld => "pair_held",
            Self::Held => "held",
            Self::Requests => "requests",
            Self::Strangers => "strangers",
            Self::Devices => "devices",
            Self::Uploads => "uploads",
            Self::Policy => "policy",
            Self::Posts => "posts",
            Self::PostBytes => "post_bytes",
            Self::Groups => "groups",
            Self::Failures => "failures",
            Self::Room => "room",
        }
    }

    const fn what(self) -> &'static str {
        match self {
            Self::Pair => {
                "you have had as many packages of this pool as a stranger may for now; contacts of \
                 its owner may have more"
            }
            Self::ContactPair => {
                "you have had as many packages of this pool as a contact may for now"
            }
            Self::PairHeld => "you hold as many reservations of this pool as you may",
            Self::Held => "you hold as many reservations as you may",
            Self::Requests => "you have asked for as many packages as you may for now",
            Self::Strangers => {
                "strangers have had as many packages of this pool as they may for now; its owner's \
                 contacts need not wait"
            }
            Self::Devices => "as many devices were registered from this address as may be for now",
            Self::Uploads => "the device has uploaded as many packages as it may for now",
            Self::Policy => "the device has changed its policy as often as it may for now",
            Self::Posts => "the device has posted as many Commits and messages as it may for now",
            Self::PostBytes => "the device has posted as many bytes as it may for now",
            Self::Groups => "the device has made as many groups as it may for now",
            Self::Failures => "too many requests from this address had a wrong signature",
            Self::Room => "the server counts as many inviters as it can",
        }
    }
}

/// A request that asks for more than it may, and when it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}; ask again in {} s", quota.what(), self.retry_after_s())]
pub struct OverQuota {
    /// The subject of a limit.
    pub quota: Quota,
    /// How long to wait: then it works, unless others came first.
    pub wait: Duration,
}

impl OverQuota {
    /// How many whole seconds to wait, one at least.
    #[must_use]
    pub fn retry_after_s(&self) -> u64 {
        let millis = u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX);
        millis.div_ceil(1000).max(1)
    }
}

/// How much may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Packages of one pool for one inviter who is a stranger to its owner.
    pub pair: Rate,
    /// How many reservations of one pool a stranger holds at once.
    pub pair_held_max: usize,
    /// Packages of one pool for one inviter who is a contact of its owner: a full pool at once.
    pub contact_pair: Rate,
    /// How many reservations of one pool a contact holds at once.
    pub contact_held_max: usize,
    /// How many reservations an inviter holds at once.
    pub held_max: usize,
    /// Packages that one inviter asks for, whether it is given them or not.
    pub requests: Rate,
    /// Packages of one pool for all strangers together.
    pub strangers: Rate,
    /// Devices that are registered from one address.
    pub devices: Rate,
    /// Packages that one device uploads.
    pub uploads: Rate,
    /// Changes of one device's policy.
    pub policy: Rate,
    /// Commits and messages that one device posts.
    pub posts: Rate,
    /// KiB that one device posts.
    pub post_kib: Rate,
    /// Groups that one device makes.
    pub groups: Rate,
    /// Requests from one address whose signature was wrong.
    pub failures: Rate,
}

impl Quotas {
    /// The defaults.
    pub const STANDARD: Self = Self {
        pair: Rate::new(6, Duration::from_mins(10)),
        pair_held_max: 2,
        contact_pair: Rate::new(32, Duration::from_mins(1)),
        contact_held_max: 32,
        held_max: 512,
        requests: Rate::new(600, Duration::from_millis(20)),
        strangers: Rate::new(32, Duration::from_secs(20)),
        devices: Rate::new(30, Duration::from_mins(48)),
        uploads: Rate::new(256, Duration::from_millis(24 * 3_600_000 / 256)),
        policy: Rate::new(60, Duration::from_mins(1)),
        posts: Rate::new(300, Duration::from_secs(1)),
        post_kib: Rate::new(32 * 1024, Duration::from_millis(110)),
        groups: Rate::new(30, Duration::from_mins(2)),
        failures: Rate::new(10, Duration::from_secs(6)),
    };

    /// How far back the log is read for grants that still count.
    #[must_use]
    pub fn window(&self) -> Duration {
        let pairs = [self.pair, self.contact_pair, self.strangers];
        let devices = [self.requests, self.uploads, self.policy, self.posts, self.post_kib];
        let rates = pairs.into_iter().chain(devices).chain([self.groups]);
        rates.map(|rate| rate.window()).max().unwrap_or_default()
    }
}

impl Quotas {
    /// The rate of a quota that is counted for each device by itself; `None` for the others.
    #[must_use]
    pub const fn of_device(&self, quota: Quota) -> Option<Rate> {
        match quota {
            Quota::Uploads => Some(self.uploads),
            Quota::Policy => Some(self.policy),
            Quota::Posts => Some(self.posts),
            Quota::PostBytes => Some(self.post_kib),
            Quota::Groups => Some(self.groups),
            _ => None,
        }
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self::STANDARD
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    const RATE: Rate = Rate::new(6, Duration::from_secs(7));

    /// Grants tries that are so many milliseconds apart, and tells the wait of each refusal.
    fn tries(gaps: &[u16], mut check: impl FnMut(&mut Bucket, Timestamp, Duration)) {
        let (mut bucket, mut now) = (Bucket::default(), Timestamp::from_secs(1_000));
        for gap in gaps {
            now = now.after(Duration::from_millis(u64::from(*gap)));
            let wait = bucket.wait(&RATE, 1, now);
            check(&mut bucket, now, wait);
        }
    }

    quickcheck! {
        fn no_more_is_granted_than_the_burst_and_what_comes_back(gaps: Vec<u16>) -> bool {
            let (mut granted, mut first, mut last) = (0, None, Timestamp::default());
            tries(&gaps, |bucket, now, wait| {
                if wait.is_zero() {
                    bucket.take(&RATE, 1, now);
                    granted += 1;
                }
                first.get_or_insert(now);
                last = now;
            });
            let passed = last.since(first.unwrap_or(last)).as_millis();
            granted <= 6 + passed / RATE.every.as_millis()
        }

        fn whoever_comes_back_when_told_is_granted_it_and_not_a_moment_before(gaps: Vec<u16>) -> bool {
            let mut is_right = true;
            tries(&gaps, |bucket, now, wait| {
                if wait.is_zero() {
                    return bucket.take(&RATE, 1, now);
                }
                let then = now.after(wait);
                let before = then.before(Duration::from_millis(1));
                is_right &= bucket.wait(&RATE, 1, then).is_zero();
                is_right &= !bucket.wait(&RATE, 1, before).is_zero();
            });
            is_right
        }

        fn what_is_given_back_was_never_taken(gaps: Vec<u16>) -> bool {
            let mut is_right = true;
            tries(&gaps, |bucket, now, wait| {
                bucket.take(&RATE, 1, now);
                let mut other = *bucket;
                other.take(&RATE, 2, now);
                other.give_back(&RATE, 2);
                is_right &= other == *bucket;
                bucket.give_back(&RATE, 1);
                is_right &= bucket.wait(&RATE, 1, now) == wait;
                if wait.is_zero() {
                    bucket.take(&RATE, 1, now);
                }
            });
            is_right
        }
    }

    #[test]
    fn a_wait_is_rounded_up_and_never_zero() {
        let over = |millis| OverQuota { quota: Quota::Pair, wait: Duration::from_millis(millis) };
        let told: Vec<u64> = [0, 1, 1000, 1001].map(|ms| over(ms).retry_after_s()).into();
        assert_eq!(told, [1, 1, 1, 2]);
    }

    #[test]
    fn more_than_a_whole_bucket_is_had_when_it_is_full() {
        let (mut bucket, now) = (Bucket::default(), Timestamp::from_secs(1));
        assert!(bucket.wait(&RATE, 9, now).is_zero());
        bucket.take(&RATE, 9, now);
        assert_eq!(bucket.wait(&RATE, 9, now), Duration::from_secs(9 * 7));
        assert_eq!(bucket.wait(&RATE, 1, now), Duration::from_secs((9 - 6 + 1) * 7));
    }

    #[test]
    fn an_hourly_rate_gives_a_sixth_at_once_and_the_count_in_an_hour() {
        let rates = [0, 1, 5, 6, 12, 600, HOURLY_MAX, HOURLY_MAX + 1].map(Rate::hourly);
        let told = rates.map(|Rate { burst, every }| (burst, every.as_micros()));
        let most = (HOURLY_MAX / 6 + 1, 36_000);
        let few = [(1, 3_600_000_000), (1, 3_600_000_000), (1, 720_000_000)];
        let more = [(2, 600_000_000), (3, 300_000_000), (101, 6_000_000), most, most];
        assert_eq!(told.to_vec(), [few.to_vec(), more.to_vec()].concat());
    }

    #[test]
    fn a_quota_has_one_word_and_tells_its_subject() {
        let words = Quota::ALL.map(Quota::word);
        insta::assert_snapshot!(words.join(" "), @"pair contact_pair pair_held held requests strangers devices uploads policy posts post_bytes groups failures room");
        let said =
            Quota::ALL.map(|quota| OverQuota { quota, wait: Duration::from_secs(2) }.to_string());
        insta::assert_snapshot!(said.join("\n"), @"
        you have had as many packages of this pool as a stranger may for now; contacts of its owner may have more; ask again in 2 s
        you have had as many packages of this pool as a contact may for now; ask again in 2 s
        you hold as many reservations of this pool as you may; ask again in 2 s
        you hold as many reservations as you may; ask again in 2 s
        you have asked for as many packages as you may for now; ask again in 2 s
        strangers have had as many packages of this pool as they may for now; its owner's contacts need not wait; ask again in 2 s
        as many devices were registered from this address as may be for now; ask again in 2 s
        the device has uploaded as many packages as it may for now; ask again in 2 s
        the device has changed its policy as often as it may for now; ask again in 2 s
        the device has posted as many Commits and messages as it may for now; ask again in 2 s
        the device has posted as many bytes as it may for now; ask again in 2 s
        the device has made as many groups as it may for now; ask again in 2 s
        too many requests from this address had a wrong signature; ask again in 2 s
        the server counts as many inviters as it can; ask again in 2 s
        ");
    }

    #[test]
    fn a_restart_counts_as_far_back_as_the_slowest_rate_of_a_pair_or_a_device() {
        let quick = Rate::new(1, Duration::from_secs(1));
        let none = Quotas {
            pair: quick,
            contact_pair: quick,
            requests: quick,
            strangers: quick,
            uploads: quick,
            policy: quick,
            posts: quick,
            post_kib: quick,
            groups: quick,
            ..Quotas::STANDARD
        };
        let slow = Rate::new(7, Duration::from_hours(1));
        assert_eq!(none.window(), Duration::from_secs(1), "addresses are counted by no event");
        let each = [
            Quotas { pair: slow, ..none },
            Quotas { contact_pair: slow, ..none },
            Quotas { strangers: slow, ..none },
            Quotas { requests: slow, ..none },
            Quotas { uploads: slow, ..none },
            Quotas { policy: slow, ..none },
            Quotas { posts: slow, ..none },
            Quotas { post_kib: slow, ..none },
            Quotas { groups: slow, ..none },
        ];
        for quotas in each {
            assert_eq!(quotas.window(), Duration::from_hours(7), "{quotas:?}");
        }
    }

    #[test]
    fn a_device_uploads_256_packages_a_day_and_posts_32_mib_at_once() {
        let Rate { burst, every } = Quotas::STANDARD.uploads;
        assert_eq!((burst, every * burst), (256, Duration::from_hours(24)));
        assert_eq!(Quotas::STANDARD.post_kib.burst, 32_768);
    }

    #[test]
    fn five_quotas_are_counted_for_each_device() {
        let quotas = Quotas::STANDARD;
        let counted = Quota::ALL
            .into_iter()
            .filter_map(|quota| quotas.of_device(quota).map(|rate| (quota, rate)));
        let expected = [
            (Quota::Uploads, quotas.uploads),
            (Quota::Policy, quotas.policy),
            (Quota::Posts, quotas.posts),
            (Quota::PostBytes, quotas.post_kib),
            (Quota::Groups, quotas.groups),
        ];
        assert_eq!(counted.collect::<Vec<_>>(), expected);
    }
}
