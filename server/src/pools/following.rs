//! Following the log: the records that other writers have appended since a batch was published.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, PoisonError, atomic::Ordering},
};

use keypool_ledger::{
    AppendError, Event, EventLog, LogHead, PoolId, Record, ReservationId, Timestamp,
    log::find_reservation,
};
use keypool_projections::Limits;

use super::{
    PoolView, Pools, ReplayError, Shared,
    committer::Committer,
    job::{Job, Work},
    loader::fold,
    published::PAGE,
};

/// The log and the pools, as those need them who hear of the records of other servers.
pub(crate) trait FollowedLog {
    /// A pool as it is now; `None` if it has no history or cannot be read.
    fn pool(&self, pool: &PoolId) -> Option<Arc<PoolView>>;
    /// The holder of a reservation; `None` if nobody ever made it, or the log cannot be read.
    fn holder_of(&self, reservation: ReservationId) -> Option<PoolId>;
    /// The limits, as they hold now.
    fn limits(&self) -> Limits;
    /// The time, as far as the clock is trusted.
    fn now(&self) -> Timestamp;
}

impl<L: EventLog> FollowedLog for Shared<L> {
    fn pool(&self, pool: &PoolId) -> Option<Arc<PoolView>> {
        self.view(pool).ok().flatten()
    }

    fn holder_of(&self, reservation: ReservationId) -> Option<PoolId> {
        let made = find_reservation(&self.log, reservation, 0).ok().flatten()?;
        match made.envelope.event {
            Event::Reserved { holder, .. } => Some(holder),
            _ => None,
        }
    }

    fn limits(&self) -> Limits {
        self.limits_now()
    }

    fn now(&self) -> Timestamp {
        self.clock_guard().read(self.reading())
    }
}

/// Is told the records that other servers have written, before anybody hears of their positions.
pub(super) type RecordListener = Box<dyn Fn(&dyn FollowedLog, &[&Record]) + Send + Sync>;

impl<L: EventLog> Committer<L> {
    /// Makes ready for a batch: follows the log, and records the settings if they are due.
    ///
    /// # Errors
    ///
    /// Returns an [`AppendError`] if nothing can be decided.
    pub(super) fn prepare(&self) -> Result<(), AppendError> {
        self.follow(&[])?;
        self.record_due_settings()
    }

    /// Publishes the records that are not published yet, so that the next batch is decided on the whole log.
    /// A log with one writer has none, unless a part of a batch was refused. `own` are the positions of records
    /// that were written by this server.
    ///
    /// # Errors
    ///
    /// Returns an [`AppendError`] if the log cannot be read. One that is no history of pools ends all
    /// writing.
    pub(super) fn follow(&self, own: &[u64]) -> Result<(), AppendError> {
        match self.publish_rest(own) {
            Ok(()) => Ok(()),
            Err(ReplayError::Read(error)) => {
                let cause: &dyn std::error::Error = &error;
                tracing::error!(cause, "the end of the log cannot be read");
                Err(AppendError::NotWritten(Box::new(error)))
            }
            Err(error) => {
                self.fail(&error);
                Err(AppendError::Failed(Box::new(error)))
            }
        }
    }

    /// Moves the time on, so that no event is dated before one that it follows.
    fn follow_time(&self, page: &[Record]) {
        let shared = self.shared();
        let (reading, mut guard) = (shared.reading(), shared.clock_guard());
        for record in page {
            guard.follow(&record.envelope, reading);
        }
    }

    fn publish_rest(&self, own: &[u64]) -> Result<(), ReplayError> {
        let shared = self.shared();
        let head = shared.log.head()?;
        while shared.published().seq < head.seq {
            let page = shared.log.read(shared.published().seq.saturating_add(1), PAGE)?;
            if page.is_empty() {
                break;
            }
            self.follow_time(&page);
            let mut fresh = HashMap::new();
            page.iter().try_for_each(|record| shared.fold_published(&mut fresh, record))?;
            self.publish_pools(fresh);
            // Before their positions: a request that waits for one finds them counted.
            if let Some(told) = shared.followed.get() {
                let foreign: Vec<_> = page.iter().filter(|one| !own.contains(&one.seq)).collect();
                told(shared, &foreign);
            }
            self.publish_records(&page.iter().collect::<Vec<_>>());
        }
        Ok(())
    }
}

