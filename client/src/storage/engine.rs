//! The database beneath the store: sled, opened guardedly, written durably. Its only home here.
//!
//! The layer over plain sled is needed: its `flush` is no fsync, a page
//! above 128 KiB becomes a file that is never synced, a damaged file makes it panic, and a snapshot
//! left half made by a crash keeps it from opening.

use std::{
    fs::{File, TryLockError},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use super::{
    folder,
    high_water_mark::HighWaterMark,
    probe::{self, WriteStep},
};
use crate::{BoxError, StorageError};

/// The longest stretch of a value that stands under one key, in bytes.
///
/// Up to 20 entries share a page, and a page above 128 KiB would become an unsynced file.
const CHUNK_BYTES_MAX: usize = 4096;
/// The memory that the database may use for its cache, in bytes.
const CACHE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How long to wait for an engine of this process that is still closing.
const CLOSING_WAIT: Duration = Duration::from_millis(50);
/// How often to wait for it: ten seconds in all, since a busy disk has been seen to take more than two.
const CLOSING_WAITS_MAX: u32 = 200;

/// The first byte of an entry whose value follows.
const WHOLE: u8 = 0;
/// The first byte of an entry whose value stands in chunks; their number follows.
const CHUNKED: u8 = 1;
/// The first byte of every chunk's key; no other key begins with it.
const CHUNK_PREFIX: u8 = b'c';
/// The key of the number of the last write.
const COUNT: &[u8] = b"n";

/// A key and its value.
pub(super) type KeyValue = (Vec<u8>, Vec<u8>);

/// Changes to be written together: a value to put, or `None` to remove.
pub(super) type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A durable map from bytes to bytes. Closed before its lock is given up: fields drop in order.
pub(super) struct Engine {
    db: sled::Db,
    data: File,
    /// The number of the last write.
    count: AtomicU64,
    witness: HighWaterMark,
    _lock: HomeLock,
}

/// The lock of a home, held as long as this is there.
struct HomeLock(File);

impl Engine {
    /// Opens the database in `home/store`, and makes it if there is none.
    pub(super) fn open(home: &Path) -> Result<Self, StorageError> {
        folder::create_private(home)?;
        let lock = lock(home)?;
        let path = home.join("store");
        folder::create_private(&path)?;
        remove_half_snapshots(&path)?;
        let db = open_guarded(home, &path)?;
        let data_path = path.join("db");
        let data = File::open(&data_path)
            .and_then(|data| data.sync_all().map(|()| data))
            .map_err(|source| StorageError::Folder { path: data_path, source })?;
        let witness = HighWaterMark::open(home)?;
        folder::sync(&path)?;
        folder::sync(home)?;
        let count = AtomicU64::new(verified_count(&db, &path, &witness)?);
        Ok(Self { db, data, count, witness, _lock: lock })
    }

    /// The value under a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        match self.db.get(key).map_err(unreadable)? {
            Some(entry) => self.assemble(key, &entry).map(Some),
            None => Ok(None),
        }
    }

    /// The entries whose keys begin with `prefix`, in the order of their keys.
    pub(super) fn scan(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, StorageError> {
        let mut found = Vec::new();
        for entry in self.db.scan_prefix(prefix) {
            let (key, value) = entry.map_err(unreadable)?;
            found.push((key.to_vec(), self.assemble(&key, &value)?));
        }
        Ok(found)
    }

    /// The number of the last write.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Writes all changes or none, and returns once they survive a crash of the machine.
    ///
    /// An error leaves it unknown whether they were written.
    pub(super) fn write(&self, changes: Changes) -> Result<(), BoxError> {
        let mut batch = sled::Batch::default();
        let count = self.count().saturating_add(1);
        batch.insert(COUNT, &count.to_be_bytes());
        for (key, value) in changes {
            let chunks_before = match self.db.get(&key)? {
                Some(entry) => chunk_count(&entry),
                None => 0,
            };
            let chunks_now = if let Some(value) = value {
                put(&mut batch, &key, &value)
            } else {
                batch.remove(key.as_slice());
                0
            };
            (chunks_now..chunks_before).for_each(|index| batch.remove(chunk_key(&key, index)));
        }
        self.db.apply_batch(batch)?;
        probe::reach(WriteStep::Applied)?;
        self.db.flush()?;
        // The bytes, and the file's size if it has grown: all that a reader needs of it after a crash.
        self.data.sync_data()?;
        probe::reach(WriteStep::Durable)?;
        self.witness.acknowledge(count)?;
        probe::reach(WriteStep::Acknowledged)?;
        self.count.store(count, Ordering::SeqCst);
        Ok(())
    }

    fn assemble(&self, key: &[u8], entry: &[u8]) -> Result<Vec<u8>, StorageError> {
        match entry.split_first() {
            Some((&WHOLE, value)) => return Ok(value.to_vec()),
            Some((&CHUNKED, _)) => {}
            _ => return Err(unreadable("an entry is neither whole nor chunked")),
        }
        let mut value = Vec::new();
        for index in 0..chunk_count(entry) {
            let chunk = self.db.get(chunk_key(key, index)).map_err(unreadable)?;
            value.extend_from_slice(&chunk.ok_or_else(|| unreadable("a chunk is missing"))?);
        }
        Ok(value)
    }
}

