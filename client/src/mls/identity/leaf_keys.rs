//! Keys of another signature scheme than the device's own: they sign packages and messages in the
//! groups that are joined with these, and nothing else.
//!
//! Each goes with one key of the device and is made when it is first needed, by the operation that needs
//! it. Another key for the device brings others along, and they are deleted together.

use data_encoding::HEXLOWER;
use keypool_ledger::SignatureKey;
use openmls_traits::types::SignatureScheme;
use serde::{Deserialize, Serialize};

use super::{DeviceKeys, SigningKey, delete_signing_key};
use crate::{IdentityError, Staged, StorageError, mls::SIGNATURE_SCHEME};

/// The prefix of the names of the records of these keys.
const PREFIX: &str = "leaf-key/";

/// A key that goes with a key of the device. The private half is with the values of `OpenMLS`.
#[derive(Serialize, Deserialize)]
struct LeafKeyRecord {
    signature_scheme: u16,
    signature_key: SignatureKey,
    /// Whether the server has heard of it from the device's key.
    #[serde(default)]
    declared: bool,
}

impl DeviceKeys {
    /// The key that signs for the device by a scheme; `None` if it was not needed yet.
    pub(crate) fn signing_key_of(
        &self,
        staged: &Staged<'_>,
        scheme: SignatureScheme,
    ) -> Result<Option<SigningKey>, IdentityError> {
        if scheme == SIGNATURE_SCHEME {
            return Ok(Some(self.signing_key.clone()));
        }
        match staged.app_record::<LeafKeyRecord>(&name_of(self.signature_key(), scheme as u16))? {
            Some(LeafKeyRecord { signature_key, .. }) => {
                SigningKey::stored(staged, &signature_key, scheme).map(Some)
            }
            None => Ok(None),
        }
    }

    /// The key that signs for the device by a scheme, which is made as part of the operation if it was not
    /// needed yet.
    pub(crate) fn signing_key_or_new(
        &self,
        staged: &Staged<'_>,
        scheme: SignatureScheme,
    ) -> Result<SigningKey, IdentityError> {
        if let Some(key) = self.signing_key_of(staged, scheme)? {
            return Ok(key);
        }
        let made = SigningKey::make(staged, scheme)?;
        let signature_key = made.public().clone();
        let name = name_of(self.signature_key(), scheme as u16);
        let record =
            LeafKeyRecord { signature_scheme: scheme as u16, signature_key, declared: false };
        staged.put_app_record(&name, &record)?;
        Ok(made)
    }
}

/// The keys that go with a key of the device.
pub(crate) fn leaf_keys_of(
    staged: &Staged<'_>,
    of: &SignatureKey,
) -> Result<Vec<SignatureKey>, StorageError> {
    Ok(records_of(staged, of)?.into_iter().map(|(_, record)| record.signature_key).collect())
}

/// The keys that go with a key of the device and that the server has not heard of, each with its scheme.
pub(crate) fn undeclared_leaf_keys(
    staged: &Staged<'_>,
    of: &SignatureKey,
) -> Result<Vec<(u16, SignatureKey)>, StorageError> {
    let records = records_of(staged, of)?.into_iter().map(|(_, record)| record);
    let undeclared = records.filter(|record| !record.declared);
    Ok(undeclared.map(|record| (record.signature_scheme, record.signature_key)).collect())
}

/// Notes whether the server has heard of the keys that go with a key of the device, as part of the operation.
pub(crate) fn note_declared(
    staged: &Staged<'_>,
    of: &SignatureKey,
    declared: bool,
) -> Result<(), StorageError> {
    for (name, record) in records_of(staged, of)? {
        staged.put_app_record(&name, &LeafKeyRecord { declared, ..record })?;
    }
    Ok(())
}

/// Deletes the keys that go with a key of the device, as part of the operation.
pub(crate) fn delete_leaf_keys(
    staged: &Staged<'_>,
    of: &SignatureKey,
) -> Result<(), IdentityError> {
    for (name, LeafKeyRecord { signature_scheme, signature_key, .. }) in records_of(staged, of)? {
        if let Ok(scheme) = SignatureScheme::try_from(signature_scheme) {
            delete_signing_key(staged, &signature_key, scheme)?;
        }
        staged.remove_app_record(&name);
    }
    Ok(())
}

fn records_of(
    staged: &Staged<'_>,
    of: &SignatureKey,
) -> Result<Vec<(String, LeafKeyRecord)>, StorageError> {
    let mut found = Vec::new();
    for name in staged.app_record_names(&prefix_of(of))? {
        let record: Option<LeafKeyRecord> = staged.app_record(&name)?;
        found.extend(record.map(|record| (name, record)));
    }
    Ok(found)
}

fn prefix_of(of: &SignatureKey) -> String {
    format!("{PREFIX}{}/", HEXLOWER.encode(of.as_bytes()))
}

fn name_of(of: &SignatureKey, scheme: u16) -> String {
    format!("{}{scheme:04x}", prefix_of(of))
}
