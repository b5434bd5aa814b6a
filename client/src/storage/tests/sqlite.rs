//! A store in the app's own SQLite database.

use rusqlite::Connection;
use tempfile::TempDir;

use super::{created, owner};
use crate::{DeviceKey, LocalStore, SqliteDatabase, StorageError, fresh_command};

fn open(folder: &TempDir) -> Result<LocalStore, StorageError> {
    let connection = Connection::open(folder.path().join("app.sqlite")).unwrap();
    let database = SqliteDatabase::over(connection).unwrap();
    LocalStore::open_on(
        Box::new(database),
        &folder.path().join("keys"),
        &owner(),
        &DeviceKey::in_file(),
    )
}

#[test]
fn the_apps_own_tables_stay_as_they_are_beside_the_store() {
    let folder = TempDir::new().unwrap();
    let app = Connection::open(folder.path().join("app.sqlite")).unwrap();
    app.execute_batch("CREATE TABLE contacts (name TEXT); INSERT INTO contacts VALUES ('bob')")
        .unwrap();
    for expected in 1..=3 {
        let store = open(&folder).unwrap();
        let staged = store.stage().unwrap();
        let now = keypool_ledger::Timestamp::from_secs(1);
        staged.record(created(expected), now, fresh_command()).unwrap();
        staged.commit().unwrap();
        assert_eq!(store.history().unwrap().len(), usize::from(expected));
    }
    let name: String = app.query_row("SELECT name FROM contacts", [], |row| row.get(0)).unwrap();
    assert_eq!(name, "bob");
}

#[test]
fn a_backup_of_the_app_without_the_keys_that_is_put_back_is_refused() {
    let folder = TempDir::new().unwrap();
    drop(open(&folder).unwrap());
    let file = folder.path().join("app.sqlite");
    let backup = std::fs::read(&file).unwrap();
    let store = open(&folder).unwrap();
    let staged = store.stage().unwrap();
    staged.put_app_record("read", &7_u8).unwrap();
    staged.commit().unwrap();
    drop(store);
    std::fs::write(&file, backup).unwrap();
    let refused = open(&folder).unwrap_err();
    assert!(matches!(refused, StorageError::RolledBack { expected: 2, found: 1, .. }), "{refused}");
}

#[test]
fn a_home_whose_file_is_no_database_is_damaged() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("store.sqlite"), [b'x'; 4096]).unwrap();
    let damaged = LocalStore::open(folder.path(), &owner()).unwrap_err();
    assert!(matches!(damaged, StorageError::Damaged { .. }), "{damaged}");
}
