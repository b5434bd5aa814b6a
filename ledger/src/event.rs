//! Events: the facts that the log keeps for ever.

mod capabilities;
mod facts;
mod names;
mod reason;

use serde::{Deserialize, Serialize};

use crate::{
    CommandId, CredentialBytes, GroupId, Hash, KeyPackageRef, PoolId, ReservationId, Signature,
    SignatureKey, StreamId, Timestamp,
};

pub use self::capabilities::PackageCapabilities;
pub use self::facts::PackageFacts;
pub(crate) use self::names::name_in;
pub use self::reason::{
    InvitationAnswer, LeaveCause, ReleaseReason, ReservePolicy, RevokeReason, WelcomeFault,
};

/// One change in the life of a package or of the pool itself. Events are named in the past tense.
///
/// Stored events are for ever: a field may be added with a default, none may change its meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The owner made the package and its private half is safely stored. Written by clients only.
    Created(PackageFacts),
    /// The server took the package into the pool; its exact bytes are the record's payload.
    ///
    /// A client writes the same on the server's answer, without a payload.
    Uploaded(PackageFacts),
    /// The package was set aside for one inviter.
    Reserved {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// The inviter's claim.
        reservation: ReservationId,
        /// How many reservations the package has had, this one included.
        generation: u32,
        /// The inviter's device.
        holder: PoolId,
        /// The group the invitation is for.
        group: GroupId,
        /// When the claim ends, as its holder was told; the server waits a grace longer.
        deadline: Timestamp,
    },
    /// The holder asked for more time.
    Renewed {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// The claim.
        reservation: ReservationId,
        /// When it ends now.
        deadline: Timestamp,
    },
    /// The claim ended without an invitation.
    Released {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// The claim.
        reservation: ReservationId,
        /// Why it ended.
        reason: ReleaseReason,
    },
    /// An invitation used the package. A single-use package is never handed out again.
    Spent {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// The claim; a client that joins from a Welcome may not know it.
        reservation: Option<ReservationId>,
        /// The inviter's device; a client that joins from a Welcome may not know it.
        holder: Option<PoolId>,
        /// The group.
        group: GroupId,
        /// Whether the claim had lapsed before, and nobody else held the package.
        late: bool,
    },
    /// The package's lifetime ended before anyone used it.
    Expired {
        /// The package.
        keypackage_ref: KeyPackageRef,
    },
    /// The package was withdrawn: it is never offered again.
    Revoked {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// Why.
        reason: RevokeReason,
        /// The check it failed, as the inviter who reported it has said; `None` for every other reason.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        check: Option<String>,
    },
    /// A late spend was refused, because the package had been handed on meanwhile.
    Conflict {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// The claim that came too late.
        lost: ReservationId,
        /// The claim that holds or has used the package.
        holds: ReservationId,
    },
    /// A holder reported that the package cannot be used, and the server found nothing wrong with it.
    Reported {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// The holder's claim.
        reservation: ReservationId,
        /// The check that failed, by the holder's word.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        check: Option<String>,
    },
    /// The device was registered: from now on this key speaks for the pool.
    Registered {
        /// The key that signs the device's packages and requests.
        signature_key: SignatureKey,
        /// The user that the identity in the device's Basic credential names (alone or with device).
        credential: String,
        /// The key of another device of the user that has vouched for this one; `None` for the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        voucher: Option<SignatureKey>,
        /// The statement by which that device vouched; `None` in records from before statements.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        statement: Option<SignedStatement>,
        /// The frontend key of the app's backend that registered the device; `None` if the device did itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        frontend: Option<SignatureKey>,
    },
    /// Another key speaks for the pool from now on.
    KeyRotated {
        /// The new key.
        signature_key: SignatureKey,
        /// The identity in the device's Basic credential.
        credential: String,
        /// The statement by which the previous key agreed; `None` in records from before statements.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        statement: Option<SignedStatement>,
    },
    /// The device was removed: no key speaks for the pool any more.
    DeviceRemoved {
        /// Whether the operator removed it; false for a key of the user, and in records from before the field.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_operator: bool,
    },
    /// The operator released the name of the user: anyone may register it again, with a new key.
    NameReleased {},
    /// The device's packages of another signature scheme than the registered key's are signed with this
    /// key from now on. Recorded in front of the first of them; it speaks for nothing else.
    LeafKeyPinned {
        /// The scheme, RFC 9420 section 5.1.2: 0x0403 is ECDSA over P-256.
        signature_scheme: u16,
        /// The signature key in the leaves of the packages.
        signature_key: SignatureKey,
        /// The statement by which the device's key declared it; `None` in records from before statements.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        statement: Option<SignedStatement>,
    },
    /// The packages of the device carry this credential from now on, instead of the Basic credential that
    /// names the device.
    CredentialDeclared {
        /// The credential, as it stands in the leaves.
        credential: CredentialBytes,
        /// The statement by which the device's key declared it.
        statement: SignedStatement,
    },
    /// The user's recovery key is this one from now on: it alone can remove every device and register a
    /// new one. All recovery keys of a user stand in the history of the device that set the first.
    RecoveryKeySet {
        /// The public key.
        recovery_key: SignatureKey,
        /// The statement by which the device's key set the first, or the recovery key before agreed to
        /// another one.
        statement: SignedStatement,
    },
    /// The owner has said who may reserve packages of the pool.
    PolicySet {
        /// Who may.
        reserve: ReservePolicy,
    },
    /// The owner set how many packages of the pool strangers may take together in an hour.
    StrangersLimitSet {
        /// The number; `None` for the server's own limit.
        per_hour: Option<u32>,
    },
    /// The owner blocked a user: nothing the user sends reaches the device, and nothing of the pool is
    /// handed to the user.
    UserBlocked {
        /// The user.
        user: String,
    },
    /// The owner unblocked a user.
    UserUnblocked {
        /// The user.
        user: String,
    },
    /// The owner has joined an invitation: who made it is no stranger to the pool any more.
    ContactAdded {
        /// The inviter's user.
        user: String,
        /// The reservation that was spent for the invitation.
        reservation: ReservationId,
    },
    /// The owner takes a user for a stranger again.
    ContactRemoved {
        /// The user.
        user: String,
    },
    /// A device made the group: it is the first member, in epoch 0.
    GroupMade {
        /// The device.
        creator: PoolId,
    },
    /// A device ended its membership in the delivery: nothing of the group reaches it any more.
    Left {
        /// The device.
        device: PoolId,
        /// Why.
        cause: LeaveCause,
    },
    /// A Commit was accepted: it was the first for its epoch. Its bytes are the payload.
    Committed {
        /// The epoch it ended.
        epoch: u64,
        /// The device that made it.
        committer: PoolId,
        /// The devices whose packages it used: members from now on.
        added: Vec<PoolId>,
        /// The devices that are no members any more.
        removed: Vec<PoolId>,
        /// The members whose mailboxes had no room for it, the first hundred by name.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        not_kept: Vec<PoolId>,
    },
    /// A Welcome was accepted, together with its Commit. Its bytes are the payload.
    Welcomed {
        /// The new members it is for.
        to: Vec<PoolId>,
        /// The inviter, who is told the answer of each; `None` in records from before answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<PoolId>,
    },
    /// The answer of a device to the Welcome by which it was invited: the only one.
    InvitationAnswered {
        /// The invitee.
        device: PoolId,
        /// The device that is told.
        inviter: PoolId,
        /// The answer.
        answer: InvitationAnswer,
    },
    /// A member posted a message to the group. Its bytes are the payload.
    Posted {
        /// The device that posted it.
        sender: PoolId,
        /// The members whose mailboxes had no room for it, the first hundred by name.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        not_kept: Vec<PoolId>,
    },
    /// A device has taken everything from its mailbox up to a position of the log.
    Acknowledged {
        /// The position of the last thing it has.
        through: u64,
        /// Whether it has been told that something was not kept: then the mailbox takes in again.
        overrun: bool,
        /// The groups that the device has joined: their messages have the full budget from now on.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        accepted: Vec<GroupId>,
        /// The groups of which the device has been told that something was not kept.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        told: Vec<GroupId>,
        /// The awaited devices of which the device was told that they have something to hand out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        available: Vec<PoolId>,
    },
    /// The device waits for packages of others, and is told when one arrives.
    Awaited {
        /// The devices whose packages it waits for.
        targets: Vec<PoolId>,
        /// Those of them to whose owners it is a stranger: their policy may end its wait.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        as_stranger: Vec<PoolId>,
        /// When it stops waiting.
        until: Timestamp,
    },
    /// The device does not wait for packages of others any more.
    AwaitStopped {
        /// The devices.
        targets: Vec<PoolId>,
    },
    /// A mailbox is over its limits: nothing more is kept in it until its device has come for it.
    Overrun {
        /// Items up to this position of the log are too old and dropped; 0 if all
        /// that waits is kept.
        dropped_through: u64,
        /// The group whose budget is used up; `None` for the whole mailbox, in records from before
        /// budgets.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<GroupId>,
        /// The sender whose share of that budget is used up; `None` if the whole budget is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sender: Option<PoolId>,
    },
    /// The server started with these settings, which its rules depend on.
    Configured(RuleSettings),
    /// The operator accepted the machine's clock after a leap.
    ClockAccepted {
        /// The time of the log before.
        from: Timestamp,
        /// The time of the log from now on; earlier than `from` where the log had run ahead.
        to: Timestamp,
    },
    /// The log names a user by the id of this history from now on. The user's name is in the payload, behind
    /// [`NAME_SALT_LEN`] random bytes.
    UserNamed {},
    /// The log names a device of the user by this event's version from now on. The device's name is in the
    /// payload, behind [`NAME_SALT_LEN`] random bytes.
    DeviceNamed {},
    /// The operator had the user erased: from now on nobody reads the names in this history, and their
    /// payloads and those of the user's packages may be gone.
    UserErased {},
    /// The operator suspended a user, in the server's own history: until the user is reinstated, the server
    /// carries out no request of their devices and hands their packages to nobody.
    UserSuspended {
        /// The user.
        user: String,
        /// Why, as the operator wrote it; `None` if nothing was written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The operator ended the suspension of a user.
    UserReinstated {
        /// The user.
        user: String,
    },
}

