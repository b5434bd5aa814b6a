//! Devices for the targets of the client: each input gets a copy of the same homes.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use keypool_client::{
    BoxError, Clock, Database, DatabaseChanges, DatabaseEntry, DeviceIdentity, DeviceKey, GroupId,
    KeyPackagePool, LocalStore, MlsMembership, OfferedPackage, PoolConfig, StorageError,
    SystemClock, Timestamp,
};
use tempfile::TempDir;

use super::base_journal::temporary_dir;

/// The entries of a device's database.
pub(crate) type DatabaseContents = BTreeMap<Vec<u8>, Vec<u8>>;

/// A database in memory.
#[derive(Clone, Default)]
pub(crate) struct MemoryDatabase(Arc<Mutex<DatabaseContents>>);

impl MemoryDatabase {
    pub(crate) fn of(entries: DatabaseContents) -> Self {
        Self(Arc::new(Mutex::new(entries)))
    }

    pub(crate) fn entries(&self) -> DatabaseContents {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Database for MemoryDatabase {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn scan(&self, prefix: &[u8]) -> Result<Vec<DatabaseEntry>, BoxError> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries.range(prefix.to_vec()..);
        let found = found.take_while(|(key, _)| key.starts_with(prefix));
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&self, changes: DatabaseChanges) -> Result<(), BoxError> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in changes {
            match value {
                Some(value) => drop(entries.insert(key, value)),
                None => drop(entries.remove(&key)),
            }
        }
        Ok(())
    }
}

/// The home of a device that is closed: its files, and the entries of its database.
#[derive(Clone)]
pub(crate) struct StoredHome {
    pub(crate) name: &'static str,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) entries: DatabaseContents,
}

/// A device that is open.
pub(crate) struct OpenHome {
    pub(crate) dir: TempDir,
    pub(crate) database: MemoryDatabase,
    pub(crate) store: Arc<LocalStore>,
    pub(crate) identity: DeviceIdentity,
    pub(crate) groups: MlsMembership,
}

impl StoredHome {
    const fn new(name: &'static str) -> Self {
        Self { name, files: BTreeMap::new(), entries: BTreeMap::new() }
    }

    /// Writes the files of the home into a directory.
    pub(crate) fn write(&self) -> TempDir {
        let dir = temporary_dir();
        for (name, bytes) in &self.files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        dir
    }

    /// Opens a copy of the home.
    pub(crate) fn open(&self) -> OpenHome {
        let (dir, database) = (self.write(), MemoryDatabase::of(self.entries.clone()));
        let store = open_store(&database, dir.path(), self.name).expect("the home opens");
        let store = Arc::new(store);
        let identity = DeviceIdentity::load_or_create(&store).unwrap();
        let groups = MlsMembership::new(Arc::clone(&store), identity.clone());
        OpenHome { dir, database, store, identity, groups }
    }
}

impl OpenHome {
    /// Closes the device and takes its home.
    pub(crate) fn close(self, name: &'static str) -> StoredHome {
        let Self { dir, database, store, identity, groups } = self;
        drop((store, identity, groups));
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir.path()).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            files.insert(name, fs::read(entry.path()).unwrap());
        }
        StoredHome { name, files, entries: database.entries() }
    }

    pub(crate) fn offer(&self) -> OfferedPackage {
        let pool = KeyPackagePool::new(
            Arc::clone(&self.store),
            self.identity.clone(),
            PoolConfig::default(),
        );
        let made = pool.unwrap().generate_and_store(1, now()).unwrap().remove(0);
        let (keypackage_ref, bytes) = (made.keypackage_ref().clone(), made.bytes);
        OfferedPackage { keypackage_ref, owner: self.store.owner().clone(), bytes }
    }
}

/// Opens a store whose values are sealed with a key of the app's.
pub(crate) fn open_store(
    database: &MemoryDatabase,
    home: &Path,
    name: &str,
) -> Result<LocalStore, StorageError> {
    let owner = name.parse().unwrap();
    LocalStore::open_on(Box::new(database.clone()), home, &owner, &DeviceKey::from_bytes([7; 32]))
}

/// The machine's time: `OpenMLS` reads no other.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

/// Alice has invited Bob, and both have been talking. Made once in a process, with random keys.
pub(crate) struct Scene {
    /// Alice, alone in her group.
    pub(crate) alice: StoredHome,
    /// Bob with a package, before he joins.
    pub(crate) invited: StoredHome,
    /// Bob in the group.
    pub(crate) joined: StoredHome,
    /// The Welcome for Bob.
    pub(crate) welcome: Vec<u8>,
    /// Alice's messages and Commits, in order: a text, an update, another text.
    pub(crate) messages: [Vec<u8>; 3],
}

/// The scene of this process.
pub(crate) fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(make_scene)
}

/// The group of the scene.
pub(crate) fn group() -> GroupId {
    GroupId::new(b"friends").unwrap()
}

fn make_scene() -> Scene {
    let (alice_name, bob_name) = ("alice/main", "bob/main");
    let alice = StoredHome::new(alice_name).open();
    alice.groups.create_group(&group(), 1, now()).unwrap();
    let alice_alone = alice.close(alice_name);
    let alice = alice_alone.open();
    let bob = StoredHome::new(bob_name).open();
    let offer = bob.offer();
    let added = alice.groups.stage_add(&group(), &[offer], now()).unwrap();
    alice.groups.merge_pending_commit(&group()).unwrap();
    let invited = bob.close(bob_name);
    let bob = invited.open();
    bob.groups.join_from_welcome(&added.welcome, now()).unwrap();
    let joined = bob.close(bob_name);
    let first = alice.groups.encrypt(&group(), b"pizza at eight?").unwrap();
    let update = alice.groups.self_update(&group()).unwrap().commit;
    alice.groups.merge_pending_commit(&group()).unwrap();
    let second = alice.groups.encrypt(&group(), b"at nine").unwrap();
    let messages = [first, update, second];
    Scene { alice: alice_alone, invited, joined, welcome: added.welcome, messages }
}
