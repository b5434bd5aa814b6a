//! A log that fails where a test has planned it to. For tests, those of other crates included.
//!
//! It stands in the library and not in the tests, so that everything above the log can be shown
//! each thing that a log may do: refuse, lose an answer, or let another writer in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    AppendError, Appended, Batch, EventLog, Key, LogHead, ReadError, Record, Snapshot,
    SnapshotStore, StreamHead,
};
use crate::StreamId;

/// How an append fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The log refuses: nothing is written, and the caller is told so.
    NotWritten,
    /// The log fails: nothing is written, and the caller is told to open it again.
    Failed,
    /// Everything is written, and the caller is not told.
    UnknownApplied,
    /// Nothing is written, and the caller is not told.
    UnknownNotApplied,
    /// Everything is written, the caller is not told, and the log goes on.
    InDoubtApplied,
    /// Nothing is written, the caller is not told, and the log goes on.
    InDoubtNotApplied,
}

impl Fault {
    fn error(self) -> AppendError {
        let cause = "a planned fault".into();
        match self {
            Self::NotWritten => AppendError::NotWritten(cause),
            Self::Failed => AppendError::Failed(cause),
            Self::UnknownApplied | Self::UnknownNotApplied => AppendError::Unknown(cause),
            Self::InDoubtApplied | Self::InDoubtNotApplied => AppendError::InDoubt(cause),
        }
    }
}

/// An [`EventLog`] that behaves like the one inside it but for the planned faults. For tests.
///
/// Appends and reads are counted from 1, each for themselves, since the log was wrapped.
pub struct Faulty<L> {
    log: L,
    plan: Mutex<FaultPlan<L>>,
}

/// Something done to a log before an append.
type Rival<L> = Box<dyn FnOnce(&L) + Send>;

struct FaultPlan<L> {
    n_appends: u64,
    n_reads: u64,
    append_faults: BTreeMap<u64, Fault>,
    rivals: BTreeMap<u64, Rival<L>>,
    read_faults: BTreeSet<u64>,
}

impl<L: EventLog> Faulty<L> {
    /// Wraps a log, without any faults so far.
    #[must_use]
    pub fn new(log: L) -> Self {
        let plan = FaultPlan {
            n_appends: 0,
            n_reads: 0,
            append_faults: BTreeMap::new(),
            rivals: BTreeMap::new(),
            read_faults: BTreeSet::new(),
        };
        Self { log, plan: Mutex::new(plan) }
    }

    /// Lets the append with number `nth` fail, with all its batches.
    pub fn fail_append(&self, nth: u64, fault: Fault) {
        self.plan().append_faults.insert(nth, fault);
    }

    /// Lets the read with number `nth` fail; every method but `append` is a read.
    pub fn fail_read(&self, nth: u64) {
        self.plan().read_faults.insert(nth);
    }

    /// Does something to the log itself just before the append with number `nth`.
    ///
    /// This is how another writer comes between load and append, every time and not by luck.
    pub fn before_append(&self, nth: u64, rival: impl FnOnce(&L) + Send + 'static) {
        self.plan().rivals.insert(nth, Box::new(rival));
    }

    /// How many appends there were, the failed ones included.
    #[must_use]
    pub fn n_appends(&self) -> u64 {
        self.plan().n_appends
    }

    /// How many reads there were, the failed ones included.
    #[must_use]
    pub fn n_reads(&self) -> u64 {
        self.plan().n_reads
    }

    /// The log itself, which has no faults.
    #[must_use]
    pub fn inner(&self) -> &L {
        &self.log
    }

    fn plan(&self) -> MutexGuard<'_, FaultPlan<L>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a read, and fails if it was planned to.
    fn reading(&self) -> Result<&L, ReadError> {
        let mut plan = self.plan();
        plan.n_reads += 1;
        let nth = plan.n_reads;
        if plan.read_faults.remove(&nth) {
            return Err(ReadError::Unavailable("a planned fault".into()));
        }
        Ok(&self.log)
    }
}

impl<L: fmt::Debug> fmt::Debug for Faulty<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("log", &self.log).finish_non_exhaustive()
    }
}

impl<L: EventLog> EventLog for Faulty<L> {
    fn append(
        &self,
        decided_at: LogHead,
        batches: Vec<Batch>,
    ) -> Vec<Result<Appended, AppendError>> {
        let (rival, fault) = {
            let mut plan = self.plan();
            plan.n_appends += 1;
            let nth = plan.n_appends;
            (plan.rivals.remove(&nth), plan.append_faults.remove(&nth))
        };
        if let Some(rival) = rival {
            rival(&self.log);
        }
        let Some(fault) = fault else { return self.log.append(decided_at, batches) };
        let count = batches.len();
        let written = match fault {
            Fault::UnknownApplied | Fault::InDoubtApplied => self.log.append(decided_at, batches),
            _ => Vec::new(),
        };
        let mut refused = written.into_iter().map(Result::err);
        (0..count).map(|_| Err(refused.next().flatten().unwrap_or_else(|| fault.error()))).collect()
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
        self.reading()?.find(key, after, limit)
    }

    fn head(&self) -> Result<LogHead, ReadError> {
        self.reading()?.head()
    }

    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
        self.reading()?.stream_head(stream)
    }
}

impl<L: EventLog + SnapshotStore> SnapshotStore for Faulty<L> {
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.reading()?.get(name)
    }

    fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Snapshot>, ReadError> {
        self.reading()?.list(prefix, after, limit)
    }

    fn put(&self, snapshots: Vec<Snapshot>) -> Result<(), ReadError> {
        self.reading()?.put(snapshots)
    }
}
