//! Snapshots of folded states, so that a start need not fold them again.
//!
//! They lie beside the log and may be lost, or be older than it: then more of it is read. Two kinds are
//! kept. A pool is, when it has had enough events since the last time. And now and then, and at the end,
//! everything is that is in memory of *all* pools, groups and mailboxes and has changed; when that is
//! done, the place in the log is noted that it reaches to, and a start reads on from there.

use std::{
    collections::HashSet,
    mem,
    sync::{Arc, PoisonError, mpsc::Receiver},
    thread::{self, JoinHandle},
};

use keypool_ledger::{EventLog, GroupId, PoolId, ReadError, Snapshot, SnapshotStore, Timestamp};
use keypool_projections::{
    GroupState, Limits, MailboxState,
    packing::{Packer, Unpacker},
};

use super::{
    Progress, ReplayError, Shared,
    cache::Cache,
    directory::PoolSummary,
    loader::snapshot_name,
    packed_form::{Cached, Form},
    published::{Changed, FreshPool, PAGE, Views},
    suspensions::suspensions_of,
};

/// The number of the form of these snapshots, and of the folds they are of.
const FOLD: u8 = 5;
/// Under which name the place is kept that the others reach to.
const REACH: &[u8] = b"reach";
/// The beginning of the names of briefs.
const BRIEF: &[u8] = b"b/";
/// The beginning of the names of groups.
const GROUP: &[u8] = b"g/";
/// The beginning of the names of mailboxes.
const MAILBOX: &[u8] = b"m/";
/// After how many records everything that has changed is kept.
const REACH_RECORDS: u64 = 65_536;
/// How many snapshots are handed to the log at once.
const AT_ONCE: usize = 64;

/// Up to where the snapshots reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SnapshotWatermark {
    /// The last record that they know of.
    seq: u64,
    /// The latest time of any record until there.
    at: Timestamp,
}

impl SnapshotWatermark {
    fn pack(self) -> Vec<u8> {
        let mut out = Packer::default();
        out.byte(FOLD);
        out.number(self.seq);
        out.number(self.at.as_millis());
        out.into_bytes().into_vec()
    }

    fn unpack(bytes: &[u8]) -> Option<Self> {
        let mut rest = Unpacker::new(bytes);
        if rest.byte()? != FOLD {
            return None;
        }
        let reach = Self { seq: rest.number()?, at: rest.time()? };
        rest.is_empty().then_some(reach)
    }
}

/// The states that a log leads to: from the snapshots and the records after them, or from all records.
pub(super) fn restore(
    log: &impl EventLog,
    snapshots: &dyn SnapshotStore,
    limits: &Limits,
    progress: &Progress,
) -> Result<Views, ReplayError> {
    let mut views = restored_pools(log, snapshots, limits, progress)?;
    views.suspensions = suspensions_of(log)?;
    views.woken.clear();
    Ok(views)
}

fn restored_pools(
    log: &impl EventLog,
    snapshots: &dyn SnapshotStore,
    limits: &Limits,
    progress: &Progress,
) -> Result<Views, ReplayError> {
    let head = log.head()?.seq;
    progress.set(0, head);
    let reach = snapshots.get(REACH)?.and_then(|bytes| SnapshotWatermark::unpack(&bytes));
    if let Some(reach) = reach.filter(|reach| reach.seq <= head)
        && let Some(mut views) = kept_views(snapshots, reach)?
    {
        (views.changed.through, views.changed.at) = (reach.seq, reach.at);
        views.changed.reached = reach.seq;
        each_record(log, &mut views, progress, |views, pool, record| {
            views.note_pool(pool, record);
            Ok(())
        })?;
        return Ok(views);
    }
    let mut views = Views::default();
    each_record(log, &mut views, progress, |views, pool, record| {
        views.changed.briefs.insert(pool.clone());
        views.fold_pool(log, pool, record)
    })?;
    let pools: Vec<PoolId> = views.changed.briefs.iter().cloned().collect();
    for pool in pools {
        let view = match views.residents.unpacked(&pool) {
            Some(view) => view,
            None => Arc::new(super::loader::load(log, snapshots, &pool)?),
        };
        views.publish(FreshPool::of(pool, Arc::unwrap_or_clone(view), limits));
        views.residents.make_room();
    }
    Ok(views)
}

