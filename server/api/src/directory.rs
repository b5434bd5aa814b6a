//! The directory on the wire: the devices of users, and the chains of changes that led to them.

use keypool_ledger::{Hash, Signature, SignatureKey};
use keypool_projections::{directory::DeviceChange, statement::LedgerId};
use serde::{Deserialize, Serialize};

/// How many users one `POST /users/devices` may ask for.
pub const USERS_MAX: usize = 256;

/// A user's devices, and the changes that led to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UserDevices {
    /// The user.
    pub user: String,
    /// The user's registered devices, in the order of their names.
    pub devices: Vec<String>,
    /// The head of the list, hex: statements are made on it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub head: Hash,
    /// The position of the last change in the log.
    #[serde(default)]
    pub position: u64,
    /// The changes after the position that was asked for, in the order of the log: of the keys of all
    /// devices of the user, also of removed ones. A reader who folds them from the first on comes to `head`.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub history: Vec<DeviceChange>,
    /// Whether there are more changes: ask again after the position of the last one.
    #[serde(default)]
    pub more: bool,
}

/// `POST /users/devices`: the devices of several users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UsersDevicesRequest {
    /// The users, 256 at most.
    pub users: Vec<KnownUser>,
}

/// A user, and how far the caller knows the changes of the user's devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KnownUser {
    /// The user.
    pub user: String,
    /// The position of the last change that the caller knows; 0 for the whole history.
    #[serde(default, deserialize_with = "super::policy::null_as_none")]
    pub after: u64,
}

/// The answer to `POST /users/devices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UsersDevicesReply {
    /// The ledger that statements are for: the name and key hash of its checkpoints, `NAME+HASH`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub ledger: LedgerId,
    /// The ledgers before it, which earlier statements are for: each restored copy of the data began another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub earlier_ledgers: Vec<LedgerId>,
    /// The users, in the order of the request, without those that have no history.
    pub users: Vec<UserDevices>,
    /// The users that have no history here.
    pub unknown: Vec<String>,
}

/// Whether an Ed25519 key has signed some bytes: the strict check of RFC 8032, which the server makes of every
/// statement, and a client of every chain.
#[must_use]
pub fn has_signed(key: &SignatureKey, bytes: &[u8], signature: &Signature) -> bool {
    let key: Option<[u8; 32]> = key.as_bytes().try_into().ok();
    let key = key.and_then(|key| ed25519_dalek::VerifyingKey::from_bytes(&key).ok());
    let signature = ed25519_dalek::Signature::from_slice(signature.as_bytes()).ok();
    key.zip(signature).is_some_and(|(key, signature)| key.verify_strict(bytes, &signature).is_ok())
}
