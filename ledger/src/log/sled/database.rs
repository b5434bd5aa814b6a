//! The sled database beneath a [`SledLog`](super::SledLog): an index of the journal that can be lost.
//!
//! Only this file names sled. Its panics are caught and are errors like others; after one, or after
//! a value that is not what was written, the next open builds the database anew.

use std::{
    error::Error,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{
    CommandId, ReadError, Record, StreamHead, StreamId,
    codec::{self, DecodeError},
    log::{
        BoxError,
        directory::{OpenError, create_private},
        journal::JournalReader,
        keys::{self, Span},
    },
};

/// The database's folder in the directory of the log.
const FOLDER: &str = "sled";
/// Where a database that is of no use is kept, for whoever wants to know why.
const ASIDE: &str = "sled.damaged";
/// This file says that the database is to be built anew at the next open.
const DISTRUSTED: &str = "sled.distrusted";
/// How many records go to the database at once while it is filled.
const FILL_RECORDS: usize = 1024;
/// How often the database's lock is tried: threads of one closed in this process may still hold it.
const LOCK_TRIES: u32 = 500;
/// The pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The database of one log.
pub(super) struct Database {
    /// The directory of the log, in which the database has its own.
    dir: PathBuf,
    cache_bytes: u64,
    db: sled::Db,
    /// The last record it held when it was opened.
    pub(super) head: u64,
}

/// An error of the database, or its panic.
#[derive(Debug, thiserror::Error)]
#[error("the database failed")]
pub(super) struct DatabaseError(#[source] pub(super) BoxError);

impl Database {
    /// Opens the database, or a new one if it is damaged.
    pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Self, OpenError> {
        let path = dir.join(FOLDER);
        create_private(&path)?;
        remove_unfinished(&path)?;
        if dir.join(DISTRUSTED).exists() {
            return Self::renew(dir, cache_bytes, "a read from it failed");
        }
        let opened = match guarded(|| open_patiently(&path, cache_bytes)) {
            Err(err) if is_of_the_machine(&err) => return Err(OpenError::Engine(err)),
            opened => opened.and_then(|db| Ok((read_head(&db)?, db))),
        };
        match opened {
            Ok((head, db)) => Ok(Self { dir: dir.to_owned(), cache_bytes, db, head }),
            Err(err) => Self::renew(dir, cache_bytes, &err.to_string()),
        }
    }

    /// The directory of the log.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Moves the database aside and makes an empty one.
    fn renew(dir: &Path, cache_bytes: u64, reason: &str) -> Result<Self, OpenError> {
        let (path, aside) = (dir.join(FOLDER), dir.join(ASIDE));
        let moved_to = aside.display();
        tracing::warn!(reason, %moved_to, "the database is built anew from the journal");
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(OpenError::io(&aside))?;
        }
        fs::rename(&path, &aside).map_err(OpenError::io(&path))?;
        create_private(&path)?;
        let db = guarded(|| open_patiently(&path, cache_bytes)).map_err(OpenError::Engine)?;
        let distrusted = dir.join(DISTRUSTED);
        if distrusted.exists() {
            fs::remove_file(&distrusted).map_err(OpenError::io(&distrusted))?;
        }
        Ok(Self { dir: dir.to_owned(), cache_bytes, db, head: 0 })
    }

    /// Fills the database with what it lacks of the journal, or anew if it is of another history.
    pub(super) fn catch_up(self, journal_dir: &Path) -> Result<Self, OpenError> {
        let reason = match self.fill(journal_dir) {
            Ok(()) => return Ok(self),
            Err(FillError::Journal(err)) => return Err(err),
            Err(FillError::Database(err)) => err.to_string(),
        };
        let (dir, cache_bytes) = (self.dir.clone(), self.cache_bytes);
        drop(self);
        let renewed = Self::renew(&dir, cache_bytes, &reason)?;
        match renewed.fill(journal_dir) {
            Ok(()) => Ok(renewed),
            Err(FillError::Journal(err)) => Err(err),
            Err(FillError::Database(err)) => Err(OpenError::Engine(err)),
        }
    }

    fn fill(&self, journal_dir: &Path) -> Result<(), FillError> {
        let mut journal = JournalReader::from(journal_dir, self.head.max(1))?;
        if self.head > 0 {
            let last_common = journal.next().transpose()?;
            if self.records(self.head, self.head).ok() != last_common.map(|record| vec![record]) {
                return Err(FillError::Database(
                    "it holds another history than the journal".into(),
                ));
            }
        }
        let mut filled = 0;
        loop {
            let records = journal.by_ref().take(FILL_RECORDS).collect::<Result<Vec<_>, _>>()?;
            if records.is_empty() {
                break;
            }
            filled += records.len();
            self.store(&records.iter().collect::<Vec<_>>()).map_err(FillError::Database)?;
        }
        if filled > 0 {
            let (dir, from) = (self.dir.display(), self.head);
            tracing::info!(%dir, from, records = filled, "the database was filled from the journal");
            guarded(|| self.db.flush()).map_err(FillError::Database)?;
        }
        Ok(())
    }

    /// Puts records behind those that are there, all at once.
    pub(super) fn store(&self, records: &[&Record]) -> Result<(), BoxError> {
        let mut batch = sled::Batch::default();
        for (key, value) in keys::entries(records) {
            batch.insert(key, value);
        }
        guarded(|| self.db.apply_batch(batch))
    }

    /// The records from `first` to `last`, all of which must be there.
    pub(super) fn records(&self, first: u64, last: u64) -> Result<Vec<Record>, ReadError> {
        if last < first {
            return Ok(Vec::new());
        }
        let before = || self.db.range(keys::runs_up_to(first)).keys().next_back().transpose();
        let begin =
            self.trust(guarded(before))?.and_then(|key| keys::run_of(&key)).unwrap_or(first);
        let parts = self.entries(|| self.db.range(keys::runs_between(begin, last)), usize::MAX)?;
        let mut records = Vec::new();
        let mut next = first;
        for run in parts.chunk_by(|(a, _), (b, _)| keys::run_of(a) == keys::run_of(b)) {
            let bytes: Vec<u8> = run.iter().flat_map(|(_, part)| part.iter().copied()).collect();
            let run_seq = run.first().and_then(|(key, _)| keys::run_of(key)).unwrap_or_default();
            let run = keys::unpack_run(&bytes).ok_or_else(|| self.damaged(next))?;
            for (seq, (envelope_bytes, payload)) in (run_seq..=last).zip(run) {
                if seq == next {
                    records.push(decode(seq, envelope_bytes, payload)?);
                    next = next.saturating_add(1);
                }
            }
        }
        if next <= last { Err(self.damaged(next)) } else { Ok(records) }
    }

    /// The parts of a history that hold its events from a version on: the first versions and where.
    pub(super) fn stream_parts(
        &self,
        stream: &StreamId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Span)>, ReadError> {
        let before = || self.db.range(keys::stream_parts(stream, 0, from)).next_back().transpose();
        let mut parts: Vec<_> = self.trust(guarded(before))?.into_iter().collect();
        let behind = from.saturating_add(1);
        let rest = || self.db.range(keys::stream_parts(stream, behind, u64::MAX));
        parts.extend(self.entries(rest, limit)?);
        let read = |(key, value): (sled::IVec, sled::IVec)| keys::read_stream_part(&key, &value);
        parts.into_iter().map(|part| read(part).ok_or_else(|| self.damaged(0))).collect()
    }

    pub(super) fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
        match self.trust(guarded(|| self.db.get(keys::stream_head_key(stream))))? {
            Some(value) => keys::read_stream_head(&value).ok_or_else(|| self.damaged(0)),
            None => Ok(StreamHead::default()),
        }
    }

    /// Where everything stands that a command caused.
    pub(super) fn spans_of(&self, command: CommandId) -> Result<Vec<Span>, ReadError> {
        let found = self.entries(|| self.db.scan_prefix(keys::command_key(command)), usize::MAX)?;
        let read = |(key, value): (sled::IVec, sled::IVec)| keys::read_command_part(&key, &value);
        found.into_iter().map(|part| read(part).ok_or_else(|| self.damaged(0))).collect()
    }

    /// The sequence number behind a prefix, the smallest if there are several.
    pub(super) fn first_seq_under(&self, prefix: &[u8]) -> Result<Option<u64>, ReadError> {
        let found = self.entries(|| self.db.scan_prefix(prefix), 1)?;
        Ok(found.first().and_then(|(key, _)| keys::read_seq(key)))
    }

    fn entries(
        &self,
        range: impl FnOnce() -> sled::Iter,
        limit: usize,
    ) -> Result<Vec<(sled::IVec, sled::IVec)>, ReadError> {
        self.trust(guarded(|| range().take(limit).collect()))
    }

    /// Passes on what was read; after a failure the database is built anew at the next open.
    fn trust<T>(&self, read: Result<T, BoxError>) -> Result<T, ReadError> {
        read.map_err(|err| {
            self.distrust();
            ReadError::Unavailable(err)
        })
    }

    fn damaged(&self, seq: u64) -> ReadError {
        self.distrust();
        ReadError::Damaged { seq, source: DecodeError::Altered }
    }

    fn distrust(&self) {
        let dir = self.dir.display();
        tracing::error!(%dir, "the database is damaged; restart to build it anew from the journal");
        if let Err(error) = fs::write(self.dir.join(DISTRUSTED), []) {
            tracing::warn!(%dir, %error, "this could not be noted for the next start");
        }
    }
}

