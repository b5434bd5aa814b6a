//! Replacement of a pool's packages: by others, of its key or of the next; or by none, when its device is
//! removed. Also the admission of a device by the operator.

use keypool_ledger::{
    CommandId, EventLog, Hash, KeyPackageRef, PoolId, SignatureKey, SignedStatement, Timestamp,
};
use keypool_projections::{Health, ItemOutcome, NextKey, Remover};
use uuid::Uuid;

use super::{
    Idempotency, KeyPackageStore, StoreError,
    commands::{self, Exchanged},
    first_half, merged,
};
use crate::{admission::AdmissionError, pools::Target};

/// The result of a replacement.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// The outcome of each, in the order of the request. If none is acceptable, nothing has changed.
    pub items: Vec<Result<ItemOutcome, AdmissionError>>,
    /// The packages in whose place they are.
    pub revoked: Vec<KeyPackageRef>,
    /// The pool afterwards.
    pub health: Health,
    /// The place of the pool's last event in the log.
    pub position: u64,
}

impl<L: EventLog + 'static> KeyPackageStore<L> {
    /// Admits packages and takes them into a pool in the place of the live ones of their ciphersuites. With
    /// a next key, which is registered in the same batch, they take the place of all live packages.
    /// A ciphersuite without an acceptable new package keeps its packages; if no new package is acceptable,
    /// nothing changes. The caller checks that the previous key agrees.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if neither of the keys speaks for the device, or the next one speaks for
    /// another one, or if the log does not take events. Nothing has changed then.
    pub async fn replace_key_packages(
        &self,
        pool: &PoolId,
        next: Option<NextKey>,
        packages: Vec<Vec<u8>>,
        idempotency: Idempotency,
    ) -> Result<Replaced, StoreError> {
        let recorded = self.first_record(idempotency.key).await?.map(|first| first.envelope.at);
        let counted = self.count_upload(pool, packages.len(), recorded)?;
        let replaced = self.replace_counted(pool, (next, packages), recorded, idempotency).await;
        let items = replaced.as_ref().map(|replaced| replaced.items.as_slice());
        self.settle_upload(pool, counted, items);
        replaced
    }

    async fn replace_counted(
        &self,
        pool: &PoolId,
        (next, packages): (Option<NextKey>, Vec<Vec<u8>>),
        recorded: Option<Timestamp>,
        idempotency: Idempotency,
    ) -> Result<Replaced, StoreError> {
        let owner = self.owner(pool, next.as_ref()).await;
        let admitted = self.admit_all(owner, packages, recorded).await?;
        let (mut packages, mut verdicts) = (Vec::new(), Vec::with_capacity(admitted.len()));
        for result in admitted {
            verdicts.push(result.map(|package| packages.push(package)));
        }
        if packages.is_empty() {
            let items = merged(verdicts, Vec::new());
            let (view, health) = self.load_status(pool).await;
            return Ok(Replaced { items, revoked: Vec::new(), health, position: view.position });
        }
        let command = commands::replace(packages, next);
        let reply = self.execute(Target::Pool(pool.clone()), command, idempotency).await?;
        let (health, position) = (reply.health(), reply.position);
        let Exchanged { outcomes, revoked } = reply.answer;
        Ok(Replaced { items: merged(verdicts, outcomes), revoked, health, position })
    }

    /// Lets no key speak for a device any more, and withdraws its packages; returns where that stands in the
    /// log. `by` is a key of the user: that of the device or of another one.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the device is not registered, or the key speaks for none of the user's, or
    /// if the log does not take events. Nothing has changed then.
    pub async fn remove_device(
        &self,
        pool: &PoolId,
        by: SignatureKey,
        idempotency: Idempotency,
    ) -> Result<u64, StoreError> {
        let target = Target::Pool(pool.clone());
        let command = commands::remove(Remover::Key(by));
        Ok(self.execute(target, command, idempotency).await?.position)
    }

    /// As [`KeyPackageStore::remove_device`], because the operator says so: the log says that too.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the device is not registered, or the log does not take events. Nothing has
    /// changed then.
    pub async fn remove_device_for_operator(
        &self,
        pool: &PoolId,
        idempotency: Idempotency,
    ) -> Result<u64, StoreError> {
        let target = Target::Pool(pool.clone());
        Ok(self.execute(target, commands::remove(Remover::Operator), idempotency).await?.position)
    }

    /// Releases a user's name: every device of the user is removed, and anyone may register the name again,
    /// with a new key. Returns the devices.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the log does not take events: the devices before are released then, and
    /// asking again releases the rest.
    pub async fn release_name(
        &self,
        user: &str,
        idempotency: Idempotency,
    ) -> Result<Vec<PoolId>, StoreError> {
        let devices = self.pools.devices_of(user);
        for device in &devices {
            let digest = Hash::of(format!("{} {device}", idempotency.digest).as_bytes());
            let key = CommandId(Uuid::from_bytes(first_half(&digest)));
            let target = Target::Pool(device.clone());
            self.execute(target, commands::release_name(), Idempotency { key, digest }).await?;
        }
        Ok(devices)
    }

    /// As [`KeyPackageStore::register`], because the operator says so: nobody has to vouch. The voucher of
    /// another device of the user is recorded where there is one.
    ///
    /// # Errors
    ///
    /// As [`KeyPackageStore::register`].
    pub async fn admit_device(
        &self,
        pool: &PoolId,
        (signature_key, statement): (SignatureKey, Option<SignedStatement>),
        idempotency: Idempotency,
    ) -> Result<(bool, u64), StoreError> {
        let command = commands::admit(pool, signature_key, statement, None);
        let reply = self.execute(Target::Pool(pool.clone()), command, idempotency).await?;
        Ok((reply.answer, reply.position))
    }

    /// As [`KeyPackageStore::admit_device`], by the word of a frontend, whose key is recorded.
    ///
    /// # Errors
    ///
    /// As [`KeyPackageStore::register`].
    pub async fn admit_by_frontend(
        &self,
        pool: &PoolId,
        (signature_key, statement): (SignatureKey, Option<SignedStatement>),
        frontend: SignatureKey,
        idempotency: Idempotency,
    ) -> Result<(bool, u64), StoreError> {
        let command = commands::admit(pool, signature_key, statement, Some(frontend));
        let reply = self.execute(Target::Pool(pool.clone()), command, idempotency).await?;
        Ok((reply.answer, reply.position))
    }
}
