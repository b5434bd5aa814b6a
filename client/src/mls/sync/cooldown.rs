//! The time of the last refresh, within a minute of which another one sends nothing.

use keypool_ledger::Timestamp;

use crate::{Staged, StorageError};

/// How long after a refresh another one sends nothing, in milliseconds.
const COOLDOWN_MS: u64 = 60_000;
/// The name of the record of the time of the last refresh.
const REFRESHED_RECORD: &str = "refreshed";

/// Whether the last refresh was less than a minute ago.
pub(in crate::mls) fn is_fresh(staged: &Staged<'_>, now: Timestamp) -> Result<bool, StorageError> {
    let last: Option<Timestamp> = staged.app_record(REFRESHED_RECORD)?;
    // A time in the future is a clock that was set back: refresh.
    Ok(last.is_some_and(|last| last <= now && now.as_millis() - last.as_millis() < COOLDOWN_MS))
}

/// Records the time of a refresh, as part of an operation.
pub(in crate::mls) fn note_refreshed_at(
    staged: &Staged<'_>,
    now: Timestamp,
) -> Result<(), StorageError> {
    staged.put_app_record(REFRESHED_RECORD, &now)
}

/// Ends the freshness of the last refresh, as part of an operation: the next one asks the server.
pub(in crate::mls) fn forget_refreshed(staged: &Staged<'_>) {
    staged.remove_app_record(REFRESHED_RECORD);
}
