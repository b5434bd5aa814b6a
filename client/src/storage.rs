//! `LocalStore`: everything a device must not lose, in one database, written in whole operations.
//!
//! It holds the state of `OpenMLS`, the device's own history of events, a mirror of the server's
//! history of the pool, and small records of the application's side. All writing goes through a
//! [`Staged`], which is committed as one atomic write or leaves nothing.

mod chain;
mod database;
mod doctor;
mod encoding;
mod engine;
mod erasure;
mod folder;
mod high_water_mark;
mod keys;
mod keystore;
#[cfg(all(feature = "sled-store", feature = "sqlite-store"))]
mod moving;
mod openmls;
pub(crate) mod own_packages;
mod probe;
mod sealing;
#[cfg(feature = "sled-store")]
mod sled_database;
#[cfg(feature = "sqlite-store")]
mod sqlite_database;
mod staged;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use keypool_ledger::{CommandId, EventEnvelope, KeyPackageRef, PoolId, StreamHead, StreamId};
use keypool_projections::PoolState;
use openmls_rust_crypto::RustCrypto;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use self::chain::{kept_form, read as read_kept};
#[cfg(all(feature = "sled-store", feature = "sqlite-store"))]
pub use self::moving::DatabaseKind;
pub(crate) use self::sealing::randomize;
#[cfg(feature = "sqlite-store")]
pub use self::sqlite_database::SqliteDatabase;
pub use self::{
    database::{Changes as DatabaseChanges, Database, KeyValue as DatabaseEntry},
    erasure::Erasure,
    keystore::SignatureKeystore,
    openmls::Provider,
    sealing::{DeviceKey, DeviceKeyKind},
    staged::Staged,
};
use self::{
    engine::Engine,
    own_packages::{OwnPackage, OwnPackages},
    sealing::Vault,
};
use crate::StorageError;

/// The format of the store written today. Format 1 was not sealed.
const FORMAT: u16 = 2;

/// A fresh id for a command of this device: random, so that no two are the same.
#[must_use]
pub fn fresh_command() -> CommandId {
    CommandId(Uuid::new_v4())
}

/// A device's store: one folder, one process, one writer at a time.
///
/// Reads see committed values. [`LocalStore::stage`] waits until no other [`Staged`] is there, so a
/// thread that holds one must not ask for a second, nor call the methods that say they wait.
pub struct LocalStore {
    vault: Vault,
    erasure: Erasure,
    owner: StreamId,
    pool: PoolId,
    state: Mutex<StoreState>,
    crypto: RustCrypto,
    keystore: Option<Arc<dyn SignatureKeystore>>,
}

/// The part of the database that is cached in memory.
struct StoreState {
    history: StreamHead,
    mirror: StreamHead,
    server_pool: PoolState,
    packages: OwnPackages,
    /// A write failed: the content of the database is unknown.
    stopped: bool,
}

/// The first value of every store.
#[derive(Serialize, Deserialize)]
struct About {
    format: u16,
    owner: PoolId,
    /// The name of the store, which its key file has as well.
    #[serde(default)]
    store: Uuid,
}

impl LocalStore {
    /// Opens the device's store in the folder `home`, and makes it if there is none. It is sealed with
    /// a key in a file of the home: see [`DeviceKey::in_file`] for its strength.
    ///
    /// # Errors
    ///
    /// As [`LocalStore::open_sealed`].
    pub fn open(home: &Path, owner: &PoolId) -> Result<Self, StorageError> {
        Self::open_sealed(home, owner, &DeviceKey::in_file())
    }

    /// Opens the device's store in the folder `home` with its device key, and makes it if there is none.
    ///
    /// The own history is replayed and its chain verified. A mirror that is damaged is forgotten:
    /// the next refresh fetches it anew.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError::InUse`] if another process has the home open, `WrongOwner` if it is
    /// another device's, `Damaged`, `RolledBack` or `HistoryBroken` if it cannot be trusted,
    /// `Newer` or `Unsealed` if this version cannot read it, `Sealing` if the device key or the key
    /// file is not the right one, and `Folder` if the file system refuses. Nothing has changed then.
    pub fn open_sealed(home: &Path, owner: &PoolId, key: &DeviceKey) -> Result<Self, StorageError> {
        Self::open_engine(Engine::open(home)?, home, owner, key)
    }