impl Drop for Database {
    /// Hands the database's pages to the disk, which only makes the next open quicker.
    fn drop(&mut self) {
        if let Err(err) = guarded(|| self.db.flush()) {
            tracing::warn!(error = &*err as &dyn Error, "the database was not flushed");
        }
    }
}

/// Why the database could not be filled.
enum FillError {
    /// The journal cannot be read; nothing helps but a backup.
    Journal(OpenError),
    /// The database is of no use; a new one may be.
    Database(BoxError),
}

impl From<OpenError> for FillError {
    fn from(err: OpenError) -> Self {
        Self::Journal(err)
    }
}

/// Runs something in the database, whose panics are errors like others.
fn guarded<T>(run: impl FnOnce() -> sled::Result<T>) -> Result<T, BoxError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(BoxError::from),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("sled panicked: {}", said.unwrap_or("without a message")).into())
        }
    }
}

/// A record from its stored bytes.
fn decode(seq: u64, envelope: &[u8], payload: &[u8]) -> Result<Record, ReadError> {
    let (envelope_bytes, payload) = (envelope.to_vec(), payload.to_vec());
    match codec::decode(&envelope_bytes) {
        Ok(envelope) => Ok(Record { seq, envelope, envelope_bytes, payload }),
        Err(source) => Err(ReadError::Damaged { seq, source }),
    }
}

