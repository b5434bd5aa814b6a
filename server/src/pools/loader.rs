//! Loads into memory pools that nobody has asked for lately, and packages that a pool has forgotten and a
//! command names.

use std::sync::Arc;

use keypool_ledger::{
    Event, EventLog, Key, KeyPackageRef, PoolId, ReadError, Record, SnapshotStore, StreamHead,
    StreamId,
    log::{find_reservation, knows_init_key},
};
use keypool_projections::{Command, Evicted, GroupState, MailboxState};

use super::{
    ExecuteError, PoolView, Pools, ReplayError, Shared,
    cache::{Cache, UNPACKED_MAX},
    packed_form::{Cached, Form},
    published::{PAGE, Views},
};

/// The name that a pool's snapshot is kept under.
pub(super) fn snapshot_name(pool: &PoolId) -> Vec<u8> {
    [b"p/", pool.to_string().as_bytes()].concat()
}

/// A kind of state that is published.
pub(super) trait Published: Cached {
    /// The published states of this kind.
    fn among(views: &Views) -> &Cache<Self>;

    /// The published states of this kind, to be changed.
    fn among_mut(views: &mut Views) -> &mut Cache<Self>;
}

impl Published for PoolView {
    fn among(views: &Views) -> &Cache<Self> {
        &views.residents
    }

    fn among_mut(views: &mut Views) -> &mut Cache<Self> {
        &mut views.residents
    }
}

impl Published for GroupState {
    fn among(views: &Views) -> &Cache<Self> {
        &views.deliveries.groups
    }

    fn among_mut(views: &mut Views) -> &mut Cache<Self> {
        &mut views.deliveries.groups
    }
}

impl Published for MailboxState {
    fn among(views: &Views) -> &Cache<Self> {
        &views.deliveries.mailboxes
    }

    fn among_mut(views: &mut Views) -> &mut Cache<Self> {
        &mut views.deliveries.mailboxes
    }
}

impl<L> Shared<L> {
    /// A state that is in memory, unpacked if it lay packed.
    pub(super) fn at_hand<T: Published>(&self, name: &T::Name) -> Option<Arc<T>> {
        let packed = match T::among(&self.views()).get(name)? {
            Form::Unpacked(state) => return Some(state),
            Form::Packed(bytes) => bytes,
        };
        let state = Arc::new(T::of_bytes(&packed)?);
        T::among_mut(&mut self.views_mut()).put_back(name, &state, &packed);
        self.pack_idle_of::<T>();
        Some(state)
    }

    /// Packs states that were not asked for lately, if there are many that are not packed.
    pub(super) fn pack_idle(&self) {
        self.pack_idle_of::<PoolView>();
        self.pack_idle_of::<GroupState>();
        self.pack_idle_of::<MailboxState>();
    }

    fn pack_idle_of<T: Published>(&self) {
        let is_crowded = T::among(&self.views()).is_crowded();
        if is_crowded {
            self.pack_all_but::<T>(UNPACKED_MAX);
        }
    }

    fn pack_all_but<T: Published>(&self, kept: usize) {
        let idle = T::among_mut(&mut self.views_mut()).idle(kept);
        let pack = |(name, state): (T::Name, Arc<T>)| {
            let packed = state.to_bytes();
            (name, state, packed)
        };
        let packed: Vec<_> = idle.into_iter().map(pack).collect();
        let mut views = self.views_mut();
        for (name, state, bytes) in packed {
            T::among_mut(&mut views).replace(name, &state, bytes);
        }
    }
}

impl<L> Pools<L> {
    /// Packs every pool, group and mailbox in memory, as otherwise only those are that nobody asks for.
    pub fn pack_all(&self) {
        self.shared.pack_all_but::<PoolView>(0);
        self.shared.pack_all_but::<GroupState>(0);
        self.shared.pack_all_but::<MailboxState>(0);
    }
}

impl<L: EventLog> Shared<L> {
    /// Decides whether a pool has a history.
    pub(super) fn has_history(&self, pool: &PoolId) -> bool {
        self.views().directory.knows(pool)
    }

    /// A pool as it is published; `None` if it has no history.
    pub(super) fn view(&self, pool: &PoolId) -> Result<Option<Arc<PoolView>>, ExecuteError> {
        if let Some(view) = self.at_hand(pool) {
            return Ok(Some(view));
        }
        if !self.has_history(pool) {
            return Ok(None);
        }
        let view = Arc::new(load(&self.log, &*self.snapshots, pool).map_err(unreadable)?);
        let mut views = self.views_mut();
        // A record that another server wrote meanwhile was only noted, since the pool was not in memory. Without it
        // the pool would be one record short for ever.
        if views.directory.version(pool) <= view.head.version {
            views.residents.put(pool.clone(), Arc::clone(&view));
        }
        drop(views);
        self.pack_idle_of::<PoolView>();
        Ok(Some(view))
    }

