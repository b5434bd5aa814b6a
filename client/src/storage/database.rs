//! The database beneath a store: any durable map from bytes to bytes.

use std::path::Path;

use crate::{BoxError, StorageError};

/// The name of the folder in a home whose database is in sled.
pub(super) const SLED_FOLDER: &str = "store";
/// The name of the file in a home. Where it is, the home's database is in SQLite.
pub(super) const SQLITE_FILE: &str = "store.sqlite";

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// Changes to be written together, of which no two have the same key: a value to put, or `None` to remove.
pub type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// The database beneath a [`LocalStore`](crate::LocalStore): a durable map from bytes to bytes.
///
/// Keys are at most some hundred bytes, values up to a megabyte; private keys are sealed before they get here. A
/// store is the only one that uses the database, or the part of it that this map is.
pub trait Database: Send + Sync {
    /// The value under a key; `None` if there is none.
    ///
    /// # Errors
    ///
    /// Returns the database's own error.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BoxError>;

    /// The entries whose keys begin with `prefix`, in the order of the bytes of their keys.
    ///
    /// # Errors
    ///
    /// Returns the database's own error.
    fn scan(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, BoxError>;

    /// Writes all changes or none, and returns once they survive a crash of the machine.
    ///
    /// # Errors
    ///
    /// Returns the database's own error. It is unknown then whether they were written; the store takes no more.
    fn write(&self, changes: Changes) -> Result<(), BoxError>;
}

/// Opens the database that a home has, and makes one if there is none: sled, or SQLite where this is built
/// without sled.
pub(super) fn open_own(home: &Path) -> Result<Box<dyn Database>, StorageError> {
    let [is_in_sqlite, is_in_sled] =
        [SQLITE_FILE, SLED_FOLDER].map(|name| home.join(name).exists());
    #[cfg(feature = "sqlite-store")]
    if is_in_sqlite || cfg!(not(feature = "sled-store")) && !is_in_sled {
        return Ok(Box::new(super::sqlite_database::SqliteDatabase::open_in(home)?));
    }
    #[cfg(feature = "sled-store")]
    if !is_in_sqlite {
        return Ok(Box::new(super::sled_database::SledDatabase::open_in(home)?));
    }
    let kind = match (is_in_sqlite, is_in_sled) {
        (true, _) => "SQLite",
        (false, true) => "sled",
        (false, false) => "none",
    };
    Err(StorageError::NoDatabase { home: home.to_path_buf(), kind })
}
