//! Why a Welcome was not joined, and why a message was not opened.

use keypool_ledger::{GroupId, KeyPackageRef, RevokeReason};

use super::{BoxError, ExchangeError, GroupError, StorageError};
use crate::{ApiError, LeafContradiction, OwnStage};

/// Why a Welcome could not be used. Nothing was written: private keys that were there still are.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The store failed.
    #[error("the invitation cannot be read or stored")]
    Storage(#[from] StorageError),
    /// The bytes are no Welcome. Look at where they came from.
    #[error("the bytes are no Welcome message")]
    NotAWelcome(#[source] BoxError),
    /// The users of the group could not be looked up. Try again.
    #[error("the users of the group could not be looked up; try again")]
    LookUp(#[source] ApiError),
    /// No private key is here for the package it was made for. Ask to be invited again.
    #[error("the private key of package {keypackage_ref} is not here: {fate}")]
    MissingPrivateKey {
        /// The package the Welcome was made for.
        keypackage_ref: KeyPackageRef,
        /// The fate of the package, by the device's own history.
        fate: KeyFate,
    },
    /// The Welcome is damaged or forged. The private keys are kept: the genuine one still joins.
    #[error(
        "the Welcome for package {keypackage_ref} is not valid; the private keys are kept, so that \
         the genuine one still joins"
    )]
    Rejected {
        /// The package the Welcome was made for.
        keypackage_ref: KeyPackageRef,
        /// The error of MLS.
        #[source]
        source: BoxError,
    },
    /// The Welcome was joined before, by a package of last resort, which keeps its private keys for a
    /// while. There is nothing to do.
    #[error("this Welcome for the last-resort package {keypackage_ref} was joined before")]
    Replayed {
        /// The package the Welcome was made for.
        keypackage_ref: KeyPackageRef,
    },
    /// Too many Welcomes for the package were not valid, so that no more are tried. The private keys
    /// are kept. Ask to be invited again, or allow the package more attempts.
    #[error(
        "{attempts} Welcomes for package {keypackage_ref} were not valid, so that no more are tried; \
         ask to be invited again, which uses another package, or allow this one more attempts"
    )]
    TooManyAttempts {
        /// The package the Welcome was made for.
        keypackage_ref: KeyPackageRef,
        /// How many were not valid.
        attempts: u32,
    },
    /// The inviter's key is not the user's whose name it carries: somebody else has made the invitation. The
    /// private keys are kept. Tell your user.
    #[error(
        "an invitation in the name of {inviter} was refused: {why}; somebody else may have made it, and the \
         private keys of package {keypackage_ref} are kept"
    )]
    Impostor {
        /// The package the Welcome was made for.
        keypackage_ref: KeyPackageRef,
        /// The name that the inviter gives.
        inviter: String,
        /// How its leaf contradicts the directory.
        why: LeafContradiction,
    },
    /// The device is in the group already. There is nothing to do.
    #[error("the device is in group {group} already")]
    AlreadyInGroup {
        /// The group.
        group: GroupId,
    },
}

/// Why a package has no private key here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFate {
    /// A Welcome for it has been joined before: this one is a repetition, or a second use.
    SpentBefore {
        /// The group that was joined.
        group: GroupId,
    },
    /// Its lifetime ended, and the keys were deleted.
    Expired,
    /// It was withdrawn, and its lifetime has ended since.
    Revoked {
        /// Why it was withdrawn.
        reason: RevokeReason,
    },
    /// This device never made it: the Welcome is for someone else.
    NeverOurs,
    /// The history says that it should be here. The store has been damaged.
    Lost,
}

impl KeyFate {
    /// The fate, by the device's own history, of a package whose keys are not there; `None` is the stage of one
    /// that this device never made.
    pub(crate) fn of(stage: Option<OwnStage>) -> Self {
        match stage {
            Some(OwnStage::Spent { group }) => Self::SpentBefore { group },
            Some(OwnStage::Expired) => Self::Expired,
            Some(OwnStage::Revoked { reason }) => Self::Revoked { reason },
            Some(OwnStage::Created | OwnStage::Uploaded) => Self::Lost,
            None => Self::NeverOurs,
        }
    }
}

impl std::fmt::Display for KeyFate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SpentBefore { group } => write!(f, "it was spent before, on group {group}"),
            Self::Expired => f.write_str("its lifetime ended; ask to be invited again"),
            Self::Revoked { .. } => f.write_str("it was withdrawn; ask to be invited again"),
            Self::NeverOurs => f.write_str("this device never made it"),
            Self::Lost => f.write_str("it should be here; the store has been damaged"),
        }
    }
}

/// Why a message could not be opened. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The group cannot be used.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The users that the message brings into the group could not be looked up. Try again.
    #[error("the users of the group could not be looked up; try again")]
    LookUp(#[source] ApiError),
    /// The bytes are no message for a group. Look at where they came from.
    #[error("the bytes are no message for a group")]
    NotAMessage(#[source] BoxError),
    /// The message is not valid, or was opened before, or is of an epoch too old or not yet reached.
    #[error("the message for group {group}, epoch {epoch}, cannot be opened")]
    Rejected {
        /// The group.
        group: GroupId,
        /// The epoch it was made in.
        epoch: u64,
        /// The error of MLS.
        #[source]
        source: BoxError,
    },
    /// A proposal for an epoch that has ended: it counts no more. There is nothing to do; who made it
    /// makes it again.
    #[error("a proposal for epoch {epoch} of group {group} came after that epoch had ended")]
    Outdated {
        /// The group.
        group: GroupId,
        /// The epoch it was made in.
        epoch: u64,
    },
    /// A member tries to go by another name. The Commit is refused, and the group cannot go on.
    #[error("{was} tries to become {becomes} in group {group}")]
    IdentityChanged {
        /// The group.
        group: GroupId,
        /// The name the group knows.
        was: String,
        /// The name the Commit gives.
        becomes: String,
    },
}

impl From<ExchangeError> for JoinError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Api(error) => Self::LookUp(error),
            ExchangeError::Storage(error) => Self::Storage(error),
        }
    }
}

impl From<ExchangeError> for MessageError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Api(error) => Self::LookUp(error),
            ExchangeError::Storage(error) => GroupError::Storage(error).into(),
        }
    }
}
