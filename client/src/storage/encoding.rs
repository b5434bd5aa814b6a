//! Values as bytes: `MessagePack` with named fields. The only home of rmp-serde in this crate.

use std::io;

use rmp_serde::config::BytesMode;
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::sealing::Plain;
use crate::StorageError;

/// The capacity reserved for a value before its size is known, in bytes.
const RESERVED_BYTES: usize = 1024;

/// Bytes that grow without leaving copies of themselves in memory.
struct Wiping(Plain);

impl io::Write for Wiping {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let needed = self.0.len().saturating_add(bytes.len());
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.saturating_mul(2)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The bytes of a value.
pub(super) fn encode(what: &str, value: &impl Serialize) -> Result<Plain, StorageError> {
    let mut bytes = Wiping(Zeroizing::new(Vec::with_capacity(RESERVED_BYTES)));
    let mut serializer =
        rmp_serde::Serializer::new(&mut bytes).with_struct_map().with_bytes(BytesMode::ForceAll);
    match value.serialize(&mut serializer) {
        Ok(()) => Ok(bytes.0),
        Err(err) => Err(StorageError::Value { what: what.to_owned(), source: err.into() }),
    }
}

/// The value that some bytes hold.
pub(super) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, StorageError> {
    rmp_serde::from_slice(bytes)
        .map_err(|err| StorageError::Value { what: what.to_owned(), source: err.into() })
}
