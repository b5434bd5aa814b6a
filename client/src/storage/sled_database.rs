//! A database on sled, opened guardedly, written durably. Its only home here.
//!
//! The layer over plain sled is needed: its `flush` is no fsync, a page
//! above 128 KiB becomes a file that is never synced, a damaged file makes it panic, and a snapshot
//! left half made by a crash keeps it from opening.

use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{
    database::{Changes, Database, KeyValue, SLED_FOLDER},
    folder,
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

/// A database on sled. The sled folder is closed when this is dropped.
pub(super) struct SledDatabase {
    db: sled::Db,
    data: File,
}

impl SledDatabase {
    /// Opens the database in the home's folder, and makes it if there is none.
    pub(super) fn open_in(home: &Path) -> Result<Self, StorageError> {
        let path = home.join(SLED_FOLDER);
        folder::create_private(&path)?;
        remove_half_snapshots(&path)?;
        let db = open_guarded(home, &path)?;
        let data_path = path.join("db");
        let data = File::open(&data_path)
            .and_then(|data| data.sync_all().map(|()| data))
            .map_err(|source| StorageError::Folder { path: data_path, source })?;
        folder::sync(&path)?;
        folder::sync(home)?;
        Ok(Self { db, data })
    }

    fn assemble(&self, key: &[u8], entry: &[u8]) -> Result<Vec<u8>, BoxError> {
        match entry.split_first() {
            Some((&WHOLE, value)) => return Ok(value.to_vec()),
            Some((&CHUNKED, _)) => {}
            _ => return Err("an entry is neither whole nor chunked".into()),
        }
        let mut value = Vec::new();
        for index in 0..chunk_count(entry) {
            let chunk = self.db.get(chunk_key(key, index))?;
            value.extend_from_slice(&chunk.ok_or("a chunk is missing")?);
        }
        Ok(value)
    }
}

impl Database for SledDatabase {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BoxError> {
        let entry = self.db.get(key)?;
        entry.map(|entry| self.assemble(key, &entry)).transpose()
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, BoxError> {
        let mut found = Vec::new();
        for entry in self.db.scan_prefix(prefix) {
            let (key, value) = entry?;
            if key.first() != Some(&CHUNK_PREFIX) {
                found.push((key.to_vec(), self.assemble(&key, &value)?));
            }
        }
        Ok(found)
    }

    fn write(&self, changes: Changes) -> Result<(), BoxError> {
        let mut batch = sled::Batch::default();
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
        Ok(())
    }
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
