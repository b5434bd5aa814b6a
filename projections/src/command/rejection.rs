//! The reasons why a pool refuses a command.

use keypool_ledger::{GroupId, KeyPackageRef, NameError, PoolId, ReservationId, SignatureKey};

use crate::{Requirement, lifecycle::IllegalChange, quota::OverQuota, statement::StatementTime};

/// Why the pool refuses a command.
///
/// Nothing has changed when one is returned, but for a lost reservation, which is recorded as a
/// `Conflict` that the owner and both inviters can see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// Nothing can be offered.
    #[error("no package of the pool can be handed out now")]
    PoolExhausted,
    /// Something can be offered, but nothing for the ciphersuites that were asked for.
    #[error("no package of the pool has one of the ciphersuites asked for")]
    NothingCompatible,
    /// Something can be offered for the ciphersuites, but nothing with a capability that the group requires.
    #[error("no package of the pool has {0} in its capabilities")]
    RequirementUnmet(Requirement),
    /// The packages that are left are kept for the owner's contacts.
    #[error("the packages that are left are kept for the owner's contacts")]
    KeptForContacts,
    /// The pool's policy admits contacts only, and the inviter is not a contact.
    #[error("the owner lets contacts reserve only; ask for a contact token")]
    ContactsOnly,
    /// The user has more devices than one request may reserve packages of.
    #[error("the user has {0} devices; one request reserves packages of {1} at most")]
    TooManyDevices(usize, usize),
    /// The owner has blocked the inviter.
    #[error("the owner has blocked this user")]
    Blocked,
    /// The pool blocks as many users as it may.
    #[error("the pool blocks 1,024 users at most; unblock some first")]
    TooManyBlocked,
    /// The inviter, or the pool, has had as many reservations as it may for now.
    #[error(transparent)]
    OverQuota(#[from] OverQuota),
    /// The user has no pool.
    #[error("user {0} has no such device here")]
    UnknownUser(String),
    /// No key speaks for the device, or none any more.
    #[error("the device is not registered, or was removed")]
    NotRegistered,
    /// The package is in another pool, and a package is in one pool only.
    #[error("package {} was uploaded to another pool", .0.short())]
    UploadedElsewhere(KeyPackageRef),
    /// The package is in no pool.
    #[error("package {} is not known here", .0.short())]
    UnknownKeyPackage(KeyPackageRef),
    /// A device asked for a package of its own pool.
    #[error("a device cannot invite itself")]
    OwnPool,
    /// The reservation does not exist, or is somebody else's, or is for another package or group.
    #[error("reservation {0} does not fit this request")]
    ReservationMismatch(ReservationId),
    /// The reservation ended, and the package was handed on or given back.
    #[error("reservation {0} has ended, and its package was handed on or given back")]
    ReservationLost(ReservationId),
    /// The reservation was renewed as often as it may be.
    #[error("reservation {0} was renewed {1} times already")]
    RenewalsUsedUp(ReservationId, u32),
    /// Another reservation has spent the package.
    #[error("package {} is spent", .0.short())]
    AlreadySpent(KeyPackageRef),
    /// The package was withdrawn.
    #[error("package {} was revoked", .0.short())]
    Revoked(KeyPackageRef),
    /// The package's lifetime is over.
    #[error("package {} has expired", .0.short())]
    Expired(KeyPackageRef),
    /// Another key speaks for the pool or for the user, or this key speaks for another pool.
    #[error("the name is bound to another key, or the key to another name")]
    IdentityBound,
    /// The key was removed or rotated away, and is nobody's ever after.
    #[error("key {0} was removed or replaced before; make a new one")]
    KeyRetired(SignatureKey),
    /// The device has had as many keys as it may.
    #[error("the device has had {0} keys; register another device")]
    TooManyKeys(usize),
    /// The user's device list has changed since the statement was made, or it was used already.
    #[error("the statement was made on an older list of the user's devices, or was used already")]
    StatementStale,
    /// The statement's time does not fit.
    #[error(transparent)]
    StatementTime(#[from] StatementTime),
    /// The name differs from another one in capital letters only.
    #[error("the name {0:?} is too similar to {1:?}, which exists")]
    NameTaken(String, String),
    /// The name may not be registered.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The user has as many devices as a user may have.
    #[error("user {0} has {1} devices already; remove one first")]
    DevicesFull(String, usize),
    /// Packages of the scheme that another key signed are live.
    #[error(
        "live packages of this signature scheme are signed with another key; withdraw them first"
    )]
    LeafKeyInUse,
    /// Packages that carry another credential are live.
    #[error("live packages of the device carry another credential; withdraw them first")]
    CredentialInUse,
    /// The user has a recovery key, and it has not agreed to another one.
    #[error(
        "the user has a recovery key; another one takes its place by a statement of that key only"
    )]
    RecoveryKeyBound,
    /// The key to be registered by a recovery speaks for the device already.
    #[error(
        "a recovery removes every key of the user, this one too: make a new key for the device"
    )]
    RecoveryNeedsNewKey,
    /// The statement is not by the user's recovery key, or the user has none.
    #[error("the statement is not by the recovery key of the user, who may have set none")]
    NotTheRecoveryKey,
    /// The inviter is no member of the group that the reservation is for.
    #[error("{holder} is not a member of group {group}, which exists here")]
    NotAMember {
        /// The group.
        group: GroupId,
        /// The inviter.
        holder: PoolId,
    },
    /// The operator of the server has suspended the user who asks.
    #[error(
        "the operator of this server has blocked user {0}: no request of their devices is carried out"
    )]
    Suspended(String),
    /// The operator of the server has suspended the user who is to be invited.
    #[error(
        "the operator of this server has blocked user {0}: their packages are handed to nobody"
    )]
    InviteeSuspended(String),
    /// The rules asked for a change that the lifecycle forbids: a bug, caught before it is written.
    #[error("the rules of the pool contradict themselves")]
    Illegal(#[from] IllegalChange),
}