/// The number of the last write that the database holds; an error if more were acknowledged.
fn verified_count(
    db: &sled::Db,
    path: &Path,
    witness: &HighWaterMark,
) -> Result<u64, StorageError> {
    let found = db.get(COUNT).map_err(unreadable)?;
    let found = found.and_then(|bytes| bytes.as_ref().try_into().ok());
    let found = found.map_or(0, u64::from_be_bytes);
    let expected = witness.count()?;
    if found < expected {
        return Err(StorageError::RolledBack { path: path.to_path_buf(), found, expected });
    }
    Ok(found)
}

/// Adds a value to a batch, and tells into how many chunks.
fn put(batch: &mut sled::Batch, key: &[u8], value: &[u8]) -> u32 {
    if value.len() < CHUNK_BYTES_MAX {
        let mut entry = vec![WHOLE];
        entry.extend_from_slice(value);
        batch.insert(key, entry);
        return 0;
    }
    let mut count = 0_u32;
    for chunk in value.chunks(CHUNK_BYTES_MAX) {
        batch.insert(chunk_key(key, count), chunk);
        count = count.saturating_add(1);
    }
    let mut entry = vec![CHUNKED];
    entry.extend_from_slice(&count.to_be_bytes());
    batch.insert(key, entry);
    count
}

fn chunk_count(entry: &[u8]) -> u32 {
    match entry.split_first() {
        Some((&CHUNKED, count)) => count.try_into().map_or(0, u32::from_be_bytes),
        _ => 0,
    }
}

fn chunk_key(key: &[u8], index: u32) -> Vec<u8> {
    let mut chunk_key = vec![CHUNK_PREFIX];
    chunk_key.extend_from_slice(key);
    chunk_key.extend_from_slice(&index.to_be_bytes());
    chunk_key
}

fn unreadable(source: impl Into<BoxError>) -> StorageError {
    StorageError::Unreadable(source.into())
}

/// Takes the home for this process. The lock goes with the file, also when the process is killed.
fn lock(home: &Path) -> Result<HomeLock, StorageError> {
    let path = home.join("lock");
    let unusable = |source| StorageError::Folder { path: path.clone(), source };
    let file = File::options().create(true).append(true).open(&path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(HomeLock(file)),
        Err(TryLockError::WouldBlock) => Err(StorageError::InUse { home: home.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

impl Drop for HomeLock {
    /// Gives up the lock at once, although a program that is just being started may hold a copy of the
    /// open file.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the home could not be unlocked");
        }
    }
}

/// Removes snapshots that a crash left half made: sled would refuse to open.
fn remove_half_snapshots(path: &Path) -> Result<(), StorageError> {
    let unusable = |source| StorageError::Folder { path: path.to_path_buf(), source };
    for entry in std::fs::read_dir(path).map_err(unusable)? {
        let file = entry.map_err(unusable)?.path();
        if file.extension().is_some_and(|extension| extension == "generating") {
            std::fs::remove_file(&file).map_err(unusable)?;
        }
    }
    Ok(())
}

/// Opens sled, waiting for an engine of this process that has not quite closed, and turning its panics
/// into an error.
fn open_guarded(home: &Path, path: &Path) -> Result<sled::Db, StorageError> {
    let config =
        sled::Config::new().path(path).cache_capacity(CACHE_BYTES_MAX).flush_every_ms(None);
    let damaged = |source: BoxError| StorageError::Damaged { path: path.to_path_buf(), source };
    for _ in 0..CLOSING_WAITS_MAX {
        match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => return Ok(db),
            Ok(Err(sled::Error::Io(err))) if err.to_string().contains("acquire lock") => {
                thread::sleep(CLOSING_WAIT);
            }
            Ok(Err(sled::Error::Io(source))) if is_about_access(&source) => {
                return Err(StorageError::Folder { path: PathBuf::from(path), source });
            }
            Ok(Err(err)) => return Err(damaged(err.into())),
            Err(panic) => return Err(damaged(panic_text(panic.as_ref()).into())),
        }
    }
    Err(StorageError::InUse { home: home.to_path_buf() })
}

fn is_about_access(err: &io::Error) -> bool {
    use io::ErrorKind::{
        FileTooLarge, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    matches!(
        err.kind(),
        FileTooLarge
            | NotFound
            | PermissionDenied
            | QuotaExceeded
            | ReadOnlyFilesystem
            | StorageFull
    )
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("the database panicked").to_owned()
}
