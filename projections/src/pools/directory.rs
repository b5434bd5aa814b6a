//! Who is who: which key speaks for which pool, and which devices a user has. A fold of the pools.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use keypool_ledger::{PoolId, SignatureKey};

use crate::pool::Registration;

/// The directory of all pools.
#[derive(Debug, Default)]
pub(super) struct Directory {
    keys: HashMap<SignatureKey, PoolId>,
    /// The key of each registered pool, so that a changed registration removes the old key.
    registered: HashMap<PoolId, SignatureKey>,
    devices: BTreeMap<String, BTreeSet<PoolId>>,
}

impl Directory {
    /// Takes in a pool as it is now.
    pub(super) fn note(&mut self, pool: &PoolId, registration: Option<&Registration>) {
        if !self.devices.get(pool.user()).is_some_and(|devices| devices.contains(pool)) {
            self.devices.entry(pool.user().to_owned()).or_default().insert(pool.clone());
        }
        let key = registration.map(|registration| &registration.signature_key);
        if self.registered.get(pool) == key {
            return;
        }
        if let Some(old) = self.registered.remove(pool) {
            self.keys.remove(&old);
        }
        if let Some(key) = key {
            self.keys.insert(key.clone(), pool.clone());
            self.registered.insert(pool.clone(), key.clone());
        }
    }

    /// The pool that a key speaks for.
    pub(super) fn pool_of_key(&self, key: &SignatureKey) -> Option<&PoolId> {
        self.keys.get(key)
    }

    /// The pools of a user, by device.
    pub(super) fn devices_of(&self, user: &str) -> impl Iterator<Item = &PoolId> {
        self.devices.get(user).into_iter().flatten()
    }

    /// Whether a key speaks for no other pool.
    pub(super) fn is_free(&self, pool: &PoolId, key: &SignatureKey) -> bool {
        self.keys.get(key).is_none_or(|other| other == pool)
    }

    /// Whether a key may be registered for a pool: the first key of a user is trusted on first use, one for
    /// another device if a key of the user has vouched for it. The key must not speak for another pool.
    pub(super) fn admits(
        &self,
        pool: &PoolId,
        key: &SignatureKey,
        voucher: Option<&SignatureKey>,
    ) -> bool {
        let mut others = self.devices_of(pool.user()).filter(|other| *other != pool);
        let is_first = !others.any(|other| self.registered.contains_key(other));
        let by = voucher.and_then(|key| self.keys.get(key));
        let is_vouched_for = by.is_some_and(|by| by.user() == pool.user() && by != pool);
        self.is_free(pool, key) && (is_first || is_vouched_for || self.keys.get(key) == Some(pool))
    }

    /// The devices of a user that a key speaks for.
    pub(super) fn registered_of(&self, user: &str) -> Vec<PoolId> {
        let devices = self.devices_of(user).filter(|pool| self.registered.contains_key(pool));
        devices.cloned().collect()
    }
}
