//! Values as bytes: `MessagePack` with named fields. The only home of rmp-serde in this crate.

use rmp_serde::config::BytesMode;
use serde::{Serialize, de::DeserializeOwned};

use crate::StorageError;

/// The bytes of a value.
pub(super) fn encode(what: &str, value: &impl Serialize) -> Result<Vec<u8>, StorageError> {
    let mut bytes = Vec::new();
    let mut serializer =
        rmp_serde::Serializer::new(&mut bytes).with_struct_map().with_bytes(BytesMode::ForceAll);
    match value.serialize(&mut serializer) {
        Ok(()) => Ok(bytes),
        Err(err) => Err(StorageError::Value { what: what.to_owned(), source: err.into() }),
    }
}

/// The value that some bytes hold.
pub(super) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StorageError> {
    rmp_serde::from_slice(bytes)
        .map_err(|err| StorageError::Value { what: what.to_owned(), source: err.into() })
}
