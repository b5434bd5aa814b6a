//! A store in the app's own database: a foreign implementation of the client's `Database`.

use std::sync::Arc;

use keypool_client::{BoxError, Database, DatabaseChanges, DatabaseEntry};

/// The database of the app's that holds a device's store: a durable map from bytes to bytes.
///
/// The functions are called on threads of the library's own, several at once, and may block. Private keys are sealed
/// before they get here. A device is the only one that uses the database, or the part of it that this map is.
#[uniffi::export(foreign)]
pub trait AppDatabase: Send + Sync {
    /// The value under a key; none if there is none.
    ///
    /// # Errors
    ///
    /// Returns the database's own error.
    fn get(&self, key: Vec<u8>) -> Result<Option<Vec<u8>>, AppDatabaseError>;

    /// The entries whose keys begin with `prefix`, in the order of the bytes of their keys.
    ///
    /// # Errors
    ///
    /// Returns the database's own error.
    fn scan(&self, prefix: Vec<u8>) -> Result<Vec<StoredEntry>, AppDatabaseError>;

    /// Writes all changes or none, and returns once they survive a crash of the machine.
    ///
    /// # Errors
    ///
    /// Returns the database's own error. It is unknown then whether they were written; the device takes no more.
    fn write(&self, changes: Vec<StoredChange>) -> Result<(), AppDatabaseError>;
}

/// A key of an [`AppDatabase`] and its value.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct StoredEntry {
    /// The key, some hundred bytes at most.
    pub key: Vec<u8>,
    /// The value, a megabyte at most.
    pub value: Vec<u8>,
}

/// A change of an [`AppDatabase`]. No two changes of a write have the same key.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct StoredChange {
    /// The key.
    pub key: Vec<u8>,
    /// The value to put; none to remove the key.
    pub value: Option<Vec<u8>>,
}

/// Why the app's database failed. An exception of another type becomes one of these.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Error)]
pub enum AppDatabaseError {
    /// The database's own error.
    Failed {
        /// Its text.
        reason: String,
    },
}

impl std::fmt::Display for AppDatabaseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Failed { reason } = self;
        write!(f, "the app's database failed: {reason}")
    }
}

impl std::error::Error for AppDatabaseError {}

impl From<uniffi::UnexpectedUniFFICallbackError> for AppDatabaseError {
    fn from(error: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::Failed { reason: error.reason }
    }
}

/// The app's database as the client library calls it.
pub(crate) struct ForeignDatabase(pub(crate) Arc<dyn AppDatabase>);

impl Database for ForeignDatabase {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(self.0.get(key.to_vec())?)
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<DatabaseEntry>, BoxError> {
        let entries = self.0.scan(prefix.to_vec())?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
    }

    fn write(&self, changes: DatabaseChanges) -> Result<(), BoxError> {
        let changes = changes.into_iter().map(|(key, value)| StoredChange { key, value });
        Ok(self.0.write(changes.collect())?)
    }
}
