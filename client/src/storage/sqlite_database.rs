//! A database in one table of SQLite: in a file of the home, or in the app's own database.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::{
    database::{Changes, Database, KeyValue, SLED_FOLDER, SQLITE_FILE},
    folder,
    probe::{self, WriteStep},
};
use crate::{BoxError, StorageError};

/// How long a write waits for another connection to the same file.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// A [`Database`] in the table `keypool_store` of an SQLite database.
///
/// The table is made where it is missing; no other one is touched. Each write is a transaction of its own, with
/// `synchronous = EXTRA`, which the connection keeps.
#[derive(Debug)]
pub struct SqliteDatabase(Mutex<Connection>);

impl SqliteDatabase {
    /// A database in the app's own one, by a connection that is this one's alone.
    ///
    /// # Errors
    ///
    /// Returns SQLite's error if the table cannot be made or the settings of the connection not be changed.
    pub fn over(connection: Connection) -> Result<Self, rusqlite::Error> {
        connection.busy_timeout(BUSY_WAIT)?;
        connection.pragma_update(None, "synchronous", "EXTRA")?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS keypool_store
             (key BLOB PRIMARY KEY NOT NULL, value BLOB NOT NULL) WITHOUT ROWID",
        )?;
        Ok(Self(Mutex::new(connection)))
    }

    /// The database in a file, which is made if it is not there.
    pub(super) fn open_file(path: &Path) -> Result<Self, StorageError> {
        let open = || {
            let connection = Connection::open(path)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            Self::over(connection)
        };
        open().map_err(|source: rusqlite::Error| StorageError::Damaged {
            path: path.to_path_buf(),
            source: source.into(),
        })
    }

    /// The database in the home's own file, which is made if it is not there. The rest of another
    /// database, which a move has left, is removed.
    pub(super) fn open_in(home: &Path) -> Result<Self, StorageError> {
        let database = Self::open_file(&home.join(SQLITE_FILE))?;
        folder::remove_all(&home.join(SLED_FOLDER))?;
        Ok(database)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Database for SqliteDatabase {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BoxError> {
        let connection = self.lock();
        let mut query =
            connection.prepare_cached("SELECT value FROM keypool_store WHERE key = ?1")?;
        Ok(query.query_row([key], |row| row.get(0)).optional()?)
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, BoxError> {
        let connection = self.lock();
        let mut query = connection
            .prepare_cached("SELECT key, value FROM keypool_store WHERE key >= ?1 ORDER BY key")?;
        let mut rows = query.query([prefix])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let key: Vec<u8> = row.get(0)?;
            if !key.starts_with(prefix) {
                break;
            }
            found.push((key, row.get(1)?));
        }
        Ok(found)
    }

    fn write(&self, changes: Changes) -> Result<(), BoxError> {
        let mut connection = self.lock();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut put = transaction.prepare_cached(
                "INSERT OR REPLACE INTO keypool_store (key, value) VALUES (?1, ?2)",
            )?;
            let mut remove =
                transaction.prepare_cached("DELETE FROM keypool_store WHERE key = ?1")?;
            for (key, value) in changes {
                match value {
                    Some(value) => put.execute(params![key, value])?,
                    None => remove.execute([key])?,
                };
            }
        }
        probe::reach(WriteStep::Applied)?;
        transaction.commit()?;
        probe::reach(WriteStep::Durable)?;
        Ok(())
    }
}
