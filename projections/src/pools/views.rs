//! The published states, and how they are folded from the log.

use std::{collections::HashMap, sync::Arc};

use keypool_ledger::{EventLog, GroupId, PoolId, Record, StreamHead, StreamId, Timestamp, codec};

use super::{PoolView, ReplayError, directory::Directory};
use crate::delivery::{GroupState, MailboxState};

/// How many records are read at a time.
const PAGE: usize = 4096;

/// The published states.
#[derive(Debug, Default)]
pub(super) struct Views {
    pub(super) pools: HashMap<PoolId, Arc<PoolView>>,
    pub(super) directory: Directory,
    /// Each group, and when its last event was recorded.
    pub(super) groups: HashMap<GroupId, (GroupState, Timestamp)>,
    /// Each device's mailbox, and when the last event of its own history was recorded.
    pub(super) mailboxes: HashMap<PoolId, (MailboxState, Timestamp)>,
}

impl Views {
    pub(super) fn publish(&mut self, pool: PoolId, view: PoolView) {
        self.directory.note(&pool, view.state.registration());
        self.pools.insert(pool, Arc::new(view));
    }
}

impl PoolView {
    /// Takes in the next record of the pool's history, and checks that it is the next.
    pub(crate) fn take_in(&mut self, record: &Record) -> Result<(), ReplayError> {
        let envelope = &record.envelope;
        let broken =
            |what| ReplayError::Broken { seq: record.seq, stream: envelope.stream.clone(), what };
        if envelope.version != self.head.version.saturating_add(1) {
            return Err(broken("its version"));
        }
        if envelope.prev != self.head.hash {
            return Err(broken("the hash of the record before it"));
        }
        if envelope.at < self.head.at {
            return Err(broken("its time"));
        }
        let illegal = |source| ReplayError::Illegal { seq: record.seq, source };
        self.state.evolve(&envelope.event, envelope.at).map_err(illegal)?;
        self.head = StreamHead {
            version: envelope.version,
            hash: codec::chain_hash(&record.envelope_bytes),
            at: envelope.at,
        };
        self.position = record.seq;
        Ok(())
    }
}

/// Folds every pool of a log, and finds the time of its latest event.
pub(super) fn replay(log: &impl EventLog) -> Result<(Views, Timestamp), ReplayError> {
    let mut pools: HashMap<PoolId, PoolView> = HashMap::new();
    let mut views = Views::default();
    let (mut next, mut last_at) = (1, Timestamp::default());
    loop {
        let page = log.read(next, PAGE)?;
        let Some(last) = page.last() else { break };
        next = last.seq.saturating_add(1);
        for record in &page {
            last_at = last_at.max(record.envelope.at);
            match record.envelope.stream.pool() {
                Some(pool) => pools.entry(pool.clone()).or_default().take_in(record)?,
                None => views.take_in_delivery(record),
            }
        }
    }
    for (pool, view) in pools {
        views.publish(pool, view);
    }
    Ok((views, last_at))
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
        page.iter().try_for_each(|record| view.take_in(record))?;
    }
    Ok(view)
}
