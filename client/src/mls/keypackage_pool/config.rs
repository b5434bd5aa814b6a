//! How large the pool is kept, and the arithmetic of a refill.

use std::time::Duration;

use keypool_ledger::{PackageFacts, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    ConfigError,
    mls::{CIPHERSUITE, CLOCK_SKEW, usable_suite},
};

/// The shortest lifetime of a package that an inviter can still use.
const LIFETIME_MIN: Duration = Duration::from_hours(1);
/// The longest lifetime of a single-use package that servers accept.
const LIFETIME_MAX: Duration = Duration::from_hours(14 * 24);
/// The longest lifetime of a package of last resort that servers accept, and MLS libraries: three months.
const LAST_RESORT_LIFETIME_MAX: Duration = Duration::from_hours(84 * 24);

/// How far a package is dated back at most.
const BACKDATED_MAX: Duration = Duration::from_hours(24);

/// How large the pool is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// How many packages of each ciphersuite a refill brings the pool to.
    pub target: usize,
    /// At this many packages of a ciphersuite or fewer it is refilled; below the target.
    pub low_watermark: usize,
    /// How many packages the server keeps at most, of all ciphersuites and reserved ones included: the
    /// targets together are no more.
    pub hard_cap: usize,
    /// How long a single-use package may be used: 1 hour to 14 days. Of more than 14 hours a fourteenth lies in the
    /// past when it is made, for clocks that are behind.
    pub lifetime: Duration,
    /// The ciphersuites that packages are kept of: 1, 2, 3, and the hybrid post-quantum 78 (0x004E) and 79
    /// (0x004F), each once. The first one is that of new groups. Those of 2 are signed with a P-256 key, which goes with the device's own.
    pub ciphersuites: Vec<u16>,
    /// Whether a package of last resort of each ciphersuite is kept as well: inviters are given it when no
    /// other is left.
    pub last_resort: bool,
    /// How long a package of last resort may be used: 1 hour to 84 days. It is replaced after half of that,
    /// so a device that goes away can be invited for the other half at least.
    pub last_resort_lifetime: Duration,
}

impl Default for PoolConfig {
    /// Refilled to 32 packages once 8 are left, never above 64; each lives 14 days. One of last resort,
    /// which lives 84 days, stands behind them.
    fn default() -> Self {
        Self {
            target: 32,
            low_watermark: 8,
            hard_cap: 64,
            lifetime: LIFETIME_MAX,
            ciphersuites: vec![CIPHERSUITE.into()],
            last_resort: true,
            last_resort_lifetime: LAST_RESORT_LIFETIME_MAX,
        }
    }
}

