//! Device keys: each kind opens its store, and failures are named.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use keypool_client::{
    DeviceIdentity, DeviceKey, DeviceKeyKind, Erasure, KeyPackagePool, LocalStore, PoolConfig,
    SealingError, StorageError, fresh_command,
};
use keypool_ledger::{Event, Hash, KeyPackageRef, PackageFacts, Timestamp};
use tempfile::TempDir;

use super::super::support::{copy, now, pool};

fn open(home: &TempDir, key: &DeviceKey) -> Result<LocalStore, StorageError> {
    LocalStore::open_sealed(home.path(), &pool("alice/phone"), key)
}

fn passphrase(text: &str) -> DeviceKey {
    DeviceKey::from_passphrase(text.to_owned())
}

/// A home sealed with a key, in which a number is kept.
fn sealed_home(key: &DeviceKey) -> TempDir {
    let home = TempDir::new().unwrap();
    let store = open(&home, key).unwrap();
    let staged = store.stage().unwrap();
    staged.put_app_record("number", &7_u8).unwrap();
    staged.commit().unwrap();
    home
}

fn number(home: &TempDir, key: &DeviceKey) -> Option<u8> {
    open(home, key).unwrap().stage().unwrap().app_record("number").unwrap()
}

/// The error of an opening that is refused.
fn refused(home: &TempDir, key: &DeviceKey) -> String {
    let error = open(home, key).unwrap_err();
    error.to_string().replace(&home.path().display().to_string(), "HOME")
}

#[test]
fn each_kind_of_key_opens_its_store_and_no_other_does() {
    let word = || passphrase("correct horse battery staple");
    let home = sealed_home(&word());
    assert_eq!(number(&home, &word()), Some(7));
    insta::assert_snapshot!(refused(&home, &passphrase("correct horse battery stable")), @"the passphrase is not the one that HOME was sealed with; try again");
    insta::assert_snapshot!(refused(&home, &DeviceKey::in_file()), @"HOME is sealed with a passphrase, not with a key in a file; open it with that");
    assert_eq!(number(&home, &word()), Some(7), "what was refused has changed nothing");

    let home = sealed_home(&DeviceKey::from_bytes([1; 32]));
    assert_eq!(number(&home, &DeviceKey::from_bytes([1; 32])), Some(7));
    insta::assert_snapshot!(refused(&home, &DeviceKey::from_bytes([2; 32])), @"the key is not the one that HOME was sealed with; give the one it was made with, from a backup if need be");
    insta::assert_snapshot!(refused(&home, &word()), @"HOME is sealed with a key of the app, not with a passphrase; open it with that");
}

#[test]
fn a_key_in_a_file_is_for_its_owner_alone() {
    let home = sealed_home(&DeviceKey::default());
    let file = home.path().join("device-key");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(&home.path().join("keys"))), (0o600, 0o600));
    assert_eq!(number(&home, &DeviceKey::in_file()), Some(7));

    let wider = |mode| fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    wider(0o640);
    insta::assert_snapshot!(refused(&home, &DeviceKey::in_file()), @"others may read HOME/device-key (mode 640); chmod 600 it, and register the device anew if somebody may have read it");
    wider(0o600);
    let key = fs::read(&file).unwrap();
    assert_eq!(key.len(), 32);
    fs::write(&file, &key[..31]).unwrap();
    insta::assert_snapshot!(refused(&home, &DeviceKey::in_file()), @"HOME/device-key is not the 32 bytes of a device key; put it back from a backup, or move the home away and register the device anew");
    fs::write(&file, [0; 32]).unwrap();
    insta::assert_snapshot!(refused(&home, &DeviceKey::in_file()), @"the key is not the one that HOME was sealed with; give the one it was made with, from a backup if need be");
    fs::remove_file(&file).unwrap();
    insta::assert_snapshot!(refused(&home, &DeviceKey::in_file()), @"the device key HOME/device-key is missing; put it back from a backup, or move the home away and register the device anew");
    fs::write(&file, key).unwrap();
    wider(0o600);
    assert_eq!(number(&home, &DeviceKey::in_file()), Some(7));
}

