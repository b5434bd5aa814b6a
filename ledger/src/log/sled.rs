//! The default log: a journal that makes events durable, and an index in a sled database that finds them.
//!
//! An append goes to the journal, is forced to the disk there, and is noted in the index, of which the
//! newest part is in memory. The database holds the rest of the index, and snapshots; it may at any time
//! be thrown away: what it lacks at the next open is read from the journal. sled 0.34 can lose what it
//! has acknowledged and panics on damaged files, which is why nothing depends on it.

mod opening;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use self::opening::{open_index, own_database};
use super::{
    AppendError, Appended, Batch, EventLog, LogHead, ReadError, Record, Snapshot, StreamHead,
    database::Note,
    directory::{LockedDirectory, OpenError, sync_directory},
    index::{BLOCK, Fingerprints, Index, Place, Sought},
    journal::{self, CommitError, Journal, Segments},
    staging::Staging,
};
use crate::{CommandId, Event, Hash, KeyPackageRef, PoolId, ReservationId, StreamId};

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
}

impl Default for SledLogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 8 << 20,
            cache_bytes: 32 << 20,
            check_bytes: 128 << 20,
            seal_records: 65_536,
            fingerprint_bits: Fingerprints::BITS,
        }
    }
}

/// An [`EventLog`] in a directory of the local disk.
///
/// One process has the directory open at a time. After an error of the disk it accepts no more
/// events, and must be opened again; what was acknowledged stays readable.
pub struct SledLog {
    core: Arc<Core>,
    /// Told when the index has grown; dropped first, which ends who is told.
    grown: Option<SyncSender<()>>,
    threads: Vec<JoinHandle<()>>,
    /// Given up last.
    _directory: LockedDirectory,
}

struct Core {
    writer: Mutex<Journal>,
    segments: Arc<Segments>,
    index: Index,
    /// Which journal this is.
    journal: Hash,
    /// The last record that readers may see. The index fills up behind it.
    visible: AtomicU64,
    /// Whether the outcome of an append is not known until the log is opened again.
    in_doubt: AtomicBool,
    ending: AtomicBool,
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
        let journal_dir = dir.join("journal");
        let database = own_database(dir, &journal_dir, &options)?;
        let witness = database.as_ref().map_or(0, |(_, note)| note.map_or(0, |note| note.seq));
        let sizes = (options.segment_bytes, options.check_bytes);
        let journal = Journal::open(&journal_dir, sizes, witness)?;
        sync_directory(dir).map_err(OpenError::io(dir))?;
        let index = open_index(dir, database, &journal, &options)?;
        let core = Arc::new(Core {
            segments: journal.segments(),
            journal: journal.id(),
            visible: AtomicU64::new(journal.last_seq()),
            writer: Mutex::new(journal),
            index,
            in_doubt: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        });
        let (grown, growth) = sync_channel(1);
        let mut log = Self {
            core: Arc::clone(&core),
            grown: Some(grown),
            threads: Vec::new(),
            _directory: directory,
        };
        let tending = Arc::clone(&core);
        log.start("keypool-index", dir, move || tend(&tending, &growth))?;
        let checked_from = core.writer().checked_from();
        if 1 < checked_from {
            let scrub = move || scrub(&core, &journal_dir, checked_from);
            log.start("keypool-scrub", dir, scrub)?;
        }
        Ok(log)
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
}

impl Drop for SledLog {
    fn drop(&mut self) {
        self.core.ending.store(true, Ordering::Relaxed);
        self.core.index.end();
        self.grown = None;
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

impl fmt::Debug for SledLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dir = self.core.index.database().dir();
        f.debug_struct("SledLog").field("dir", &dir).finish_non_exhaustive()
    }
}

/// Tends the index whenever it has grown, until the log is closed.
fn tend(core: &Core, growth: &Receiver<()>) {
    let mut failing = false;
    while growth.recv().is_ok() {
        let tended = core.index.tend();
        if let Err(error) = &tended
            && !failing
        {
            let error: &dyn std::error::Error = error;
            tracing::error!(error, "the index stays in memory; the next start makes it anew");
        }
        failing = tended.is_err();
    }
}

/// Checks what of the journal was not checked when it was opened, and lets the log fail where it is
/// damaged. It works a small part of the time, so that who asks is not kept waiting.
fn scrub(core: &Core, journal_dir: &Path, before: u64) {
    let pause = Duration::from_millis(250);
    let checked = journal::scrub(journal_dir, before, &mut || {
        thread::park_timeout(pause);
        !core.ending.load(Ordering::Relaxed)
    });
    match checked {
        Ok(()) => tracing::debug!(before, "the older part of the journal is whole"),
        Err(error) => drop(core.writer().poison(error)),
    }
}

impl Core {
    fn writer(&self) -> MutexGuard<'_, Journal> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was accepted: to the journal, then to the index, then readers may see it. Returns
    /// whether the index has grown.
    fn commit(
        &self,
        journal: &mut Journal,
        staged: &[Result<Vec<Record>, AppendError>],
    ) -> Result<bool, CommitError> {
        let accepted = staged.iter().flatten().filter(|records| !records.is_empty());
        let batches: Vec<&[Record]> = accepted.map(Vec::as_slice).collect();
        let places = journal.append(&batches)?;
        let records: Vec<&Record> = batches.into_iter().flatten().collect();
        let Some(last) = records.last() else { return Ok(false) };
        let grown = self.index.add(&records, &places);
        self.visible.store(journal.last_seq(), Ordering::Release);
        let note = Note { journal: self.journal, seq: last.seq, envelope: last.stream_head().hash };
        if let Err(err) = self.index.database().set_note(&note) {
            // Nobody depends on it: what is acknowledged stands in the journal.
            tracing::warn!(error = &*err as &dyn std::error::Error, "the database does not write");
        }
        Ok(grown)
    }

