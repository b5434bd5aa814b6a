//! The witness: how many writes the database has acknowledged, kept outside of it.
//!
//! One flipped bit makes sled open without the writes that came after it, and say nothing. A device
//! that goes on from there would use message keys twice and hold private keys that it had deleted.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use keypool_ledger::Hash;

use crate::StorageError;

/// The two counts are written in turn, each into a disk sector of its own: one is always whole.
const SECTOR_BYTES: u64 = 512;
/// A count of 8 bytes, and as many of its digest.
const COUNT_BYTES: usize = 16;

/// A file with the number of the last acknowledged write.
pub(super) struct HighWaterMark {
    path: PathBuf,
    file: Mutex<File>,
}

impl HighWaterMark {
    /// Opens the file, and makes it if there is none.
    pub(super) fn open(home: &Path) -> Result<Self, StorageError> {
        let path = home.join("commits");
        let open =
            || File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = open().map_err(|source| StorageError::Folder { path: path.clone(), source })?;
        Ok(Self { path, file: Mutex::new(file) })
    }

    /// The number of the last write that was acknowledged; 0 if none was.
    pub(super) fn count(&self) -> Result<u64, StorageError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_end(&mut bytes))
            .map_err(|source| StorageError::Folder { path: self.path.clone(), source })?;
        let second = usize::try_from(SECTOR_BYTES).ok().and_then(|start| bytes.get(start..));
        let counts = [bytes.as_slice(), second.unwrap_or_default()];
        Ok(counts.into_iter().filter_map(decode).max().unwrap_or_default())
    }

    /// Makes it durable that a write is acknowledged.
    pub(super) fn acknowledge(&self, count: u64) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start((count % 2) * SECTOR_BYTES))?;
        file.write_all(&encode(count))?;
        file.sync_data()
    }
}

fn encode(count: u64) -> Vec<u8> {
    let count = count.to_be_bytes();
    let digest = Hash::of(&count);
    count.iter().chain(digest.as_bytes()).take(COUNT_BYTES).copied().collect()
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let count = u64::from_be_bytes(*bytes.first_chunk()?);
    (bytes.get(..COUNT_BYTES)? == encode(count)).then_some(count)
}
