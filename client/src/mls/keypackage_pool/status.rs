//! The server's last statement of the pool, and the counts by it.

use keypool_ledger::Timestamp;

use super::{RefillCounts, ServerStatus, is_pending, is_single_use};
use crate::{OwnPackage, OwnStage, Staged, StorageError};

/// The name of the record of the server's last statement.
pub(super) const STATUS_RECORD: &str = "server-status";

/// Stores the server's statement of the pool, as part of an operation, unless it is known already
/// or something else at a later place of its log.
pub(in crate::mls) fn record_server_status(
    staged: &Staged<'_>,
    status: &ServerStatus,
) -> Result<(), StorageError> {
    let known = server_status(staged)?;
    if known.is_some_and(|known| known == *status || known.position > status.position) {
        return Ok(());
    }
    staged.put_app_record(STATUS_RECORD, status)
}

/// Deletes the server's statement of the pool, as part of an operation: the next statement stands.
pub(in crate::mls) fn forget_server_status(staged: &Staged<'_>) {
    staged.remove_app_record(STATUS_RECORD);
}

pub(super) fn server_status(staged: &Staged<'_>) -> Result<Option<ServerStatus>, StorageError> {
    staged.app_record(STATUS_RECORD)
}

/// As [`counts`], of one ciphersuite; `live` is that of all of them. `is_only` says that packages are
/// kept of no other: then a statement without ciphersuites is of this one.
pub(super) fn counts_of(
    staged: &Staged<'_>,
    (suite, is_only): (u16, bool),
    now: Timestamp,
) -> Result<RefillCounts, StorageError> {
    let all = counts(staged, now)?;
    let is_of_suite = |own: &OwnPackage| is_single_use(own) && own.facts.ciphersuite == suite;
    let pending = staged.packages_where(|own| is_of_suite(own) && is_pending(own, now)).len();
    let said = server_status(staged)?;
    let available = match said.as_ref().map(|said| &said.suites) {
        Some(Some(suites)) => {
            let its = suites.iter().find(|(named, _)| *named == suite);
            its.map_or(0, |(_, available)| *available)
        }
        Some(None) if is_only => all.available,
        Some(None) | None => {
            let is_held = |own: &OwnPackage| {
                is_of_suite(own) && own.stage == OwnStage::Uploaded && !own.is_expired(now)
            };
            staged.packages_where(is_held).len()
        }
    };
    Ok(RefillCounts { available, live: all.live, pending })
}

pub(super) fn counts(staged: &Staged<'_>, now: Timestamp) -> Result<RefillCounts, StorageError> {
    let is_counted = |own: &OwnPackage| is_single_use(own) && is_pending(own, now);
    let pending = staged.packages_where(is_counted).len();
    let Some(status) = server_status(staged)? else {
        let is_uploaded = |own: &OwnPackage| is_single_use(own) && own.stage == OwnStage::Uploaded;
        let uploaded = staged.packages_where(|own| is_uploaded(own) && !own.is_expired(now)).len();
        return Ok(RefillCounts { available: uploaded, live: uploaded, pending });
    };
    let live = status.available.saturating_add(status.reserved);
    Ok(RefillCounts { available: status.available, live, pending })
}
