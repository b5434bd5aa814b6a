//! Declarations of a device's key, and of the user's recovery key: leaf keys, credentials, recoveries.

use keypool_ledger::{
    CredentialBytes, Event, EventLog, PoolId, SignatureKey, SignedStatement, log::find_command,
};
use keypool_projections::LeafKey;

use super::{
    Idempotency, KeyPackageStore, StoreError,
    commands::{self, Typed},
};
use crate::pools::Target;

/// The result of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Whether the key was registered by this recovery key before.
    pub known: bool,
    /// The other devices of the user that were removed with it.
    pub removed: Vec<PoolId>,
    /// The position of the registration in the log.
    pub position: u64,
}

impl<L: EventLog + 'static> KeyPackageStore<L> {
    /// Declares the key that signs a device's packages of a signature scheme; returns where that stands in
    /// the log. That the device's key has signed the statement is for the caller to check.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if live packages are signed with another key, the statement is stale, or the
    /// log does not take events. Nothing has changed then.
    pub async fn declare_leaf_key(
        &self,
        pool: &PoolId,
        (statement, leaf_key): (SignedStatement, LeafKey),
        idempotency: Idempotency,
    ) -> Result<u64, StoreError> {
        self.declare(pool, commands::declare_leaf_key(statement, leaf_key), idempotency).await
    }

    /// Declares the credential of a device's packages; returns its position in the log. That the device's key
    /// has signed the statement is for the caller to check.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if live packages carry another credential, the statement is stale, or the log
    /// does not take events. Nothing has changed then.
    pub async fn declare_credential(
        &self,
        pool: &PoolId,
        (statement, credential): (SignedStatement, CredentialBytes),
        idempotency: Idempotency,
    ) -> Result<u64, StoreError> {
        self.declare(pool, commands::declare_credential(statement, credential), idempotency).await
    }

    /// Sets the recovery key of a user, in the history of the device that set the first; returns its position
    /// in the log. That the statement is signed is for the caller to check.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the user has a recovery key that has not agreed, the key is in use or was,
    /// the statement is stale, or the log does not take events. Nothing has changed then.
    pub async fn set_recovery_key(
        &self,
        pool: &PoolId,
        (statement, recovery_key): (SignedStatement, SignatureKey),
        idempotency: Idempotency,
    ) -> Result<u64, StoreError> {
        self.declare(pool, commands::set_recovery_key(statement, recovery_key), idempotency).await
    }

    /// Registers a key for a device by the word of the user's recovery key, and removes every other device of
    /// the user, all at once. That the statement is signed is for the caller to check.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the statement is by another key or stale, the key is in use or was, or the
    /// log does not take events. Nothing has changed then.
    pub async fn recover(
        &self,
        pool: &PoolId,
        (statement, signature_key): (SignedStatement, SignatureKey),
        idempotency: Idempotency,
    ) -> Result<Recovered, StoreError> {
        let command = commands::recover(pool, statement, signature_key);
        let reply = self.execute(Target::Pool(pool.clone()), command, idempotency).await?;
        let removed = self.removed_by(pool, idempotency).await?;
        Ok(Recovered { known: reply.answer, removed, position: reply.position })
    }

    /// The devices other than this one that a request has removed.
    async fn removed_by(
        &self,
        pool: &PoolId,
        idempotency: Idempotency,
    ) -> Result<Vec<PoolId>, StoreError> {
        let written = self.read(move |pools| find_command(pools.log(), idempotency.key, 0)).await?;
        let is_removal = |event: &Event| matches!(event, Event::DeviceRemoved { .. });
        let removals = written.iter().filter(|record| is_removal(&record.envelope.event));
        let devices = removals.filter_map(|record| record.envelope.stream.pool());
        Ok(devices.filter(|device| *device != pool).cloned().collect())
    }

    async fn declare(
        &self,
        pool: &PoolId,
        command: Typed<()>,
        idempotency: Idempotency,
    ) -> Result<u64, StoreError> {
        let is_counted = self.count_policy(pool, idempotency.key).await?;
        let reply = self.execute(Target::Pool(pool.clone()), command, idempotency).await;
        self.settle_policy(pool, is_counted, &reply);
        Ok(reply?.position)
    }
}
