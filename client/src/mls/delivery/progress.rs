//! The record of the position in the mailbox, and of the acknowledgements that the server waits for.

use keypool_ledger::{GroupId, PoolId, WelcomeFault};
use serde::{Deserialize, Serialize};

use crate::{Staged, StorageError};

/// The name of the record.
const MAILBOX_RECORD: &str = "mailbox";

/// How far the mailbox has been read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct MailboxProgress {
    pub(super) taken_in: u64,
    pub(super) acknowledged: u64,
    /// The place of the last Commit or message that this device has posted; `None` in records from before it was
    /// kept, until the server has told it.
    #[serde(default)]
    pub(super) posted: Option<u64>,
    /// Up to where the mailbox was acknowledged by a life of this home that is lost.
    #[serde(default)]
    pub(super) set_back_to: u64,
    /// The groups that were joined, for the server to hear of.
    #[serde(default)]
    pub(super) accepted: Vec<GroupId>,
    /// The groups of which something was not kept, for the server to hear that it is known.
    #[serde(default)]
    pub(super) told: Vec<GroupId>,
    /// The groups that are over for this device, for the server to deliver nothing more of.
    #[serde(default)]
    pub(super) left: Vec<GroupId>,
    /// The groups that could not be joined from their Welcomes, for the inviters to hear of.
    #[serde(default)]
    pub(super) failed: Vec<(GroupId, WelcomeFault)>,
    /// The awaited devices that have packages again, for the server to hear that it is known.
    #[serde(default)]
    pub(super) available: Vec<PoolId>,
}

impl MailboxProgress {
    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged == self.taken_in
            && self.accepted.is_empty()
            && self.told.is_empty()
            && self.failed.is_empty()
            && self.available.is_empty()
    }

    pub(super) fn join(&mut self, group: &GroupId) {
        self.left.retain(|left| left != group);
        self.failed.retain(|(failed, _)| failed != group);
        if !self.accepted.contains(group) {
            self.accepted.push(group.clone());
        }
    }

    /// Notes that a Welcome is given up; the server ends the delivery of its group then. A group that the
    /// device is in has joined by another Welcome.
    pub(super) fn fail_unless(&mut self, group: &GroupId, fault: WelcomeFault, is_in: bool) {
        if !is_in && !self.failed.iter().any(|(failed, _)| failed == group) {
            self.failed.push((group.clone(), fault));
        }
    }

    pub(super) fn leave_unless(&mut self, group: &GroupId, is_settled: bool) {
        if !is_settled && !self.left.contains(group) {
            self.left.push(group.clone());
        }
    }
}

/// Reads the record, as an operation has it.
pub(super) fn progress(staged: &Staged<'_>) -> Result<MailboxProgress, StorageError> {
    let kept = staged.app_record(MAILBOX_RECORD)?;
    // Without a record nothing was read or posted yet.
    Ok(kept.unwrap_or_else(|| MailboxProgress { posted: Some(0), ..MailboxProgress::default() }))
}

/// Writes the record, as part of an operation.
pub(super) fn put_progress(
    staged: &Staged<'_>,
    progress: &MailboxProgress,
) -> Result<(), StorageError> {
    staged.put_app_record(MAILBOX_RECORD, progress)
}

/// The position up to which the mailbox has been taken in, as an operation has it.
pub(super) fn taken_in_on(staged: &Staged<'_>) -> Result<u64, StorageError> {
    Ok(progress(staged)?.taken_in)
}