    fn record_at(&self, place: Place) -> Result<Record, ReadError> {
        self.segments.record_at(place)
    }

    /// The records of a history from a version on to the end of its block, at most `limit`.
    fn block_of(
        &self,
        stream: &StreamId,
        first: u64,
        limit: usize,
        visible: u64,
    ) -> Result<Vec<Record>, ReadError> {
        let mut places = self.index.find_after(Sought::History(stream, first), 0)?;
        places.retain(|place| place.seq <= visible);
        // The place of a version among those of its block, if no other history is found by its key:
        // there is no version 0.
        let usual = usize::try_from(first - (first / BLOCK * BLOCK).max(1)).unwrap_or(usize::MAX);
        let from = places.get(usual..).unwrap_or_default();
        let found = self.successive(from, (stream, first), limit)?;
        if found.is_empty() { self.successive(&places, (stream, first), limit) } else { Ok(found) }
    }

    /// The records at some places that are the versions of a history from one on, at most `limit`.
    fn successive(
        &self,
        places: &[Place],
        (stream, first): (&StreamId, u64),
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let mut records = Vec::new();
        for place in places {
            if limit <= records.len() {
                break;
            }
            let record = self.record_at(*place)?;
            let next = first.saturating_add(records.len() as u64);
            if record.envelope.stream == *stream && record.envelope.version == next {
                records.push(record);
            }
        }
        Ok(records)
    }

    /// The records that are found by a key and are what was sought, in order.
    fn found(
        &self,
        key: Sought<'_>,
        after: u64,
        sought: impl Fn(&Record) -> bool,
    ) -> Result<Vec<Record>, ReadError> {
        let visible = self.visible.load(Ordering::Acquire);
        let places = self.index.find_after(key, after)?;
        let seen = places.into_iter().filter(|place| place.seq <= visible);
        let records = seen.map(|place| self.record_at(place)).collect::<Result<Vec<_>, _>>()?;
        Ok(records.into_iter().filter(sought).collect())
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
        match (&committed, &self.grown) {
            // Who is told already need not be told twice.
            (Ok(true), Some(grown)) => drop(grown.try_send(())),
            (Err(CommitError::Unknown(_)), _) => core.in_doubt.store(true, Ordering::Release),
            _ => {}
        }
        let answer = |staged: Result<Vec<Record>, AppendError>| match &committed {
            Ok(_) => staged.map(|records| Appended { records }),
            Err(err) => Err(staged.err().unwrap_or_else(|| err.into())),
        };
        staged.into_iter().map(answer).collect()
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.core.segments.records(from.max(1), self.core.visible.load(Ordering::Acquire), limit)
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let head = self.stream_head(stream)?.version;
        let mut records = Vec::new();
        let mut next = after.saturating_add(1);
        while next <= head && records.len() < limit {
            let visible = self.core.visible.load(Ordering::Acquire);
            let found = self.core.block_of(stream, next, limit - records.len(), visible)?;
            if found.is_empty() {
                // Another writer's events may not be visible yet; anything else is damage.
                let hidden = visible < self.core.visible.load(Ordering::Acquire);
                return if hidden {
                    Ok(records)
                } else {
                    Err(self.core.index.database().damaged())
                };
            }
            next = next.saturating_add(found.len() as u64);
            records.extend(found);
        }
        Ok(records)
    }

    fn find(&self, command: CommandId) -> Result<Vec<Record>, ReadError> {
        self.find_after(command, 0)
    }

    fn find_after(&self, command: CommandId, after: u64) -> Result<Vec<Record>, ReadError> {
        if self.core.in_doubt.load(Ordering::Acquire) {
            let cause = "the outcome of an append is not known until the log is opened again";
            return Err(ReadError::Unavailable(cause.into()));
        }
        let caused = |record: &Record| record.envelope.command == command;
        self.core.found(Sought::Command(command), after, caused)
    }

    fn find_package(&self, keypackage_ref: &KeyPackageRef) -> Result<Option<Record>, ReadError> {
        let visible = self.core.visible.load(Ordering::Acquire);
        self.core.index.find_first(Sought::Package(keypackage_ref), |place| {
            let record =
                if place.seq <= visible { Some(self.core.record_at(place)?) } else { None };
            Ok(record.filter(|record| brings(record, keypackage_ref)))
        })
    }

    fn read_package(&self, keypackage_ref: &KeyPackageRef) -> Result<Vec<Record>, ReadError> {
        let about =
            |record: &Record| record.envelope.event.keypackage_ref() == Some(keypackage_ref);
        let records = self.core.found(Sought::Package(keypackage_ref), 0, about)?.into_iter();
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
        Ok(!self.core.found(Sought::InitKey(pool, init_key), 0, has_it)?.is_empty())
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
        Ok(self.core.found(Sought::Reservation(sought), after, made)?.into_iter().next())
    }

    fn head(&self) -> Result<LogHead, ReadError> {
        Ok(LogHead { seq: self.core.visible.load(Ordering::Acquire) })
    }

    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
        self.core.index.head(stream, |place| self.core.record_at(place))
    }

    fn payload(&self, seq: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let found = self.read(seq.max(1), 1)?.pop();
        Ok(found.filter(|record| record.seq == seq).map(|record| record.payload))
    }

    fn snapshot(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.core.index.database().snapshot(name)
    }

    fn snapshots(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Snapshot>, ReadError> {
        self.core.index.database().snapshots(prefix, after, limit)
    }

    fn keep_snapshots(&self, snapshots: Vec<Snapshot>) -> Result<(), ReadError> {
        self.core.index.database().keep(snapshots)
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
