//! The database of a home, its lock for one process, and the count of its writes.

use std::{
    fs::{File, TryLockError},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    database::{self, Changes, Database, KeyValue},
    folder,
    high_water_mark::HighWaterMark,
    probe::{self, WriteStep},
};
use crate::{BoxError, StorageError};

/// The key of the number of the last write. Its 7 bytes are, with the first byte that sled's entries have, the 8 bytes
/// that stood there before there were other databases.
const COUNT: &[u8] = b"n";

/// A durable map from bytes to bytes. Closed before its lock is given up: fields drop in order.
pub(super) struct Engine {
    database: Box<dyn Database>,
    /// The number of the last write.
    count: AtomicU64,
    witness: HighWaterMark,
    _lock: HomeLock,
}

/// The lock of a home, held as long as this is there.
pub(super) struct HomeLock(File);

impl Engine {
    /// Opens the database that the home has, and makes it if there is none.
    pub(super) fn open(home: &Path) -> Result<Self, StorageError> {
        let lock = lock(home)?;
        Self::over(database::open_own(home)?, home, lock)
    }

    /// Opens a home whose database is elsewhere.
    pub(super) fn open_on(database: Box<dyn Database>, home: &Path) -> Result<Self, StorageError> {
        let lock = lock(home)?;
        Self::over(database, home, lock)
    }

    fn over(
        database: Box<dyn Database>,
        home: &Path,
        lock: HomeLock,
    ) -> Result<Self, StorageError> {
        let witness = HighWaterMark::open(home)?;
        folder::sync(home)?;
        let count = AtomicU64::new(verified_count(database.as_ref(), home, &witness)?);
        Ok(Self { database, count, witness, _lock: lock })
    }

    /// The value under a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.database.get(key).map_err(StorageError::Unreadable)
    }

    /// The entries whose keys begin with `prefix`, in the order of their keys.
    pub(super) fn scan(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, StorageError> {
        self.database.scan(prefix).map_err(StorageError::Unreadable)
    }

    /// The number of the last write.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Writes all changes or none, and returns once they survive a crash of the machine.
    ///
    /// An error leaves it unknown whether they were written.
    pub(super) fn write(&self, mut changes: Changes) -> Result<(), BoxError> {
        let count = self.count().saturating_add(1);
        let [_, number @ ..] = count.to_be_bytes();
        changes.push((COUNT.to_vec(), Some(number.to_vec())));
        self.database.write(changes)?;
        self.witness.acknowledge(count)?;
        probe::reach(WriteStep::Acknowledged)?;
        self.count.store(count, Ordering::SeqCst);
        Ok(())
    }
}

/// The number of the last write that the database holds; an error if more were acknowledged.
pub(super) fn verified_count(
    database: &dyn Database,
    home: &Path,
    witness: &HighWaterMark,
) -> Result<u64, StorageError> {
    let found = database.get(COUNT).map_err(StorageError::Unreadable)?;
    let found = found.and_then(|number| <[u8; 7]>::try_from(number).ok()).map_or(0, |number| {
        let mut bytes = [0; 8];
        bytes.iter_mut().skip(1).zip(number).for_each(|(byte, part)| *byte = part);
        u64::from_be_bytes(bytes)
    });
    let expected = witness.count()?;
    if found < expected {
        return Err(StorageError::RolledBack { path: home.to_path_buf(), found, expected });
    }
    Ok(found)
}

/// Takes the home for this process, and makes it if it is not there. The lock goes with the file, also when the
/// process is killed.
pub(super) fn lock(home: &Path) -> Result<HomeLock, StorageError> {
    folder::create_private(home)?;
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
