//! Packages of the key that is to follow the device's own: made before the server hears of it, so that it
//! brings them along.

use keypool_ledger::{Event, SignatureKey, Timestamp};

use super::{CreatedPackage, KeyPackagePool, stored_bundle};
use crate::{
    DeviceIdentity, PoolError, StorageError, mls::identity::leaf_keys_of, storage::fresh_command,
};

impl KeyPackagePool {
    /// The packages that `next` brings along: those that were made for it before a crash, and as many more as
    /// make a full pool of each ciphersuite. The packages of the key before are counted as gone.
    ///
    /// # Errors
    ///
    /// Returns a [`PoolError`] of the store or of MLS. No package has been made then.
    pub(in crate::mls) fn packages_of_next(
        &self,
        next: &DeviceIdentity,
        now: Timestamp,
    ) -> Result<Vec<CreatedPackage>, PoolError> {
        let keys = self.keys_of(next)?;
        let mut pending = self.pending_upload(now)?;
        pending.retain(|package| self.is_signed_with(package, &keys).unwrap_or(false));
        let of_next = Self { identity: next.clone(), ..self.clone() };
        let staged = self.store.stage()?;
        let (command, mut made) = (fresh_command(), Vec::new());
        for suite in self.suites() {
            let is_of_suite =
                |package: &&CreatedPackage| package.facts.ciphersuite == u16::from(suite);
            let before = made.len();
            made.extend(pending.iter().filter(is_of_suite).take(self.config.target).cloned());
            for _ in made.len()..before.saturating_add(self.config.target) {
                let package = of_next.make_package(&staged, (suite, false), now)?;
                staged.record(Event::Created(package.facts.clone()), now, command)?;
                made.push(package);
            }
        }
        staged.commit()?;
        Ok(made)
    }

    /// The keys that packages of a device are signed with.
    fn keys_of(&self, device: &DeviceIdentity) -> Result<Vec<SignatureKey>, StorageError> {
        let own = device.signature_key();
        let mut keys = leaf_keys_of(&self.store.stage()?, &own)?;
        keys.push(own);
        Ok(keys)
    }

    /// Whether a package that was not used was signed with one of some keys.
    fn is_signed_with(
        &self,
        package: &CreatedPackage,
        keys: &[SignatureKey],
    ) -> Result<bool, StorageError> {
        let stored = stored_bundle(&self.store.stage()?, package.keypackage_ref())?;
        Ok(stored.is_some_and(|stored| {
            let signed_with = stored.key_package().leaf_node().signature_key().as_slice();
            keys.iter().any(|key| key.as_bytes() == signed_with)
        }))
    }
}
