//! The move of a home from one database to another.
//!
//! Where the file `store.sqlite` is, the home's database is in SQLite, and else in sled. The other one is written
//! whole and compared before that file appears or goes: a crash leaves the home with the one or the other.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    database::{Database, KeyValue, SLED_FOLDER, SQLITE_FILE},
    engine::{lock, verified_count},
    folder,
    high_water_mark::HighWaterMark,
    probe::{self, WriteStep},
    sled_database::SledDatabase,
    sqlite_database::SqliteDatabase,
};
use crate::{BoxError, LocalStore, StorageError};

/// How many entries are written together.
const ENTRIES_MAX: usize = 1000;

/// The databases that a home may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// sled, in the folder `store`.
    Sled,
    /// SQLite, in the file `store.sqlite`.
    Sqlite,
}

impl LocalStore {
    /// Moves a home, which no process has open, to another database. Nothing is lost, also by a crash in between:
    /// say it again then. Returns whether there was something to do.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError::InUse`] if a process has the home open, `RolledBack` if the database has lost writes,
    /// `Unreadable` if it cannot be read or the copy differs from it, and `Folder` if the file system
    /// refuses. The home is as it was then.
    pub fn move_database(home: &Path, to: DatabaseKind) -> Result<bool, StorageError> {
        let _lock = lock(home)?;
        let file = home.join(SQLITE_FILE);
        let is_sqlite = file.exists();
        match to {
            DatabaseKind::Sqlite if is_sqlite => return Ok(false),
            DatabaseKind::Sqlite => {
                let new = file.with_extension("new");
                remove_file(&new)?;
                let from = SledDatabase::open_in(home)?;
                copy(home, &from, &SqliteDatabase::open_file(&new)?)?;
                reach(WriteStep::Copied, &new)?;
                // Closed, it is one file.
                let moved = fs::File::open(&new)
                    .and_then(|written| written.sync_all())
                    .and_then(|()| fs::rename(&new, &file));
                moved.map_err(|source| StorageError::Folder { path: new, source })?;
                folder::sync(home)?;
                reach(WriteStep::Moved, &file)?;
                drop(from);
                folder::remove_all(&home.join(SLED_FOLDER))?;
            }
            DatabaseKind::Sled if !is_sqlite => return Ok(false),
            DatabaseKind::Sled => {
                folder::remove_all(&home.join(SLED_FOLDER))?;
                let from = SqliteDatabase::open_file(&file)?;
                copy(home, &from, &SledDatabase::open_in(home)?)?;
                drop(from);
                reach(WriteStep::Copied, &file)?;
                remove_file(&file)?;
                reach(WriteStep::Moved, &file)?;
            }
        }
        Ok(true)
    }
}

/// Removes a closed database that is in a file, durably: its journals first.
fn remove_file(path: &Path) -> Result<(), StorageError> {
    let journals = ["-wal", "-shm", "-journal"].map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    });
    for path in [path.to_path_buf()].into_iter().chain(journals) {
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(StorageError::Folder { path, source });
            }
            _ => {}
        }
    }
    folder::sync(path.parent().unwrap_or(path))
}

fn reach(step: WriteStep, path: &Path) -> Result<(), StorageError> {
    probe::reach(step).map_err(|source| StorageError::Folder { path: path.to_path_buf(), source })
}

/// Copies all entries into an empty database, and compares both.
fn copy(home: &Path, from: &dyn Database, to: &dyn Database) -> Result<(), StorageError> {
    verified_count(from, home, &HighWaterMark::open(home)?)?;
    let written = || -> Result<bool, BoxError> {
        let entries = from.scan(&[])?;
        for part in entries.chunks(ENTRIES_MAX) {
            let put = |(key, value): &KeyValue| (key.clone(), Some(value.clone()));
            to.write(part.iter().map(put).collect())?;
        }
        Ok(to.scan(&[])? == entries)
    };
    match written() {
        Ok(true) => Ok(()),
        Ok(false) => Err(StorageError::Unreadable("the copy is not what was written".into())),
        Err(error) => Err(StorageError::Unreadable(error)),
    }
}
