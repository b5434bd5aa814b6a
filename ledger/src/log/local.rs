//! The default log: a journal that makes events durable, and an index in a sled database that finds them.
//!
//! An append goes to the journal, is forced to the disk there, and is noted in the index, of which the
//! newest part is in memory. The database holds the rest of the index, and snapshots; it may at any time
//! be thrown away: what it lacks at the next open is read from the journal. sled 0.34 can lose what it
//! has acknowledged and panics on damaged files, which is why nothing depends on it.

mod core;

mod opening;

mod tending;

mod database;

mod index;

mod journal;

mod packing;

mod directory;

mod disk;

mod health;

mod histories;

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use self::{
    core::Core,
    directory::{LockedDirectory, sync_directory},
    disk::Ballast,
    index::{Fingerprints, Index, IndexSettings, Sought},
    journal::{CommitError, Journal},
    opening::{open_index, own_database},
    tending::{scrub, tend},
};
pub use self::{
    directory::{OpenError, ReadLock},
    disk::DiskSpace,
    health::LogHealth,
    journal::{JournalReader, JournalWriter, JournalWriterOptions, RawRecord, TornTail},
};
use super::{
    AppendError, Appended, Batch, EventLog, LogHead, ReadError, Record, Snapshot, StreamHead,
    staging::Staging,
};
use crate::{CommandId, Event, Hash, KeyPackageRef, PoolId, ReservationId, StreamId};

/// How many bytes an open needs on the disk beside two segments.
const OPEN_BYTES: u64 = 6 << 20;

/// How a [`SledLog`] uses the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SledLogOptions {
    /// The length of a journal's segment, in bytes. The disk space is taken beforehand.
    pub segment_bytes: u64,
    /// The memory that the database may use to keep pages at hand, in bytes.
    pub cache_bytes: u64,
    /// How many bytes of the journal, from its end, are checked when it is opened. What is before them is
    /// checked behind, by a thread that gives way, and the log fails if it is damaged.
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
/// events and must be opened again; what was acknowledged stays readable. While it has no descriptor or no
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
        Self::try_open(dir, options).map_err(|error| disk::told(dir, error))
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

/// Whether a record is the one that brought a package.
fn brings(record: &Record, keypackage_ref: &KeyPackageRef) -> bool {
    match &record.envelope.event {
        Event::Created(facts) | Event::Uploaded(facts) => facts.keypackage_ref == *keypackage_ref,
        _ => false,
    }
}

impl EventLog for SledLog {
    fn append(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        let core = &self.core;
        let mut journal = core.writer();
        let mut staging = Staging::after(journal.last_seq());
        let staged: Vec<_> = batches
            .into_iter()
            .map(|batch| staging.stage(batch, |stream| self.stream_head(stream)))
            .collect();
        let committed = core.commit(&mut journal, &staged);
        drop(journal);
        if let Ok(true) = committed {
            self.wake();
        }
        let answer = |staged: Result<Vec<Record>, AppendError>| match &committed {
            Ok(_) => staged.map(|records| Appended { records }),
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

    fn find(&self, command: CommandId) -> Result<Vec<Record>, ReadError> {
        self.find_after(command, 0)
    }

    fn find_after(&self, command: CommandId, after: u64) -> Result<Vec<Record>, ReadError> {
        self.core.check_certain()?;
        let caused = |record: &Record| record.envelope.command == command;
        self.look(|index| self.core.found(index, Sought::Command(command), after, caused))
    }

    fn find_package(&self, keypackage_ref: &KeyPackageRef) -> Result<Option<Record>, ReadError> {
        self.look(|index| {
            let brings = |record: &Record| brings(record, keypackage_ref);
            self.core.first(index, Sought::Package(keypackage_ref), brings)
        })
    }

    fn read_package(&self, keypackage_ref: &KeyPackageRef) -> Result<Vec<Record>, ReadError> {
        let about =
            |record: &Record| record.envelope.event.keypackage_ref() == Some(keypackage_ref);
        let key = Sought::Package(keypackage_ref);
        let records = self.look(|index| self.core.found(index, key, 0, about))?.into_iter();
        let mut records = records.skip_while(|record| !brings(record, keypackage_ref));
        let Some(first) = records.next() else { return Ok(Vec::new()) };
        let mut found = vec![first];
        for record in records {
            // Nothing keeps other histories from naming it.
            if found.first().is_some_and(|first| first.envelope.stream == record.envelope.stream) {
                found.push(record);
            }
        }
        Ok(found)
    }

    fn knows_init_key(&self, pool: &PoolId, init_key: &Hash) -> Result<bool, ReadError> {
        let has_it = |record: &Record| {
            record.envelope.stream.pool() == Some(pool)
                && matches!(&record.envelope.event, Event::Uploaded(facts) if facts.init_key == *init_key)
        };
        let key = Sought::InitKey(pool, init_key);
        Ok(!self.look(|index| self.core.found(index, key, 0, has_it))?.is_empty())
    }

    fn find_reservation(&self, sought: ReservationId) -> Result<Option<Record>, ReadError> {
        self.find_reservation_after(sought, 0)
    }

    fn find_reservation_after(
        &self,
        sought: ReservationId,
        after: u64,
    ) -> Result<Option<Record>, ReadError> {
        let made = |record: &Record| matches!(&record.envelope.event, Event::Reserved { reservation, .. } if *reservation == sought);
        let key = Sought::Reservation(sought);
        Ok(self.look(|index| self.core.found(index, key, after, made))?.into_iter().next())
    }

    fn health(&self) -> LogHealth {
        self.health()
    }

    fn head(&self) -> Result<LogHead, ReadError> {
        Ok(LogHead { seq: self.core.visible() })
    }

    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
        self.look(|index| index.head(stream, |place| self.core.record_at(index, place)))
    }

    fn payload(&self, seq: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let found = self.read(seq.max(1), 1)?.pop();
        Ok(found.filter(|record| record.seq == seq).map(|record| record.payload))
    }

    fn snapshot(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.look(|index| index.database().snapshot(name))
    }

    fn snapshots(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Snapshot>, ReadError> {
        self.look(|index| index.database().snapshots(prefix, after, limit))
    }

    fn keep_snapshots(&self, snapshots: Vec<Snapshot>) -> Result<(), ReadError> {
        self.look(|index| index.database().keep(snapshots))
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