/// Takes in every record that is not taken in yet, those of pools as `take` says.
fn each_record(
    log: &impl EventLog,
    views: &mut Views,
    progress: &Progress,
    mut take: impl FnMut(&mut Views, &PoolId, &keypool_ledger::Record) -> Result<(), ReplayError>,
) -> Result<(), ReplayError> {
    let (_, of) = progress.get();
    loop {
        let page = log.read(views.changed.through.saturating_add(1), PAGE)?;
        let Some(last) = page.last() else { return Ok(()) };
        for record in &page {
            views.changed.note_time(&record.envelope);
            if let Some(pool) = record.envelope.stream.pool() {
                take(views, pool, record)?;
            }
            views.apply_delivery(record);
            views.deliveries.groups.make_room();
            views.deliveries.mailboxes.make_room();
        }
        views.changed.through = last.seq;
        progress.set(last.seq, of);
    }
}

/// Everything that was kept of pools, groups and mailboxes; `None` if some of it is of another form, or
/// of a later record than all of it is known to be of: keeping was interrupted then, and what an event did
/// to a group and to a mailbox cannot be told apart.
fn kept_views(
    snapshots: &dyn SnapshotStore,
    reach: SnapshotWatermark,
) -> Result<Option<Views>, ReadError> {
    let mut views = Views::default();
    let whole = each_snapshot(snapshots, BRIEF, |name, bytes| {
        let pool = str::from_utf8(name).ok()?.parse().ok()?;
        views.directory.note(&pool, PoolSummary::unpack(bytes)?);
        Some(())
    })? && each_snapshot(snapshots, GROUP, |name, bytes| {
        let bytes = checked::<GroupState>(bytes, reach)?;
        views.deliveries.groups.put_packed(GroupId::new(name).ok()?, bytes);
        Some(())
    })? && each_snapshot(snapshots, MAILBOX, |name, bytes| {
        let device = str::from_utf8(name).ok()?.parse().ok()?;
        views.deliveries.mailboxes.put_packed(device, checked::<MailboxState>(bytes, reach)?);
        Some(())
    })?;
    Ok(whole.then_some(views))
}

/// Shows every snapshot of a kind by the rest of its name; false as soon as one is not understood.
fn each_snapshot(
    snapshots: &dyn SnapshotStore,
    prefix: &[u8],
    mut take: impl FnMut(&[u8], &[u8]) -> Option<()>,
) -> Result<bool, ReadError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = snapshots.list(prefix, after.as_deref(), PAGE)?;
        let Some(last) = page.last() else { return Ok(true) };
        after = Some(last.name.clone());
        for Snapshot { name, bytes } in &page {
            let understood = name.strip_prefix(prefix).and_then(|rest| take(rest, bytes));
            if understood.is_none() {
                return Ok(false);
            }
        }
    }
}

/// The snapshot of a state: its bytes behind the record it is of.
fn snapshot<T: Cached>(
    kind: &[u8],
    name: &[u8],
    state: &Form<T>,
    reach: SnapshotWatermark,
) -> Snapshot {
    let mut out = Packer::default();
    out.number(reach.seq);
    let bytes = [&out.into_bytes(), &*state.bytes()].concat();
    Snapshot { name: [kind, name].concat(), bytes }
}

/// The states of these names that there are, each in the form it lies in.
fn all_of<T: Cached>(residents: &Cache<T>, names: HashSet<T::Name>) -> Vec<(T::Name, Form<T>)> {
    let state = |name: T::Name| residents.peek(&name).map(|state| (name, state));
    names.into_iter().filter_map(state).collect()
}

/// The bytes of the state in a snapshot, if they are one and it is not of a later record than `reach`.
fn checked<T: Cached>(bytes: &[u8], reach: SnapshotWatermark) -> Option<&[u8]> {
    let mut rest = Unpacker::new(bytes);
    rest.number().filter(|through| *through <= reach.seq)?;
    let state = rest.rest();
    T::of_bytes(state).map(|_| state)
}

/// The thread that keeps snapshots, behind everybody else.
#[derive(Debug)]
pub(super) struct SnapshotWriter(JoinHandle<()>);

