//! The default log: a journal that makes events durable, and an index in a sled database that finds them.
//!
//! An append goes to the journal, is forced to the disk there, and is noted in the index, of which the
//! newest part is in memory. The database holds the rest of the index, and snapshots; it may at any time
//! be thrown away: the part that it lacks at the next open is read from the journal. sled 0.34 can lose
//! acknowledged writes and panics on damaged files, so nothing depends on it.

mod core;

mod backup;

mod erase;

mod opening;

mod repair;

mod tending;

mod database;

mod entry;

mod index;

mod journal;

mod packing;

mod directory;

mod disk;

mod open_error;

mod health;

mod histories;

use std::{
    collections::BTreeSet,
    fmt, io,
    path::Path,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

pub use self::{
    backup::{BackupError, BackupReport, CopiedFile, restore_backup},
    directory::{OpenError, ReadLock},
    disk::DiskSpace,
    erase::erase_payloads,
    health::LogHealth,
    journal::{
        JournalReader, JournalWriter, JournalWriterOptions, PruneReport, RawRecord, TornTail,
    },
    repair::{RepairError, RepairReport, RepairedSegment, repair_journal},
};
use self::{
    core::Core,
    directory::{LockedDirectory, sync_directory},
    disk::Ballast,
    entry::Fingerprints,
    index::{Index, IndexSettings},
    journal::{CommitError, Journal},
    opening::{open_index, own_database},
    tending::{scrub, tend},
};
pub(super) use self::{health::error_chain, journal::Cause};
use super::{
    AppendError, Appended, Batch, EventLog, Key, LogHead, MemoryIndex, ReadError, Record, Snapshot,
    SnapshotStore, StreamHead, staging::Staging,
};
use crate::StreamId;

/// How many bytes an open needs on the disk beside two segments.
const OPEN_BYTES: u64 = 6 << 20;

/// How a [`SledLog`] uses the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SledLogOptions {
    /// The length of a journal's segment, in bytes. The disk space is taken beforehand.
    pub segment_bytes: u64,
    /// The memory that the database may use to keep pages at hand, in bytes.
    pub cache_bytes: u64,
    /// How many bytes of the journal, from its end, are checked when it is opened. The older part is
    /// checked in the background, by a thread that gives way, and the log fails if it is damaged.
    pub check_bytes: u64,
    /// After how many records the newest part of the index goes from memory to the database.
    pub seal_records: u64,
    /// How many bits of a name's hash the index keeps: 128. Fewer force names to collide, for tests;
    /// a log with another number builds its index anew.
    pub fingerprint_bits: u32,
    /// The length of a file that only takes room, in bytes; 0 for none. When the disk is full at an open it
    /// is given up, so that the log opens, and it is made again when there is room.
    pub ballast_bytes: u64,
}

impl Default for SledLogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 8 << 20,
            cache_bytes: 32 << 20,
            check_bytes: 128 << 20,
            seal_records: 65_536,
            fingerprint_bits: Fingerprints::BITS,
            ballast_bytes: 0,
        }
    }
}

impl SledLogOptions {
    fn of_the_index(&self) -> IndexSettings {
        IndexSettings {
            cache_bytes: self.cache_bytes,
            seal_records: self.seal_records.max(1),
            fingerprint_bits: self.fingerprint_bits,
            ending: Arc::default(),
        }
    }
}

/// An [`EventLog`] in a directory of the local disk.
///
/// One process has the directory open at a time. After a write or an fsync that failed it takes no more
/// events and must be opened again; acknowledged events stay readable. While it has no descriptor or no
/// room for another segment it refuses events, and goes on by itself when there is one.
pub struct SledLog {
    core: Arc<Core>,
    /// Wakes the thread that keeps the index; dropped first, which ends it.
    wake: Option<SyncSender<()>>,
    threads: Vec<JoinHandle<()>>,
    /// Given up last.
    _directory: LockedDirectory,
}

impl SledLog {
    /// Opens the log in a directory, which is made if it is not there.
    ///
    /// A frame that was being written when the machine stopped is cut off, and a database that is
    /// behind, missing or damaged is filled from the journal; each with a line in the trace.
    ///
    /// # Errors
    ///
    /// Returns an [`OpenError`]. Nothing that was acknowledged has been changed then.
    pub fn open(dir: &Path, options: SledLogOptions) -> Result<Self, OpenError> {
        Self::try_open(dir, options).map_err(|error| disk::name_full_disk(dir, error))
    }

