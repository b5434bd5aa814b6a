//! Damage to the key file and to sealed values: found, named, and limited to the damaged part.

use std::{fs, os::unix::fs::FileExt};

use tempfile::TempDir;
use uuid::Uuid;

use super::{STORE, before_the_write, contents, copy, draft, key, key_file, name, open};
use crate::{
    DeviceKey, SealingError, StorageError,
    storage::{
        engine::Engine,
        sealing::{Vault, cipher::KEY_BYTES, key_file::KeyFile},
    },
};

/// How the opening of a home fails.
fn refused(home: &TempDir, key: &DeviceKey, store: Uuid) -> String {
    match Vault::open(Engine::open(home.path()).unwrap(), home.path(), key, store) {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string().replace(&home.path().display().to_string(), "HOME"),
    }
}

/// How the reading of a value fails.
fn lost(vault: &Vault, number: u8) -> String {
    vault.get(&name(number)).unwrap_err().to_string()
}

#[test]
fn each_byte_of_the_key_file_matters_to_one_slot_at_most() {
    let home = TempDir::new().unwrap();
    let (vault, _) = before_the_write(home.path());
    let places: Vec<_> = vault.lock().places.values().map(|place| place.unwrap()).collect();
    let keys = |file: &KeyFile| -> Vec<bool> {
        places.iter().map(|place| file.data_key(*place).unwrap().is_some()).collect()
    };
    drop(vault);
    let intact = key_file(home.path());
    let path = home.path().join("keys");
    let written = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for flipped in 0..intact.len() {
        written.write_all_at(&[intact[flipped] ^ (1 << (flipped % 8))], flipped as u64).unwrap();
        let file = KeyFile::open(home.path(), &key(), STORE).unwrap();
        let slot = flipped.checked_sub(4096).map(|place| place / 64);
        let expected: Vec<bool> =
            places.iter().map(|place| slot != usize::try_from(place.slot).ok()).collect();
        assert_eq!(keys(&file), expected, "byte {flipped}");
        written.write_all_at(&intact[flipped..=flipped], flipped as u64).unwrap();
    }
}

#[test]
fn a_header_with_one_damaged_copy_is_mended() {
    let home = TempDir::new().unwrap();
    let (vault, before) = before_the_write(home.path());
    drop(vault);
    for place in [0, 20, 2048, 2048 + 60] {
        let mut bytes = key_file(home.path());
        bytes[place] ^= 1;
        fs::write(home.path().join("keys"), &bytes).unwrap();
        assert_eq!(contents(&open(home.path())), before);
        let mended = key_file(home.path());
        assert_eq!(mended[..2048], mended[2048..4096]);
    }
}

#[test]
fn a_key_file_that_is_not_the_right_one_is_refused_by_its_fault() {
    let home = TempDir::new().unwrap();
    let (vault, before) = before_the_write(home.path());
    drop(vault);
    let path = home.path().join("keys");
    let intact = key_file(home.path());
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = intact.clone();
        change(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let text = refused(&home, &key(), STORE);
        assert_eq!(key_file(home.path()), bytes, "a refused file is left alone");
        text
    };
    insta::assert_snapshot!(with(&|bytes| bytes.clear()), @"the key file HOME/keys is damaged: it is too short; put the whole home back from a backup, or move it away and register the device anew");
    insta::assert_snapshot!(with(&|bytes| bytes[..4096].fill(0)), @"the key file HOME/keys is damaged: its first bytes are others; put the whole home back from a backup, or move it away and register the device anew");
    let both = with(&|bytes| {
        bytes[30] ^= 1;
        bytes[2048 + 30] ^= 1;
    });
    insta::assert_snapshot!(both, @"the key file HOME/keys is damaged: its bytes have changed; put the whole home back from a backup, or move it away and register the device anew");
    fs::write(&path, &intact).unwrap();
    insta::assert_snapshot!(refused(&home, &key(), Uuid::from_u128(8)), @"the key file HOME/keys belongs to another home; put back its own");
    insta::assert_snapshot!(refused(&home, &DeviceKey::from_bytes([8; KEY_BYTES]), STORE), @"the key is not the one that HOME was sealed with; give the one it was made with, from a backup if need be");
    insta::assert_snapshot!(refused(&home, &DeviceKey::in_file(), STORE), @"HOME is sealed with a key of the app, not with a key in a file; open it with that");
    fs::remove_file(&path).unwrap();
    insta::assert_snapshot!(refused(&home, &key(), STORE), @"the key file HOME/keys is missing, and without it nothing of the home can be opened; put the whole home back from a backup, or move it away and register the device anew");
    fs::write(&path, &intact).unwrap();
    assert_eq!(contents(&open(home.path())), before, "nothing was changed by all that");
}

