//! The sled database beneath a [`SledLog`](super::SledLog): a cache of the journal, which may be lost.
//!
//! ```text
//! c run number → part of a run's entries      f run number → of its fences    b run number → of its filter
//! m run        → extent of the run            n → up to where the log went    l → number of this layout
//! k            → secret of the fingerprints   s name part → a snapshot
//! ```
//!
//! Numbers are big-endian, so that the order of the keys is theirs. A check of key and value stands before
//! each value but the number of the layout. Only this folder names sled. Its panics are caught and are
//! errors like others; after one, or after a value that differs from its check, the database is
//! distrusted: the log builds another from the journal, at once or at the next open.

mod opening;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

pub(in crate::log) use self::opening::{FOLDERS, Unusable, remove_set_aside};
use self::opening::{close, guarded};
use crate::{
    Hash, ReadError,
    codec::DecodeError,
    log::{
        BoxError, Snapshot,
        local::{
            disk,
            entry::Fingerprints,
            packing::{RecordUnpacker, put_u64},
        },
    },
};

/// How many bytes must be free on the disk for anything to be written.
const ROOM_BYTES: u64 = 4 << 20;
/// The presence of this file has the database built anew at the next open.
const DISTRUSTED: &str = "sled.distrusted";
/// The key of up to where the log went.
const NOTE_KEY: [u8; 1] = *b"n";
/// The first byte of the keys of runs.
const RUN: u8 = b'm';
/// The first byte of the keys of snapshots.
const SNAPSHOT: u8 = b's';
/// The bytes of the check before each value.
const CHECK_LEN: usize = 8;
/// The longest value, in bytes: the engine writes a page, which may hold 20, into a file of its own that
/// it never forces to the disk when the page has more than 128 KiB.
const VALUE_BYTES_MAX: usize = 4096;

/// A value whose bytes are as they were written.
#[derive(Clone, Debug)]
pub(in crate::log) struct StoredValue(sled::IVec);

impl StoredValue {
    /// The value, without its check.
    pub(in crate::log) fn bytes(&self) -> &[u8] {
        self.0.get(CHECK_LEN..).unwrap_or_default()
    }
}

/// A piece of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) struct Part {
    /// The kind of piece: [`Part::CHUNK`], [`Part::FENCES`] or [`Part::FILTER`].
    pub(in crate::log) kind: u8,
    /// Which run it is of.
    pub(in crate::log) run: u64,
    /// Which piece it is, from 0.
    pub(in crate::log) number: u32,
}

impl Part {
    /// Entries.
    pub(in crate::log) const CHUNK: u8 = b'c';
    /// The first fingerprints of the chunks.
    pub(in crate::log) const FENCES: u8 = b'f';
    /// The filter.
    pub(in crate::log) const FILTER: u8 = b'b';

    fn key(self) -> Vec<u8> {
        let mut key = run_key(self.kind, self.run);
        key.extend(self.number.to_be_bytes());
        key
    }
}

fn run_key(kind: u8, run: u64) -> Vec<u8> {
    let mut key = vec![kind];
    put_u64(&mut key, run);
    key
}

/// Up to where a log went when the database heard of it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) struct Note {
    /// Which journal: see `Journal::id`.
    pub(in crate::log) journal: Hash,
    /// The last record.
    pub(in crate::log) seq: u64,
    /// The hash of its envelope.
    pub(in crate::log) envelope: Hash,
}

impl Note {
    fn encode(&self) -> Vec<u8> {
        let mut out = self.journal.as_bytes().to_vec();
        put_u64(&mut out, self.seq);
        out.extend(self.envelope.as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = RecordUnpacker(bytes);
        let (journal, seq) = (Hash::from_bytes(rest.array()?), rest.u64()?);
        Some(Self { journal, seq, envelope: Hash::from_bytes(rest.array()?) })
    }
}

/// The database of one log.
pub(in crate::log) struct IndexDatabase {
    /// The directory of the log, in which the database has its own.
    dir: PathBuf,
    /// `None` only while it is dropped.
    db: Option<sled::Db>,
    fingerprints: Fingerprints,
    /// Whether a value was read whose bytes differ from those that were written.
    distrusted: AtomicBool,
}

impl IndexDatabase {
    /// The directory of the log.
    pub(in crate::log) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The secret that makes the fingerprints of the index in this database.
    pub(in crate::log) const fn fingerprints(&self) -> &Fingerprints {
        &self.fingerprints
    }

    /// Whether the database has to be built anew, because something in it differs from the bytes that were
    /// written.
    pub(in crate::log) fn is_distrusted(&self) -> bool {
        self.distrusted.load(Ordering::Relaxed)
    }

    /// Whether the disk has room for sled's writes: an error of the disk would make it useless.
    pub(in crate::log) fn has_room(&self) -> bool {
        disk::space(&self.dir).is_ok_and(|space| ROOM_BYTES <= space.free)
    }

