//! The reasons that events give, each a closed list of stored words.

use serde::{Deserialize, Serialize};

/// Why a device ended its membership in a group's delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveCause {
    /// It asked to.
    Left,
    /// It did not accept the group within the time there is for that.
    Ignored,
    /// It could not join from the Welcome: the answer before this event says why.
    Failed,
}

/// The outcome of an invitation, as its inviter is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvitationAnswer {
    /// The device has joined the group.
    Joined,
    /// The device could not join from the Welcome.
    Failed {
        /// Why.
        reason: WelcomeFault,
    },
    /// The device left the group before it said that it had joined.
    Declined,
    /// The device did not accept the group within the time there is for that.
    Expired,
}

/// Why a device could not join from a Welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WelcomeFault {
    /// The device has the private keys of none of the Welcome's packages.
    KeysGone,
    /// The lifetime of its package was over.
    Expired,
    /// It is damaged, or did not open at the last try.
    Unreadable,
    /// The device's policy on keys refuses the group.
    Untrusted,
}

/// Who may reserve packages of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReservePolicy {
    /// Any registered device.
    #[default]
    Open,
    /// The owner's contacts, and users that the owner has introduced.
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
    /// The operator of the server withdrew it.
    Operator,
}
