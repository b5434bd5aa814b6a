//! Another device key: the one before opens nothing any more.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::{STORE, assert_gone, before_the_write, contents, draft, images, key, slots_of};
use crate::{
    DeviceKey, StorageError,
    storage::{engine::Engine, probe::WriteStep, sealing::Vault},
};

fn open_with(home: &Path, key: &DeviceKey) -> Result<Vault, StorageError> {
    Vault::open(Engine::open(home).unwrap(), home, key, STORE)
}

fn passphrase(text: &str) -> DeviceKey {
    DeviceKey::from_passphrase(text.to_owned())
}

/// The files of a home that have to do with keys.
fn key_files(home: &Path) -> Vec<String> {
    let names = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.contains("key"));
    names.sort();
    names
}

#[test]
fn a_store_changes_from_each_kind_of_key_to_each() {
    let home = TempDir::new().unwrap();
    let (vault, before) = before_the_write(home.path());
    drop(vault);
    let changes: [(DeviceKey, &[&str]); 5] = [
        (DeviceKey::in_file(), &["device-key", "keys"]),
        (DeviceKey::in_file(), &["device-key", "keys"]),
        (passphrase("one"), &["keys"]),
        (passphrase("two"), &["keys"]),
        (DeviceKey::from_bytes([9; 32]), &["keys"]),
    ];
    let mut present = key();
    for (next, left) in changes {
        let vault = open_with(home.path(), &present).unwrap();
        let old_slots = slots_of(&vault, home.path(), &[0, 1, 2, 3]);
        let old_file = fs::read(home.path().join("device-key")).ok();
        // A second name of the old files shows what becomes of their bytes.
        let beside = TempDir::new().unwrap();
        fs::hard_link(home.path().join("keys"), beside.path().join("keys")).unwrap();
        if old_file.is_some() {
            let (file, second) = (home.path().join("device-key"), beside.path().join("device-key"));
            fs::hard_link(file, second).unwrap();
        }
        vault.change_key(&next).unwrap();
        assert_gone(beside.path(), &old_slots, "overwritten");
        let second = fs::read(beside.path().join("device-key")).ok();
        assert!(old_file.is_none() || second != old_file, "overwritten");
        assert_eq!(contents(&vault), before, "it goes on with the new key");
        vault.write(draft(&[(8, Some(b"more"))])).unwrap();
        vault.write(draft(&[(8, None)])).unwrap();
        drop(vault);
        assert_gone(home.path(), &old_slots, "changed");
        assert_eq!(key_files(home.path()), left);
        assert!(old_file.is_none() || old_file != fs::read(home.path().join("device-key")).ok());
        if present.kind() != next.kind() {
            open_with(home.path(), &present).map(drop).unwrap_err();
        }
        assert_eq!(contents(&open_with(home.path(), &next).unwrap()), before);
        present = next;
    }
}

/// Slots that a file system has kept, or a backup, do not open with the new key.
#[test]
fn an_old_copy_of_the_key_file_is_of_no_use_with_the_new_key() {
    let home = TempDir::new().unwrap();
    let (vault, _) = before_the_write(home.path());
    let old = fs::read(home.path().join("keys")).unwrap();
    let next = DeviceKey::from_bytes([9; 32]);
    vault.change_key(&next).unwrap();
    let place = vault.lock().places.values().next().unwrap().unwrap();
    let start = 4096 + 64 * usize::try_from(place.slot).unwrap();
    let mut bytes = fs::read(home.path().join("keys")).unwrap();
    bytes[start..start + 64].copy_from_slice(&old[start..start + 64]);
    fs::write(home.path().join("keys"), bytes).unwrap();
    assert!(vault.keys.data_key(place).unwrap().is_none());
    drop(vault);
    fs::write(home.path().join("keys"), old).unwrap();
    open_with(home.path(), &next).map(drop).unwrap_err();
}

#[test]
fn a_change_that_is_cut_off_leaves_the_one_key_or_the_other() {
    for (first, next) in [
        (DeviceKey::in_file(), DeviceKey::in_file()),
        (DeviceKey::in_file(), DeviceKey::from_bytes([9; 32])),
        (DeviceKey::from_bytes([9; 32]), DeviceKey::in_file()),
    ] {
        let home = TempDir::new().unwrap();
        let (vault, before) = before_the_write(home.path());
        vault.change_key(&first).unwrap();
        let old_slots = slots_of(&vault, home.path(), &[0, 1, 2, 3]);
        let images = images(home.path(), || vault.change_key(&next).unwrap());
        let steps: Vec<WriteStep> = images.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [WriteStep::Rewrapped, WriteStep::ChangedOver]);
        for (step, image) in images {
            let (right, wrong) =
                if step == WriteStep::Rewrapped { (&first, &next) } else { (&next, &first) };
            if right.kind() != wrong.kind() {
                open_with(image.path(), wrong).map(drop).unwrap_err();
            }
            let vault = open_with(image.path(), right).unwrap();
            assert_eq!(contents(&vault), before, "{step:?}");
            if step == WriteStep::ChangedOver {
                assert_gone(image.path(), &old_slots, "changed over");
            }
            let in_file = right.kind() == crate::DeviceKeyKind::File;
            let left: &[&str] = if in_file { &["device-key", "keys"] } else { &["keys"] };
            assert_eq!(key_files(image.path()), left, "{step:?}");
            vault.change_key(&key()).unwrap();
            assert_eq!(contents(&vault), before, "{step:?}");
        }
    }
}