impl<L: EventLog> Shared<L> {
    /// Folds a record of a pool that is in memory. Any other pool is only noted: it is loaded when somebody
    /// asks for it.
    fn fold_published(
        &self,
        fresh: &mut HashMap<PoolId, PoolView>,
        record: &Record,
    ) -> Result<(), ReplayError> {
        let (Some(pool), version) = (record.envelope.stream.pool(), record.envelope.version) else {
            return Ok(());
        };
        let view = match fresh.entry(pool.clone()) {
            Entry::Occupied(occupied) => occupied.into_mut(),
            Entry::Vacant(vacant) => {
                let view = match self.before(pool, version) {
                    None if self.note_foreign(pool, record) => return Ok(()),
                    // It was loaded meanwhile.
                    None => self.before(pool, version),
                    at_hand => at_hand,
                };
                let Some(view) = view else { return Ok(()) };
                vacant.insert(view)
            }
        };
        // A pool that was loaded since may know the record already.
        if view.head.version < version { fold(&self.log, view, record) } else { Ok(()) }
    }
}

impl<L: EventLog + 'static> Pools<L> {
    /// Returns a function that has the committer publish the records of other servers, if it is not about to. It
    /// does not keep the pools open.
    pub(crate) fn wake_follower(&self) -> impl Fn(u64) + Send + Sync + use<L> {
        let (queue, shared) = (Arc::clone(&self.queue), Arc::downgrade(&self.shared));
        move |position| {
            let Some(shared) = shared.upgrade() else { return };
            if position <= shared.published().seq
                || shared.follows_soon.swap(true, Ordering::AcqRel)
            {
                return;
            }
            let queue = queue.read().unwrap_or_else(PoisonError::into_inner);
            let job = Job::new(Work::Follow, 0);
            shared.queued.fetch_add(1, Ordering::Relaxed);
            if queue.as_ref().is_none_or(|queue| queue.try_send(job).is_err()) {
                // Where the queue is full, the next batch publishes them.
                shared.queued.fetch_sub(1, Ordering::Relaxed);
                shared.follows_soon.store(false, Ordering::Release);
            }
        }
    }
}

impl<L> Pools<L> {
    /// Has `told` hear of the records that other servers write. The first one counts.
    pub(crate) fn on_followed(
        &self,
        told: impl Fn(&dyn FollowedLog, &[&Record]) + Send + Sync + 'static,
    ) {
        self.shared.followed.get_or_init(|| Box::new(told));
    }
}

impl<L> Shared<L> {
    /// The record up to which the published states know the log: the head that a batch is decided at.
    pub(super) fn published(&self) -> LogHead {
        LogHead { seq: self.views().changed.through }
    }

    /// Notes a record of a pool that is not in memory; false if the pool is there by now.
    fn note_foreign(&self, pool: &PoolId, record: &Record) -> bool {
        let mut views = self.views_mut();
        if views.residents.peek(pool).is_some() {
            return false;
        }
        views.note_pool(pool, record);
        views.woken.insert(pool.clone());
        true
    }

    /// A pool in front of a version, if it is in memory or begins there.
    fn before(&self, pool: &PoolId, version: u64) -> Option<PoolView> {
        match self.at_hand::<PoolView>(pool) {
            Some(view) => Some(Arc::unwrap_or_clone(view)),
            None => (version == 1).then(PoolView::default),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use actix_rt::System;
    use keypool_ledger::{Clock, CommandId, Hash, ManualClock, MemoryLog, SignatureKey};
    use keypool_projections::Command;
    use uuid::Uuid;

    use super::*;
    use crate::pools::{Request, Target};

    fn register(server: &Pools<Arc<MemoryLog>>, name: &str) {
        let signature_key = SignatureKey::new(Hash::of(name.as_bytes()).as_bytes()).unwrap();
        let command =
            Command::Register { signature_key, credential: name.to_owned(), statement: None };
        let target = Target::Pool(PoolId::new(name, "main").unwrap());
        let (id, digest) = (CommandId(Uuid::new_v4()), Hash::of(name.as_bytes()));
        System::new().block_on(server.execute(Request { target, command, id, digest })).unwrap();
    }

    #[test]
    fn records_of_other_servers_count_before_a_request_can_rest_on_their_positions() {
        let log = Arc::new(MemoryLog::default());
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::from_secs(1_766_400_000)));
        let servers = [(); 2]
            .map(|()| Pools::open(Arc::clone(&log), Arc::clone(&clock), Limits::STANDARD).unwrap());
        let (positions, counted) = (servers[1].written(), Arc::new(Mutex::default()));
        let notes: Arc<Mutex<Vec<(u64, u64)>>> = Arc::clone(&counted);
        servers[1].on_followed(move |_, records| {
            let known = *positions.borrow();
            notes.lock().unwrap().extend(records.iter().map(|record| (record.seq, known)));
        });
        register(&servers[0], "alice");
        register(&servers[1], "bob");
        let counted = counted.lock().unwrap();
        assert_eq!(counted.first().map(|(seq, _)| *seq), Some(1), "{counted:?}");
        assert!(counted.iter().all(|(seq, known)| known < seq), "{counted:?}");
    }
}
