//! The app's own provider for OpenMLS, with the groups in SQLite.

use std::error::Error;

use openmls::prelude::OpenMlsProvider;
use openmls_rust_crypto::RustCrypto;
use openmls_sqlite_storage::{Codec, Connection, SqliteStorageProvider};
use serde::{Serialize, de::DeserializeOwned};

/// The values of the groups as JSON.
#[derive(Default)]
pub(crate) struct Json;

impl Codec for Json {
    type Error = serde_json::Error;

    fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, Self::Error> {
        serde_json::to_vec(value)
    }

    fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Self::Error> {
        serde_json::from_slice(bytes)
    }
}

/// Cryptography in Rust, and the app's database.
pub(crate) struct AppProvider {
    crypto: RustCrypto,
    groups: SqliteStorageProvider<Json, Connection>,
}

impl AppProvider {
    /// Makes the tables where they are missing. Deleted keys are overwritten in them.
    pub(crate) fn over(connection: Connection) -> Result<Self, Box<dyn Error>> {
        connection.pragma_update(None, "secure_delete", true)?;
        let mut groups = SqliteStorageProvider::new(connection);
        groups.run_migrations()?;
        Ok(Self { crypto: RustCrypto::default(), groups })
    }
}

impl OpenMlsProvider for AppProvider {
    type CryptoProvider = RustCrypto;
    type RandProvider = RustCrypto;
    type StorageProvider = SqliteStorageProvider<Json, Connection>;

    fn storage(&self) -> &Self::StorageProvider {
        &self.groups
    }

    fn crypto(&self) -> &RustCrypto {
        &self.crypto
    }

    fn rand(&self) -> &RustCrypto {
        &self.crypto
    }
}
