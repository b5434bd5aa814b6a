//! Devices in temporary homes.

use std::{fs, future::Future, path::Path, sync::Arc, time::Duration};

use keypool_client::{
    CreatedPackage, DeviceIdentity, Joined, KeyPackagePool, LocalStore, MlsMembership,
    OfferedPackage, PendingAdd, PoolConfig, Staged,
};
use keypool_ledger::{Clock, GroupId, KeyPackageRef, PoolId, SystemClock, Timestamp};
use tempfile::TempDir;

/// How long a test waits for an event: only a hang takes longer, on the busiest machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Waits for an event.
pub(crate) async fn in_a_minute<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, event).await.expect("it happens within a minute")
}

/// A device with everything that is built on its store.
pub(crate) struct Device {
    pub(crate) home: TempDir,
    pub(crate) store: Arc<LocalStore>,
    pub(crate) identity: DeviceIdentity,
    pub(crate) pool: KeyPackagePool,
    pub(crate) groups: MlsMembership,
}

impl Device {
    /// A new device, written `user/device`.
    pub(crate) fn new(name: &str) -> Self {
        Self::in_home(TempDir::new().unwrap(), name)
    }

    /// The device whose store is in that home.
    pub(crate) fn in_home(home: TempDir, name: &str) -> Self {
        let store = Arc::new(LocalStore::open(home.path(), &name.parse().unwrap()).unwrap());
        let identity = DeviceIdentity::load_or_create(&store).unwrap();
        let config = PoolConfig::default();
        let pool = KeyPackagePool::new(Arc::clone(&store), identity.clone(), config).unwrap();
        let groups = MlsMembership::new(Arc::clone(&store), identity.clone());
        Self { home, store, identity, pool, groups }
    }

    /// Closes the device and starts it again.
    pub(crate) fn restarted(self) -> Self {
        let name = self.store.owner().to_string();
        let Self { home, store, identity, pool, groups } = self;
        drop((store, identity, pool, groups));
        Self::in_home(home, &name)
    }

    /// The device as it would start after a crash at this moment.
    pub(crate) fn crashed(&self) -> Self {
        let home = TempDir::new().unwrap();
        copy(self.home.path(), home.path());
        Self::in_home(home, &self.store.owner().to_string())
    }

    /// One package, as the server would hand it out.
    pub(crate) fn offer(&self) -> OfferedPackage {
        let made = self.pool.generate_and_store(1, now()).unwrap();
        offered(self.store.owner(), &made[0])
    }

    /// Adds the owners of packages to a group, and has the Commit accepted.
    pub(crate) fn add(&self, group: &GroupId, offers: &[OfferedPackage]) -> PendingAdd {
        let added = self.groups.stage_add(group, offers, now()).unwrap();
        self.groups.merge_pending_commit(group).unwrap();
        added
    }

    pub(crate) fn join(&self, added: &PendingAdd) -> Joined {
        self.groups.join_from_welcome(&added.welcome, now()).unwrap()
    }
}

fn offered(owner: &PoolId, made: &CreatedPackage) -> OfferedPackage {
    OfferedPackage {
        keypackage_ref: made.keypackage_ref().clone(),
        owner: owner.clone(),
        bytes: made.bytes.clone(),
    }
}

/// `OpenMLS` asks the machine's clock as well, so groups are tested at the time it is.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

pub(crate) fn group(name: &str) -> GroupId {
    GroupId::new(name.as_bytes()).unwrap()
}

pub(crate) fn pool(name: &str) -> PoolId {
    name.parse().unwrap()
}

/// Copies a folder, as it is at this moment.
pub(crate) fn copy(from: &Path, to: &Path) {
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

/// Removes the private keys of one live package, as nothing in keypool does.
pub(crate) fn lose_a_package(store: &LocalStore) {
    let staged = store.stage().unwrap();
    let own = staged.packages_where(|own| own.stage.is_live() && !own.facts.last_resort);
    lose(&staged, &own[0].facts.keypackage_ref);
    staged.commit().unwrap();
}

/// Removes the private keys of all packages.
pub(crate) fn lose_all_packages(store: &LocalStore) {
    let staged = store.stage().unwrap();
    for own in staged.packages_where(|own| own.stage.is_live()) {
        lose(&staged, &own.facts.keypackage_ref);
    }
    staged.commit().unwrap();
}

fn lose(staged: &Staged<'_>, keypackage_ref: &KeyPackageRef) {
    use openmls_traits::storage::StorageProvider;
    use tls_codec::{Deserialize, Serialize, VLBytes};

    let bytes = VLBytes::from(keypackage_ref.as_bytes()).tls_serialize_detached().unwrap();
    let reference =
        openmls::ciphersuite::hash_ref::HashReference::tls_deserialize_exact(&bytes).unwrap();
    staged.delete_key_package(&reference).unwrap();
}
