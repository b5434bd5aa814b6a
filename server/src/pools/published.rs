//! The published states, and how they are folded from the log.

use std::{collections::HashSet, sync::Arc};

use keypool_ledger::{EventLog, GroupId, PoolId, Record, StreamId, Timestamp};
use keypool_projections::{Deliveries, GroupState, Level, Limits, MailboxState, Suspensions};

use super::{
    PoolView, ReplayError,
    cache::Cache,
    directory::{Directory, PoolSummary},
};

/// How many records are read at a time.
pub(super) const PAGE: usize = 4096;
/// How many events a pool may have had since its last snapshot: so many are read when it is loaded.
const KEPT_EVERY: u64 = 32;

/// The published states.
#[derive(Debug, Default)]
pub(super) struct Views {
    pub(super) residents: Cache<PoolView>,
    pub(super) directory: Directory,
    pub(super) deliveries: Deliveries<Cache<GroupState>, Cache<MailboxState>>,
    pub(super) suspensions: Suspensions,
    pub(super) changed: Changed,
    /// The devices whose pool or mailbox has changed, and whose listeners are to be woken.
    pub(super) woken: HashSet<PoolId>,
}

/// A pool as it is now, on its way to be published. What can be worked out before is, because nobody
/// reads while something is published.
#[derive(Debug)]
pub(super) struct FreshPool {
    pool: PoolId,
    view: Arc<PoolView>,
    brief: PoolSummary,
}

impl FreshPool {
    /// Prepares a pool to be published: it evicts finished packages.
    pub(super) fn of(pool: PoolId, mut view: PoolView, limits: &Limits) -> Self {
        view.state.forget();
        let brief = PoolSummary {
            key: view.state.registration().map(|registered| registered.signature_key.clone()),
            identity: Arc::clone(view.state.identity()),
            version: view.state.version(),
            due: view.state.next_due(limits),
            level: Level::of(view.state.counts().available),
            kept: 0,
        };
        Self { pool, view: Arc::new(view), brief }
    }
}

/// The changes that are not in the snapshots yet.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Pools of which something is known that is not kept.
    pub(super) briefs: HashSet<PoolId>,
    /// Pools that have had enough events to be kept.
    pub(super) pools: HashSet<PoolId>,
    pub(super) groups: HashSet<GroupId>,
    pub(super) mailboxes: HashSet<PoolId>,
    /// The last record that is in the published states, and the latest time of any.
    pub(super) through: u64,
    pub(super) at: Timestamp,
    /// The record that the snapshots reach to.
    pub(super) reached: u64,
}

impl Changed {
    /// How many records the snapshots do not reach.
    pub(super) const fn unkept(&self) -> u64 {
        self.through.saturating_sub(self.reached)
    }
}

impl Views {
    /// Publishes a pool as it is now.
    pub(super) fn publish(&mut self, FreshPool { pool, view, brief }: FreshPool) {
        let kept = self.directory.note(&pool, brief);
        if KEPT_EVERY <= view.head.version.saturating_sub(kept) {
            self.changed.pools.insert(pool.clone());
        }
        self.changed.briefs.insert(pool.clone());
        self.woken.insert(pool.clone());
        self.residents.put(pool, view);
    }

    /// Takes in a record of a pool that is not in memory: the next request for the pool loads it.
    pub(super) fn note_pool(&mut self, pool: &PoolId, record: &Record) {
        self.directory.note_event(pool, record.envelope.version, &record.envelope.event);
        self.changed.briefs.insert(pool.clone());
    }
}

/// One pool, folded from its own history up to a version.
pub(super) fn replay_pool(
    log: &impl EventLog,
    pool: &PoolId,
    until: u64,
) -> Result<PoolView, ReplayError> {
    let stream = StreamId::Pool(pool.clone());
    let mut view = PoolView::default();
    while view.head.version < until {
        let wanted = usize::try_from(until - view.head.version).unwrap_or(PAGE).min(PAGE);
        let page = log.read_stream(&stream, view.head.version, wanted)?;
        if page.is_empty() {
            break;
        }
        page.iter().try_for_each(|record| view.apply(record))?;
    }
    Ok(view)
}