#[test]
fn a_missing_key_file_is_never_made_anew() {
    let home = sealed_home(&DeviceKey::in_file());
    fs::remove_file(home.path().join("keys")).unwrap();
    insta::assert_snapshot!(refused(&home, &DeviceKey::in_file()), @"the key file HOME/keys is missing, and without it nothing of the home can be opened; put the whole home back from a backup, or move it away and register the device anew");
    assert!(!home.path().join("keys").exists());
}

/// The store comes last when a home is made: without one, the rest is made again.
#[test]
fn a_home_whose_making_was_cut_off_is_made_again() {
    let made = sealed_home(&DeviceKey::in_file());
    for there in [&["device-key"][..], &["device-key", "keys"], &["device-key.new"], &["keys.new"]]
    {
        let home = TempDir::new().unwrap();
        for name in there {
            fs::copy(made.path().join(name.trim_end_matches(".new")), home.path().join(name))
                .unwrap();
        }
        drop(open(&home, &DeviceKey::in_file()).unwrap());
        drop(open(&home, &DeviceKey::in_file()).unwrap());
    }
}

#[test]
fn keys_and_their_errors_show_nothing() {
    let keys = [DeviceKey::in_file(), passphrase("swordfish"), DeviceKey::from_bytes([0xAB; 32])];
    let kinds: Vec<_> = keys.iter().map(|key| format!("{key:?} {}", key.kind())).collect();
    insta::assert_snapshot!(kinds.join("\n"), @r"
    DeviceKey { .. } a key in a file
    DeviceKey { .. } a passphrase
    DeviceKey { .. } a key of the app
    ");
    let error = SealingError::WrongPassphrase { home: PathBuf::from("/home/alice") };
    insta::assert_snapshot!(format!("{error:?}"), @r#"WrongPassphrase { home: "/home/alice" }"#);
    let error =
        StorageError::from(SealingError::SlotDamaged { what: "the record x".into(), slot: 3 });
    insta::assert_snapshot!(format!("{error:?}"), @r#"Sealing(SlotDamaged { what: "the record x", slot: 3 })"#);
    let error = SealingError::OtherKind {
        home: PathBuf::from("/home/alice"),
        sealed_with: DeviceKeyKind::Passphrase,
        asked: DeviceKeyKind::App,
    };
    insta::assert_snapshot!(format!("{error:?}"), @r#"OtherKind { home: "/home/alice", sealed_with: Passphrase, asked: App }"#);
}

/// A home of the first format holds keys in clear in a database that keeps all writes: to
/// seal it now would hide that.
#[cfg(feature = "sled-store")]
#[test]
fn a_home_from_before_the_sealing_is_refused() {
    #[derive(serde::Serialize)]
    struct About {
        format: u16,
        owner: keypool_ledger::PoolId,
    }
    let home = TempDir::new().unwrap();
    let db = sled::open(home.path().join("store")).unwrap();
    let about = rmp_serde::to_vec_named(&About { format: 1, owner: pool("alice/phone") }).unwrap();
    db.insert(b"m", [&[0], about.as_slice()].concat()).unwrap();
    drop(db);
    insta::assert_snapshot!(refused(&home, &DeviceKey::in_file()), @"HOME was written before private keys were sealed, and its disk may hold them in clear; move it away, and register the device anew");
    assert!(!home.path().join("keys").exists());
}

#[test]
fn a_store_opens_with_the_key_that_it_was_changed_to_and_not_with_the_one_before() {
    let (before, after) = (DeviceKey::from_bytes([1; 32]), passphrase("a word of the user's"));
    let home = sealed_home(&before);
    let store = open(&home, &before).unwrap();
    store.change_device_key(&after).unwrap();
    drop(store);
    assert_eq!(number(&home, &after), Some(7));
    insta::assert_snapshot!(refused(&home, &before), @"HOME is sealed with a passphrase, not with a key of the app; open it with that");
}

#[test]
fn the_kind_of_file_system_is_told() {
    insta::assert_snapshot!(Erasure::Elsewhere("btrfs"), @"the file system (btrfs) may keep what is deleted");
    insta::assert_snapshot!(Erasure::InPlace, @"the file system overwrites what is deleted");
    insta::assert_snapshot!(Erasure::Unknown, @"it is not known whether the file system overwrites");
    if Path::new("/dev/shm").is_dir() {
        let home = TempDir::new_in("/dev/shm").unwrap();
        assert_eq!(open(&home, &DeviceKey::in_file()).unwrap().erasure(), Erasure::InPlace);
    }
}

/// The state of a home with a pool after one byte of its key file was flipped: as it was, or refused, or with
/// an error at the value of the byte. Never something else.
#[test]
fn a_flipped_byte_of_the_key_file_is_never_passed_over() {
    let intact = TempDir::new().unwrap();
    let owner = pool("alice/phone");
    let store = std::sync::Arc::new(LocalStore::open(intact.path(), &owner).unwrap());
    let identity = DeviceIdentity::load_or_create(&store).unwrap();
    let config = PoolConfig::default();
    let made = KeyPackagePool::new(store.clone(), identity.clone(), config).unwrap();
    made.generate_and_store(3, now()).unwrap();
    let key = identity.signature_key();
    drop((store, made, identity));
    let size = fs::read(intact.path().join("keys")).unwrap().len();
    let places = (0..140).step_by(20).chain((4096..4096 + 64 * 8).step_by(24)).chain([size - 1]);
    let (mut sound, mut told) = (0, 0);
    for place in places {
        let home = TempDir::new().unwrap();
        copy(intact.path(), home.path());
        let mut bytes = fs::read(home.path().join("keys")).unwrap();
        bytes[place] ^= 0x20;
        fs::write(home.path().join("keys"), bytes).unwrap();
        let store = std::sync::Arc::new(LocalStore::open(home.path(), &owner).unwrap());
        let loaded = DeviceIdentity::load_or_create(&store);
        let Ok(identity) = loaded else {
            told += 1;
            continue;
        };
        assert_eq!(identity.signature_key(), key);
        let pool = KeyPackagePool::new(store.clone(), identity, PoolConfig::default()).unwrap();
        match pool.pending_upload(now()) {
            Ok(pending) => {
                assert_eq!(pending.len(), 3);
                sound += 1;
            }
            Err(StorageError::Sealing(SealingError::SlotDamaged { .. })) => told += 1,
            Err(error) => panic!("{place}: {error}"),
        }
    }
    assert!(sound > 5 && told > 5, "{sound} {told}");
}

/// The histories are not sealed: no key is in them, and the auditor's tools read them.
#[test]
fn a_history_can_be_read_whatever_becomes_of_the_keys() {
    let home = sealed_home(&DeviceKey::in_file());
    let store = open(&home, &DeviceKey::in_file()).unwrap();
    let facts = PackageFacts {
        keypackage_ref: KeyPackageRef::new(&[1; 32]).unwrap(),
        not_before: Timestamp::from_secs(0),
        not_after: Timestamp::from_secs(1_000),
        ciphersuite: 1,
        credential: Hash::ZERO,
        init_key: Hash::ZERO,
        last_resort: false,
        capabilities: None,
    };
    let staged = store.stage().unwrap();
    staged.record(Event::Created(facts), Timestamp::from_secs(1), fresh_command()).unwrap();
    staged.commit().unwrap();
    drop(store);
    let bytes = fs::read(home.path().join("keys")).unwrap();
    fs::write(home.path().join("keys"), &bytes[..4096]).unwrap();
    let store = open(&home, &DeviceKey::in_file()).unwrap();
    assert_eq!(store.history().unwrap().len(), 1);
    let lost = store.stage().unwrap().app_record::<u8>("number").unwrap_err();
    assert!(matches!(lost, StorageError::Sealing(SealingError::SlotDamaged { .. })), "{lost}");
}
