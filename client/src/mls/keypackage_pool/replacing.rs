//! Packages of the key that is to follow the device's own: made before the server hears of it, so that it
//! brings them along.

use keypool_ledger::{Event, SignatureKey, Timestamp};

use super::{CreatedPackage, KeyPackagePool, stored_bundle};
use crate::{DeviceIdentity, PoolError, StorageError, storage::fresh_command};

impl KeyPackagePool {
    /// The packages that `next` brings along: those that were made for it before a crash, and as many more as
    /// make a full pool. The packages of the key before are counted as gone.
    ///
    /// # Errors
    ///
    /// Returns a [`PoolError`] of the store or of MLS. No package has been made then.
    pub(in crate::mls) fn packages_of_next(
        &self,
        next: &DeviceIdentity,
        now: Timestamp,
    ) -> Result<Vec<CreatedPackage>, PoolError> {
        let key = next.signature_key();
        let mut made = self.pending_upload(now)?;
        made.retain(|package| self.is_signed_with(package, &key).unwrap_or(false));
        made.truncate(self.config.target);
        let of_next = Self { identity: next.clone(), ..self.clone() };
        let staged = self.store.stage()?;
        let command = fresh_command();
        while made.len() < self.config.target {
            let package = of_next
                .make_package(&staged, (of_next.suite, false), now)
                .map_err(PoolError::Mls)?;
            staged.record(Event::Created(package.facts.clone()), now, command)?;
            made.push(package);
        }
        staged.commit()?;
        Ok(made)
    }

    /// Whether a package that was not used was signed with a key.
    fn is_signed_with(
        &self,
        package: &CreatedPackage,
        key: &SignatureKey,
    ) -> Result<bool, StorageError> {
        let stored = stored_bundle(&self.store.stage()?, package.keypackage_ref())?;
        Ok(stored.is_some_and(|stored| {
            stored.key_package().leaf_node().signature_key().as_slice() == key.as_bytes()
        }))
    }
}
