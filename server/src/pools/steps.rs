//! The pools without threads, for simulations: each piece of work waits until the caller carries it out, so that
//! the caller decides the order of everything, and the same order gives the same history.

use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        mpsc::{Receiver, sync_channel},
    },
};

use keypool_ledger::{Clock, EventLog, SnapshotStore};
use keypool_projections::{DeliveryLimits, Limits};

use super::{
    Parts, Pools, Progress, QUEUE_MAX, ReplayError, Shared,
    committer::Committer,
    disk_reads::{DiskReads, Read},
    idempotent_replay::Repeat,
    job::Job,
};

/// A kind of work that the pools have threads for, unless they were opened with [`Pools::open_stepwise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Decide the commands that wait, append their events and answer.
    Commit,
    /// Carry out the next read that waits for the disk.
    Read,
    /// Answer the next repeated request from its records.
    Repeat,
    /// Keep the snapshots that are due.
    Snapshot,
    /// Have the next commit publish the records of other servers.
    Follow,
}

/// The work that waits.
pub(super) struct WaitingWork<L> {
    committer: Mutex<WaitingJobs<L>>,
    reads: Mutex<Receiver<Read>>,
    repeats: Mutex<Receiver<Repeat>>,
    /// `None` once a snapshot could not be stored.
    to_keep: Mutex<Option<Receiver<()>>>,
}

struct WaitingJobs<L> {
    committer: Committer<L>,
    queue: Receiver<Job>,
    deferred: Vec<Job>,
}

impl<L: EventLog> WaitingWork<L> {
    /// Carries out one batch of commands. The committer of a batch under way does not begin another one.
    fn commit(&self) -> bool {
        let Ok(mut waiting) = self.committer.try_lock() else { return false };
        let WaitingJobs { committer, queue, deferred } = &mut *waiting;
        let mut jobs = mem::take(deferred);
        jobs.extend(queue.try_recv());
        if jobs.is_empty() {
            return false;
        }
        *deferred = committer.commit_next(jobs, queue);
        true
    }

    fn read(&self) -> bool {
        let next = self.reads.lock().unwrap_or_else(PoisonError::into_inner).try_recv();
        next.map(|read| read()).is_ok()
    }

    fn repeat(&self, shared: &Shared<L>) -> bool {
        let next = self.repeats.lock().unwrap_or_else(PoisonError::into_inner).try_recv();
        next.map(|repeat| shared.answer_repeat(repeat)).is_ok()
    }

    /// Keeps snapshots if there is something to keep, or if the pools end.
    fn keep(&self, shared: &Shared<L>, ending: bool) -> bool {
        let Ok(mut told) = self.to_keep.try_lock() else { return false };
        let is_due = told.as_ref().is_some_and(|told| ending || told.try_recv().is_ok());
        if is_due && !shared.keep(ending) {
            *told = None;
        }
        is_due
    }
}

impl<L: EventLog + 'static> Pools<L> {
    /// As [`Pools::open_with`], without threads: commands, reads and snapshots wait until
    /// [`Pools::carry_out`] is called. Dropping the pools without [`Pools::close`] is a crash: no work that waits is
    /// carried out.
    ///
    /// # Errors
    ///
    /// As [`Pools::open`].
    pub fn open_stepwise(
        log: L,
        snapshots: Arc<dyn SnapshotStore>,
        clock: Arc<dyn Clock>,
        limits: Limits,
        delivery_limits: DeliveryLimits,
    ) -> Result<Self, ReplayError> {
        let delivery = (delivery_limits, &Progress::default());
        let Parts { shared, to_keep, repeats } =
            Parts::of(log, snapshots, clock, limits, delivery)?;
        let (sender, queue) = sync_channel(QUEUE_MAX);
        let committer = Committer::new(Arc::clone(&shared));
        let (reads, waiting_reads) = DiskReads::without_threads();
        let waiting = WaitingWork {
            committer: Mutex::new(WaitingJobs { committer, queue, deferred: Vec::new() }),
            reads: Mutex::new(waiting_reads),
            repeats: Mutex::new(repeats),
            to_keep: Mutex::new(Some(to_keep)),
        };
        Ok(Self {
            shared,
            queue: Arc::new(RwLock::new(Some(sender))),
            committer: Mutex::default(),
            keeper: Mutex::default(),
            repeater: Mutex::default(),
            reads,
            waiting: Some(waiting),
        })
    }

    /// Carries out the next piece of work of a kind, on the calling thread. False if there is none, if one of
    /// its kind is under way, or if the pools have threads of their own.
    pub fn carry_out(&self, step: Step) -> bool {
        let Some(waiting) = &self.waiting else { return false };
        match step {
            Step::Commit => waiting.commit(),
            Step::Read => waiting.read(),
            Step::Repeat => waiting.repeat(&self.shared),
            Step::Snapshot => waiting.keep(&self.shared, false),
            Step::Follow => {
                self.wake_follower()(u64::MAX);
                true
            }
        }
    }

    /// Carries out all work that waits, and keeps the last snapshots, as the threads do when they end.
    pub(super) fn carry_out_the_rest(&self) {
        let Some(waiting) = &self.waiting else { return };
        while waiting.commit() || waiting.repeat(&self.shared) {}
        waiting.keep(&self.shared, true);
    }
}