/// Opens a database, waiting for the threads of one that was just closed in this process.
///
/// Nobody else can hold its lock, because the directory's own lock is held.
fn open_patiently(path: &Path, cache_bytes: u64) -> sled::Result<sled::Db> {
    let config = || sled::Config::new().path(path).cache_capacity(cache_bytes);
    for _ in 0..LOCK_TRIES {
        match config().open() {
            Err(sled::Error::Io(err)) if err.to_string().contains("could not acquire lock") => {
                thread::sleep(LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
    config().open()
}

/// Whether an error is of the machine's making, so that a new database would not help.
fn is_of_the_machine(err: &BoxError) -> bool {
    let Some(sled::Error::Io(err)) = err.downcast_ref() else { return false };
    !matches!(
        err.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
    )
}

/// The last record that a database holds, if it is one of ours.
fn read_head(db: &sled::Db) -> Result<u64, BoxError> {
    match guarded(|| db.get(keys::HEAD))? {
        Some(value) => keys::read_head(&value).ok_or_else(|| "it has another layout".into()),
        None if guarded(|| db.iter().next().transpose())?.is_none() => Ok(0),
        None => Err("it does not say where it ends".into()),
    }
}

/// Removes snapshots that were being written when the machine stopped: sled would not open.
fn remove_unfinished(path: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(path).map_err(OpenError::io(path))? {
        let path = entry.map_err(OpenError::io(path))?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(&path).map_err(OpenError::io(&path))?;
        }
    }
    Ok(())
}