impl SnapshotWriter {
    /// Keeps snapshots whenever it is told that there is something to keep; everything that has changed
    /// when nobody can tell it any more.
    pub(super) fn start<L: EventLog + 'static>(
        shared: Arc<Shared<L>>,
        told: Receiver<()>,
    ) -> Result<Self, ReplayError> {
        let work = move || {
            loop {
                let ending = told.recv().is_err();
                if !shared.keep(ending) || ending {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("keypool-keeper".to_owned()).spawn(work);
        thread.map(Self).map_err(ReplayError::Thread)
    }

    /// Waits until the last snapshots are kept.
    pub(super) fn end(self) {
        if self.0.join().is_err() {
            tracing::error!("the thread that keeps snapshots panicked");
        }
    }
}

impl<L: EventLog> Shared<L> {
    /// Tells the keeper if there is something to keep.
    pub(super) fn tell_keeper(&self) {
        let something = {
            let changed = &self.views().changed;
            !changed.pools.is_empty()
                || REACH_RECORDS <= changed.briefs.len() as u64
                || changed.through.is_multiple_of(1024)
        };
        let told = self.to_keep.lock().unwrap_or_else(PoisonError::into_inner);
        if let (true, Some(told)) = (something, told.as_ref()) {
            // Who is told already need not be told twice.
            let _ = told.try_send(());
        }
    }

    /// Keeps the snapshots that are due, and those of everything that has changed when the pools end. False if they
    /// cannot be stored: then no more are kept.
    pub(super) fn keep(&self, ending: bool) -> bool {
        let kept = self.keep_pools().and_then(|()| {
            let due = ending || REACH_RECORDS <= self.views().changed.unkept();
            if due { self.keep_changed() } else { Ok(()) }
        });
        if let Err(error) = &kept {
            let error: &dyn std::error::Error = error;
            tracing::error!(error, "no more snapshots are kept; the next start takes longer");
        }
        kept.is_ok()
    }

    /// Keeps the pools that have had enough events.
    fn keep_pools(&self) -> Result<(), ReadError> {
        let pools: Vec<PoolId> =
            mem::take(&mut self.views_mut().changed.pools).into_iter().collect();
        for some in pools.chunks(AT_ONCE) {
            let mut kept = Vec::with_capacity(some.len());
            let mut snapshots = Vec::with_capacity(some.len());
            for pool in some {
                // What cannot be read is told to whoever asks for it.
                if let Ok(Some(view)) = self.view(pool) {
                    let bytes = view.pack().into_vec();
                    snapshots.push(Snapshot { name: snapshot_name(pool), bytes });
                    kept.push((pool, view.head.version));
                }
            }
            self.snapshots.put(snapshots)?;
            let mut views = self.views_mut();
            for (pool, version) in kept {
                views.directory.kept(pool, version);
                views.changed.briefs.insert(pool.clone());
            }
        }
        Ok(())
    }

    /// Keeps everything that has changed, and then notes up to where that is.
    fn keep_changed(&self) -> Result<(), ReadError> {
        // Groups and mailboxes are folded from the same events, so they are taken at the same record.
        let (briefs, groups, mailboxes, reach) = {
            let mut views = self.views_mut();
            let Changed { through, at, .. } = views.changed;
            // The pools are kept by themselves, whenever they are due.
            let pools = mem::take(&mut views.changed.pools);
            let fresh = Changed { pools, through, at, reached: through, ..Changed::default() };
            let changed = mem::replace(&mut views.changed, fresh);
            let groups = all_of(&views.deliveries.groups, changed.groups);
            let mailboxes = all_of(&views.deliveries.mailboxes, changed.mailboxes);
            (changed.briefs, groups, mailboxes, SnapshotWatermark { seq: through, at })
        };
        let brief = |pool: &PoolId| {
            let bytes = self.views().directory.brief(pool).pack();
            Snapshot { name: [BRIEF, pool.to_string().as_bytes()].concat(), bytes }
        };
        let group = |(group, state): &(GroupId, Form<GroupState>)| {
            snapshot(GROUP, group.as_bytes(), state, reach)
        };
        let mailbox = |(device, state): &(PoolId, Form<MailboxState>)| {
            snapshot(MAILBOX, device.to_string().as_bytes(), state, reach)
        };
        let all = briefs.iter().map(brief);
        let mut all =
            all.chain(groups.iter().map(group)).chain(mailboxes.iter().map(mailbox)).peekable();
        while all.peek().is_some() {
            self.snapshots.put(all.by_ref().take(AT_ONCE).collect())?;
        }
        self.snapshots.put(vec![Snapshot { name: REACH.to_vec(), bytes: reach.pack() }])
    }
}
