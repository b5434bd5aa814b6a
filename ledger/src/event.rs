//! What happened: the facts that the log keeps for ever.

use serde::{Deserialize, Serialize};

use crate::{
    CommandId, GroupId, Hash, KeyPackageRef, PoolId, ReservationId, SignatureKey, StreamId,
    Timestamp,
};

/// One change in the life of a package or of the pool itself. Events are named in the past tense.
///
/// What is stored is for ever: a field may be added with a default, none may change its meaning.
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
    /// The device was registered: from now on this key speaks for the pool.
    Registered {
        /// The key that signs the device's packages and requests.
        signature_key: SignatureKey,
        /// The user, whom the identity in the device's Basic credential names (alone or with device).
        credential: String,
        /// The key of another device of the user that has vouched for this one; `None` for the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        voucher: Option<SignatureKey>,
    },
    /// Another key speaks for the pool from now on.
    KeyRotated {
        /// The new key.
        signature_key: SignatureKey,
        /// The identity in the device's Basic credential.
        credential: String,
    },
    /// The device was removed: no key speaks for the pool any more.
    DeviceRemoved {},
    /// The device's packages of another signature scheme than the registered key's are signed with this
    /// key from now on. Recorded in front of the first of them; it speaks for nothing else.
    LeafKeyPinned {
        /// The scheme, RFC 9420 section 5.1.2: 0x0403 is ECDSA over P-256.
        signature_scheme: u16,
        /// The signature key in the leaves of the packages.
        signature_key: SignatureKey,
    },
    /// The owner has said who may reserve packages of the pool.
    PolicySet {
        /// Who may.
        reserve: ReservePolicy,
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
    },
    /// A Welcome was accepted, together with its Commit. Its bytes are the payload.
    Welcomed {
        /// The new members it is for.
        to: Vec<PoolId>,
    },
    /// A member posted a message to the group. Its bytes are the payload.
    Posted {
        /// The device that posted it.
        sender: PoolId,
    },
    /// A device has taken everything from its mailbox up to a position of the log.
    Acknowledged {
        /// The position of the last thing it has.
        through: u64,
        /// Whether it has been told that something was not kept: then the mailbox takes in again.
        overrun: bool,
    },
    /// A mailbox is over its limits: nothing more is kept in it until its device has come for it.
    Overrun {
        /// What waited up to this position of the log is too old and is not kept any more; 0 if all
        /// that waits is kept.
        dropped_through: u64,
    },
}

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
            | Self::Conflict { keypackage_ref, .. } => Some(keypackage_ref),
            Self::Registered { .. }
            | Self::KeyRotated { .. }
            | Self::DeviceRemoved {}
            | Self::LeafKeyPinned { .. }
            | Self::PolicySet { .. }
            | Self::ContactAdded { .. }
            | Self::ContactRemoved { .. }
            | Self::Committed { .. }
            | Self::Welcomed { .. }
            | Self::Posted { .. }
            | Self::Acknowledged { .. }
            | Self::Overrun { .. } => None,
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
            Self::Conflict { .. } => "conflict",
            Self::Registered { .. } => "registered",
            Self::KeyRotated { .. } => "key_rotated",
            Self::DeviceRemoved {} => "device_removed",
            Self::LeafKeyPinned { .. } => "leaf_key_pinned",
            Self::PolicySet { .. } => "policy_set",
            Self::ContactAdded { .. } => "contact_added",
            Self::ContactRemoved { .. } => "contact_removed",
            Self::Committed { .. } => "committed",
            Self::Welcomed { .. } => "welcomed",
            Self::Posted { .. } => "posted",
            Self::Acknowledged { .. } => "acknowledged",
            Self::Overrun { .. } => "overrun",
        }
    }
}

/// What is known of a package from its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageFacts {
    /// Its reference.
    pub keypackage_ref: KeyPackageRef,
    /// The first moment at which it may be used.
    pub not_before: Timestamp,
    /// The last moment at which it may be used.
    pub not_after: Timestamp,
    /// The number of its ciphersuite, RFC 9420 section 17.1.
    pub ciphersuite: u16,
    /// The BLAKE3 digest of its serialized credential.
    pub credential: Hash,
    /// The BLAKE3 digest of its `init_key`, which must be unique for each client (RFC 9420 section 10).
    pub init_key: Hash,
    /// Whether it may be used more than once when nothing else is left.
    pub last_resort: bool,
}

/// Who may reserve packages of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReservePolicy {
    /// Any registered device.
    #[default]
    Open,
    /// The owner's contacts, and whom the owner has introduced.
    Contacts,
}

/// Why a claim ended without an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseReason {
    /// The holder gave it back.
    Cancelled,
    /// Its time ran out, and the grace after it.
    Lapsed,
}

/// Why a package was withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokeReason {
    /// The device has another credential now.
    Rotated,
    /// Its owner withdrew it.
    Withdrawn,
    /// An inviter reported that it cannot be used.
    Reported,
    /// A reservation of it lapsed, and it is not handed out again (`--on-lapse`).
    Lapsed,
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
    /// When it was recorded; never smaller than the one before it in the history.
    pub at: Timestamp,
    /// The request that caused it. Many events may share one.
    pub command: CommandId,
    /// The digest of that request.
    pub request: Hash,
    /// The digest of the history's previous envelope bytes; zeros for version 1.
    pub prev: Hash,
    /// The digest of the payload, so that a payload can be pruned and the chain still verifies.
    pub payload: Hash,
    /// What happened.
    pub event: Event,
}