    fn try_open(dir: &Path, options: SledLogOptions) -> Result<Self, OpenError> {
        let directory = LockedDirectory::open(dir)?;
        let ballast = Ballast::of(dir, options.ballast_bytes);
        ballast.give_up_below(options.segment_bytes.saturating_mul(2).saturating_add(OPEN_BYTES));
        let journal_dir = dir.join("journal");
        let database = own_database(dir, &journal_dir, &options)?;
        let witness = database.as_ref().map_or(0, |(_, note)| note.map_or(0, |note| note.seq));
        let sizes = (options.segment_bytes, options.check_bytes);
        let journal = Journal::open(&journal_dir, sizes, witness)?;
        sync_directory(dir).map_err(OpenError::io(dir))?;
        let settings = options.of_the_index();
        let index = open_index(dir, database, &journal, &settings)?;
        let core = Arc::new(Core::new(dir, journal, index, settings));
        if let Err(error) = ballast.keep() {
            tracing::warn!(dir = %dir.display(), %error, "the ballast was not made");
        }
        let (wake, woken) = sync_channel(1);
        let mut log = Self {
            core: Arc::clone(&core),
            wake: Some(wake),
            threads: Vec::new(),
            _directory: directory,
        };
        let tending = Arc::clone(&core);
        log.start("keypool-index", dir, move || tend(&tending, &ballast, &woken))?;
        let checked_from = core.writer().checked_from();
        if 1 < checked_from {
            let scrub = move || scrub(&core, &journal_dir, checked_from);
            log.start("keypool-scrub", dir, scrub)?;
        }
        Ok(log)
    }

    /// Whether the log takes events, and the reason if it does not. It never waits for the disk.
    #[must_use]
    pub fn health(&self) -> LogHealth {
        self.core.health()
    }

    /// Appends records that another log has sealed, all of them or none: a copy of its log grows so.
    ///
    /// # Errors
    ///
    /// Returns an [`AppendError`]. It is a [`Conflict`](super::Conflict) if a record does not follow the
    /// last one by its position, its version and its chain, and `NotWritten` if a record and its bytes
    /// disagree.
    pub fn append_sealed(&self, records: Vec<Record>) -> Result<(), AppendError> {
        let mut journal = self.core.writer();
        if let Some(failure) = journal.failure() {
            return Err((&failure).into());
        }
        let mut staging = Staging::after(journal.last_seq());
        staging.check_sealed(&records, |stream| self.stream_head(stream))?;
        self.commit(&mut journal, &[Ok(records)]).map_err(|error| (&error).into())
    }

    /// Writes staged batches, and wakes the thread that keeps the index if that has grown.
    fn commit(
        &self,
        journal: &mut Journal,
        staged: &[Result<Vec<Record>, AppendError>],
    ) -> Result<(), CommitError> {
        let grown = self.core.commit(journal, staged)?;
        if grown {
            self.wake();
        }
        Ok(())
    }

    /// Removes the payloads of records from the journal while events are appended.
    ///
    /// `due` are the positions of the records. Closed segments are written again without these payloads, and
    /// the segment that is being written is closed first if it has any; it is written again by a later call,
    /// once there are records behind it. Envelopes, chains, tree hashes and positions stay, and a pruned
    /// payload is read as empty. `goes_on` is asked before each segment: it may wait, or end the work.
    ///
    /// # Errors
    ///
    /// Returns an [`OpenError`] if a segment is damaged or the disk refuses. Nothing is lost then, and the
    /// segments before that one are pruned.
    pub fn prune(
        &self,
        due: &BTreeSet<u64>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<PruneReport, OpenError> {
        let pruned = self.core.prune(due, goes_on);
        pruned.map_err(|error| disk::name_full_disk(self.core.dir(), error))
    }

    /// Asks how much room the disk of the log has.
    ///
    /// # Errors
    ///
    /// Returns the error of the operating system.
    pub fn free_space(&self) -> io::Result<DiskSpace> {
        disk::space(self.core.dir())
    }

    fn start(
        &mut self,
        name: &str,
        dir: &Path,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), OpenError> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
        self.threads.push(thread.map_err(OpenError::io(dir))?);
        Ok(())
    }

