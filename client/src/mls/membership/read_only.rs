//! Groups that may only be read: this home is an older copy of itself, and has forgotten which of its keys in them it
//! has used since. Two messages sealed with one key give each other away.

use data_encoding::HEXLOWER;
use keypool_ledger::{GroupId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{GroupError, Staged, StorageError};

/// The prefix of the names of the records.
const RECORD_PREFIX: &str = "read-only/";

/// A group that may only be read.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ReadOnly {
    group: GroupId,
    since: Timestamp,
}

fn record_name(group: &GroupId) -> String {
    format!("{RECORD_PREFIX}{}", HEXLOWER.encode(group.as_bytes()))
}

/// Lets some groups be read alone, as part of an operation. Returns those that could be written to before.
pub(crate) fn close_on(
    staged: &Staged<'_>,
    groups: Vec<GroupId>,
    since: Timestamp,
) -> Result<Vec<GroupId>, StorageError> {
    let mut closed = Vec::new();
    for group in groups {
        let name = record_name(&group);
        if staged.app_record::<ReadOnly>(&name)?.is_none() {
            staged.put_app_record(&name, &ReadOnly { group: group.clone(), since })?;
            closed.push(group);
        }
    }
    Ok(closed)
}

/// Forgets that a group may only be read, as part of the operation that deletes its state.
pub(super) fn forget_on(staged: &Staged<'_>, group: &GroupId) {
    staged.remove_app_record(&record_name(group));
}

/// Refuses to seal anything in a group that may only be read.
pub(super) fn check_on(staged: &Staged<'_>, group: &GroupId) -> Result<(), GroupError> {
    match staged.app_record::<ReadOnly>(&record_name(group))? {
        Some(_) => Err(GroupError::ReadOnly { group: group.clone() }),
        None => Ok(()),
    }
}

/// The groups that may only be read, each with the time when that was found.
pub(crate) fn read_only_on(staged: &Staged<'_>) -> Result<Vec<(GroupId, Timestamp)>, StorageError> {
    let mut found = Vec::new();
    for name in staged.app_record_names(RECORD_PREFIX)? {
        let record = staged.app_record::<ReadOnly>(&name)?;
        found.extend(record.map(|record| (record.group, record.since)));
    }
    Ok(found)
}
