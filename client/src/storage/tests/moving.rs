//! A home that moves from one database to the other, and is killed on its way.

use std::{fs, io, path::Path};

use super::{home, owner};
use crate::{
    DatabaseKind::{self, Sled, Sqlite},
    LocalStore, StorageError,
    storage::{
        probe::{WriteStep, plan},
        sealing::images,
    },
};

/// A sealed value too long for one entry of sled.
const LONG: [u8; 9_000] = [7; 9_000];

fn put_long(home: &Path) {
    let store = LocalStore::open(home, &owner()).unwrap();
    let staged = store.stage().unwrap();
    staged.put_app_record("long", &LONG.as_slice()).unwrap();
    staged.commit().unwrap();
}

/// Three own events, three mirrored ones, and the sealed value.
fn assert_whole(home: &Path) {
    let store = LocalStore::open(home, &owner()).unwrap();
    assert_eq!((store.history().unwrap().len(), store.mirror().unwrap().len()), (3, 3));
    let long: Vec<u8> = store.stage().unwrap().app_record("long").unwrap().unwrap();
    assert_eq!(long, LONG);
}

fn kind_of(home: &Path) -> DatabaseKind {
    if home.join("store.sqlite").exists() { Sqlite } else { Sled }
}

#[test]
fn a_home_moves_there_and_back_and_a_second_time_does_nothing() {
    let home = home();
    put_long(home.path());
    for to in [Sqlite, Sled, Sqlite, Sled] {
        assert!(LocalStore::move_database(home.path(), to).unwrap());
        assert!(!LocalStore::move_database(home.path(), to).unwrap());
        assert_eq!(kind_of(home.path()), to);
        assert_ne!(home.path().join("store").exists(), to == Sqlite, "one database is left");
        put_long(home.path());
        assert_whole(home.path());
    }
}

#[test]
fn a_move_that_is_killed_at_any_step_leaves_the_home_whole() {
    for to in [Sqlite, Sled] {
        let home = home();
        put_long(home.path());
        if to == Sled {
            LocalStore::move_database(home.path(), Sqlite).unwrap();
        }
        let images = images(home.path(), || {
            LocalStore::move_database(home.path(), to).unwrap();
        });
        let steps: Vec<WriteStep> = images.iter().map(|(step, _)| *step).collect();
        assert!(steps.contains(&WriteStep::Copied) && steps.contains(&WriteStep::Moved));
        for (step, image) in images {
            assert_eq!(kind_of(image.path()) == to, step == WriteStep::Moved, "{step:?}");
            assert_whole(image.path());
            LocalStore::move_database(image.path(), to).unwrap();
            assert_eq!(kind_of(image.path()), to);
            assert_whole(image.path());
        }
    }
}

#[test]
fn a_disk_that_is_full_during_a_move_changes_nothing() {
    for step in [WriteStep::Applied, WriteStep::Durable, WriteStep::Copied] {
        let home = home();
        put_long(home.path());
        plan(Some(Box::new(move |reached| {
            if reached == step { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })));
        let refused = LocalStore::move_database(home.path(), Sqlite);
        plan(None);
        assert!(refused.is_err());
        assert_eq!(kind_of(home.path()), Sled);
        assert_whole(home.path());
    }
}

#[test]
fn a_home_in_use_and_one_that_has_lost_writes_are_not_moved() {
    let home = home();
    put_long(home.path());
    let store = LocalStore::open(home.path(), &owner()).unwrap();
    let refused = LocalStore::move_database(home.path(), Sqlite).unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused}");
    drop(store);
    // The witness knows of more writes than the database has.
    let witness = crate::storage::high_water_mark::HighWaterMark::open(home.path()).unwrap();
    witness.acknowledge(witness.count().unwrap() + 2).unwrap();
    let refused = LocalStore::move_database(home.path(), Sqlite).unwrap_err();
    assert!(matches!(refused, StorageError::RolledBack { .. }), "{refused}");
    assert!(!home.path().join("store.sqlite").exists());
    assert!(fs::read_dir(home.path().join("store")).unwrap().next().is_some());
}
