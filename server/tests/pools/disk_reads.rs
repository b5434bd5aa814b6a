//! Reads of the log: none on the thread of a caller, and none at all where memory answers.

use std::{
    pin::pin,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    thread::{self, ThreadId},
    time::Duration,
};

use keypool_ledger::{
    AppendError, Appended, Batch, CommandId, EventLog, Key, LogHead, ManualClock, MemoryIndex,
    MemoryLog, ReadError, Record, SledLog, SledLogOptions, StreamHead, StreamId,
};
use keypool_projections::{Command, Limits};
use keypool_server::pools::{
    DeliveryCommand, DeliveryRequest, ExecuteError, Pools, Request, Target,
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    history::{START, claim, group, package, pool},
    service::{block_on, register, request, reserve, reserved},
};

/// How long a read is held up at most: only a hang takes so long.
const HELD_MAX: Duration = Duration::from_mins(1);
/// The command whose look-up is held up.
const SLOW: u128 = 7;

/// A log whose reads are counted, fail on one thread, and are held up for one command.
struct WatchedLog<L> {
    log: L,
    /// The thread that must not read, once there is one.
    worker: Mutex<Option<ThreadId>>,
    is_held: Mutex<bool>,
    released: Condvar,
    n_reads: AtomicU64,
}

impl<L> WatchedLog<L> {
    fn new(log: L) -> Arc<Self> {
        let (worker, is_held) = (Mutex::new(None), Mutex::new(true));
        let (released, n_reads) = (Condvar::new(), AtomicU64::new(0));
        Arc::new(Self { log, worker, is_held, released, n_reads })
    }

    /// Lets every read on this thread fail from now on.
    fn forbid_reads_here(&self) {
        *self.worker.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current().id());
    }

    fn release(&self) {
        *self.is_held.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.released.notify_all();
    }

    fn n_reads(&self) -> u64 {
        self.n_reads.load(Ordering::Relaxed)
    }

    fn reading(&self) -> Result<&L, ReadError> {
        self.n_reads.fetch_add(1, Ordering::Relaxed);
        let worker = *self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if worker == Some(thread::current().id()) {
            return Err(ReadError::Unavailable("an async worker reads the log".into()));
        }
        Ok(&self.log)
    }
}

impl<L: EventLog> EventLog for WatchedLog<L> {
    fn append(
        &self,
        decided_at: LogHead,
        batches: Vec<Batch>,
    ) -> Vec<Result<Appended, AppendError>> {
        self.log.append(decided_at, batches)
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.reading()?.read(from, limit)
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        self.reading()?.read_stream(stream, after, limit)
    }

    fn find(&self, key: Key<'_>, after: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        let log = self.reading()?;
        if key == Key::Command(CommandId(Uuid::from_u128(SLOW))) {
            let held = self.is_held.lock().unwrap_or_else(PoisonError::into_inner);
            let wait = self.released.wait_timeout_while(held, HELD_MAX, |is_held| *is_held);
            drop(wait.unwrap_or_else(PoisonError::into_inner));
        }
        log.find(key, after, limit)
    }

    fn head(&self) -> Result<LogHead, ReadError> {
        self.log.head()
    }

    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
        self.reading()?.stream_head(stream)
    }
}

fn to_bob(id: u128, command: Command) -> Request {
    request(id, Target::Pool(pool("bob")), command)
}

/// Bob's pool on a watched log.
fn bobs<L: EventLog + 'static>(log: L, names: &[&str]) -> (Arc<WatchedLog<L>>, BobsPools<L>) {
    let log = WatchedLog::new(log);
    let clock = Arc::new(ManualClock::at(START));
    let pools = Pools::open(Arc::clone(&log), clock, Limits::STANDARD).unwrap();
    block_on(pools.execute(to_bob(1, register(1, "bob")))).unwrap();
    let packages = names.iter().map(|name| package(name)).collect();
    block_on(pools.execute(to_bob(2, Command::Upload(packages)))).unwrap();
    (log, pools)
}

type BobsPools<L> = Pools<Arc<WatchedLog<L>>>;

#[test]
fn a_request_that_waits_for_the_disk_keeps_no_other_request_of_its_worker_waiting() {
    let (log, pools) = bobs(MemoryLog::default(), &["a", "b"]);
    log.forbid_reads_here();
    let mut slow = pin!(pools.execute(to_bob(SLOW, reserve(1, "alice"))));
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(slow.as_mut().poll(&mut context), Poll::Pending));

    let other = block_on(pools.execute(to_bob(8, reserve(2, "carol")))).unwrap();
    let bytes = block_on(pools.load_package_bytes(&reserved(&other))).unwrap();
    assert_eq!(bytes, Some(package("a").bytes));
    assert_eq!(block_on(pools.load_pool(&pool("bob"))).unwrap().head.version, 4);

    log.release();
    assert_eq!(reserved(&block_on(slow).unwrap()), package("b").facts.keypackage_ref);
}

#[test]
fn repeats_evicted_pools_and_deliveries_are_read_on_other_threads_than_the_callers() {
    let log = MemoryLog::default();
    let (log, pools) = bobs(log, &["a"]);
    log.release();
    block_on(pools.execute(to_bob(3, reserve(1, "alice")))).unwrap();
    drop(pools);
    let clock = Arc::new(ManualClock::at(START));
    let pools = Pools::open(Arc::clone(&log), clock, Limits::STANDARD).unwrap();
    pools.pack_all();
    log.forbid_reads_here();

    let again = block_on(pools.execute(to_bob(3, reserve(1, "alice")))).unwrap();
    assert!(again.repeated);
    let spend = Command::Spend { claim: claim("a", 1, "alice"), group: group("g") };
    let target = Target::Package(package("a").facts.keypackage_ref);
    block_on(pools.execute(request(4, target, spend))).unwrap();
    let made = || DeliveryRequest {
        command: DeliveryCommand::Make { group: group("h") },
        caller: pool("bob"),
        id: CommandId(Uuid::from_u128(5)),
        digest: to_bob(5, register(1, "bob")).digest,
    };
    assert!(!block_on(pools.deliver(made())).unwrap().repeated);
    assert!(block_on(pools.deliver(made())).unwrap().repeated);
    let unread = pools.history(&pool("bob"), 0, 9);
    assert!(matches!(unread, Err(ReadError::Unavailable(_))), "this thread must not read");
}

#[test]
fn a_new_reservation_and_its_spend_read_nothing_from_the_log() {
    let dir = TempDir::new().unwrap();
    let log = Arc::new(SledLog::open(dir.path(), SledLogOptions::default()).unwrap());
    let (watched, pools) = bobs(Arc::clone(&log), &["a", "b"]);
    let pools = pools.with_memory_index(log as Arc<dyn MemoryIndex>);
    let before = watched.n_reads();

    let reply = block_on(pools.execute(to_bob(3, reserve(1, "alice")))).unwrap();
    let named = reserved(&reply);
    assert_eq!(block_on(pools.load_package_bytes(&named)).unwrap(), Some(package("a").bytes));
    let spend = Command::Spend { claim: claim("a", 1, "alice"), group: group("g") };
    block_on(pools.execute(request(4, Target::Package(named), spend))).unwrap();

    assert_eq!(watched.n_reads() - before, 0);
    let repeated = block_on(pools.execute(to_bob(3, reserve(1, "alice")))).unwrap();
    assert!(repeated.repeated && before < watched.n_reads(), "a repeat is read");
    let other = block_on(pools.execute(to_bob(5, reserve(1, "carol")))).unwrap_err();
    assert!(matches!(other, ExecuteError::Rejected(_)), "{other:?}");
}
