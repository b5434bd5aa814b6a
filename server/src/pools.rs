//! The pools of a service: commands go in, events are appended, answers come out.
//!
//! One thread writes. It takes commands from a bounded channel, decides each in order on the states as
//! the commands before it will leave them, appends all batches at once, and only then
//! publishes the new states and answers. Readers take the published states and never wait for it.

mod api;

mod job;

mod committer;

mod batch;

mod idempotent_replay;

mod delivery_request;

mod delivery_commit;

mod mailboxes;

mod checks;

mod directory;

mod packed_form;

mod cache;

mod listeners;

mod reading;

mod loader;

mod snapshots;

mod steps;

mod clock_guard;

mod following;

mod server_stream;

mod suspensions;

mod view;

mod published;

mod search;

mod disk_reads;

mod package_cache;

mod waiting_list;

use std::{
    collections::HashMap,
    error::Error,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use keypool_ledger::{
    AppendError, Clock, EventLog, MemoryIndex, NoMemoryIndex, NoSnapshots, PoolId, SnapshotStore,
    Timestamp,
};
use keypool_projections::{DeliveryLimits, Limits};
use tokio::sync::{oneshot, watch as signal};

pub use self::{
    api::{ExecuteError, Progress, Reply, Request, SuspensionOutcome, Target},
    clock_guard::ClockState,
    delivery_request::{
        AwaitedInvitee, DeliverError, Delivered, DeliveryCommand, DeliveryRequest, Welcome,
    },
    reading::DeviceChanges,
    steps::Step,
    view::{PoolView, ReplayError},
    waiting_list::AwaitOutcome,
};
use self::{
    clock_guard::{ClockGuard, Reading},
    committer::Committer,
    disk_reads::DiskReads,
    following::RecordListener,
    idempotent_replay::{REPEATS_MAX, Repeat, recall_delivery, start_repeating},
    job::{Job, Work},
    listeners::Listeners,
    package_cache::PackageCache,
    published::Views,
    search::Search,
    snapshots::{SnapshotWriter, restore},
    steps::WaitingWork,
};
pub(crate) use self::{following::FollowedLog, listeners::Presence};

/// How many commands may wait for the committer.
const QUEUE_MAX: usize = 1000;

/// The pools of a service, kept in an event log.
pub struct Pools<L> {
    shared: Arc<Shared<L>>,
    queue: Arc<RwLock<Option<SyncSender<Job>>>>,
    committer: Mutex<Option<JoinHandle<()>>>,
    keeper: Mutex<Option<SnapshotWriter>>,
    repeater: Mutex<Option<JoinHandle<()>>>,
    reads: DiskReads,
    /// The work of pools without threads.
    waiting: Option<WaitingWork<L>>,
}

/// The state that the committer and the readers share.
struct Shared<L> {
    log: L,
    snapshots: Arc<dyn SnapshotStore>,
    /// The part of the log's index that answers from memory; empty for a log without one.
    memory: OnceLock<Arc<dyn MemoryIndex>>,
    packages: PackageCache,
    clock: Arc<dyn Clock>,
    limits: Limits,
    clock_guard: Mutex<ClockGuard>,
    /// Whether the clock was not trusted at the last look: only then are devices heard on it.
    clock_in_doubt: AtomicBool,
    views: RwLock<Views>,
    queued: AtomicUsize,
    failed: signal::Sender<bool>,
    /// Why the log took no events the last time, if it did not.
    refusal: Mutex<Option<String>>,
    /// Whether the settings are still to be recorded, because the log took no events at the start.
    settings_due: AtomicBool,
    /// The position of the last record that was written.
    written: signal::Sender<u64>,
    /// Told of the records that other servers write.
    followed: OnceLock<RecordListener>,
    /// Whether the committer is to publish the records of other servers and has not begun to.
    follows_soon: AtomicBool,
    listeners: Listeners,
    delivery_limits: DeliveryLimits,
    /// The queue of repeated requests; gone once the pools are closed.
    repeats: Mutex<Option<SyncSender<Repeat>>>,
    /// How many of them are of each asker.
    repeating: Mutex<HashMap<Option<PoolId>, usize>>,
    /// Told when there is something to keep a snapshot of; gone once the pools are closed.
    to_keep: Mutex<Option<SyncSender<()>>>,
}

/// The state of pools that are being opened, and the queues of the work that it asks for.
struct Parts<L> {
    shared: Arc<Shared<L>>,
    to_keep: Receiver<()>,
    repeats: Receiver<Repeat>,
}

impl<L: EventLog> Parts<L> {
    /// Folds all pools from a log.
    ///
    /// # Errors
    ///
    /// As [`Pools::open`].
    fn of(
        log: L,
        snapshots: Arc<dyn SnapshotStore>,
        clock: Arc<dyn Clock>,
        limits: Limits,
        (delivery_limits, progress): (DeliveryLimits, &Progress),
    ) -> Result<Self, ReplayError> {
        let views = restore(&log, &*snapshots, &limits, progress)?;
        let reading = Reading::of(&*clock);
        let clock_guard = ClockGuard::starting(reading, views.changed.at, limits.reservation_ttl);
        let (to_keep, something_to_keep) = sync_channel(1);
        let (to_repeat, asked_again) = sync_channel(REPEATS_MAX);
        let shared = Arc::new(Shared {
            log,
            snapshots,
            memory: OnceLock::new(),
            packages: PackageCache::default(),
            clock,
            limits,
            clock_in_doubt: AtomicBool::new(clock_guard.state(reading) != ClockState::Fine),
            clock_guard: Mutex::new(clock_guard),
            views: RwLock::new(views),
            queued: AtomicUsize::new(0),
            failed: signal::Sender::new(false),
            refusal: Mutex::new(None),
            settings_due: AtomicBool::new(false),
            written: signal::Sender::new(0),
            followed: OnceLock::new(),
            follows_soon: AtomicBool::new(false),
            listeners: Listeners::default(),
            delivery_limits,
            repeats: Mutex::new(Some(to_repeat)),
            repeating: Mutex::default(),
            to_keep: Mutex::new(Some(to_keep)),
        });
        shared.record_settings()?;
        Ok(Self { shared, to_keep: something_to_keep, repeats: asked_again })
    }
}

impl<L: EventLog + 'static> Pools<L> {
    /// Folds all pools from a log beside which no snapshots are kept, and starts the committer.
    ///
    /// # Errors
    ///
    /// Returns a [`ReplayError`] if the log cannot be read or is not a history of pools.
    pub fn open(log: L, clock: Arc<dyn Clock>, limits: Limits) -> Result<Self, ReplayError> {
        let (snapshots, delivery_limits) = (Arc::new(NoSnapshots), DeliveryLimits::STANDARD);
        Self::open_with(log, snapshots, clock, limits, delivery_limits, &Progress::default())
    }

    /// As [`Pools::open`], with a store of snapshots beside the log, with mailboxes of other sizes, and saying
    /// how far it is.
    ///
    /// # Errors
    ///
    /// As [`Pools::open`].
    pub fn open_with(
        log: L,
        snapshots: Arc<dyn SnapshotStore>,
        clock: Arc<dyn Clock>,
        limits: Limits,
        delivery_limits: DeliveryLimits,
        progress: &Progress,
    ) -> Result<Self, ReplayError> {
        let delivery = (delivery_limits, progress);
        let Parts { shared, to_keep, repeats } =
            Parts::of(log, snapshots, clock, limits, delivery)?;
        let keeper = SnapshotWriter::start(Arc::clone(&shared), to_keep)?;
        let repeater = start_repeating(Arc::clone(&shared), repeats)?;
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let committer = Committer::new(Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name("keypool-committer".to_owned())
            .spawn(move || committer.run(&receiver))
            .map_err(ReplayError::Thread)?;
        Ok(Self {
            shared,
            queue: Arc::new(RwLock::new(Some(sender))),
            committer: Mutex::new(Some(thread)),
            keeper: Mutex::new(Some(keeper)),
            repeater: Mutex::new(Some(repeater)),
            reads: DiskReads::start().map_err(ReplayError::Thread)?,
            waiting: None,
        })
    }

    /// Adds the part of the log's index that answers from memory, so that only a question for the disk takes
    /// a thread of its own. The first index counts.
    #[must_use]
    pub fn with_memory_index(self, index: Arc<dyn MemoryIndex>) -> Self {
        self.shared.memory.get_or_init(|| index);
        self
    }

    /// Carries out a command. When it answers, the events are durable.
    ///
    /// Repeating a request gives the answer that the first one got, from the log, and no new event.
    ///
    /// # Errors
    ///
    /// Returns an [`ExecuteError`]. Unless it is [`ExecuteError::LogUnavailable`], nothing has changed
    /// (a lost reservation is recorded as a `Conflict`).
    pub async fn execute(&self, request: Request) -> Result<Reply, ExecuteError> {
        let (request, searched) = self.searched(Box::new(request)).await?;
        let (sender, answer) = oneshot::channel();
        match searched {
            Search::Answered(reply) => return Ok(*reply),
            // A repetition is answered on a thread of its own, so that folding an old history keeps nobody
            // waiting but the caller.
            Search::Repeated(records) => {
                self.shared.repeat(Repeat { request, records, sender });
            }
            Search::New(through) => {
                self.enqueue(Job::new(Work::Command(request, sender), through))?;
            }
        }
        answer.await.unwrap_or(Err(ExecuteError::LogUnavailable))
    }

    /// Carries out a command to the delivery. When it answers, the events are durable.
    ///
    /// Repeating a request gives the answer that the first one got, from the log, and no new event.
    ///
    /// # Errors
    ///
    /// Returns a [`DeliverError`]. Unless it says that the log is unavailable, nothing has changed (a lost
    /// reservation is recorded as a `Conflict`).
    pub async fn deliver(&self, request: DeliveryRequest) -> Result<Delivered, DeliverError> {
        let (through, records) = self.searched_delivery(&request).await?;
        if !records.is_empty() {
            return recall_delivery(&request, &records);
        }
        let (sender, answer) = oneshot::channel();
        self.enqueue(Job::new(Work::Deliver(Box::new(request), sender), through))?;
        answer.await.unwrap_or_else(|_| Err(ExecuteError::LogUnavailable.into()))
    }

    /// Records the effects of time on the pools, at most 1,024 of them, and returns how many it has
    /// changed.
    ///
    /// The rules are right without it: it keeps the history up to date, and accepts the
    /// clock after a leap when devices have agreed with it. So sweep every few seconds.
    ///
    /// # Errors
    ///
    /// Returns an [`ExecuteError`] if the log does not take events, or the clock has leapt.
    pub async fn sweep(&self) -> Result<u64, ExecuteError> {
        self.shared.listeners.sweep();
        let (sender, answer) = oneshot::channel();
        self.enqueue(Job::new(Work::Sweep(sender), 0))?;
        answer.await.unwrap_or(Err(ExecuteError::LogUnavailable))
    }

    fn enqueue(&self, job: Job) -> Result<(), ExecuteError> {
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        let sender = queue.as_ref().ok_or(ExecuteError::LogUnavailable)?;
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        sender.try_send(job).map_err(|err| {
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            match err {
                TrySendError::Full(_) => ExecuteError::Busy,
                TrySendError::Disconnected(_) => ExecuteError::LogUnavailable,
            }
        })
    }

    /// Takes no more commands, carries out those that wait, stores snapshots for the next start, and ends
    /// the threads.
    pub fn close(&self) {
        self.queue.write().unwrap_or_else(PoisonError::into_inner).take();
        self.carry_out_the_rest();
        self.end();
    }

    /// Why the log took no events the last time: for want of space or descriptors. It is tried again with
    /// the next command. `None` if it took them.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.shared.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Becomes true when a write has failed: then nothing more is written, and the process should end,
    /// because a failed fsync must never be tried again.
    #[must_use]
    pub fn failed(&self) -> signal::Receiver<bool> {
        self.shared.failed.subscribe()
    }

    /// How many commands wait for the committer.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.queued.load(Ordering::Relaxed)
    }

    /// The log, for reading.
    #[must_use]
    pub fn log(&self) -> &L {
        &self.shared.log
    }

    /// The limits, as they hold now.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.shared.limits_now()
    }

    /// The time, as far as the clock is trusted.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.clock_guard().read(self.shared.reading())
    }
}