/// How many random bytes lead a name in a payload, so that its digest does not give the name away.
pub const NAME_SALT_LEN: usize = 16;

impl Event {
    /// The package that the event is about; `None` for events about the pool itself.
    #[must_use]
    pub fn keypackage_ref(&self) -> Option<&KeyPackageRef> {
        match self {
            Self::Created(facts) | Self::Uploaded(facts) => Some(&facts.keypackage_ref),
            Self::Reserved { keypackage_ref, .. }
            | Self::Renewed { keypackage_ref, .. }
            | Self::Released { keypackage_ref, .. }
            | Self::Spent { keypackage_ref, .. }
            | Self::Expired { keypackage_ref }
            | Self::Revoked { keypackage_ref, .. }
            | Self::Reported { keypackage_ref, .. }
            | Self::Conflict { keypackage_ref, .. } => Some(keypackage_ref),
            Self::Registered { .. }
            | Self::KeyRotated { .. }
            | Self::DeviceRemoved { .. }
            | Self::NameReleased {}
            | Self::LeafKeyPinned { .. }
            | Self::CredentialDeclared { .. }
            | Self::RecoveryKeySet { .. }
            | Self::PolicySet { .. }
            | Self::StrangersLimitSet { .. }
            | Self::UserBlocked { .. }
            | Self::UserUnblocked { .. }
            | Self::ContactAdded { .. }
            | Self::ContactRemoved { .. }
            | Self::GroupMade { .. }
            | Self::Left { .. }
            | Self::Committed { .. }
            | Self::Welcomed { .. }
            | Self::InvitationAnswered { .. }
            | Self::Posted { .. }
            | Self::Acknowledged { .. }
            | Self::Awaited { .. }
            | Self::AwaitStopped { .. }
            | Self::Overrun { .. }
            | Self::Configured(_)
            | Self::ClockAccepted { .. }
            | Self::UserNamed {}
            | Self::DeviceNamed {}
            | Self::UserErased {}
            | Self::UserSuspended { .. }
            | Self::UserReinstated { .. } => None,
        }
    }

