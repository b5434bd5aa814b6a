//! The judgement of a leaf, for the app: whose it is, or how it contradicts the directory.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a leaf is the user's whose name it carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeafTrust {
    /// The key is the user's, and a person has verified the user.
    Verified,
    /// The key is the user's by the chain that was pinned when the user was seen first.
    Known,
    /// Nobody has looked the user up yet.
    #[default]
    Unchecked,
    /// The leaf contradicts the known keys of the user.
    Contradicts(LeafContradiction),
}

/// How a leaf contradicts the known keys of the user it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// A new leaf or an invitation carries a key that another took the place of over a day ago: a thief may have
    /// it.
    FormerKey,
    /// The device has declared another credential.
    OtherCredential,
    /// No key of the user has introduced the device.
    NotIntroduced,
    /// The user's keys do not follow from those that were seen before.
    KeysChanged,
    /// The app's [`CredentialValidator`](crate::CredentialValidator) has refused it.
    RefusedByApp {
        /// The app's reason.
        reason: String,
    },
}

impl LeafContradiction {
    /// Whether somebody else may be speaking under the name. A device that its user has removed is a member
    /// until somebody removes it from the group, and tells nobody's lie.
    const fn is_impostor(&self) -> bool {
        !matches!(self, Self::RemovedDevice)
    }
}

impl fmt::Display for LeafContradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RefusedByApp { reason } => return write!(f, "the app has refused it: {reason}"),
            Self::NamesNoDevice => "the credential names no device of a user",
            Self::UnknownUser => "no user of that name is registered",
            Self::UnknownDevice => "the user has no such device",
            Self::RemovedDevice => "the user has removed this device",
            Self::OtherKey => "another key is registered for the device",
            Self::FormerKey => "the device has replaced this key over a day ago",
            Self::OtherCredential => "the device has declared another credential",
            Self::NotIntroduced => "no device of the user has introduced it",
            Self::KeysChanged => "the user's keys have changed, and the new ones were not accepted",
        })
    }
}

/// A member whose leaf contradicts the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UntrustedMember {
    /// The name in its credential.
    pub name: String,
    /// Its place in the group.
    pub leaf_index: u32,
    /// The contradiction.
    pub why: LeafContradiction,
    /// The signature key in the leaf.
    pub(crate) key: Vec<u8>,
    /// Whether the app has accepted it.
    #[serde(default)]
    pub(crate) is_accepted: bool,
}

/// The member and the contradiction, as a sentence.
impl fmt::Display for UntrustedMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the key of {} is not known as theirs: {}", self.name, self.why)
    }
}

impl LeafTrust {
    /// Whether the key is the user's.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        matches!(self, Self::Verified | Self::Known)
    }

    /// The contradiction that somebody else under the name would make.
    pub(crate) fn impostor(&self) -> Option<LeafContradiction> {
        match self {
            Self::Contradicts(why) if why.is_impostor() => Some(why.clone()),
            _ => None,
        }
    }
}