    /// Reloads the packages and reservations that a command names and a pool has evicted; returns whether
    /// there was anything. The reservation that a command wants to make is looked for behind a record; a caller
    /// that has searched the whole log for it gives none.
    pub(super) fn recall(
        &self,
        pool: &PoolId,
        view: &mut Arc<PoolView>,
        command: &Command,
        reserved_after: Option<u64>,
    ) -> Result<bool, ExecuteError> {
        let mut recalled = false;
        for forgotten in view.state.evicted_by(command) {
            let records = match forgotten {
                Evicted::Package(keypackage_ref) => history_of(&self.log, &keypackage_ref)?,
                Evicted::Reservation(id) => {
                    let Some(after) = reserved_after else { continue };
                    let made = find_reservation(&self.log, id, after)?;
                    let named = made.as_ref().and_then(|made| made.envelope.event.keypackage_ref());
                    match named {
                        Some(keypackage_ref) => history_of(&self.log, keypackage_ref)?,
                        None => continue,
                    }
                }
                Evicted::InitKey(init_key) => {
                    if knows_init_key(&self.log, pool, &init_key)? {
                        Arc::make_mut(view).state.recall_init_key(init_key);
                        recalled = true;
                    }
                    continue;
                }
            };
            if records.first().and_then(|first| first.envelope.stream.pool()) == Some(pool) {
                Arc::make_mut(view).state.recall(&records).map_err(|source| {
                    let seq = records.last().map_or(0, |last| last.seq);
                    unreadable(ReplayError::Illegal { seq, source })
                })?;
                recalled = true;
            }
        }
        Ok(recalled)
    }
}

/// The history of a package, from the record that brought it on.
pub(super) fn history_of(
    log: &impl EventLog,
    keypackage_ref: &KeyPackageRef,
) -> Result<Vec<Record>, ReadError> {
    log.find(Key::Package(keypackage_ref), 0, usize::MAX)
}

impl Views {
    /// Folds the next record of a pool, which may not be in memory.
    pub(super) fn fold_pool(
        &mut self,
        log: &impl EventLog,
        pool: &PoolId,
        record: &Record,
    ) -> Result<(), ReplayError> {
        let mut view = match self.residents.unpacked(pool) {
            Some(view) => Arc::unwrap_or_clone(view),
            None if record.envelope.version == 1 => PoolView::default(),
            // It was given up to make room.
            None => until(log, pool, record.envelope.version - 1)?,
        };
        fold(log, &mut view, record)?;
        view.state.forget();
        self.residents.put(pool.clone(), Arc::new(view));
        self.residents.make_room();
        Ok(())
    }
}

/// Applies the next record of a pool that may have evicted its package.
pub(super) fn fold(
    log: &impl EventLog,
    view: &mut PoolView,
    record: &Record,
) -> Result<(), ReplayError> {
    let event = &record.envelope.event;
    let begins = matches!(event, Event::Created(_) | Event::Uploaded(_));
    if let Some(keypackage_ref) = event.keypackage_ref()
        && !begins
        && view.state.get(keypackage_ref).is_none()
    {
        let records = history_of(log, keypackage_ref)?;
        let illegal = |source| ReplayError::Illegal { seq: record.seq, source };
        view.state.recall(&records).map_err(illegal)?;
    }
    view.apply(record)
}

/// Folds a pool from its snapshot and the records after it, or from its whole history.
pub(super) fn load(
    log: &impl EventLog,
    snapshots: &dyn SnapshotStore,
    pool: &PoolId,
) -> Result<PoolView, ReplayError> {
    let stream = StreamId::Pool(pool.clone());
    let head = log.stream_head(&stream)?;
    let kept = snapshots.get(&snapshot_name(pool))?.and_then(|bytes| PoolView::unpack(&bytes));
    if let Some(view) = kept.filter(|view| fits(view, &head)) {
        match catch_up(log, view, &stream, head.version) {
            // It is of another history: as if it were not there.
            Err(ReplayError::Broken { .. }) => {}
            loaded => return loaded,
        }
    }
    catch_up(log, PoolView::default(), &stream, head.version)
}

/// Whether a snapshot can be of a history that ends so.
fn fits(view: &PoolView, head: &StreamHead) -> bool {
    view.head.version < head.version || view.head == *head
}

/// A pool as its history has left it up to a version.
fn until(log: &impl EventLog, pool: &PoolId, version: u64) -> Result<PoolView, ReplayError> {
    catch_up(log, PoolView::default(), &StreamId::Pool(pool.clone()), version)
}

fn catch_up(
    log: &impl EventLog,
    mut view: PoolView,
    stream: &StreamId,
    until: u64,
) -> Result<PoolView, ReplayError> {
    while view.head.version < until {
        let wanted = usize::try_from(until - view.head.version).unwrap_or(PAGE).min(PAGE);
        let page = log.read_stream(stream, view.head.version, wanted)?;
        if page.is_empty() {
            break;
        }
        page.iter().try_for_each(|record| fold(log, &mut view, record))?;
        view.state.forget();
    }
    Ok(view)
}

/// A pool that cannot be folded is a log that cannot be trusted.
pub(super) fn unreadable(error: ReplayError) -> ExecuteError {
    match error {
        ReplayError::Read(read) => read.into(),
        other => {
            let cause = std::error::Error::source(&other).map(ToString::to_string);
            tracing::error!(error = %other, cause, "a history cannot be folded");
            let damaged: Box<dyn std::error::Error + Send + Sync> = Box::new(other);
            ExecuteError::Read(ReadError::Unavailable(damaged))
        }
    }
}