#[test]
fn a_damaged_slot_costs_its_value_and_no_other() {
    let home = TempDir::new().unwrap();
    let (vault, before) = before_the_write(home.path());
    let place = vault.lock().places[&name(0)].unwrap();
    drop(vault);
    let mut bytes = key_file(home.path());
    bytes[4096 + 64 * usize::try_from(place.slot).unwrap() + 20] ^= 1;
    fs::write(home.path().join("keys"), bytes).unwrap();
    let vault = open(home.path());
    insta::assert_snapshot!(lost(&vault, 0), @"the record vA cannot be opened: slot 0 of the key file is damaged; put the whole home back from a backup, or let the doctor remove what is lost");
    for number in 1..4 {
        assert_eq!(vault.get(&name(number)).unwrap().unwrap().to_vec(), before[&name(number)]);
    }
}

#[test]
fn a_key_file_that_was_cut_short_loses_what_stood_at_its_end() {
    let home = TempDir::new().unwrap();
    let (vault, _) = before_the_write(home.path());
    drop(vault);
    let bytes = key_file(home.path());
    fs::write(home.path().join("keys"), &bytes[..4096 + 64 * 2 + 10]).unwrap();
    let vault = open(home.path());
    assert!(vault.get(&name(0)).is_ok() && vault.get(&name(2)).is_ok());
    for number in [1, 3] {
        let error = vault.get(&name(number)).unwrap_err();
        assert!(
            matches!(error, StorageError::Sealing(SealingError::SlotDamaged { .. })),
            "{error}"
        );
    }
    vault.write(draft(&[(1, Some(b"again")), (3, None), (7, Some(b"seven"))])).unwrap();
    assert_eq!(contents(&open_again(vault, &home)).len(), 4);
}

fn open_again(vault: Vault, home: &TempDir) -> Vault {
    drop(vault);
    open(home.path())
}

/// Each value stands for its own name: a thief with a pen cannot make one stand for another.
#[test]
fn values_that_changed_places_do_not_open() {
    let home = TempDir::new().unwrap();
    let (vault, before) = before_the_write(home.path());
    drop(vault);
    let engine = Engine::open(home.path()).unwrap();
    let (zero, one) = (engine.get(&name(0)).unwrap(), engine.get(&name(1)).unwrap());
    let mut flipped = engine.get(&name(3)).unwrap().unwrap();
    *flipped.last_mut().unwrap() ^= 1;
    engine.write(vec![(name(0), one), (name(1), zero.clone()), (name(3), Some(flipped))]).unwrap();
    engine.write(vec![(name(9), zero)]).unwrap();
    drop(engine);
    let vault = open(home.path());
    insta::assert_snapshot!(lost(&vault, 0), @"the record vA cannot be opened: its bytes have changed, or belong elsewhere; put the whole home back from a backup, or let the doctor remove what is lost");
    for number in [1, 3, 9] {
        let error = vault.get(&name(number)).unwrap_err();
        assert!(
            matches!(error, StorageError::Sealing(SealingError::ValueDamaged { .. })),
            "{error}"
        );
    }
    assert_eq!(vault.get(&name(2)).unwrap().unwrap().to_vec(), before[&name(2)]);
    // The slot of a value that was copied is not overwritten with the copy.
    vault.write(draft(&[(9, None)])).unwrap();
    let place = vault.lock().places[&name(1)].unwrap();
    assert!(vault.keys.data_key(place).unwrap().is_some());
}

/// An old value and its old slot do not fit each other any more, whichever of them is put back.
#[test]
fn an_old_value_that_is_put_back_does_not_open() {
    let home = TempDir::new().unwrap();
    let (vault, _) = before_the_write(home.path());
    let old = vault.engine.get(&name(0)).unwrap();
    vault.write(draft(&[(0, Some(b"new"))])).unwrap();
    vault.write(draft(&[(7, Some(b"takes the old slot"))])).unwrap();
    vault.engine.write(vec![(name(0), old)]).unwrap();
    let error = vault.get(&name(0)).unwrap_err();
    assert!(matches!(error, StorageError::Sealing(SealingError::SlotDamaged { .. })), "{error}");
}

#[test]
fn a_key_file_left_half_made_does_not_disturb() {
    let home = TempDir::new().unwrap();
    let (vault, _) = before_the_write(home.path());
    drop(vault);
    let twin = TempDir::new().unwrap();
    copy(home.path(), twin.path());
    fs::copy(home.path().join("keys"), twin.path().join("keys.new")).unwrap();
    assert_eq!(contents(&open(twin.path())).len(), 4);
}
