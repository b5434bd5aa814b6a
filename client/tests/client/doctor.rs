//! The doctor: contradictions of history and store are found, reported, and repaired.

use std::fs;

use keypool_client::{Issue, JoinError, KeyFate, OwnStage, fresh_command};
use keypool_ledger::{Event, KeyPackageRef, RevokeReason};
use openmls_traits::storage::StorageProvider;
use tempfile::TempDir;
use tls_codec::Deserialize;

use super::{
    storage::server_history,
    support::{Device, copy, group, lose_a_package, now},
};

fn reference(of: &KeyPackageRef) -> openmls::ciphersuite::hash_ref::HashReference {
    let bytes = of.as_bytes();
    let length = u8::try_from(bytes.len()).unwrap();
    Deserialize::tls_deserialize_exact([&[length], bytes].concat()).unwrap()
}

fn refs(device: &Device, count: usize) -> Vec<KeyPackageRef> {
    let made = device.pool.generate_and_store(count, now()).unwrap();
    made.iter().map(|package| package.keypackage_ref().clone()).collect()
}

/// A report with the names of the packages replaced.
fn said(text: &str, refs: &[KeyPackageRef]) -> String {
    refs.iter().enumerate().fold(text.to_owned(), |text, (number, keypackage_ref)| {
        text.replace(&keypackage_ref.short(), &format!("#{number}"))
    })
}

#[test]
fn a_sound_device_is_told_so() {
    let bob = Device::new("bob/laptop");
    let made = refs(&bob, 3);
    bob.pool.mark_as_spent(&made[0], &group("g"), now()).unwrap();
    bob.pool.mark_revoked(&made[1..2], RevokeReason::Withdrawn, now(), fresh_command()).unwrap();
    let checkup = bob.pool.check_up(now()).unwrap();
    insta::assert_snapshot!(checkup, @"the device's history and its store agree");
    assert!(bob.pool.repair(now()).unwrap().is_sound());
    assert!(bob.pool.has_private_keys(&made[1]).unwrap(), "withdrawn ones keep theirs");
}

