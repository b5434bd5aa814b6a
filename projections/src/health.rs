//! How full a pool is, and when it will be empty.

use std::{collections::BTreeMap, time::Duration};

use keypool_ledger::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    command::Limits,
    lifecycle::Stage,
    pool::{PoolState, SPEND_WINDOW},
};

/// How many packages a well-kept pool holds.
pub const TARGET: u64 = 32;
/// At and below this many packages a pool should be refilled.
pub const LOW_WATERMARK: u64 = 8;
/// At and below this many packages a pool is about to run dry.
pub const CRITICAL_WATERMARK: u64 = 2;
/// How close to its end a package counts as expiring soon.
const EXPIRING_SOON: Duration = Duration::from_hours(48);

/// The fill level of a pool at one moment, as the next reservation would find it.
///
/// All counts but `last_resort` are of single-use packages, and
/// `available + reserved + spent + expired + revoked = total` (invariant I3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Packages that can be handed out now: `fresh + requeued`.
    pub available: u64,
    /// Of these, the ones that were never handed out.
    pub fresh: u64,
    /// Of these, the ones that came back.
    pub requeued: u64,
    /// Packages set aside for an inviter.
    pub reserved: u64,
    /// Packages used by an invitation.
    pub spent: u64,
    /// Packages past their lifetime, too near its end to be handed out, or not valid yet.
    pub expired: u64,
    /// Packages withdrawn.
    pub revoked: u64,
    /// Packages ever uploaded.
    pub total: u64,
    /// Live last-resort packages, one for each ciphersuite at most.
    pub last_resort: u64,
    /// Available packages with less than two days of life left.
    pub expiring_soon: u64,
    /// Packages spent in the last 24 hours.
    pub spent_24h: u64,
    /// How many seconds the available packages last at the pace of the last 24 hours; `None` if
    /// nothing was spent in them.
    pub seconds_to_empty: Option<u64>,
    /// How many more single-use packages the pool has room for.
    pub room: u64,
    /// The word for it.
    pub level: Level,
    /// The packages that are live, by ciphersuite, in the order of its number.
    pub suites: Vec<SuiteCounts>,
}

/// How many live packages of one ciphersuite stand where. A suite of which nothing is live has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SuiteCounts {
    /// The number of the ciphersuite.
    pub ciphersuite: u16,
    /// Single-use packages that can be handed out now.
    pub available: u64,
    /// Single-use packages set aside for an inviter.
    pub reserved: u64,
    /// Live last-resort packages: one, or none.
    pub last_resort: u64,
}

/// How full a pool is, in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// More than 8 packages are available.
    Healthy,
    /// 3 to 8 are available: refill.
    Low,
    /// 1 or 2 are available: refill now.
    Critical,
    /// None is available.
    #[default]
    Empty,
}

impl Health {
    /// Counts a pool's packages as of `now`.
    #[must_use]
    pub fn of(pool: &PoolState, now: Timestamp, limits: &Limits) -> Self {
        let pool = pool.settled(now, limits);
        let counts = pool.counts();
        let mut health = Self {
            reserved: counts.reserved,
            spent: counts.spent,
            revoked: counts.revoked,
            total: counts.uploaded(),
            spent_24h: pool.spent_since_yesterday(now),
            ..Self::default()
        };
        let mut suites: BTreeMap<u16, SuiteCounts> = BTreeMap::new();
        for package in pool.live() {
            let ciphersuite = package.facts.ciphersuite;
            let suite = suites.entry(ciphersuite).or_default();
            suite.ciphersuite = ciphersuite;
            suite.last_resort += u64::from(package.facts.last_resort);
            let is_held = package.stage == Stage::Reserved && !package.facts.last_resort;
            suite.reserved += u64::from(is_held);
            health.last_resort += u64::from(package.facts.last_resort);
        }
        for package in pool.offerable(now, limits).filter(|package| !package.facts.last_resort) {
            health.available += 1;
            suites.entry(package.facts.ciphersuite).or_default().available += 1;
            health.fresh += u64::from(package.generation == 0);
            let soon = package.facts.not_after < now.after(EXPIRING_SOON);
            health.expiring_soon += u64::from(soon);
        }
        health.suites = suites.into_values().collect();
        health.requeued = health.available - health.fresh;
        health.expired = counts.expired + (counts.available - health.available);
        health.seconds_to_empty = seconds_to_empty(health.available, health.spent_24h);
        let live = usize::try_from(counts.available + counts.reserved).unwrap_or(usize::MAX);
        health.room = limits.packages_max.saturating_sub(live) as u64;
        health.level = Level::of(health.available);
        health
    }

    /// How many packages to upload now to reach the target again, as far as there is room; 0 while there
    /// are enough.
    #[must_use]
    pub fn recommended_upload(&self) -> u64 {
        match self.level {
            Level::Healthy => 0,
            Level::Low | Level::Critical | Level::Empty => {
                TARGET.saturating_sub(self.available).min(self.room)
            }
        }
    }

    /// The owner's next step, as a sentence.
    #[must_use]
    pub fn recommended_action(&self) -> String {
        match self.recommended_upload() {
            0 => "nothing to do".to_owned(),
            n => format!("upload {n} packages"),
        }
    }
}

impl Level {
    /// Returns the level of a pool with so many available packages.
    #[must_use]
    pub const fn of(available: u64) -> Self {
        match available {
            0 => Self::Empty,
            1..=CRITICAL_WATERMARK => Self::Critical,
            n if n <= LOW_WATERMARK => Self::Low,
            _ => Self::Healthy,
        }
    }

    /// The word, as the API and the metrics use it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Low => "low",
            Self::Critical => "critical",
            Self::Empty => "empty",
        }
    }
}

fn seconds_to_empty(available: u64, spent_24h: u64) -> Option<u64> {
    available.saturating_mul(SPEND_WINDOW.as_secs()).checked_div(spent_24h)
}
