//! The vault against a plain map, against crashes at every step of a write, and against damage.

mod changing;
mod damage;

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{Arc, Mutex},
};

use quickcheck::{Arbitrary, Gen, QuickCheck};
use tempfile::TempDir;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{ValueChanges, Vault, device_key::DeviceKey};
use crate::storage::{
    engine::Engine,
    probe::{WriteStep, plan},
};

const STORE: Uuid = Uuid::from_u128(7);

/// The content of a vault, as a plain map.
type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn key() -> DeviceKey {
    DeviceKey::from_bytes([7; 32])
}

/// A new home for each database that this is built with.
pub(in crate::storage) fn homes() -> Vec<TempDir> {
    let mut homes = vec![TempDir::new().unwrap()];
    if cfg!(all(feature = "sled-store", feature = "sqlite-store")) {
        let home = TempDir::new().unwrap();
        // To SQLite an empty file is a new database.
        fs::write(home.path().join("store.sqlite"), b"").unwrap();
        homes.push(home);
    }
    homes
}

/// Opens the vault in a home, or makes it.
fn open(home: &Path) -> Vault {
    let engine = Engine::open(home).unwrap();
    if home.join("keys").exists() {
        Vault::open(engine, home, &key(), STORE).unwrap()
    } else {
        Vault::create(engine, home, &key(), STORE).unwrap()
    }
}

fn name(number: u8) -> Vec<u8> {
    vec![if number.is_multiple_of(2) { b'a' } else { b'o' }, b'v', b'A' + number]
}

fn draft(changes: &[(u8, Option<&[u8]>)]) -> ValueChanges {
    let change = |(number, value): &(u8, Option<&[u8]>)| {
        (name(*number), value.map(|value| Zeroizing::new(value.to_vec())))
    };
    changes.iter().map(change).collect()
}

fn contents(vault: &Vault) -> Map {
    let value = |name: &Vec<u8>| vault.get(name).unwrap().unwrap().to_vec();
    let mut map = Map::new();
    for kind in [b"a", b"o"] {
        map.extend(vault.names(kind).into_iter().map(|name| (name.clone(), value(&name))));
    }
    map
}

fn key_file(home: &Path) -> Vec<u8> {
    fs::read(home.join("keys")).unwrap()
}

/// The slots of the key file that hold the keys of some values.
fn slots_of(vault: &Vault, home: &Path, names: &[u8]) -> Vec<Vec<u8>> {
    let bytes = key_file(home);
    let slot = |number: &u8| {
        let place = vault.lock().places[&name(*number)].unwrap();
        let start = 4096 + 64 * usize::try_from(place.slot).unwrap();
        bytes[start..start + 64].to_vec()
    };
    names.iter().map(slot).collect()
}

/// No 8 bytes of any of the wrapped keys are left in the key file.
fn assert_gone(home: &Path, slots: &[Vec<u8>], at: &str) {
    let bytes = key_file(home);
    for window in slots.iter().flat_map(|slot| slot[16..].windows(8)) {
        assert!(!bytes.windows(8).any(|found| found == window), "{at}: a key is left");
    }
}

pub(in crate::storage) fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The content of the disk at each step of a write.
pub(in crate::storage) fn images(home: &Path, write: impl FnOnce()) -> Vec<(WriteStep, TempDir)> {
    let images = Arc::new(Mutex::new(Vec::new()));
    let (taken, from) = (Arc::clone(&images), home.to_path_buf());
    plan(Some(Box::new(move |step| {
        let image = TempDir::new().unwrap();
        copy(&from, image.path());
        taken.lock().unwrap().push((step, image));
        Ok(())
    })));
    write();
    plan(None);
    std::mem::take(&mut *images.lock().unwrap())
}

const BIG: &[u8] = &[3; 9_000];

/// A vault with four values, and the write that replaces, removes and adds.
fn before_the_write(home: &Path) -> (Vault, Map) {
    let vault = open(home);
    let first = [(0, Some(&b"zero"[..])), (1, Some(b"one")), (2, Some(BIG)), (3, Some(b"three"))];
    vault.write(draft(&first)).unwrap();
    let before = contents(&vault);
    (vault, before)
}

fn the_write() -> ValueChanges {
    draft(&[(0, Some(b"ZERO")), (1, None), (2, Some(b"small")), (5, Some(BIG))])
}

#[test]
fn a_write_that_is_cut_off_at_any_step_has_happened_or_has_not() {
    for home in homes() {
        cut_off_at_any_step(home.path());
    }
}

fn cut_off_at_any_step(home: &Path) {
    let (vault, before) = before_the_write(home);
    let dead = slots_of(&vault, home, &[0, 1, 2]);
    let images = images(home, || vault.write(the_write()).unwrap());
    let after = contents(&vault);
    let made = slots_of(&vault, home, &[0, 2, 5]);
    assert_ne!(before, after);
    assert_gone(home, &dead, "at the end");
    let steps: Vec<WriteStep> = images.iter().map(|(step, _)| *step).collect();
    let (first, last) = (WriteStep::SlotsWritten, WriteStep::Erased);
    assert_eq!((steps.first(), steps.last()), (Some(&first), Some(&last)), "{steps:?}");

    for (step, image) in images {
        let vault = open(image.path());
        let found = contents(&vault);
        match step {
            WriteStep::SlotsWritten | WriteStep::SlotsDurable => {
                assert_eq!(found, before, "{step:?}");
            }
            WriteStep::Applied => assert!(found == before || found == after, "{step:?}"),
            WriteStep::Durable
            | WriteStep::Acknowledged
            | WriteStep::SlotsErased
            | WriteStep::Erased => {
                assert_eq!(found, after, "{step:?}");
            }
            WriteStep::Rewrapped | WriteStep::ChangedOver => panic!("the device key is the same"),
            WriteStep::Copied | WriteStep::Moved => panic!("nothing moves"),
        }
        let gone = if found == before { &made } else { &dead };
        assert_gone(image.path(), gone, &format!("{step:?}"));
        assert_eq!(vault.stale_slots().unwrap(), 0, "{step:?}");
    }
}

