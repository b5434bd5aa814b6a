//! Uploads: packages are admitted, counted and taken into their pool.

use keypool_ledger::{EventLog, PoolId, Timestamp};
use keypool_projections::ItemOutcome;

use super::{Idempotency, KeyPackageStore, Saved, StoreError, commands, merged};
use crate::{admission::AdmissionError, pools::Target};

impl<L: EventLog + 'static> KeyPackageStore<L> {
    /// Admits packages and takes them into a pool; good ones are kept, bad ones refused one by one.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the log does not take events. Nothing has changed then.
    pub async fn save_key_packages(
        &self,
        pool: &PoolId,
        packages: Vec<Vec<u8>>,
        idempotency: Idempotency,
    ) -> Result<Saved, StoreError> {
        let recorded = self.first_record(idempotency.key).await?.map(|first| first.envelope.at);
        let counted = self.count_upload(pool, packages.len(), recorded)?;
        let saved = self.save_counted(pool, packages, recorded, idempotency).await;
        self.settle_upload(pool, counted, saved.as_ref().map(|saved| saved.items.as_slice()));
        saved
    }

    async fn save_counted(
        &self,
        pool: &PoolId,
        packages: Vec<Vec<u8>>,
        recorded: Option<Timestamp>,
        idempotency: Idempotency,
    ) -> Result<Saved, StoreError> {
        let admitted = self.admit_all(self.owner(pool, None).await, packages, recorded).await?;
        let (mut good, mut verdicts) = (Vec::new(), Vec::with_capacity(admitted.len()));
        for result in admitted {
            verdicts.push(result.map(|package| good.push(package)));
        }
        if good.is_empty() {
            let items = verdicts.into_iter().filter_map(Result::err).map(Err).collect();
            let (view, health) = self.load_status(pool).await;
            return Ok(Saved { items, health, position: view.position });
        }
        let target = Target::Pool(pool.clone());
        let reply = self.execute(target, commands::upload(good), idempotency).await?;
        let (health, items) = (reply.health(), merged(verdicts, reply.answer));
        Ok(Saved { items, health, position: reply.position })
    }

    /// Admits one package and takes it into a pool.
    ///
    /// # Errors
    ///
    /// As [`KeyPackageStore::save_key_packages`]; the inner result says whether it was admitted.
    pub async fn save_key_package(
        &self,
        pool: &PoolId,
        package: Vec<u8>,
        idempotency: Idempotency,
    ) -> Result<Result<ItemOutcome, AdmissionError>, StoreError> {
        let mut saved = self.save_key_packages(pool, vec![package], idempotency).await?;
        saved.items.pop().ok_or(StoreError::Cancelled)
    }
}
