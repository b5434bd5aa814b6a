//! The parts that the app has without keypool: a provider for OpenMLS with its groups in SQLite, and messages. And a
//! server.

use std::{error::Error, path::Path, sync::Arc};

use keypool_client::SystemClock;
use keypool_server::{Server, Settings};
use openmls::prelude::{tls_codec::Deserialize as _, *};
use openmls_rust_crypto::RustCrypto;
use openmls_sqlite_storage::{Codec, Connection, SqliteStorageProvider};
use serde::{Serialize, de::DeserializeOwned};

pub(crate) type Failure = Box<dyn Error>;

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
    pub(crate) fn over(connection: Connection) -> Result<Self, Failure> {
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

/// Reads a message of a group.
pub(crate) fn read(
    group: &mut MlsGroup,
    mls: &AppProvider,
    message: &[u8],
) -> Result<String, Failure> {
    let message = MlsMessageIn::tls_deserialize_exact(message)?.try_into_protocol_message()?;
    match group.process_message(mls, message)?.into_content() {
        ProcessedMessageContent::ApplicationMessage(text) => {
            Ok(String::from_utf8(text.into_bytes())?)
        }
        _ => Err("no message for people".into()),
    }
}

/// A server on a free port, as the program `keypool-server` runs it.
pub(crate) fn start_server(folder: &Path) -> Result<Server, Failure> {
    let local = "127.0.0.1:0".parse()?;
    let data = folder.join("server");
    let settings = Settings { listen: local, admin_listen: local, data, ..Settings::default() };
    Ok(Server::start(settings, Arc::new(SystemClock))?)
}
