//! The packages that were uploaded or handed out lately: their pools and their bytes.
//!
//! Neither ever changes, so that nothing here can be stale. A package that was dropped to make room is read from
//! the log.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use keypool_ledger::{
    Event, EventLog, KeyPackageRef, PoolId, ReadError, Record, log::find_package,
};

use super::Shared;

/// How many bytes the cached packages and their entries have at most.
const CACHE_BYTES_MAX: usize = 64 << 20;
/// How many bytes an entry needs beside the bytes of its package.
const ENTRY_BYTES: usize = 256;

/// A package as it was uploaded.
#[derive(Clone, Debug)]
pub(super) struct UploadedPackage {
    /// The pool of the package.
    pub(super) pool: PoolId,
    /// The exact bytes; empty if they were pruned.
    pub(super) bytes: Arc<[u8]>,
}

impl UploadedPackage {
    fn of(record: &Record) -> Option<Self> {
        let pool = record.envelope.stream.pool()?.clone();
        Some(Self { pool, bytes: record.payload.as_slice().into() })
    }
}

/// A bounded cache of packages by reference. The oldest entry makes room.
#[derive(Debug, Default)]
pub(super) struct PackageCache(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    by_ref: HashMap<KeyPackageRef, UploadedPackage>,
    /// The references of all entries, the oldest first.
    order: VecDeque<KeyPackageRef>,
    bytes: usize,
}

impl PackageCache {
    pub(super) fn get(&self, keypackage_ref: &KeyPackageRef) -> Option<UploadedPackage> {
        self.lock().by_ref.get(keypackage_ref).cloned()
    }

    /// Adds the package that a record brought into its pool, if it is such a record.
    pub(super) fn note(&self, record: &Record) {
        let Event::Uploaded(facts) = &record.envelope.event else { return };
        if let Some(package) = UploadedPackage::of(record) {
            self.lock().insert(&facts.keypackage_ref, package);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn insert(&mut self, keypackage_ref: &KeyPackageRef, package: UploadedPackage) {
        self.bytes += package.bytes.len() + ENTRY_BYTES;
        match self.by_ref.insert(keypackage_ref.clone(), package) {
            Some(before) => self.bytes -= before.bytes.len() + ENTRY_BYTES,
            None => self.order.push_back(keypackage_ref.clone()),
        }
        while CACHE_BYTES_MAX < self.bytes {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Some(gone) = self.by_ref.remove(&oldest) {
                self.bytes -= gone.bytes.len() + ENTRY_BYTES;
            }
        }
    }
}

impl<L: EventLog> Shared<L> {
    /// Finds a package in the cache or in the log; `None` if it was never uploaded.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    pub(super) fn uploaded(
        &self,
        keypackage_ref: &KeyPackageRef,
    ) -> Result<Option<UploadedPackage>, ReadError> {
        if let Some(cached) = self.packages.get(keypackage_ref) {
            return Ok(Some(cached));
        }
        let Some(record) = find_package(&self.log, keypackage_ref)? else { return Ok(None) };
        self.packages.note(&record);
        Ok(UploadedPackage::of(&record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(n: usize) -> KeyPackageRef {
        KeyPackageRef::new(&[[7; 24].as_slice(), &n.to_be_bytes()].concat()).unwrap()
    }

    #[test]
    fn the_oldest_packages_make_room_and_an_entry_counts_once() {
        let package = UploadedPackage {
            pool: PoolId::new("bob", "phone").unwrap(),
            bytes: vec![7; 1 << 20].into(),
        };
        let mut entries = Entries::default();
        for n in 0..200 {
            entries.insert(&reference(n), package.clone());
            entries.insert(&reference(n), package.clone());
        }
        let kept = CACHE_BYTES_MAX / ((1 << 20) + ENTRY_BYTES);
        assert_eq!((entries.by_ref.len(), entries.order.len()), (kept, kept));
        assert_eq!(entries.bytes, kept * ((1 << 20) + ENTRY_BYTES));
        assert!((200 - kept..200).all(|n| entries.by_ref.contains_key(&reference(n))));
    }
}
