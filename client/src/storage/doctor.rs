//! Checks of the store's values by a staged operation, without opening them.

use openmls::ciphersuite::hash_ref::HashReference;

use super::{Staged, encoding, keys, openmls::mls_key};
use crate::{SealingError, StorageError};

/// The label of packages and their private keys among the values of `OpenMLS`.
const PACKAGE: &str = "kp";

impl Staged<'_> {
    /// Whether a package's private keys are there, whether or not they can be opened.
    pub(crate) fn has_key_package(&self, reference: &HashReference) -> Result<bool, StorageError> {
        Ok(self.has(&mls_key(PACKAGE, reference)?))
    }

    /// The packages whose private keys are there.
    pub(crate) fn stored_key_packages(&self) -> Result<Vec<HashReference>, StorageError> {
        let names = self.names(&keys::mls_label(PACKAGE));
        let encoded = names.iter().filter_map(|name| keys::mls_encoded_key(PACKAGE, name));
        encoded.map(|bytes| encoding::decode("reference", bytes)).collect()
    }

    /// The values that cannot be opened, without packages: each as the text of its error.
    pub(crate) fn lost_values(&self) -> Result<Vec<String>, StorageError> {
        let packages = keys::mls_label(PACKAGE);
        let names = self.names(&[]).into_iter().filter(|name| !name.starts_with(&packages));
        let mut lost = Vec::new();
        for name in names {
            match self.get(&name) {
                Ok(_) => {}
                Err(StorageError::Sealing(
                    SealingError::SlotDamaged { what, .. } | SealingError::ValueDamaged { what },
                )) => lost.push(what),
                Err(error) => return Err(error),
            }
        }
        Ok(lost)
    }

    /// Whether a package's private keys are there and can be opened.
    pub(crate) fn opens_key_package(
        &self,
        reference: &HashReference,
    ) -> Result<bool, StorageError> {
        match self.get(&mls_key(PACKAGE, reference)?) {
            Ok(value) => Ok(value.is_some()),
            Err(StorageError::Sealing(
                SealingError::SlotDamaged { .. } | SealingError::ValueDamaged { .. },
            )) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How many keys stand in the key file that no value has.
    pub(crate) fn stale_slots(&self) -> Result<usize, StorageError> {
        self.store.vault.stale_slots()
    }

    /// Overwrites them. This is no part of the operation: it happens at once.
    pub(crate) fn erase_stale_slots(&self) -> Result<(), StorageError> {
        self.store.vault.erase_free_slots()
    }
}
