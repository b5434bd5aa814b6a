//! A store's reaction to damage beneath it that sled has not noticed.

mod joining;
#[cfg(all(feature = "sled-store", feature = "sqlite-store"))]
mod moving;
#[cfg(feature = "sqlite-store")]
mod sqlite;

use keypool_ledger::{Event, Hash, KeyPackageRef, PackageFacts, PoolId, StreamId, Timestamp};
use tempfile::TempDir;

use super::{DeviceKey, LocalStore, chain, engine::Engine, fresh_command, keys};
use crate::StorageError;

fn owner() -> PoolId {
    PoolId::new("alice", "phone").unwrap()
}

fn created(seed: u8) -> Event {
    Event::Created(PackageFacts {
        keypackage_ref: KeyPackageRef::new(&[seed; 32]).unwrap(),
        not_before: Timestamp::from_secs(0),
        not_after: Timestamp::from_secs(1_000),
        ciphersuite: 1,
        credential: Hash::ZERO,
        init_key: Hash::ZERO,
        last_resort: false,
        capabilities: None,
    })
}

/// A home with three own events, and as many mirrored ones.
fn home() -> TempDir {
    let home = TempDir::new().unwrap();
    let store = LocalStore::open(home.path(), &owner()).unwrap();
    let staged = store.stage().unwrap();
    let mut mirrored = Vec::new();
    let mut head = keypool_ledger::StreamHead::default();
    for seed in 1..=3 {
        let (now, command) = (Timestamp::from_secs(1), fresh_command());
        staged.record(created(seed), now, command).unwrap();
        let stream = StreamId::Pool(owner());
        let (bytes, next) = chain::extend(&head, &stream, created(seed), now, command).unwrap();
        mirrored.push(bytes);
        head = next;
    }
    staged.extend_mirror(&mirrored).unwrap();
    staged.commit().unwrap();
    home
}

/// Changes the entry under a key behind the store's back.
fn damage(home: &TempDir, key: Vec<u8>, value: Option<Vec<u8>>) {
    Engine::open(home.path()).unwrap().write(vec![(key, value)]).unwrap();
}

#[test]
fn a_broken_chain_of_the_own_history_is_named() {
    for (version, value) in [(2, None), (1, Some(b"junk".to_vec())), (3, Some(vec![]))] {
        let home = home();
        damage(&home, keys::event(keys::HISTORY, version), value);
        let broken = LocalStore::open(home.path(), &owner()).unwrap_err();
        let StorageError::HistoryBroken { version: found, .. } = broken else { panic!("{broken}") };
        assert_eq!(found, version);
    }
}

#[test]
fn a_last_event_that_is_lost_or_changed_is_named_unless_no_end_was_kept() {
    let (stream, now) = (StreamId::Pool(owner()), Timestamp::from_secs(1));
    let begin = keypool_ledger::StreamHead::default();
    let (other, _) = chain::extend(&begin, &stream, created(9), now, fresh_command()).unwrap();
    for first in [None, Some(other)] {
        let home = home();
        damage(&home, keys::event(keys::HISTORY, 2), None);
        damage(&home, keys::event(keys::HISTORY, 3), None);
        damage(&home, keys::event(keys::HISTORY, 1), first);
        let broken = LocalStore::open(home.path(), &owner()).unwrap_err();
        assert!(matches!(broken, StorageError::HistoryBroken { .. }), "{broken}");
        damage(&home, keys::HISTORY_END.to_vec(), None);
        LocalStore::open(home.path(), &owner()).unwrap();
    }
}

#[test]
fn a_damaged_mirror_is_forgotten() {
    let home = home();
    damage(&home, keys::event(keys::MIRROR, 2), None);
    let store = LocalStore::open(home.path(), &owner()).unwrap();
    assert_eq!(store.mirror_head().version, 0);
    assert!(store.mirror().unwrap().is_empty());
    assert_eq!(store.history().unwrap().len(), 3);
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let home = home();
    let about = super::About { format: 9, owner: owner(), store: uuid::Uuid::nil() };
    let bytes = super::encoding::encode("store", &about).unwrap();
    damage(&home, keys::ABOUT.to_vec(), Some(bytes.to_vec()));
    let newer = LocalStore::open(home.path(), &owner()).unwrap_err();
    assert!(matches!(newer, StorageError::Newer { found: 9, .. }), "{newer}");
}

#[test]
fn a_store_that_failed_to_write_takes_no_more() {
    let home = home();
    let store = LocalStore::open(home.path(), &owner()).unwrap();
    store.lock().stopped = true;
    assert!(matches!(store.stage(), Err(StorageError::Stopped)));
    let changed = store.change_device_key(&DeviceKey::in_file());
    assert!(matches!(changed, Err(StorageError::Stopped)));
}

#[test]
fn a_crash_before_the_witness_has_written_is_no_loss() {
    let home = home();
    let before = std::fs::read(home.path().join("commits")).unwrap();
    damage(&home, b"x".to_vec(), Some(b"one write more".to_vec()));
    std::fs::write(home.path().join("commits"), before).unwrap();
    let store = LocalStore::open(home.path(), &owner()).unwrap();
    assert_eq!(store.history().unwrap().len(), 3);
}

#[test]
fn a_witness_whose_last_count_was_torn_still_has_the_one_before() {
    let home = home();
    let file = home.path().join("commits");
    let witness = super::high_water_mark::HighWaterMark::open(home.path()).unwrap();
    let count = witness.count().unwrap();
    witness.acknowledge(count + 1).unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[usize::try_from((count + 1) % 2 * 512 + 3).unwrap()] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(
        super::high_water_mark::HighWaterMark::open(home.path()).unwrap().count().unwrap(),
        count
    );
}
