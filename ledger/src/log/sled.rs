//! The default log: a journal that makes events durable, and a sled database that finds them.
//!
//! An append goes to the journal first and is forced to the disk there. The database is filled
//! after it, serves all reads, and may at any time be thrown away: what it lacks at the next open is
//! read from the journal. sled 0.34 can lose what it has acknowledged and panics on damaged files,
//! which is why nothing depends on it.

mod database;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use self::database::{Database, DatabaseError};
use super::{
    AppendError, Appended, Batch, EventLog, LogHead, ReadError, Record, StreamHead,
    directory::{LockedDirectory, OpenError, sync_directory},
    journal::{CommitError, Journal},
    keys::{self, Span},
    staging::Staging,
};
use crate::{CommandId, KeyPackageRef, ReservationId, StreamId};

/// How a [`SledLog`] uses the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SledLogOptions {
    /// The length of a journal's segment, in bytes. The disk space is taken beforehand.
    pub segment_bytes: u64,
    /// The memory that the database may use to keep pages at hand, in bytes.
    pub cache_bytes: u64,
}

impl Default for SledLogOptions {
    fn default() -> Self {
        Self { segment_bytes: 8 << 20, cache_bytes: 32 << 20 }
    }
}

/// An [`EventLog`] in a directory of the local disk.
///
/// One process has the directory open at a time. After an error of the disk it accepts no more
/// events, and must be opened again; what was acknowledged stays readable.
pub struct SledLog {
    writer: Mutex<Journal>,
    database: Database,
    /// The last record that readers may see. The database fills up key by key behind it.
    visible: AtomicU64,
    /// Whether the outcome of an append is not known until the log is opened again.
    in_doubt: AtomicBool,
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
        let directory = LockedDirectory::open(dir)?;
        let database = Database::open(dir, options.cache_bytes)?;
        let journal_dir = dir.join("journal");
        let journal = Journal::open(&journal_dir, options.segment_bytes, database.head)?;
        sync_directory(dir).map_err(OpenError::io(dir))?;
        let database = database.catch_up(&journal_dir)?;
        Ok(Self {
            visible: AtomicU64::new(journal.last_seq()),
            writer: Mutex::new(journal),
            database,
            in_doubt: AtomicBool::new(false),
            _directory: directory,
        })
    }

    fn writer(&self) -> MutexGuard<'_, Journal> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was accepted: to the journal, then to the database, then readers may see it.
    fn commit(
        &self,
        journal: &mut Journal,
        staged: &[Result<Vec<Record>, AppendError>],
    ) -> Result<(), CommitError> {
        let accepted = staged.iter().flatten().filter(|records| !records.is_empty());
        let batches: Vec<&[Record]> = accepted.map(Vec::as_slice).collect();
        journal.append(&batches)?;
        let records: Vec<&Record> = batches.into_iter().flatten().collect();
        let stored = self.database.store(&records);
        stored.map_err(|err| CommitError::Unknown(journal.poison(DatabaseError(err))))?;
        self.visible.store(journal.last_seq(), Ordering::Release);
        Ok(())
    }

    /// The records of a stretch, as far as the log goes.
    fn records(&self, span: Span) -> Result<Vec<Record>, ReadError> {
        let last = span.first_seq.saturating_add(span.count).saturating_sub(1);
        self.database.records(span.first_seq, last.min(self.visible.load(Ordering::Acquire)))
    }

    /// The first record that is noted under a key, which its sequence number follows there.
    fn first_under(&self, prefix: &[u8]) -> Result<Option<Record>, ReadError> {
        match self.database.first_seq_under(prefix)? {
            Some(first_seq) => Ok(self.records(Span { first_seq, count: 1 })?.pop()),
            None => Ok(None),
        }
    }
}

impl fmt::Debug for SledLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SledLog").field("dir", &self.database.dir()).finish_non_exhaustive()
    }
}

impl EventLog for SledLog {
    fn append(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        let mut journal = self.writer();
        let mut staging = Staging::after(journal.last_seq());
        let staged: Vec<_> = batches
            .into_iter()
            .map(|batch| staging.stage(batch, |stream| self.database.stream_head(stream)))
            .collect();
        let committed = self.commit(&mut journal, &staged);
        if let Err(CommitError::Unknown(_)) = committed {
            self.in_doubt.store(true, Ordering::Release);
        }
        let answer = |staged: Result<Vec<Record>, AppendError>| match &committed {
            Ok(()) => staged.map(|records| Appended { records }),
            Err(err) => Err(staged.err().unwrap_or_else(|| err.into())),
        };
        staged.into_iter().map(answer).collect()
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.records(Span { first_seq: from.max(1), count: limit as u64 })
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let from = after.saturating_add(1);
        let mut records = Vec::new();
        for (first_version, span) in self.database.stream_parts(stream, from, limit)? {
            let n_skipped = from.saturating_sub(first_version);
            let n_wanted = (limit - records.len()) as u64;
            let first_seq = span.first_seq.saturating_add(n_skipped);
            let count = span.count.saturating_sub(n_skipped).min(n_wanted);
            records.extend(self.records(Span { first_seq, count })?);
        }
        Ok(records)
    }

    fn find(&self, command: CommandId) -> Result<Vec<Record>, ReadError> {
        if self.in_doubt.load(Ordering::Acquire) {
            let cause = "the outcome of an append is not known until the log is opened again";
            return Err(ReadError::Unavailable(cause.into()));
        }
        let mut records = Vec::new();
        for span in self.database.spans_of(command)? {
            records.extend(self.records(span)?);
        }
        Ok(records)
    }

    fn find_package(&self, keypackage_ref: &KeyPackageRef) -> Result<Option<Record>, ReadError> {
        self.first_under(&keys::package_key(keypackage_ref))
    }

    fn find_reservation(&self, reservation: ReservationId) -> Result<Option<Record>, ReadError> {
        self.first_under(&keys::reservation_key(reservation))
    }

    fn head(&self) -> Result<LogHead, ReadError> {
        Ok(LogHead { seq: self.visible.load(Ordering::Acquire) })
    }

    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
        self.database.stream_head(stream)
    }

    fn payload(&self, seq: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let found = self.records(Span { first_seq: seq.max(1), count: 1 })?.pop();
        Ok(found.filter(|record| record.seq == seq).map(|record| record.payload))
    }
}

impl From<&CommitError> for AppendError {
    fn from(err: &CommitError) -> Self {
        match err {
            CommitError::NotWritten(cause) => Self::NotWritten(Box::new(Arc::clone(cause))),
            CommitError::Unknown(cause) => Self::Unknown(Box::new(Arc::clone(cause))),
        }
    }
}
