//! How large the pool is kept, and the arithmetic of a refill.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    ConfigError,
    mls::{CIPHERSUITE, usable_suite},
};

/// The shortest lifetime of a package that an inviter can still use.
const LIFETIME_MIN: Duration = Duration::from_hours(1);
/// The longest lifetime that servers accept.
const LIFETIME_MAX: Duration = Duration::from_hours(14 * 24);

/// How large the pool is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// How many packages a refill brings the pool to.
    pub target: usize,
    /// At this many packages or fewer the pool is refilled; below the target.
    pub low_watermark: usize,
    /// How many packages the server keeps at most, reserved ones included.
    pub hard_cap: usize,
    /// How long a package may be used: 1 hour to 14 days.
    pub lifetime: Duration,
    /// The ciphersuite of the packages: 1 or 3, those of Ed25519.
    pub ciphersuite: u16,
    /// Whether a package of last resort is kept as well: inviters are given it when no other is left.
    pub last_resort: bool,
}

impl Default for PoolConfig {
    /// Refilled to 32 packages once 8 are left, never above 64; each lives 14 days. One of last resort
    /// stands behind them.
    fn default() -> Self {
        Self {
            target: 32,
            low_watermark: 8,
            hard_cap: 64,
            lifetime: LIFETIME_MAX,
            ciphersuite: CIPHERSUITE.into(),
            last_resort: true,
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
        let Self { target, low_watermark, hard_cap, lifetime, ciphersuite, last_resort: _ } = *self;
        if !(1..=hard_cap).contains(&target) {
            return Err(ConfigError::Target { target, hard_cap });
        }
        if low_watermark >= target {
            return Err(ConfigError::LowWatermark { low_watermark, target });
        }
        if !(LIFETIME_MIN..=LIFETIME_MAX).contains(&lifetime) {
            return Err(ConfigError::Lifetime { lifetime_s: lifetime.as_secs() });
        }
        match usable_suite(ciphersuite) {
            Some(_) => Ok(()),
            None => Err(ConfigError::Ciphersuite(ciphersuite)),
        }
    }

    /// Whether a pool with that many packages left is to be refilled.
    #[must_use]
    pub const fn is_low(&self, available: usize) -> bool {
        available <= self.low_watermark
    }

    /// What a refill does: first upload what is made already, then make the rest.
    ///
    /// It brings what is available to the target, unless the cap on live packages comes first.
    #[must_use]
    pub fn replenishment(&self, counts: PoolCounts) -> Replenishment {
        if !self.is_low(counts.available) {
            return Replenishment::default();
        }
        let missing = self.target.saturating_sub(counts.available);
        let room = self.hard_cap.saturating_sub(counts.live.max(counts.available));
        let needed = missing.min(room);
        let reupload = counts.pending.min(needed);
        Replenishment { reupload, create: needed - reupload }
    }
}

/// What the size of a refill depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// How many packages the server can still hand out.
    pub available: usize,
    /// How many of the server's places are taken: available and reserved ones.
    pub live: usize,
    /// How many packages are made and were not heard to have reached the server.
    pub pending: usize,
}

/// What a refill consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replenishment {
    /// How many packages that are made already to upload again.
    pub reupload: usize,
    /// How many packages to make.
    pub create: usize,
}

impl Replenishment {
    /// Whether there is nothing to do.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.reupload == 0 && self.create == 0
    }
}

/// What the server has last said of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// How many packages it can still hand out.
    pub available: usize,
    /// How many are reserved.
    pub reserved: usize,
    /// The place in its log of the pool's last event then: what it said at a later place is newer,
    /// whatever the clocks say.
    pub position: u64,
}
