//! A device that is killed at every step between receiving a Welcome and having joined.

use std::{fs, path::Path, sync::Arc};

use keypool_ledger::{Clock, GroupId, PoolId, SystemClock, Timestamp};
use tempfile::TempDir;

use crate::{
    DeviceIdentity, JoinError, KeyFate, KeyPackagePool, LocalStore, MlsMembership, OfferedPackage,
    OwnStage, PendingAdd, PoolConfig, StorageError,
    storage::{
        keys,
        probe::{WriteStep, plan},
        sealing::{copy, homes, images},
    },
};

/// A device on its home.
struct Device {
    store: Arc<LocalStore>,
    pool: KeyPackagePool,
    groups: MlsMembership,
}

fn device(home: &Path, name: &str) -> Device {
    let owner: PoolId = name.parse().unwrap();
    let store = Arc::new(LocalStore::open(home, &owner).unwrap());
    let identity = DeviceIdentity::load_or_create(&store).unwrap();
    let config = PoolConfig::default();
    let pool = KeyPackagePool::new(Arc::clone(&store), identity.clone(), config).unwrap();
    let groups = MlsMembership::new(Arc::clone(&store), identity);
    Device { store, pool, groups }
}

fn now() -> Timestamp {
    SystemClock.now()
}

fn group() -> GroupId {
    GroupId::new(b"g").unwrap()
}

/// Alice in a group to which she has added Bob, who has not joined.
fn invited(homes: &[TempDir; 2]) -> (Device, Device, PendingAdd) {
    let alice = device(homes[0].path(), "alice/phone");
    let bob = device(homes[1].path(), "bob/phone");
    alice.groups.create_group(&group(), 1, now()).unwrap();
    let made = bob.pool.generate_and_store(2, now()).unwrap().remove(0);
    let keypackage_ref = made.keypackage_ref().clone();
    let owner = bob.store.owner().clone();
    let offer = OfferedPackage { keypackage_ref, owner, bytes: made.bytes };
    let added = alice.groups.stage_add(&group(), &[offer], now()).unwrap();
    alice.groups.merge_pending_commit(&group()).unwrap();
    (alice, bob, added)
}

/// Bob is as he was before the Welcome, or he has joined and the keys are gone: nothing between.
fn assert_before_or_after(home: &Path, alice: &Device, added: &PendingAdd, at: &str) -> bool {
    let bob = device(home, "bob/phone");
    let used = &added.keypackage_refs[0];
    let stage = bob.store.package(used).unwrap().stage;
    let joined = bob.groups.groups().unwrap() == [group()];
    assert_eq!(stage == OwnStage::Spent { group: group() }, joined, "{at}");
    assert_eq!(bob.pool.has_private_keys(used).unwrap(), !joined, "{at}");
    assert!(bob.pool.check_up(now()).unwrap().is_sound(), "{at}");
    match bob.groups.join_from_welcome(&added.welcome, now()) {
        Ok(_) => assert!(!joined, "{at}"),
        Err(JoinError::MissingPrivateKey { fate: KeyFate::SpentBefore { .. }, .. }) => {
            assert!(joined, "{at}");
        }
        Err(error) => panic!("{at}: {error}"),
    }
    let sealed = alice.groups.encrypt(&group(), b"hello").unwrap();
    bob.groups.decrypt(&sealed).unwrap();
    joined
}

/// The slot of the used package's private keys.
fn slot_of_keys(bob: &Device, home: &Path) -> Vec<u8> {
    let staged = bob.store.stage().unwrap();
    let names = staged.names(&keys::mls_label("kp"));
    drop(staged);
    assert_eq!(names.len(), 2);
    let slots = bob.store.vault.slots_of(&names);
    let bytes = fs::read(home.join("keys")).unwrap();
    slots.into_iter().flat_map(|slot| bytes[4096 + 64 * slot..][..64].to_vec()).collect()
}

#[test]
fn a_device_killed_at_any_step_of_a_join_has_joined_or_has_not() {
    homes().into_iter().for_each(kill_at_any_step);
}

fn kill_at_any_step(home: TempDir) {
    let homes = [TempDir::new().unwrap(), home];
    let (alice, bob, added) = invited(&homes);
    let wrapped = slot_of_keys(&bob, homes[1].path());
    let images = images(homes[1].path(), || {
        bob.groups.join_from_welcome(&added.welcome, now()).unwrap();
    });
    let mut outcomes = Vec::new();
    for (step, image) in images {
        let at = format!("{step:?}");
        let joined = assert_before_or_after(image.path(), &alice, &added, &at);
        let left = fs::read(image.path().join("keys")).unwrap();
        let remains = |slot: &[u8]| left.windows(8).any(|found| slot[16..24] == *found);
        let remaining = wrapped.chunks(64).filter(|slot| remains(slot)).count();
        assert_eq!(remaining, 1, "{at}: the other package's keys alone are left in the end");
        outcomes.push((step, joined));
    }
    assert!(outcomes.contains(&(WriteStep::SlotsDurable, false)), "{outcomes:?}");
    assert!(outcomes.contains(&(WriteStep::Durable, true)), "{outcomes:?}");
}

#[test]
fn a_join_whose_write_fails_at_any_step_has_happened_or_has_not() {
    homes().into_iter().for_each(fail_at_any_step);
}

fn fail_at_any_step(home: TempDir) {
    let homes = [TempDir::new().unwrap(), home];
    let (alice, bob, added) = invited(&homes);
    drop(bob);
    for failing in 0.. {
        let image = TempDir::new().unwrap();
        copy(homes[1].path(), image.path());
        let bob = device(image.path(), "bob/phone");
        let mut reached = 0;
        plan(Some(Box::new(move |_| {
            reached += 1;
            if reached == failing + 1 { Err(std::io::Error::other("planned")) } else { Ok(()) }
        })));
        let joined = bob.groups.join_from_welcome(&added.welcome, now());
        plan(None);
        let at = format!("failed at step {failing}");
        match joined {
            Ok(_) => {
                assert!(failing >= 7, "there are at least seven steps");
                return;
            }
            Err(JoinError::Storage(StorageError::Unknown(_))) => {}
            Err(error) => panic!("{at}: {error}"),
        }
        let again = bob.groups.join_from_welcome(&added.welcome, now()).unwrap_err();
        assert!(matches!(again, JoinError::Storage(StorageError::Stopped)), "{at}: {again}");
        drop(bob);
        assert_before_or_after(image.path(), &alice, &added, &at);
    }
}
