//! Reports of packages that their holders could not use.

use keypool_ledger::{EventLog, PoolId, ReadError, log::find_reservation};
use keypool_projections::{Claim, ReservationStatus};

use super::{AdmissionBatch, Idempotency, KeyPackageStore, StoreError, check_all, commands};
use crate::pools::{Pools, Target};

impl<L: EventLog + 'static> KeyPackageStore<L> {
    /// Notes that a reserved package cannot be used, and ends the claim. It is withdrawn if it would not be
    /// admitted again, or if enough users have said so.
    ///
    /// # Errors
    ///
    /// Returns a [`StoreError`] if the claim does not hold the package any more.
    pub async fn report(
        &self,
        claim: Claim,
        check: Option<String>,
        idempotency: Idempotency,
    ) -> Result<(), StoreError> {
        let target = Target::Package(claim.keypackage_ref.clone());
        let admissible = self.is_admissible(&claim).await?;
        let command = commands::report(claim.clone(), check, admissible);
        self.execute(target, command, idempotency).await?;
        self.claim_ended(&claim);
        Ok(())
    }

    /// Decides whether a reported package would be admitted to its pool now. One that the claim does not hold
    /// is not judged: the pool refuses the report.
    async fn is_admissible(&self, claim: &Claim) -> Result<bool, StoreError> {
        let claim = claim.clone();
        let Some((pool, bytes)) = self.read(move |pools| held_by(&claim, pools)).await? else {
            return Ok(true);
        };
        let owner = self.owner(&pool, None).await;
        let now = self.pools.now();
        let batch = AdmissionBatch { packages: vec![bytes], owner, now, rules: self.rules.clone() };
        let judged = check_all(batch).await.ok_or(StoreError::Cancelled)?;
        Ok(judged.iter().all(Result::is_ok))
    }
}

/// The pool and the bytes of the package that a claim holds; `None` if it holds none.
fn held_by<L: EventLog + 'static>(
    claim: &Claim,
    pools: &Pools<L>,
) -> Result<Option<(PoolId, Vec<u8>)>, ReadError> {
    let Some(made) = find_reservation(pools.log(), claim.reservation, 0)? else { return Ok(None) };
    let Some(pool) = made.envelope.stream.pool() else { return Ok(None) };
    let Some(view) = pools.pool(pool) else { return Ok(None) };
    let is_held = view.state.reservation(claim.reservation).is_some_and(|made| {
        made.status == ReservationStatus::Open
            && made.holder == claim.holder
            && made.keypackage_ref == claim.keypackage_ref
    });
    if !is_held {
        return Ok(None);
    }
    Ok(pools.package_bytes(&claim.keypackage_ref)?.map(|bytes| (pool.clone(), bytes)))
}
