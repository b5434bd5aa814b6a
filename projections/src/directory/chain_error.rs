//! The reasons to refuse a chain of changes.

use keypool_ledger::{PoolId, SignatureKey};

/// Why a chain of changes is not the user's: a lie of the server, or a damaged reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A change is of another user's device.
    #[error("the change at position {position} is of {device}, another user's device")]
    OtherUser {
        /// The device.
        device: PoolId,
        /// Where the change stands.
        position: u64,
    },
    /// A change stands before one that is known, or makes no sense after it.
    #[error("the change at position {position} of {device} does not follow from those before it")]
    OutOfOrder {
        /// The device.
        device: PoolId,
        /// Where the change stands.
        position: u64,
    },
    /// A statement was made on another device list: a change before it is left out, or was added.
    #[error(
        "the statement at position {position} was made on another list of the user's devices: a change before \
         it is left out or was added"
    )]
    Gap {
        /// Where the change stands.
        position: u64,
    },
    /// A statement is not signed by the key it names, for this change, device and ledger.
    #[error("the statement at position {position} is not signed by the key it names")]
    NotSigned {
        /// Where the change stands.
        position: u64,
    },
    /// A statement had ended before the change was recorded.
    #[error("the statement at position {position} had ended before it was used")]
    Expired {
        /// Where the change stands.
        position: u64,
    },
    /// A statement is by a key that was not the user's at that moment.
    #[error("the statement at position {position} is by {by}, which was no key of the user then")]
    NotTheUsers {
        /// Where the change stands.
        position: u64,
        /// The key.
        by: SignatureKey,
    },
    /// A key that was removed or replaced, or is another device's, is registered again.
    #[error("the change at position {position} brings back {key}, which was removed or is in use")]
    KeyReused {
        /// Where the change stands.
        position: u64,
        /// The key.
        key: SignatureKey,
    },
    /// The server's last change is an earlier one than a change that is known already.
    #[error(
        "the server shows an older list of {user}'s devices: up to position {shown}, not {known}"
    )]
    Older {
        /// The user.
        user: String,
        /// The position of the last change that is known.
        known: u64,
        /// The position that the server shows.
        shown: u64,
    },
    /// The changes do not lead to the head that the server names: some are kept back.
    #[error(
        "the server keeps changes of {user}'s devices back: they do not lead to the head it names"
    )]
    Withheld {
        /// The user.
        user: String,
    },
}