    /// As [`LocalStore::open_sealed`], with the events, the sealed values and the MLS state in a database of the app's.
    /// The folder `home` has the keys of the values, which are overwritten there when a value is deleted, the lock,
    /// and the count of the writes: it and the database are one store, and belong into one backup.
    ///
    /// # Errors
    ///
    /// As [`LocalStore::open_sealed`].
    pub fn open_on(
        database: Box<dyn Database>,
        home: &Path,
        owner: &PoolId,
        key: &DeviceKey,
    ) -> Result<Self, StorageError> {
        Self::open_engine(Engine::open_on(database, home)?, home, owner, key)
    }

    fn open_engine(
        engine: Engine,
        home: &Path,
        owner: &PoolId,
        key: &DeviceKey,
    ) -> Result<Self, StorageError> {
        let about = claim(&engine, home, owner)?;
        let stream = StreamId::Pool(owner.clone());
        let (history, packages) = replay(&engine, &stream)?;
        let (mirror, server_pool) = replay_mirror(&engine, &stream)?;
        let vault = match about {
            Some(store) => Vault::open(engine, home, key, store)?,
            None => found(engine, home, owner, key)?,
        };
        let erasure = Erasure::of(vault.key_file());
        erasure.warn_unless_in_place(home);
        let state = StoreState { history, mirror, server_pool, packages, stopped: false };
        let state = Mutex::new(state);
        let crypto = RustCrypto::default();
        Ok(Self {
            vault,
            erasure,
            owner: stream,
            pool: owner.clone(),
            state,
            crypto,
            keystore: None,
        })
    }

    /// The same store, with a keystore in which all further signature keys of the device are made. Keys that the store
    /// has already stay where they are until a rotation replaces them: see [`MlsClient::rotate_key`].
    ///
    /// [`MlsClient::rotate_key`]: crate::MlsClient::rotate_key
    #[must_use]
    pub fn with_keystore(self, keystore: Arc<dyn SignatureKeystore>) -> Self {
        Self { keystore: Some(keystore), ..self }
    }

    /// Whose store this is.
    #[must_use]
    pub fn owner(&self) -> &PoolId {
        &self.pool
    }

    /// Whether deleted values are gone from the disk, as far as the file system lets it be known.
    #[must_use]
    pub const fn erasure(&self) -> Erasure {
        self.erasure
    }

    /// Seals the store with another device key, of any kind. Afterwards the one before opens nothing of
    /// it any more, copies included that a file system has kept. Waits for a staged operation to end.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if a file cannot be written: the store then opens with either the key
    /// before or the new one. [`StorageError::Stopped`] if an earlier write failed.
    pub fn change_device_key(&self, key: &DeviceKey) -> Result<(), StorageError> {
        let state = self.lock();
        if state.stopped {
            return Err(StorageError::Stopped);
        }
        Ok(self.vault.change_key(key)?)
    }

    /// Begins an operation. Waits for the one before it to be committed or dropped.
    ///
    /// # Errors
    ///
    /// Returns [`StorageError::Stopped`] if an earlier write failed: open the store again.
    pub fn stage(&self) -> Result<Staged<'_>, StorageError> {
        let state = self.lock();
        if state.stopped {
            return Err(StorageError::Stopped);
        }
        Ok(Staged::new(self, state))
    }

    /// One of the device's own packages. Waits for a staged operation to end.
    #[must_use]
    pub fn package(&self, keypackage_ref: &KeyPackageRef) -> Option<OwnPackage> {
        self.lock().packages.get(keypackage_ref).cloned()
    }

    /// The end of the device's own history. Waits for a staged operation to end.
    #[must_use]
    pub fn history_head(&self) -> StreamHead {
        self.lock().history
    }

    /// The end of the mirror of the server's history. Waits for a staged operation to end.
    #[must_use]
    pub fn mirror_head(&self) -> StreamHead {
        self.lock().mirror
    }

    /// The device's pool as the server's history, up to where it is mirrored, leaves it. Waits for a
    /// staged operation to end.
    #[must_use]
    pub fn server_pool(&self) -> PoolState {
        self.lock().server_pool.clone()
    }

    /// The device's own history, in order.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the database cannot be read.
    pub fn history(&self) -> Result<Vec<EventEnvelope>, StorageError> {
        self.events(keys::HISTORY)
    }

    /// The server's history of the pool, in order, as far as it is mirrored.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the database cannot be read.
    pub fn mirror(&self) -> Result<Vec<EventEnvelope>, StorageError> {
        self.events(keys::MIRROR)
    }

    /// The histories of the pool that the server had told before it was set back or told another one, the
    /// first ones at most, each in order.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the database cannot be read.
    pub fn earlier_mirrors(&self) -> Result<Vec<Vec<EventEnvelope>>, StorageError> {
        let mut told: BTreeMap<u32, Vec<EventEnvelope>> = BTreeMap::new();
        for (key, bytes) in self.vault.events(keys::PAST)? {
            let read = chain::read(&bytes);
            let (envelope, _) = read.map_err(|err| StorageError::Unreadable(err.into()))?;
            let number = keys::past_number(&key).unwrap_or_default();
            told.entry(number).or_default().push(envelope);
        }
        Ok(told.into_values().collect())
    }

    fn events(&self, kind: u8) -> Result<Vec<EventEnvelope>, StorageError> {
        let mut envelopes = Vec::new();
        for (_, bytes) in self.vault.events(kind)? {
            let read = chain::read(&bytes);
            envelopes.push(read.map_err(|err| StorageError::Unreadable(err.into()))?.0);
        }
        Ok(envelopes)
    }

    /// A thread that panicked while it staged has written nothing: its state is as good as before.
    fn lock(&self) -> MutexGuard<'_, StoreState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStore").finish_non_exhaustive()
    }
}

