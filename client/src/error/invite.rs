//! Why nobody was invited, and why a group was not changed otherwise.

use keypool_ledger::GroupId;

use super::{BoxError, GroupError, StorageError};
use crate::{ApiError, DeliveryError, SkippedInvitee};

/// Why nobody was invited.
#[derive(Debug, thiserror::Error)]
pub enum InviteError {
    /// Since the app has started, the server was not asked whether this home is the newest copy of itself, and it does
    /// not answer; or earlier work is to be resumed first (`resume_outbox`, `resume_invitations`, `resume_updates`).
    /// Nothing was done: try again.
    #[error(
        "the server has not said yet whether this home is the newest copy of itself; nothing was done, try again"
    )]
    NotCompared(#[source] BoxError),
    /// Nobody could be added; it says of each why. The group is as it was.
    #[error("nobody was invited: {}", sentences(missing))]
    Nobody {
        /// The invitees, each with the reason.
        missing: Vec<SkippedInvitee>,
    },
    /// The server cannot be reached. The group is as it was.
    #[error("nobody was invited: {0}")]
    ServerUnreachable(#[source] ApiError),
    /// The server refused otherwise.
    #[error("nobody was invited: {0}")]
    Refused(#[source] ApiError),
    /// The Delivery Service did not take the Commit. The group is as it was, or as others' Commits
    /// have left it.
    #[error("the Commit was not accepted: {0}; take in what others have sent, and invite again")]
    NotAccepted(#[from] DeliveryError),
    /// The Commit may have been posted and the rest is to be done: it goes on with
    /// `resume_invitations`.
    #[error("the invitation of {target} is not finished: {source}; it goes on when resumed")]
    Unfinished {
        /// The invitees.
        target: String,
        /// The error that it waits behind.
        source: BoxError,
    },
    /// Another invitation to the group is not finished. Resume that one first.
    #[error("the invitation of {target} to group {group} is not finished; resume it first")]
    OtherUnfinished {
        /// The group.
        group: GroupId,
        /// The invitees.
        target: String,
    },
    /// The Commit is not pending here any more, because somebody has cleared it, and it may have been
    /// accepted. If the other members are in a later epoch, this device is stuck.
    #[error(
        "the Commit that adds {target} to group {group} was cleared here and cannot be merged; if \
         the other members have it, this device cannot follow them: have it removed and invited \
         again"
    )]
    CommitMissing {
        /// The group.
        group: GroupId,
        /// The invitees.
        target: String,
    },
    /// The group cannot take an invitation.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl InviteError {
    /// Classifies a refusal of the server.
    pub(crate) fn from_api(error: ApiError) -> Self {
        if error.is_unanswered() { Self::ServerUnreachable(error) } else { Self::Refused(error) }
    }
}

fn sentences(missing: &[SkippedInvitee]) -> String {
    let all: Vec<String> = missing.iter().map(ToString::to_string).collect();
    all.join("; ")
}

/// Why the device's keys in a group were not updated, or nobody was removed from it.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// Since the app has started, the server was not asked whether this home is the newest copy of itself, and it does
    /// not answer; or earlier work is to be resumed first (`resume_outbox`, `resume_invitations`, `resume_updates`).
    /// Nothing was done: try again.
    #[error(
        "the server has not said yet whether this home is the newest copy of itself; nothing was done, try again"
    )]
    NotCompared(#[source] BoxError),
    /// The Delivery Service did not take the Commit, which is cleared. Sync the mailbox,
    /// and try again.
    #[error("the Commit was not accepted: {0}; take in what others have sent, and try again")]
    NotAccepted(#[from] DeliveryError),
    /// Nobody knows whether the Commit was accepted, or it is to be made anew. That is done by
    /// `resume_updates`, and by the next change of the group.
    #[error("the Delivery Service did not answer; it goes on when resumed")]
    Unfinished(#[source] BoxError),
    /// The Commit is not pending here any more, because somebody has cleared it, and it may have been
    /// accepted. If the other members are in a later epoch, this device is stuck.
    #[error(
        "the change of group {group} was cleared here and cannot be merged; if the other members \
         have it, this device cannot follow them: have it removed and invited again"
    )]
    CommitMissing {
        /// The group.
        group: GroupId,
    },
    /// The group cannot take the change.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