    /// The event's name, as the docs and the command line use it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Created(_) => "created",
            Self::Uploaded(_) => "uploaded",
            Self::Reserved { .. } => "reserved",
            Self::Renewed { .. } => "renewed",
            Self::Released { .. } => "released",
            Self::Spent { .. } => "spent",
            Self::Expired { .. } => "expired",
            Self::Revoked { .. } => "revoked",
            Self::Reported { .. } => "reported",
            Self::Conflict { .. } => "conflict",
            Self::Registered { .. } => "registered",
            Self::KeyRotated { .. } => "key_rotated",
            Self::DeviceRemoved { .. } => "device_removed",
            Self::NameReleased {} => "name_released",
            Self::LeafKeyPinned { .. } => "leaf_key_pinned",
            Self::CredentialDeclared { .. } => "credential_declared",
            Self::RecoveryKeySet { .. } => "recovery_key_set",
            Self::PolicySet { .. } => "policy_set",
            Self::StrangersLimitSet { .. } => "strangers_limit_set",
            Self::UserBlocked { .. } => "user_blocked",
            Self::UserUnblocked { .. } => "user_unblocked",
            Self::ContactAdded { .. } => "contact_added",
            Self::ContactRemoved { .. } => "contact_removed",
            Self::GroupMade { .. } => "group_made",
            Self::Left { .. } => "left",
            Self::Committed { .. } => "committed",
            Self::Welcomed { .. } => "welcomed",
            Self::InvitationAnswered { .. } => "invitation_answered",
            Self::Posted { .. } => "posted",
            Self::Acknowledged { .. } => "acknowledged",
            Self::Awaited { .. } => "awaited",
            Self::AwaitStopped { .. } => "await_stopped",
            Self::Overrun { .. } => "overrun",
            Self::Configured(_) => "configured",
            Self::ClockAccepted { .. } => "clock_accepted",
            Self::UserNamed {} => "user_named",
            Self::DeviceNamed {} => "device_named",
            Self::UserErased {} => "user_erased",
            Self::UserSuspended { .. } => "user_suspended",
            Self::UserReinstated { .. } => "user_reinstated",
        }
    }
}