impl PoolConfig {
    /// Checks that the figures do not contradict each other.
    ///
    /// # Errors
    ///
    /// Returns the [`ConfigError`] that names the figure to change.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let Self { target, low_watermark, hard_cap, lifetime, .. } = *self;
        if !(1..=hard_cap).contains(&target) {
            return Err(ConfigError::Target { target, hard_cap });
        }
        if low_watermark >= target {
            return Err(ConfigError::LowWatermark { low_watermark, target });
        }
        if !(LIFETIME_MIN..=LIFETIME_MAX).contains(&lifetime) {
            return Err(ConfigError::Lifetime { lifetime_s: lifetime.as_secs() });
        }
        let last_resort = self.last_resort_lifetime;
        if !(LIFETIME_MIN..=LAST_RESORT_LIFETIME_MAX).contains(&last_resort) {
            return Err(ConfigError::LastResortLifetime { lifetime_s: last_resort.as_secs() });
        }
        for (place, suite) in self.ciphersuites.iter().enumerate() {
            if usable_suite(*suite).is_none() {
                return Err(ConfigError::Ciphersuite(*suite));
            }
            if self.ciphersuites.iter().take(place).any(|before| before == suite) {
                return Err(ConfigError::CiphersuiteTwice(*suite));
            }
        }
        match self.ciphersuites.len() {
            0 => Err(ConfigError::NoCiphersuite),
            suites if hard_cap < target.saturating_mul(suites) => {
                Err(ConfigError::TargetOfAll { target, suites, hard_cap })
            }
            _ => Ok(()),
        }
    }

    /// How long a package may be used, of last resort or not.
    pub(in crate::mls) const fn lifetime_of(&self, last_resort: bool) -> Duration {
        if last_resort { self.last_resort_lifetime } else { self.lifetime }
    }

    /// The first and the last moment of a package that is made now. Inviters and members whose machines' clocks
    /// are behind by a fourteenth of its lifetime, a day at most, can take it: `OpenMLS` asks their clocks.
    pub(super) fn dates_of(&self, last_resort: bool, now: Timestamp) -> (Timestamp, Timestamp) {
        let lifetime = self.lifetime_of(last_resort);
        let not_before = now.before((lifetime / 14).clamp(CLOCK_SKEW, BACKDATED_MAX));
        (not_before, not_before.after(lifetime.saturating_add(CLOCK_SKEW)))
    }

    /// Whether a package was made within the last hour, by its dates.
    pub(in crate::mls) fn is_dated_now(&self, facts: &PackageFacts, now: Timestamp) -> bool {
        let (begins, _) = self.dates_of(facts.last_resort, now);
        begins.since(facts.not_before) < Duration::from_hours(1)
    }

    /// The ciphersuite of new groups.
    #[must_use]
    pub fn first_suite(&self) -> u16 {
        self.ciphersuites.first().copied().unwrap_or(CIPHERSUITE.into())
    }

    /// Whether a ciphersuite with that many packages left is to be refilled.
    #[must_use]
    pub const fn is_low(&self, available: usize) -> bool {
        available <= self.low_watermark
    }

    /// How many packages to make before some are withdrawn: as a refill would afterwards, as far as there is room
    /// now.
    pub(in crate::mls) fn making_up_for(
        &self,
        theirs: usize,
        counts: RefillCounts,
    ) -> Replenishment {
        let room = self.hard_cap.saturating_sub(counts.live.max(counts.available));
        let available = counts.available.saturating_sub(theirs);
        let create = self.missing(RefillCounts { available, ..counts }).min(room);
        Replenishment { reupload: 0, create }
    }

    /// Computes a refill: first upload packages made earlier, then make the rest.
    ///
    /// It brings the number available to the target, unless the cap on live packages comes first.
    #[must_use]
    pub fn replenishment(&self, counts: RefillCounts) -> Replenishment {
        let room = self.hard_cap.saturating_sub(counts.live.max(counts.available));
        Replenishment::of(self.missing(counts).min(room), counts)
    }

    /// Computes a refill for each ciphersuite. Where there is not room enough below the cap, as there may
    /// be while many packages are reserved, each has its share of it, and the unneeded part of one is the
    /// others'.
    ///
    /// Of the counts, `live` is that of the whole pool and the same for all.
    #[must_use]
    pub fn replenishments(&self, counts: &[(u16, RefillCounts)]) -> Vec<(u16, Replenishment)> {
        let live = counts.iter().map(|(_, of)| of.live.max(of.available)).max().unwrap_or(0);
        let mut room = self.hard_cap.saturating_sub(live);
        let mut wanting: Vec<(u16, RefillCounts)> = counts.to_vec();
        wanting.sort_by_key(|(_, of)| self.missing(*of));
        let mut left = wanting.len();
        let mut share = |of: RefillCounts| {
            let needed = self.missing(of).min(room.div_ceil(left.max(1)));
            (room, left) = (room - needed, left - 1);
            Replenishment::of(needed, of)
        };
        let shares = wanting.into_iter().map(|(suite, of)| (suite, share(of)));
        let mut shares: Vec<_> = shares.collect();
        let place = |suite: u16| counts.iter().position(|(known, _)| *known == suite);
        shares.sort_by_key(|(suite, _)| place(*suite));
        shares
    }

    /// How many packages a refill would add if there were room.
    const fn missing(&self, counts: RefillCounts) -> usize {
        if self.is_low(counts.available) { self.target.saturating_sub(counts.available) } else { 0 }
    }
}

/// The counts that the size of a refill depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefillCounts {
    /// How many packages the server can still hand out.
    pub available: usize,
    /// How many of the server's places are taken: available and reserved ones.
    pub live: usize,
    /// How many packages are made and were not heard to have reached the server.
    pub pending: usize,
}

/// The size of a refill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replenishment {
    /// How many packages that are made already to upload again.
    pub reupload: usize,
    /// How many packages to make.
    pub create: usize,
}

impl Replenishment {
    /// So many packages: first those that are made already.
    fn of(needed: usize, counts: RefillCounts) -> Self {
        let reupload = counts.pending.min(needed);
        Self { reupload, create: needed - reupload }
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.reupload == 0 && self.create == 0
    }
}

/// The server's last statement of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// How many packages it can still hand out.
    pub available: usize,
    /// How many are reserved.
    pub reserved: usize,
    /// The place in its log of the pool's last event then: a statement of a later position is newer,
    /// regardless of clocks.
    pub position: u64,
    /// How many it can still hand out of each ciphersuite, by number; `None` if it has not said.
    #[serde(default)]
    pub suites: Option<Vec<(u16, usize)>>,
}