#[test]
fn keys_without_a_package_and_packages_without_keys_are_found_and_repaired() {
    let bob = Device::new("bob/laptop");
    let made = refs(&bob, 3);
    bob.pool.mark_uploaded(&made, now(), fresh_command()).unwrap();
    let staged = bob.store.stage().unwrap();
    staged.delete_key_package(&reference(&made[0])).unwrap();
    let spent = Event::Spent {
        keypackage_ref: made[1].clone(),
        reservation: None,
        holder: None,
        group: group("g"),
        late: false,
    };
    staged.record(spent, now(), fresh_command()).unwrap();
    staged.commit().unwrap();

    let checkup = bob.pool.check_up(now()).unwrap();
    assert_eq!(checkup.findings.len(), 2);
    insta::assert_snapshot!(said(&checkup.to_string(), &made), @r"
    package #1 is over, and its private keys are still here
    package #0 may still be used, and its private keys are lost
    ");
    assert_eq!(bob.pool.check_up(now()).unwrap(), checkup, "looking changes nothing");
    let repaired = bob.pool.repair(now()).unwrap();
    insta::assert_snapshot!(said(&repaired.to_string(), &made), @r"
    package #1 is over, and its private keys are still here (repaired)
    package #0 may still be used, and its private keys are lost (repaired)
    ");
    assert!(bob.pool.check_up(now()).unwrap().is_sound());
    let bob = bob.restarted();
    let withdrawn = OwnStage::Revoked { reason: RevokeReason::Withdrawn };
    assert_eq!(bob.store.package(&made[0]).unwrap().stage, withdrawn);
    assert!(!bob.pool.has_private_keys(&made[1]).unwrap());
    assert!(bob.pool.has_private_keys(&made[2]).unwrap());
    assert!(bob.pool.check_up(now()).unwrap().is_sound());
}

/// Bob as he would be if one slot of the key file were damaged, from the first on.
fn with_damaged_slots(bob: &Device) -> Vec<Device> {
    let mut devices = Vec::new();
    for slot in 0..12 {
        let home = TempDir::new().unwrap();
        copy(bob.home.path(), home.path());
        let mut bytes = fs::read(home.path().join("keys")).unwrap();
        bytes[4096 + 64 * slot + 30] ^= 1;
        fs::write(home.path().join("keys"), bytes).unwrap();
        let opened = std::panic::catch_unwind(|| Device::in_home(home, "bob/laptop"));
        // Without the identity's keys there is no device.
        devices.extend(opened.ok());
    }
    devices
}

#[test]
fn a_damaged_slot_is_found_and_costs_one_package() {
    let (alice, bob) = (Device::new("alice/phone"), Device::new("bob/laptop"));
    alice.groups.create_group(&group("g"), 1, now()).unwrap();
    let made = refs(&bob, 2);
    let offer = bob.offer();
    let used = offer.keypackage_ref.clone();
    let added = alice.add(&group("g"), &[offer]);
    let mut costs = 0;
    for bob in with_damaged_slots(&bob) {
        let checkup = bob.pool.check_up(now()).unwrap();
        let [Issue::PackageWithoutKeys { keypackage_ref }] = checkup.findings.as_slice() else {
            assert!(checkup.is_sound(), "{checkup}");
            continue;
        };
        costs += 1;
        if *keypackage_ref == used {
            let lost = bob.groups.join_from_welcome(&added.welcome, now()).unwrap_err();
            assert!(matches!(lost, JoinError::Storage(_)), "{lost}");
        }
        bob.pool.repair(now()).unwrap();
        assert!(bob.pool.check_up(now()).unwrap().is_sound());
        let pending = bob.pool.pending_upload(now()).unwrap();
        assert_eq!(pending.len(), 2, "the others are as they were");
        if *keypackage_ref == used {
            let lost = bob.groups.join_from_welcome(&added.welcome, now()).unwrap_err();
            let JoinError::MissingPrivateKey { fate, .. } = lost else { panic!("{lost}") };
            assert_eq!(fate, KeyFate::Revoked { reason: RevokeReason::Withdrawn });
        } else {
            bob.join(&added);
        }
    }
    assert_eq!(costs, made.len() + 1, "each package once");
}

/// As a file system may do that puts an older block of the key file back.
#[test]
fn a_key_that_belongs_to_nothing_is_found_and_overwritten() {
    let bob = Device::new("bob/laptop");
    let made = refs(&bob, 1);
    let keys = bob.home.path().join("keys");
    let before = fs::read(&keys).unwrap();
    bob.pool.mark_as_spent(&made[0], &group("g"), now()).unwrap();
    assert!(bob.pool.check_up(now()).unwrap().is_sound());
    let spent = fs::read(&keys).unwrap();
    assert_ne!(before[4096..], spent[4096..], "its slot is overwritten");
    fs::write(&keys, &before).unwrap();
    let found = bob.pool.check_up(now()).unwrap();
    assert_eq!(found.findings, [Issue::StaleSlots { count: 1 }]);
    let repaired = bob.pool.repair(now()).unwrap().to_string();
    assert_eq!(repaired, "1 slots of the key file hold keys that belong to nothing (repaired)\n");
    assert!(bob.pool.check_up(now()).unwrap().is_sound());
}

#[test]
fn a_package_without_keys_that_the_server_has_is_to_be_withdrawn_there() {
    let bob = Device::new("bob/laptop");
    let made = refs(&bob, 1);
    bob.pool.mark_uploaded(&made, now(), fresh_command()).unwrap();
    let facts = bob.store.package(&made[0]).unwrap().facts;
    let told = server_history(bob.store.owner(), &[Event::Uploaded(facts)]);
    let staged = bob.store.stage().unwrap();
    staged.extend_mirror(&told).unwrap();
    staged.commit().unwrap();
    assert!(bob.pool.check_up(now()).unwrap().is_sound());
    lose_a_package(&bob.store);
    let repaired = bob.pool.repair(now()).unwrap();
    assert_eq!(repaired.to_withdraw, made);
    let line = format!("package {} is to be withdrawn from the server", made[0].short());
    assert!(repaired.to_string().contains(&line), "{repaired}");
    let again = bob.pool.check_up(now()).unwrap();
    assert_eq!((again.findings, again.to_withdraw), (vec![], made), "until the server has done it");
}

#[test]
fn what_cannot_be_repaired_is_said() {
    let bob = Device::new("bob/laptop");
    let before = bob.store.stage().unwrap().app_record_names("").unwrap();
    assert_eq!(before, ["identity"]);
    let staged = bob.store.stage().unwrap();
    staged.put_app_record("draft", &"a letter").unwrap();
    staged.commit().unwrap();
    let found: Vec<String> = with_damaged_slots(&bob)
        .into_iter()
        .map(|bob| bob.pool.repair(now()).unwrap())
        .filter(|checkup| !checkup.is_sound())
        .map(|checkup| checkup.to_string())
        .collect();
    insta::assert_snapshot!(found.join(""), @"the record draft cannot be opened; a backup of the whole home may have it (not repaired)");
}