/// Makes sure that the store is this owner's and can be read. Its name; `None` if it is new.
fn claim(engine: &Engine, home: &Path, asked: &PoolId) -> Result<Option<Uuid>, StorageError> {
    let Some(bytes) = engine.get(keys::ABOUT)? else { return Ok(None) };
    let about: About = encoding::decode("store", &bytes)?;
    if about.format > FORMAT {
        return Err(StorageError::Newer { home: home.to_path_buf(), found: about.format });
    }
    if about.owner != *asked {
        return Err(StorageError::WrongOwner {
            home: home.to_path_buf(),
            owner: about.owner,
            asked: asked.clone(),
        });
    }
    if about.format < FORMAT {
        return Err(StorageError::Unsealed { home: home.to_path_buf() });
    }
    Ok(Some(about.store))
}

/// Makes a new store the owner's. Its key file comes first: a store is never without one.
fn found(
    engine: Engine,
    home: &Path,
    owner: &PoolId,
    key: &DeviceKey,
) -> Result<Vault, StorageError> {
    let about = About { format: FORMAT, owner: owner.clone(), store: Uuid::new_v4() };
    let bytes = encoding::encode("store", &about)?;
    let vault = Vault::create(engine, home, key, about.store)?;
    vault.write([(keys::ABOUT.to_vec(), Some(bytes))].into()).map_err(StorageError::Unknown)?;
    Ok(vault)
}

/// Folds the device's own history, and verifies its chain from the first event on, and its end.
///
/// A store that an older version has written has no end, or that of an event before the last one.
fn replay(engine: &Engine, stream: &StreamId) -> Result<(StreamHead, OwnPackages), StorageError> {
    let mut head = StreamHead::default();
    let mut packages = OwnPackages::default();
    let end = engine.get(keys::HISTORY_END)?;
    let mut is_whole = end.is_none();
    for (_, bytes) in engine.scan(&[keys::HISTORY])? {
        let broken = |why| StorageError::HistoryBroken { version: head.version + 1, why };
        let (envelope, next) = chain::follow(&head, stream, &bytes).map_err(broken)?;
        packages.evolve(&envelope.event).map_err(|err| broken(err.to_string()))?;
        is_whole |= end.as_ref().is_some_and(|end| *end == chain::end_of(&next));
        head = next;
    }
    if !is_whole {
        let why = "no event has the hash that was kept of the last one".to_owned();
        return Err(StorageError::HistoryBroken { version: head.version, why });
    }
    Ok((head, packages))
}

/// Folds the mirror, and verifies its chain. Forgets a damaged one, since the server has it still.
fn replay_mirror(
    engine: &Engine,
    stream: &StreamId,
) -> Result<(StreamHead, PoolState), StorageError> {
    let (mut head, mut pool) = (StreamHead::default(), PoolState::default());
    let entries = engine.scan(&[keys::MIRROR])?;
    for (_, bytes) in &entries {
        let followed = chain::follow(&head, stream, bytes).and_then(|(envelope, next)| {
            pool.evolve(&envelope.event, envelope.at).map_err(|err| err.to_string())?;
            Ok(next)
        });
        match followed {
            Ok(next) => head = next,
            Err(why) => {
                tracing::warn!(version = head.version + 1, why, "the mirror is damaged; forgotten");
                let forget = entries.into_iter().map(|(key, _)| (key, None)).collect();
                engine.write(forget).map_err(StorageError::Unknown)?;
                return Ok((StreamHead::default(), PoolState::default()));
            }
        }
    }
    Ok((head, pool))
}
