//! Why the mailbox was not taken in, and why a message was not sent.

use super::{BoxError, ExchangeError, GroupError, StorageError};
use crate::ApiError;

/// Why the mailbox was not applied to its end. Items that were applied before stay applied.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The mailbox was over its limits: everything that was kept is taken in, and something after it
    /// was dropped. Say so to the user, then call `acknowledge_overrun`, and ask to be removed from and
    /// added to the groups again. Until then nothing more comes.
    #[error(
        "the mailbox was full, and messages were lost; acknowledge that, and ask to be removed from \
         your groups and added again"
    )]
    Overrun(#[source] ApiError),
    /// A Commit of this device may have been accepted, and the server does not say. Try again.
    #[error("it is not known whether a Commit of this device was accepted; try again")]
    CommitUnfinished(#[source] BoxError),
    /// The server did not answer, or refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<ExchangeError> for SyncError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Api(error) => Self::Api(error),
            ExchangeError::Storage(error) => Self::Storage(error),
        }
    }
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nobody knows whether it was taken, or another one of the group waits before it. It is in the
    /// outbox, and goes out by `resume_outbox` or with the group's next message. Do not send it again.
    #[error("the server did not answer; the message is kept, and goes out when resumed")]
    Unfinished(#[source] BoxError),
    /// Since the app has started, the server was not asked whether this home is the newest copy of itself, and it does
    /// not answer; or earlier work is to be resumed first (`resume_outbox`, `resume_invitations`, `resume_updates`).
    /// Nothing was sealed: send it again.
    #[error(
        "the server has not said yet whether this home is the newest copy of itself; nothing was sent, try again"
    )]
    NotCompared(#[source] BoxError),
    /// The server will not take it: the device was removed from the group, the server has no history of
    /// the group, or a proxy before the server takes smaller messages only. It is forgotten.
    #[error("the message was refused, and is not kept; take in what others have sent")]
    Refused(#[source] BoxError),
    /// The message is larger than a server takes by default. Nothing was sealed or sent.
    #[error(
        "the message has {bytes} bytes, and {bytes_max} is the most that can be sent; send it in parts"
    )]
    TooLarge {
        /// The size of the message.
        bytes: usize,
        /// The largest size, [`MESSAGE_BYTES_MAX`](crate::MESSAGE_BYTES_MAX).
        bytes_max: usize,
    },
    /// The group cannot be used.
    #[error(transparent)]
    Group(GroupError),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