    /// Wakes the thread that keeps the index. One that is awake need not be told twice.
    fn wake(&self) {
        let told = self.wake.as_ref().is_some_and(|wake| wake.try_send(()).is_ok());
        tracing::trace!(told, "there is something to do for the index");
    }

    /// Looks something up in the index. One that turns out damaged is built anew at once.
    fn look<T>(&self, up: impl FnOnce(&Index) -> Result<T, ReadError>) -> Result<T, ReadError> {
        let index = self.core.index()?;
        let found = up(&index);
        if index.database().is_distrusted() {
            self.wake();
        }
        found
    }
}

impl Drop for SledLog {
    fn drop(&mut self) {
        self.core.end();
        self.wake = None;
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

impl fmt::Debug for SledLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledLog").field("dir", &self.core.dir()).finish_non_exhaustive()
    }
}

impl EventLog for SledLog {
    fn append(
        &self,
        decided_at: LogHead,
        batches: Vec<Batch>,
    ) -> Vec<Result<Appended, AppendError>> {
        let mut journal = self.core.writer();
        let refuse = |_: &Batch| refusal(&journal, decided_at).map(Err);
        let refused: Vec<_> = batches.iter().filter_map(refuse).collect();
        if !refused.is_empty() {
            return refused;
        }
        let mut staging = Staging::after(journal.last_seq());
        let stage = |batch| staging.stage(batch, |stream| self.stream_head(stream));
        let staged: Vec<_> = batches.into_iter().map(stage).collect();
        let committed = self.commit(&mut journal, &staged);
        drop(journal);
        let answer = |staged: Result<Vec<Record>, AppendError>| match &committed {
            Ok(()) => staged.map(|records| Appended { records }),
            Err(err) => Err(staged.err().unwrap_or_else(|| err.into())),
        };
        staged.into_iter().map(answer).collect()
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.core.read(from, limit)
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let head = self.stream_head(stream)?.version;
        self.look(|index| self.core.read_stream(index, (stream, head), after, limit))
    }

    fn find(&self, key: Key<'_>, after: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        if let Key::Command(_) = key {
            self.core.check_certain()?;
        }
        self.look(|index| self.core.find(index, key, after, limit))
    }

    fn head(&self) -> Result<LogHead, ReadError> {
        Ok(LogHead { seq: self.core.visible() })
    }

    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
        self.look(|index| index.head(stream, |place| self.core.record_at(index, place)))
    }
}

/// The reason why a journal takes no append that was decided at a head.
fn refusal(journal: &Journal, decided_at: LogHead) -> Option<AppendError> {
    if let Some(failure) = journal.failure() {
        return Some((&failure).into());
    }
    let head = LogHead { seq: journal.last_seq() };
    head.check(decided_at).err().map(Into::into)
}

impl MemoryIndex for SledLog {
    fn may_have(&self, key: Key<'_>, after: u64) -> bool {
        let Ok(index) = self.core.index() else { return true };
        self.core.check_certain().is_err() || index.may_have(key, after)
    }

    fn has_head(&self, stream: &StreamId) -> bool {
        self.core.index().is_ok_and(|index| index.has_head(stream))
    }
}

impl SnapshotStore for SledLog {
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.look(|index| index.database().snapshot(name))
    }

    fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Snapshot>, ReadError> {
        self.look(|index| index.database().snapshots(prefix, after, limit))
    }

    fn put(&self, snapshots: Vec<Snapshot>) -> Result<(), ReadError> {
        self.look(|index| index.database().keep(snapshots))
    }
}

impl From<&CommitError> for AppendError {
    fn from(err: &CommitError) -> Self {
        match err {
            CommitError::NotWritten(cause) => Self::NotWritten(Box::new(Arc::clone(cause))),
            CommitError::Failed(cause) => Self::Failed(Box::new(Arc::clone(cause))),
            CommitError::Unknown(cause) => Self::Unknown(Box::new(Arc::clone(cause))),
        }
    }
}