    /// Up to where the log went when this database heard of it last; `None` if it never did.
    pub(in crate::log) fn note(&self) -> Result<Option<Note>, ReadError> {
        let Some(value) = self.get(&NOTE_KEY)? else { return Ok(None) };
        Note::decode(value.bytes()).map(Some).ok_or_else(|| self.damaged())
    }

    /// Notes up to where the log goes.
    pub(in crate::log) fn set_note(&self, note: &Note) -> Result<(), ReadError> {
        if !self.has_room() {
            return Ok(());
        }
        let value = checked(&NOTE_KEY, &note.encode());
        self.trust(self.run(|db| db.insert(NOTE_KEY, value))).map(drop)
    }

    /// Stores pieces of runs.
    pub(in crate::log) fn put_parts(&self, parts: Vec<(Part, Vec<u8>)>) -> Result<(), ReadError> {
        let mut batch = sled::Batch::default();
        for (part, bytes) in parts {
            let key = part.key();
            let value = checked(&key, &bytes);
            batch.insert(key, value);
        }
        self.trust(self.run(|db| db.apply_batch(batch)))
    }

    /// One piece of a run, which must be there.
    pub(in crate::log) fn part(&self, part: Part) -> Result<StoredValue, ReadError> {
        self.get(&part.key())?.ok_or_else(|| self.damaged())
    }

    /// All pieces of one kind of a run, in order.
    pub(in crate::log) fn pieces(&self, kind: u8, run: u64) -> Result<Vec<Vec<u8>>, ReadError> {
        let found = self.scan(&run_key(kind, run))?;
        Ok(found.into_iter().map(|(_, value)| value).collect())
    }

    /// The extents of the runs that are part of the index, in the order of their numbers.
    pub(in crate::log) fn runs(&self) -> Result<Vec<Vec<u8>>, ReadError> {
        Ok(self.scan(&[RUN])?.into_iter().map(|(_, value)| value).collect())
    }

    /// Makes a run part of the index instead of others, whose pieces stay until they are removed.
    pub(in crate::log) fn install(
        &self,
        (run, extent): (u64, &[u8]),
        instead_of: &[u64],
    ) -> Result<(), ReadError> {
        let mut batch = sled::Batch::default();
        let key = run_key(RUN, run);
        batch.insert(key.as_slice(), checked(&key, extent));
        for old in instead_of {
            batch.remove(run_key(RUN, *old));
        }
        self.trust(self.run(|db| db.apply_batch(batch)))
    }

    /// Removes the pieces of all runs but some.
    pub(in crate::log) fn remove_parts_but(&self, known: &BTreeSet<u64>) -> Result<(), ReadError> {
        let mut next = 0;
        loop {
            let range = run_key(Part::CHUNK, next)..run_key(Part::CHUNK + 1, 0);
            let first = |db: &sled::Db| db.range(range).keys().next().transpose();
            let Some(key) = self.trust(self.run(first))? else { return Ok(()) };
            let run = key.get(1..9).and_then(<[u8]>::first_chunk).copied().map(u64::from_be_bytes);
            let run = run.ok_or_else(|| self.damaged())?;
            if !known.contains(&run) {
                self.remove_parts(run)?;
            }
            next = run.saturating_add(1);
        }
    }

    /// Removes all pieces of a run.
    pub(in crate::log) fn remove_parts(&self, run: u64) -> Result<(), ReadError> {
        for kind in [Part::CHUNK, Part::FENCES, Part::FILTER] {
            let prefix = run_key(kind, run);
            let keys =
                |db: &sled::Db| db.scan_prefix(&prefix).keys().collect::<sled::Result<Vec<_>>>();
            for keys in self.trust(self.run(keys))?.chunks(1024) {
                let mut batch = sled::Batch::default();
                for key in keys {
                    batch.remove(key);
                }
                self.trust(self.run(|db| db.apply_batch(batch)))?;
            }
        }
        Ok(())
    }

