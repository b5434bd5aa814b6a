//! Uploads of packages: in batches, with the server's verdict on each recorded.

use keypool_api::{Base64, Code, Outcome, PoolCounts, UploadItem, UploadRequest};
use keypool_ledger::{KeyPackageRef, RevokeReason, Timestamp};

use super::lifetime_refusal::note_refused;
use crate::{
    ApiError, ExchangeError, MlsConnection,
    mls::{
        identity::{forget_declared_credential, note_declared},
        keypackage_pool::{
            CreatedPackage, ServerStatus, record_revoked, record_server_status, record_uploaded,
        },
    },
    storage::fresh_command,
};

/// How many packages are uploaded at a time.
const BATCH_MAX: usize = 64;
/// The server's word for the check that a package is signed with a key of the device.
const SIGNATURE_KEY_CHECK: &str = "signature_key";
/// The server's word for the check that a package carries the credential of the device.
const IDENTITY_CHECK: &str = "identity";
/// The server's word for the check that a package may be used now.
const LIFETIME_CHECK: &str = "lifetime";

/// The outcome of an upload.
#[derive(Debug, Default)]
pub(super) struct Uploaded {
    /// How many single-use packages the server has now.
    pub(super) single_use: usize,
    /// How many packages of last resort the server has now.
    pub(super) last_resort: usize,
    /// The packages that the server has refused, each with the check that it failed.
    pub(super) rejected: Vec<String>,
}

impl<D> MlsConnection<D> {
    /// Uploads packages, and records the server's verdict on each.
    pub(super) async fn upload(
        &self,
        packages: &[CreatedPackage],
        now: Timestamp,
    ) -> Result<Uploaded, ExchangeError> {
        self.declare_leaf_keys().await?;
        let mut uploaded = Uploaded::default();
        for batch in packages.chunks(BATCH_MAX) {
            let keypackages = batch.iter().map(|package| Base64(package.bytes.clone())).collect();
            let command = fresh_command();
            let (items, said) =
                match self.api().upload(&UploadRequest { keypackages }, command).await {
                    Ok(reply) => (reply.items, Some(server_status_of(&reply.pool, reply.position))),
                    // None was taken: the problem says of each why.
                    Err(ApiError::Refused(problem)) if !problem.items.is_empty() => {
                        (problem.items, None)
                    }
                    Err(error) => return Err(error.into()),
                };
            let (there, refused) = sorted(batch, &items, &mut uploaded.rejected);
            let staged = self.store().stage()?;
            record_uploaded(&staged, &there, now, command)?;
            record_revoked(&staged, &refused, RevokeReason::Withdrawn, (now, command))?;
            for (package, item) in batch.iter().zip(&items) {
                let config = self.pool().config();
                let is_new = config.is_dated_now(&package.facts, now);
                if is_new && item.check.as_deref() == Some(LIFETIME_CHECK) {
                    let what = (config, self.api().clock().known(), now);
                    note_refused(&staged, package.facts.last_resort, what)?;
                }
            }
            // The server or this home was set back, perhaps, and has lost what was declared.
            let fails = |check| items.iter().any(|item| item.check.as_deref() == Some(check));
            if fails(SIGNATURE_KEY_CHECK) {
                note_declared(&staged, &self.identity().signature_key(), false)?;
            }
            if fails(IDENTITY_CHECK) {
                forget_declared_credential(&staged)?;
            }
            said.as_ref().map_or(Ok(()), |said| record_server_status(&staged, said))?;
            staged.commit()?;
            let last_resort = batch.iter().filter(|package| package.facts.last_resort);
            let last_resort =
                last_resort.filter(|package| there.contains(package.keypackage_ref())).count();
            uploaded.last_resort += last_resort;
            uploaded.single_use += there.len() - last_resort;
        }
        Ok(uploaded)
    }
}

/// Sorts uploaded packages into those the server has and those it will never take. One for which it
/// has no room now is neither: it waits for the next refresh.
pub(in crate::mls) fn sorted(
    batch: &[CreatedPackage],
    items: &[UploadItem],
    rejected: &mut Vec<String>,
) -> (Vec<KeyPackageRef>, Vec<KeyPackageRef>) {
    let (mut there, mut refused) = (Vec::new(), Vec::new());
    for (package, item) in batch.iter().zip(items) {
        let keypackage_ref = package.keypackage_ref().clone();
        match (item.outcome, item.code) {
            (Outcome::Rejected, Some(Code::PoolFull)) => {}
            (Outcome::Rejected, _) => {
                let check = item.check.as_deref().unwrap_or("unknown check");
                rejected.push(format!("{}: {check}", keypackage_ref.short()));
                refused.push(keypackage_ref);
            }
            _ => there.push(keypackage_ref),
        }
    }
    (there, refused)
}

/// The server's statement of the pool, as the pool stores it.
pub(in crate::mls) fn server_status_of(counts: &PoolCounts, position: u64) -> ServerStatus {
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let suites = counts.suites.iter().map(|suite| (suite.ciphersuite, count(suite.available)));
    // A server that does not count them apart says nothing of any, however many packages there are.
    let live = counts.available.saturating_add(counts.reserved).saturating_add(counts.last_resort);
    let suites = (!counts.suites.is_empty() || live == 0).then(|| suites.collect());
    let (available, reserved) = (count(counts.available), count(counts.reserved));
    ServerStatus { available, reserved, position, suites }
}
