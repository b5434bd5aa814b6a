//! The whole disk beneath a home: a file system in a file, searched to its last byte.
//!
//! It needs root and loop devices: `cargo test -p keypool-client --test client disk -- --ignored`.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use keypool_client::{Erasure, LocalStore, OwnStage};
use tempfile::TempDir;

use super::{
    super::support::{Device, now},
    Past,
    scanner::Scanner,
    secrets::Secrets,
    story,
    thief::Thief,
};

/// A file system, mounted until it is dropped.
struct Disk {
    folder: TempDir,
}

impl Disk {
    fn new(options: &str) -> Self {
        let disk = Self { folder: TempDir::new().unwrap() };
        fs::write(disk.image(), vec![0; 48 << 20]).unwrap();
        run("mkfs.ext4", &["-q", "-F", "-b", "4096", path(&disk.image())]);
        disk.mounted(options)
    }

    /// Another disk with those bytes on it.
    fn with(bytes: &[u8]) -> Self {
        let disk = Self { folder: TempDir::new().unwrap() };
        fs::write(disk.image(), bytes).unwrap();
        disk.mounted("")
    }

    fn mounted(self, options: &str) -> Self {
        let disk = self;
        fs::create_dir(disk.mount()).unwrap();
        run("mount", &["-o", &format!("loop{options}"), path(&disk.image()), path(&disk.mount())]);
        disk
    }

    fn image(&self) -> std::path::PathBuf {
        self.folder.path().join("image")
    }

    fn mount(&self) -> std::path::PathBuf {
        self.folder.path().join("mount")
    }

    /// All bytes of the disk, as they would be after a power cut at this moment: bytes in the memory of
    /// the file system are not among them.
    fn bytes(&self) -> Vec<u8> {
        fs::read(self.image()).unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.mount()).status();
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).status().unwrap();
    assert!(done.success(), "{program} {arguments:?}");
}

/// The values of a device on such a disk that can be recovered, with the device key and all that is left
/// on the disk: live values, and dead ones.
fn recovered(options: &str, erasure: Erasure) -> (BTreeSet<String>, BTreeSet<String>) {
    let disk = Disk::new(options);
    let home = TempDir::new_in(disk.mount()).unwrap();
    let mut past = Past::default();
    let bob = story(&mut past, home);
    assert_eq!(bob.store.erasure(), erasure);
    let live = past.look(&bob);
    let is_dead = |(secret, _): &(Vec<u8>, String)| !live.contains_key(secret);
    let dead: Secrets = past.secrets.clone().into_iter().filter(is_dead).collect();
    let bytes = disk.bytes();
    assert_eq!(Scanner::new(&past.secrets).find(&bytes), [""; 0], "in clear");
    let mut thief = Thief::of(bob.home.path());
    let device_key = fs::read(bob.home.path().join("device-key")).unwrap();
    thief.search_disk(&bytes, &device_key.try_into().unwrap());
    let find = |secrets: &Secrets| -> BTreeSet<String> {
        let scanner = Scanner::raw(secrets);
        let found = thief.recover_from_disk(&bytes, &scanner);
        found.into_iter().map(ToOwned::to_owned).collect()
    };
    (find(&live), find(&dead))
}

#[test]
#[ignore = "it mounts a disk, which needs root"]
fn a_disk_that_is_written_in_place_keeps_nothing_of_a_dead_key() {
    let (live, dead) = recovered("", Erasure::InPlace);
    assert!(live.iter().any(|what| what.contains("kp.private_init_key")), "{live:?}");
    assert_eq!(dead, BTreeSet::new());
}

#[test]
#[ignore = "it mounts a disk, which needs root"]
fn what_was_written_is_there_after_a_power_cut() {
    let disk = Disk::new("");
    let mut past = Past::default();
    let bob = story(&mut past, TempDir::new_in(disk.mount()).unwrap());
    let made = bob.pool.generate_and_store(4, now()).unwrap();
    let live = past.look(&bob);
    let after = Disk::with(&disk.bytes());
    let home = after.mount().join(bob.home.path().file_name().unwrap());
    assert_eq!(Thief::of(&home).secrets(&home), live);
    let store = LocalStore::open(&home, bob.store.owner()).unwrap();
    assert_eq!(store.history().unwrap(), bob.store.history().unwrap());
    let own = store.package(made[3].keypackage_ref()).unwrap();
    assert_eq!(own.stage, OwnStage::Created);
}

/// The deletion is the last thing that happens: nothing later makes it durable by the way.
#[test]
#[ignore = "it mounts a disk, which needs root"]
fn what_was_deleted_is_gone_after_a_power_cut() {
    let disk = Disk::new("");
    let bob = Device::in_home(TempDir::new_in(disk.mount()).unwrap(), "bob/laptop");
    bob.pool.generate_and_store(4, now()).unwrap();
    let mut past = Past::default();
    let living = past.look(&bob);
    let packages = living.into_iter().filter(|(_, what)| what.starts_with("kp."));
    let packages = Scanner::raw(&packages.collect());
    let device_key = fs::read(bob.home.path().join("device-key")).unwrap().try_into().unwrap();
    let recovered = || {
        let disk = disk.bytes();
        let mut thief = Thief::of(bob.home.path());
        thief.search_disk(&disk, &device_key);
        thief.recover_from_disk(&disk, &packages).len()
    };
    assert_eq!(recovered(), 2, "init keys and encryption keys");
    let end = now().after(Duration::from_hours(15 * 24));
    assert_eq!(bob.pool.expire(end).unwrap().len(), 4);
    assert_eq!(recovered(), 0);
}

/// The reason for the warning, and proof that the search would see it.
#[test]
#[ignore = "it mounts a disk, which needs root"]
fn a_disk_that_journals_its_data_keeps_dead_keys() {
    let erasure = Erasure::Elsewhere("ext4 with data=journal");
    let (_, dead) = recovered(",data=journal", erasure);
    assert!(dead.iter().any(|what| what.contains("kp.private_init_key")), "{dead:?}");
}