#[test]
fn a_write_that_fails_at_any_step_has_happened_or_has_not() {
    for home in homes() {
        fail_at_any_step(home.path());
    }
}

fn fail_at_any_step(home: &Path) {
    let (vault, before) = before_the_write(home);
    drop(vault);
    for failing in 0.. {
        let image = TempDir::new().unwrap();
        copy(home, image.path());
        let vault = open(image.path());
        let mut reached = 0;
        plan(Some(Box::new(move |_| {
            reached += 1;
            if reached > failing { Err(io::Error::other("planned")) } else { Ok(()) }
        })));
        let written = vault.write(the_write());
        plan(None);
        drop(vault);
        let vault = open(image.path());
        let found = contents(&vault);
        assert_eq!(vault.stale_slots().unwrap(), 0, "failed at {failing}");
        if written.is_ok() {
            assert!(failing >= 7, "there are at least seven steps");
            return;
        }
        let happened = found.get(&name(0)).is_some_and(|value| value == b"ZERO");
        assert!(happened || found == before, "failed at {failing}");
        assert_eq!(found.contains_key(&name(5)), happened, "failed at {failing}");
        assert_eq!(found.contains_key(&name(1)), !happened, "failed at {failing}");
    }
}

/// A key that is half overwritten when the machine stops is still half a key.
#[test]
fn slots_that_nobody_has_are_overwritten_when_the_vault_is_opened() {
    let home = TempDir::new().unwrap();
    let (vault, _) = before_the_write(home.path());
    let old = slots_of(&vault, home.path(), &[0]);
    let images = images(home.path(), || vault.write(the_write()).unwrap());
    let (_, image) = images.iter().find(|(step, _)| *step == WriteStep::Acknowledged).unwrap();
    let mut bytes = key_file(image.path());
    let place = bytes.windows(64).position(|found| found == old[0]).expect("still there");
    bytes[place + 40..place + 64].fill(0);
    fs::write(image.path().join("keys"), bytes).unwrap();
    drop(open(image.path()));
    assert_gone(image.path(), &[old[0][..40].to_vec()], "torn");
}

#[test]
fn the_key_file_grows_and_its_slots_are_used_again() {
    let home = TempDir::new().unwrap();
    let vault = open(home.path());
    for _ in 0..4 {
        let many = |value: Option<&[u8]>| -> ValueChanges {
            let named = (0..=255).map(|number| (vec![b'a', number], number));
            let all = named.chain((0..=255).map(|number| (vec![b'o', number], number)));
            all.map(|(name, _)| (name, value.map(|value| Zeroizing::new(value.to_vec())))).collect()
        };
        vault.write(many(Some(b"value"))).unwrap();
        assert_eq!(contents(&vault).len(), 512);
        vault.write(many(None)).unwrap();
        assert!(contents(&vault).is_empty());
    }
    assert_eq!(key_file(home.path()).len(), 4096 + 64 * 512);
}

/// Something that happens to a vault.
#[derive(Clone, Debug)]
enum Change {
    Put(u8, Vec<u8>),
    PutLarge(u8, u16),
    Remove(u8),
    Commit,
    Reopen,
}

impl Arbitrary for Change {
    fn arbitrary(g: &mut Gen) -> Self {
        let number = u8::arbitrary(g) % 12;
        match u8::arbitrary(g) % 10 {
            0..=3 => Self::Put(number, Vec::arbitrary(g)),
            4 => Self::PutLarge(number, u16::arbitrary(g) % 20_000),
            5 | 6 => Self::Remove(number),
            7 | 8 => Self::Commit,
            _ => Self::Reopen,
        }
    }
}

#[test]
fn a_vault_is_a_map() {
    fn property(changes: Vec<Change>) -> bool {
        let home = TempDir::new().unwrap();
        let mut vault = open(home.path());
        let (mut map, mut pending) = (Map::new(), ValueChanges::new());
        for change in changes {
            match change {
                Change::Put(number, value) => {
                    pending.insert(name(number), Some(Zeroizing::new(value)));
                }
                Change::PutLarge(number, size) => {
                    pending.insert(name(number), Some(Zeroizing::new(vec![number; size.into()])));
                }
                Change::Remove(number) => {
                    pending.insert(name(number), None);
                }
                Change::Commit => {
                    for (name, value) in &pending {
                        match value {
                            Some(value) => map.insert(name.clone(), value.to_vec()),
                            None => map.remove(name),
                        };
                    }
                    vault.write(std::mem::take(&mut pending)).unwrap();
                }
                Change::Reopen => {
                    pending.clear();
                    drop(vault);
                    vault = open(home.path());
                }
            }
            assert_eq!(contents(&vault), map);
            let live = vault.lock();
            assert_eq!(live.users.len(), map.len(), "each value has a slot of its own");
            assert_eq!(live.free.len() + map.len(), usize::try_from(live.count).unwrap());
            drop(live);
            assert_eq!(vault.stale_slots().unwrap(), 0);
        }
        true
    }
    QuickCheck::new().rng(Gen::new(60)).tests(30).quickcheck(property as fn(Vec<Change>) -> bool);
}