impl<L> Pools<L> {
    fn end(&self) {
        self.queue.write().unwrap_or_else(PoisonError::into_inner).take();
        let committer = self.committer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if committer.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the committer thread panicked");
        }
        self.shared.repeats.lock().unwrap_or_else(PoisonError::into_inner).take();
        let repeater = self.repeater.lock().unwrap_or_else(PoisonError::into_inner).take();
        if repeater.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that answers repeated requests panicked");
        }
        self.shared.to_keep.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.reads.end();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            keeper.end();
        }
    }
}

impl<L> Drop for Pools<L> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<L> std::fmt::Debug for Pools<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pools").finish_non_exhaustive()
    }
}

impl<L> Shared<L> {
    fn views(&self) -> std::sync::RwLockReadGuard<'_, Views> {
        self.views.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn views_mut(&self) -> std::sync::RwLockWriteGuard<'_, Views> {
        self.views.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> &dyn MemoryIndex {
        self.memory.get().map_or(&NoMemoryIndex, |index| &**index)
    }

    fn reading(&self) -> Reading {
        Reading::of(&*self.clock)
    }

    fn clock_guard(&self) -> MutexGuard<'_, ClockGuard> {
        self.clock_guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whether the log takes events, and says so when that has changed.
    fn note_refusal(&self, error: Option<&AppendError>) {
        let why = |error: &AppendError| error.source().unwrap_or(error).to_string();
        let now = error.map(why);
        let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*refusal, &now) {
            (None, Some(cause)) => tracing::error!(cause, "the log takes no events at the moment"),
            (Some(_), None) => tracing::info!("the log takes events again"),
            _ => {}
        }
        *refusal = now;
    }

    fn limits_now(&self) -> Limits {
        Limits { lapse_floor: self.clock_guard().lapse_floor(), ..self.limits }
    }
}
