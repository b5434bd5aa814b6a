//! Other users' keys, and the judgement of leaves.

use keypool_client::{
    LeafContradiction, LeafTrust, Origin, PeerChange, PeerChangeKind, PeerDevice, PeerDoubt,
    PeerKeys, PeerStatus, SignatureKey, Timestamp,
};

/// Whether a leaf is the user's whose name it carries.
#[uniffi::remote(Enum)]
pub enum LeafTrust {
    /// The key is the user's, and a person has verified the user.
    Verified,
    /// The key is the user's by the chain that was pinned when the user was seen first.
    Known,
    /// Nobody has looked the user up yet.
    Unchecked,
    /// The leaf contradicts the known keys of the user.
    Contradicts(LeafContradiction),
}

/// How a leaf contradicts the known keys of the user it names.
#[uniffi::remote(Enum)]
pub enum LeafContradiction {
    /// Its credential names no device of a user.
    NamesNoDevice,
    /// No user of the name is registered.
    UnknownUser,
    /// The user has no such device.
    UnknownDevice,
    /// The device was removed by its user.
    RemovedDevice,
    /// Another key is registered for the device.
    OtherKey,
    /// A new leaf or an invitation carries a key that another took the place of over a day ago.
    FormerKey,
    /// The device has declared another credential.
    OtherCredential,
    /// No key of the user has introduced the device.
    NotIntroduced,
    /// The user's keys do not follow from those that were seen before.
    KeysChanged,
    /// The app has refused it.
    RefusedByApp {
        /// The app's reason.
        reason: String,
    },
}

/// A member whose leaf contradicts the directory.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct UntrustedLeaf {
    /// The name in its credential.
    pub name: String,
    /// Its place in the group.
    pub leaf_index: u32,
    /// The contradiction.
    pub why: LeafContradiction,
}

/// The state of a user's keys, as this device knows them.
#[uniffi::remote(Record)]
pub struct PeerKeys {
    /// The user.
    pub user: String,
    /// How far the keys are trusted.
    pub status: PeerStatus,
    /// The user's registered devices, by name.
    pub devices: Vec<PeerDevice>,
    /// When the keys were seen first: milliseconds since 1970.
    pub first_seen: Timestamp,
    /// The changes since then, the oldest first, 64 at most.
    pub changes: Vec<PeerChange>,
}

/// How far a user's keys are trusted.
#[uniffi::remote(Enum)]
pub enum PeerStatus {
    /// The server has named them, and nobody has compared them.
    FirstSeen,
    /// A person has compared the safety number.
    Verified {
        /// When: milliseconds since 1970.
        at: Timestamp,
    },
    /// The server names keys that do not follow from those that were seen: nobody is invited by them until the
    /// person accepts the new ones.
    Changed {
        /// Why they do not follow.
        why: PeerDoubt,
        /// When that was seen: milliseconds since 1970.
        at: Timestamp,
    },
}

/// Why a user's keys do not follow from those that were seen before.
#[uniffi::remote(Enum)]
pub enum PeerDoubt {
    /// The chain that the server shows contradicts itself, or the changes that were seen before.
    ChainRefused {
        /// The contradiction.
        said: String,
    },
    /// The operator has released the name: it may be another person's.
    NameReleased,
}

/// A registered device of a peer.
#[uniffi::remote(Record)]
pub struct PeerDevice {
    /// Its name.
    pub device: String,
    /// The key that signs for it.
    pub signature_key: SignatureKey,
    /// Since when, by the server's clock: milliseconds since 1970.
    pub since: Timestamp,
    /// How it came to be the user's.
    pub origin: Origin,
    /// Whether its key is trusted as the user's.
    pub is_trusted: bool,
}

/// How a device came to be its user's.
#[uniffi::remote(Enum)]
pub enum Origin {
    /// It was the first under the name: trusted on first use.
    First,
    /// A device of the user vouched for it.
    Vouched {
        /// The key that vouched.
        by: SignatureKey,
    },
    /// The user's recovery key registered it, and removed every other device.
    Recovered,
    /// Nobody of the user's signed for it: it came by the word of the operator or of a frontend.
    Unsigned,
}

/// A change of a user's devices.
#[uniffi::remote(Record)]
pub struct PeerChange {
    /// When this device saw it, by the server's clock: milliseconds since 1970.
    pub at: Timestamp,
    /// The device.
    pub device: String,
    /// The change.
    pub kind: PeerChangeKind,
}

/// The kinds of changes of a user's devices.
#[uniffi::remote(Enum)]
pub enum PeerChangeKind {
    /// A device came, introduced by a key of the user.
    Added,
    /// A device came, and no key of the user has introduced it.
    AddedUnsigned,
    /// A device has another key, and the one before has agreed.
    Rotated,
    /// A device has another key, and the one before has not agreed.
    RotatedUnsigned,
    /// A device was removed.
    Removed,
    /// The user's recovery key has registered the device and removed all others.
    Recovered,
}
