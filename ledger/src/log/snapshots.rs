//! The store of snapshots: a cache of folded states, beside the log and apart from it.

use std::sync::Arc;

use super::ReadError;

/// A state that was folded from the events, as bytes under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The name it is kept under, at most 512 bytes.
    pub name: Vec<u8>,
    /// Its bytes; empty to delete the snapshot with this name.
    pub bytes: Vec<u8>,
}

/// A cache of snapshots. It may be lost at any time, whole or back to an older state: then more events are
/// folded again.
pub trait SnapshotStore: Send + Sync {
    /// Reads the snapshot with a name; `None` if it was never kept or has been lost.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the store cannot be read.
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// Lists at most `limit` snapshots whose names begin with `prefix` and come after the name `after`, in
    /// the order of their names.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the store cannot be read.
    fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Snapshot>, ReadError>;

    /// Keeps snapshots in place of those with the same names, all of them or none.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if they cannot be kept. Nothing is lost then but time at the next start.
    fn put(&self, snapshots: Vec<Snapshot>) -> Result<(), ReadError>;
}

/// A [`SnapshotStore`] that keeps nothing: every start folds the whole log.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSnapshots;

impl SnapshotStore for NoSnapshots {
    fn get(&self, _name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(None)
    }

    fn list(
        &self,
        _prefix: &[u8],
        _after: Option<&[u8]>,
        _limit: usize,
    ) -> Result<Vec<Snapshot>, ReadError> {
        Ok(Vec::new())
    }

    fn put(&self, _snapshots: Vec<Snapshot>) -> Result<(), ReadError> {
        Ok(())
    }
}

/// A store that several owners share is the same store.
impl<S: SnapshotStore + ?Sized> SnapshotStore for Arc<S> {
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        (**self).get(name)
    }

    fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Snapshot>, ReadError> {
        (**self).list(prefix, after, limit)
    }

    fn put(&self, snapshots: Vec<Snapshot>) -> Result<(), ReadError> {
        (**self).put(snapshots)
    }
}
