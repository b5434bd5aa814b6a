//! All pools of a log at a glance: how full each is, when it runs dry, and the last hour. A fold of the log.

mod minutes;

mod pool_figures;

use std::collections::{BTreeMap, BTreeSet};

use keypool_ledger::{EventEnvelope, PoolId, StreamId, Timestamp};
use keypool_projections::Level;

pub use self::minutes::MinuteCounts;
use self::{minutes::Minutes, pool_figures::PoolFigures};

/// The least name that a user or a device can have.
const LEAST_NAME: &str = "+";

/// All pools at a glance.
///
/// It holds some four hundred bytes for each pool, its name included, however long its history: counts, and the
/// packages that are held, are last-resort ones or came back after a lapse. An event takes time in the logarithm of the
/// number of pools.
#[derive(Clone, Debug, Default)]
pub struct PoolsOverview {
    position: u64,
    at: Timestamp,
    /// The number of each pool: its place in `pools`.
    numbers: BTreeMap<PoolId, u32>,
    pools: Vec<(PoolId, PoolFigures)>,
    /// The pools of devices that were not removed, by level, those that run dry first in front.
    by_level: [BTreeSet<(Timestamp, u32)>; 4],
    open_reservations: u64,
    minutes: Minutes,
}

/// A pool in the order in which pools run dry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolAtRisk {
    /// The pool.
    pub pool: PoolId,
    /// How full its last event has left it.
    pub level: Level,
    /// How many single-use packages nobody holds.
    pub available: u64,
    /// How many single-use packages are held by an inviter.
    pub reserved: u64,
    /// How many last-resort packages it has.
    pub last_resort: u64,
    /// About how many packages were spent in the last 24 hours.
    pub spent_24h: u64,
    /// When it runs dry at that pace, or when the lifetime of its last package ends; for an empty pool the moment
    /// at which it ran dry, 0 if it was never filled.
    pub dry_at: Timestamp,
    /// Whether its device was removed.
    pub is_removed: bool,
}

impl PoolsOverview {
    /// Takes in the next record of the log.
    pub fn apply(&mut self, position: u64, envelope: &EventEnvelope) {
        (self.position, self.at) = (position, self.at.max(envelope.at));
        let StreamId::Pool(pool) = &envelope.stream else { return };
        self.minutes.count(&envelope.event, envelope.at);
        let number = self.number_of(pool);
        self.change(number, envelope.at, |figures| figures.apply(&envelope.event, envelope.at));
    }

    /// Computes again when pools run dry whose moment has come: fewer packages were spent than it was foreseen.
    pub fn advance(&mut self, now: Timestamp) {
        let due = |order: &BTreeSet<(Timestamp, u32)>| {
            let until_now = order.iter().take_while(|(dry_at, _)| *dry_at <= now);
            until_now.map(|(_, number)| *number).collect::<Vec<u32>>()
        };
        let [healthy, low, critical, _] = &self.by_level;
        let due: Vec<u32> = [healthy, low, critical].into_iter().flat_map(due).collect();
        for number in due {
            self.change(number, now, |_| ());
        }
    }

    /// Changes a pool, and gives it its place in the order again.
    fn change(&mut self, number: u32, now: Timestamp, change: impl FnOnce(&mut PoolFigures)) {
        let Some((_, figures)) = usize::try_from(number).ok().and_then(|n| self.pools.get_mut(n))
        else {
            return;
        };
        let before = (figures.level(), (figures.dry_at, number), figures.open_count());
        let was_removed = figures.is_removed;
        change(figures);
        figures.dry_at = figures.dry_at(now);
        let after = (figures.level(), (figures.dry_at, number), figures.open_count());
        let is_removed = figures.is_removed;
        self.open_reservations = (self.open_reservations + after.2).saturating_sub(before.2);
        if !was_removed {
            self.of_level(before.0).remove(&before.1);
        }
        if !is_removed {
            self.of_level(after.0).insert(after.1);
        }
    }

    fn of_level(&mut self, level: Level) -> &mut BTreeSet<(Timestamp, u32)> {
        let [healthy, low, critical, empty] = &mut self.by_level;
        match level {
            Level::Healthy => healthy,
            Level::Low => low,
            Level::Critical => critical,
            Level::Empty => empty,
        }
    }