    /// The snapshot with a name.
    pub(in crate::log) fn snapshot(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let parts = self.scan(&snapshot_key(name))?;
        let parts: Vec<Vec<u8>> = parts.into_iter().map(|(_, value)| value).collect();
        let bytes = parts.concat();
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    /// The snapshots whose names begin with a prefix, after one of them.
    pub(in crate::log) fn snapshots(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Snapshot>, ReadError> {
        let mut start = snapshot_prefix(prefix);
        if let Some(after) = after {
            start = snapshot_key(after);
            // Behind all its parts.
            start.extend([u8::MAX; 3]);
        }
        let mut found: Vec<Snapshot> = Vec::new();
        let mut entries = self.trust(self.run(|db| Ok(db.range(start..))))?;
        while let Some((key, value)) = self.trust(guarded(|| entries.next().transpose()))? {
            let Some(name) = snapshot_name(&key).filter(|name| name.starts_with(prefix)) else {
                break;
            };
            let value = self.check(&key, value)?;
            let n_found = found.len();
            match found.last_mut() {
                Some(last) if last.name == name => last.bytes.extend(value.bytes()),
                _ if limit <= n_found => break,
                _ => found.push(Snapshot { name, bytes: value.bytes().to_vec() }),
            }
        }
        Ok(found)
    }

    /// Keeps snapshots, all of them or none.
    pub(in crate::log) fn keep(&self, snapshots: Vec<Snapshot>) -> Result<(), ReadError> {
        if !self.has_room() {
            return Err(ReadError::Unavailable("the disk is nearly full".into()));
        }
        let mut batch = sled::Batch::default();
        for Snapshot { name, bytes } in snapshots {
            let key = snapshot_key(&name);
            let parts =
                |db: &sled::Db| db.scan_prefix(&key).keys().collect::<sled::Result<Vec<_>>>();
            self.trust(self.run(parts))?.iter().for_each(|old| batch.remove(old));
            for (number, part) in (0_u16..).zip(bytes.chunks(VALUE_BYTES_MAX)) {
                let mut key = key.clone();
                key.extend(number.to_be_bytes());
                let value = checked(&key, part);
                batch.insert(key, value);
            }
        }
        self.trust(self.run(|db| db.apply_batch(batch)))
    }

    fn get(&self, key: &[u8]) -> Result<Option<StoredValue>, ReadError> {
        let value = self.trust(self.run(|db| db.get(key)))?;
        value.map(|value| self.check(key, value)).transpose()
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<(sled::IVec, Vec<u8>)>, ReadError> {
        let found = |db: &sled::Db| db.scan_prefix(prefix).collect::<sled::Result<Vec<_>>>();
        let mut checked = Vec::new();
        for (key, value) in self.trust(self.run(found))? {
            let value = self.check(&key, value)?.bytes().to_vec();
            checked.push((key, value));
        }
        Ok(checked)
    }

    /// Checks a value that was read under a key.
    fn check(&self, key: &[u8], value: sled::IVec) -> Result<StoredValue, ReadError> {
        let intact =
            value.split_first_chunk().is_some_and(|(stored, rest)| *stored == check(key, rest));
        if intact { Ok(StoredValue(value)) } else { Err(self.damaged()) }
    }

    /// Passes on a read value; after a failure the database is built anew at the next open.
    fn trust<T>(&self, read: Result<T, BoxError>) -> Result<T, ReadError> {
        read.map_err(|err| {
            self.distrust();
            ReadError::Unavailable(err)
        })
    }

    /// The error of a value in the database that differs from the bytes that were written.
    pub(in crate::log) fn damaged(&self) -> ReadError {
        self.distrust();
        ReadError::Unavailable(Box::new(DecodeError::Altered))
    }

    fn distrust(&self) {
        if self.distrusted.swap(true, Ordering::Relaxed) {
            return;
        }
        let dir = self.dir.display();
        tracing::error!(%dir, "the database is damaged; it is built anew from the journal");
        if let Err(error) = fs::write(self.dir.join(DISTRUSTED), []) {
            tracing::warn!(%dir, %error, "this could not be noted for the next start");
        }
    }

    /// Runs something in the database, whose panics are errors like others.
    fn run<T>(&self, run: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, BoxError> {
        let Some(db) = &self.db else { return Err("the database is closed".into()) };
        guarded(|| run(db))
    }
}

impl Drop for IndexDatabase {
    /// Hands the database's pages to the disk, which only makes the next open quicker.
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        close(db);
    }
}

/// Computes the check of a value, which no other key gives.
fn check(key: &[u8], bytes: &[u8]) -> [u8; CHECK_LEN] {
    let len = u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes();
    let hash = blake3::Hasher::new().update(&len).update(key).update(bytes).finalize();
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// A value as it is stored: its check, then itself.
fn checked(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    [check(key, bytes).as_slice(), bytes].concat()
}

/// The prefix of the keys of snapshots whose names begin with a prefix. A zero in a name becomes
/// two bytes, so that the end of a name is in none, and the order of the keys is that of the names.
fn snapshot_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut key = vec![SNAPSHOT];
    for byte in prefix {
        key.push(*byte);
        if *byte == 0 {
            key.push(1);
        }
    }
    key
}

/// The prefix of the keys of a snapshot's parts.
fn snapshot_key(name: &[u8]) -> Vec<u8> {
    let mut key = snapshot_prefix(name);
    key.extend([0, 0]);
    key
}

/// The name of the snapshot that a key is of; `None` if it is of none.
fn snapshot_name(key: &[u8]) -> Option<Vec<u8>> {
    let mut rest = key.strip_prefix(&[SNAPSHOT])?;
    let mut name = Vec::new();
    loop {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        if *byte == 0 {
            let (what, behind) = rest.split_first()?;
            rest = behind;
            if *what == 0 {
                return Some(name);
            }
        }
        name.push(*byte);
    }
}