/// A statement that a device signed, kept so that a reader of the log can verify the change it led to.
///
/// The signed line is built from these parts and the event's own; see the statement format in the API
/// documentation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedStatement {
    /// The key that signed.
    pub by: SignatureKey,
    /// The head of the user's device list that it was made on.
    pub head: Hash,
    /// The moment at which it ended.
    pub until: Timestamp,
    /// The signature.
    pub proof: Signature,
}

/// The settings that the rules of pools depend on, as the server ran with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSettings {
    /// How long a reservation lasts, in milliseconds.
    pub reservation_ttl_ms: u64,
    /// How much longer the server waits before a reservation lapses, in milliseconds.
    pub grace_ms: u64,
    /// How much more life than the TTL a package needs to be offered, in milliseconds.
    pub life_margin_ms: u64,
    /// How often a reservation may be renewed.
    pub renewals_max: u32,
    /// How many lapses retire a package.
    pub lapses_max: u32,
    /// How many live single-use packages a pool may hold.
    pub packages_max: u64,
}

/// An event together with whose history it stands in, where, when and why.
///
/// The schema number and the chain are the codec's: see [`crate::codec`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventEnvelope {
    /// The schema this record was written in; it leads the bytes and is not repeated in them.
    #[serde(skip)]
    pub schema: u16,
    /// Whose history this is.
    pub stream: StreamId,
    /// The position in that history, from 1, without gaps.
    pub version: u64,
    /// When it was recorded; smaller than the one before it in the history only where a
    /// [`Event::ClockAccepted`] between them set the time back.
    pub at: Timestamp,
    /// The request that caused it. Many events may share one.
    pub command: CommandId,
    /// The digest of that request.
    pub request: Hash,
    /// The digest of the history's previous envelope bytes; zeros for version 1.
    pub prev: Hash,
    /// The digest of the payload, so that a payload can be pruned and the chain still verifies.
    pub payload: Hash,
    /// The event.
    pub event: Event,
}
