//! The record of a lifetime that the server has refused: packages with it are not made and offered again at
//! each refresh, which would use up the uploads of a day.

use std::{collections::BTreeMap, time::Duration};

use keypool_ledger::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{PoolConfig, Staged, StorageError, server_clock::KnownTime};

/// The name of the record.
const REFUSED_RECORD: &str = "upload/refused-lifetimes";
/// How long a refusal counts: the server may have other limits by then.
const COUNTS_FOR: Duration = Duration::from_hours(24);

/// A lifetime that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RefusedLifetime {
    /// The lifetime that was asked for, in seconds.
    lifetime_s: u64,
    /// When it was refused.
    at: Timestamp,
    /// The knowledge of the server's time then.
    time: KnownTime,
}

/// The refusals, by whether they were about packages of last resort.
type Refused = BTreeMap<bool, RefusedLifetime>;

/// Records that the server has refused the lifetime of packages, of last resort or not, as part of an
/// operation.
pub(super) fn note_refused(
    staged: &Staged<'_>,
    last_resort: bool,
    (config, time, now): (&PoolConfig, KnownTime, Timestamp),
) -> Result<(), StorageError> {
    let mut refused: Refused = staged.app_record(REFUSED_RECORD)?.unwrap_or_default();
    let lifetime_s = config.lifetime_of(last_resort).as_secs();
    refused.insert(last_resort, RefusedLifetime { lifetime_s, at: now, time });
    staged.put_app_record(REFUSED_RECORD, &refused)
}

/// Whether packages, of last resort or not, would be refused again: neither their lifetime nor the clock has
/// changed since, and it is less than a day ago.
pub(super) fn is_refused(
    staged: &Staged<'_>,
    last_resort: bool,
    (config, time, now): (&PoolConfig, KnownTime, Timestamp),
) -> Result<bool, StorageError> {
    let refused: Refused = staged.app_record(REFUSED_RECORD)?.unwrap_or_default();
    Ok(refused.get(&last_resort).is_some_and(|refused| {
        refused.lifetime_s == config.lifetime_of(last_resort).as_secs()
            && refused.time.agrees_with(time)
            && refused.at <= now
            && now < refused.at.after(COUNTS_FOR)
    }))
}