    fn number_of(&mut self, pool: &PoolId) -> u32 {
        if let Some(number) = self.numbers.get(pool) {
            return *number;
        }
        let number = u32::try_from(self.pools.len()).unwrap_or(u32::MAX);
        self.numbers.insert(pool.clone(), number);
        self.pools.push((pool.clone(), PoolFigures::default()));
        number
    }

    /// The position of the last record taken in.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// When the latest of the records was made.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    /// How many pools there are of each level, as their last events have left them, without those of removed
    /// devices.
    #[must_use]
    pub fn levels(&self) -> [(Level, usize); 4] {
        let [healthy, low, critical, empty] = &self.by_level;
        [
            (Level::Healthy, healthy.len()),
            (Level::Low, low.len()),
            (Level::Critical, critical.len()),
            (Level::Empty, empty.len()),
        ]
    }

    /// How many reservations are open.
    #[must_use]
    pub const fn open_reservations(&self) -> u64 {
        self.open_reservations
    }

    /// The counts of the sixty minutes up to a moment, the earliest first.
    #[must_use]
    pub fn last_hour(&self, now: Timestamp) -> Vec<MinuteCounts> {
        self.minutes.up_to(now)
    }

    /// The pools that are not empty, those that run dry first in front: at most `limit`, from `skip` on.
    #[must_use]
    pub fn running_dry(&self, now: Timestamp, skip: usize, limit: usize) -> Vec<PoolAtRisk> {
        let [healthy, low, critical, _] = &self.by_level;
        let mut first: Vec<&(Timestamp, u32)> = [healthy, low, critical]
            .into_iter()
            .flat_map(|order| order.iter().take(skip.saturating_add(limit)))
            .collect();
        first.sort_unstable();
        self.listed(now, first.into_iter().skip(skip).take(limit))
    }

    /// The pools of one level, those that run dry first in front; empty ones in the order in which they ran dry, the
    /// last in front. At most `limit`, from `skip` on.
    #[must_use]
    pub fn of(
        &self,
        level: Level,
        now: Timestamp,
        (skip, limit): (usize, usize),
    ) -> Vec<PoolAtRisk> {
        let [healthy, low, critical, empty] = &self.by_level;
        let order = match level {
            Level::Healthy => healthy,
            Level::Low => low,
            Level::Critical => critical,
            Level::Empty => return self.listed(now, empty.iter().rev().skip(skip).take(limit)),
        };
        self.listed(now, order.iter().skip(skip).take(limit))
    }

    /// The pools of the users whose names begin so, by name; at most `limit`.
    #[must_use]
    pub fn of_users(&self, begin: &str, now: Timestamp, limit: usize) -> Vec<PoolAtRisk> {
        let Ok(from) = PoolId::new(begin, LEAST_NAME) else { return Vec::new() };
        let named = self.numbers.range(from..);
        let named = named.take_while(|(pool, _)| pool.user().starts_with(begin));
        named.take(limit).filter_map(|(_, number)| self.at_risk(*number, now)).collect()
    }

    /// A pool; `None` if it has no history.
    #[must_use]
    pub fn pool(&self, pool: &PoolId, now: Timestamp) -> Option<PoolAtRisk> {
        self.at_risk(*self.numbers.get(pool)?, now)
    }

    fn listed<'a>(
        &self,
        now: Timestamp,
        places: impl Iterator<Item = &'a (Timestamp, u32)>,
    ) -> Vec<PoolAtRisk> {
        places.filter_map(|(_, number)| self.at_risk(*number, now)).collect()
    }

    fn at_risk(&self, number: u32, now: Timestamp) -> Option<PoolAtRisk> {
        let (pool, figures) = self.pools.get(usize::try_from(number).ok()?)?;
        Some(PoolAtRisk {
            pool: pool.clone(),
            level: figures.level(),
            available: figures.available(),
            reserved: figures.reserved(),
            last_resort: figures.last_resort_count(),
            spent_24h: figures.spent_24h(now),
            dry_at: figures.dry_at,
            is_removed: figures.is_removed,
        })
    }
}
