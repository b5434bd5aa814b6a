//! The options of opening a device.

use std::{path::Path, sync::Arc};

use keypool_client::{
    ClientOptions, Database, DatabaseKind, DeviceKey, LocalStore, PoolConfig, SignatureKeystore,
    StorageError,
};
use zeroize::Zeroizing;

use crate::{
    DeviceError,
    database::{AppDatabase, ForeignDatabase},
    keystore::{AppKeystore, ForeignKeystore},
};

/// The options of opening a device. Each one that is left out is as in the Rust library.
#[derive(Default, uniffi::Record)]
pub struct DeviceOptions {
    /// The ciphersuites that packages are kept of, each once; the first one is that of new groups. 1 alone if it is
    /// left out.
    #[uniffi(default = None)]
    pub ciphersuites: Option<Vec<u16>>,
    /// How many packages of each ciphersuite a refill brings the pool to; 32 if it is left out. It is refilled at a
    /// quarter of that.
    #[uniffi(default = None)]
    pub target: Option<u32>,
    /// How many packages the server keeps at most, of all ciphersuites; 64 if it is left out.
    #[uniffi(default = None)]
    pub hard_cap: Option<u32>,
    /// The key that seals the private keys on the disk; a file in the home if it is left out.
    #[uniffi(default = None)]
    pub device_key: Option<Arc<SharedDeviceKey>>,
    /// The database of the home: one of another kind is moved. If it is left out, a home keeps the kind it has, and
    /// a new one is in sled.
    #[uniffi(default = None)]
    pub database: Option<DatabaseKind>,
    /// The app's own database, for the store in place of one in the home. The home still has the lock and the keys of
    /// the values: it and the database are one store, and belong into one backup.
    #[uniffi(default = None)]
    pub app_database: Option<Arc<dyn AppDatabase>>,
    /// The keystore that makes the device's signature keys and signs by them; they are in the store if it is left out.
    /// A home that has keys in its store keeps them until the key is rotated.
    #[uniffi(default = None)]
    pub keystore: Option<Arc<dyn AppKeystore>>,
}

/// The key that seals a device's private keys on the disk. Wiped when it is dropped, and never printed.
#[derive(uniffi::Object)]
#[uniffi(name = "DeviceKey")]
pub struct SharedDeviceKey(KeyMaterial);

enum KeyMaterial {
    File,
    Passphrase(Zeroizing<String>),
    Bytes(Zeroizing<[u8; 32]>),
}

#[uniffi::export(name = "DeviceKey")]
impl SharedDeviceKey {
    /// A key in a file of the home: the weakest, since a copy of the home has the key as well.
    #[uniffi::constructor]
    #[must_use]
    pub fn in_file() -> Arc<Self> {
        Arc::new(Self(KeyMaterial::File))
    }

    /// A key made of a passphrase, which takes 64 MiB and 0.15 s or so.
    #[uniffi::constructor]
    #[must_use]
    pub fn from_passphrase(passphrase: String) -> Arc<Self> {
        Arc::new(Self(KeyMaterial::Passphrase(Zeroizing::new(passphrase))))
    }

    /// A key that the app keeps, in the system's keychain for example: 32 bytes drawn at random.
    ///
    /// # Errors
    ///
    /// Returns the code `invalid_argument` if there are not 32 bytes.
    #[uniffi::constructor]
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Arc<Self>, DeviceError> {
        let (bytes, mut key) = (Zeroizing::new(bytes), Zeroizing::new([0; 32]));
        if bytes.len() != key.len() {
            let len = bytes.len();
            return Err(DeviceError::invalid(format!(
                "a device key has 32 bytes, and there are {len}"
            )));
        }
        key.copy_from_slice(&bytes);
        Ok(Arc::new(Self(KeyMaterial::Bytes(key))))
    }
}

impl SharedDeviceKey {
    /// The key for the client library.
    pub(crate) fn key(&self) -> DeviceKey {
        match &self.0 {
            KeyMaterial::File => DeviceKey::in_file(),
            KeyMaterial::Passphrase(passphrase) => {
                DeviceKey::from_passphrase(passphrase.to_string())
            }
            KeyMaterial::Bytes(bytes) => DeviceKey::from_bytes(**bytes),
        }
    }
}

/// The kinds of databases that a home may have.
#[uniffi::remote(Enum)]
pub enum DatabaseKind {
    /// sled, in the folder `store`.
    Sled,
    /// SQLite, in the file `store.sqlite`.
    Sqlite,
}

impl DeviceOptions {
    /// The options of the client library. A home with a database of another kind than is asked for is moved first.
    pub(crate) fn into_client_options(self, home: &Path) -> Result<ClientOptions, StorageError> {
        if let Some(kind) = self.database {
            LocalStore::move_database(home, kind)?;
        }
        let mut options = ClientOptions { pool: self.pool(), ..ClientOptions::default() };
        if let Some(device_key) = self.device_key {
            options.device_key = device_key.key();
        }
        let database = self.app_database.map(ForeignDatabase);
        options.database = database.map(|database| Box::new(database) as Box<dyn Database>);
        let keystore = self.keystore.map(ForeignKeystore);
        options.keystore =
            keystore.map(|keystore| Arc::new(keystore) as Arc<dyn SignatureKeystore>);
        Ok(options)
    }

    fn pool(&self) -> PoolConfig {
        let mut pool = PoolConfig::default();
        if let Some(target) = self.target {
            pool.target = count(target);
            pool.low_watermark = pool.target / 4;
        }
        pool.hard_cap = self.hard_cap.map_or(pool.hard_cap, count);
        if let Some(ciphersuites) = &self.ciphersuites {
            pool.ciphersuites.clone_from(ciphersuites);
        }
        pool
    }
}

fn count(packages: u32) -> usize {
    usize::try_from(packages).unwrap_or(usize::MAX)
}
