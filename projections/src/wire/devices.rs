//! Which key speaks for which device.

use std::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;
use keypool_ledger::{KeyPackageRef, SignatureKey};
use serde::{Deserialize, Serialize};

use super::{Base64, PoolCounts, UploadItem};

/// `POST /devices`: let the key that signs this request speak for a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegisterRequest {
    /// The user.
    pub user: String,
    /// The device; `main` if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// What another device of the user says for this one; needed once the user has a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voucher: Option<Voucher>,
}

/// That a device of a user vouches for another one of that user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Voucher {
    /// The key of the device that vouches.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub keyid: SignatureKey,
    /// Its signature of `keypool-vouch-v1`, the device that is vouched for, its own key and the other
    /// device's, each with a line feed after it.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Byte))]
    pub proof: Base64,
}

/// The answer to `GET /users/{user}/devices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DevicesReply {
    /// The user.
    pub user: String,
    /// The user's registered devices, in the order of their names.
    pub devices: Vec<String>,
}

/// The answer to `POST /devices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegisterReply {
    /// The user.
    pub user: String,
    /// The device.
    pub device: String,
    /// The key that speaks for it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub keyid: SignatureKey,
    /// The place of the registration in the log.
    pub position: u64,
}

/// `POST /devices/rotate`: let the key that signs this request speak for the device, in place of the one
/// before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RotateRequest {
    /// The user.
    pub user: String,
    /// The device; `main` if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The key that speaks for it until now.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub previous_keyid: SignatureKey,
    /// That key's signature of `keypool-rotate-v1`, the device, the previous and the new key, each with a
    /// line feed after it.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Byte))]
    pub proof: Base64,
}

/// The answer to `DELETE /devices/{device}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RemoveReply {
    /// The user.
    pub user: String,
    /// The device.
    pub device: String,
    /// Always true: no key speaks for it any more, and nobody is given a package of it.
    pub removed: bool,
    /// The place of the last thing that was recorded of it in the log.
    pub position: u64,
}

/// `POST /keypackages/rotate`: packages in the place of all that are live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RotatePackagesRequest {
    /// The packages: each a `KeyPackage`, or an `MLSMessage` that holds one.
    pub keypackages: Vec<Base64>,
    /// Whom the key that signs this request and the packages is to speak for, if it does not yet: as for
    /// `POST /devices/rotate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<RotateRequest>,
}

/// The answer to `POST /keypackages/rotate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RotatePackagesReply {
    /// How many packages of this request are in the pool because of it.
    pub accepted: u64,
    /// What became of each, in the order of the request.
    pub items: Vec<UploadItem>,
    /// The packages that were withdrawn for them.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub revoked: Vec<KeyPackageRef>,
    /// The pool afterwards.
    pub pool: PoolCounts,
    /// The place of the pool's last event in the log.
    pub position: u64,
}

impl fmt::Display for Voucher {
    /// One word, to be carried from one device to the other: the key and the proof, each base64url.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.keyid, BASE64URL_NOPAD.encode(&self.proof.0))
    }
}

/// A word that is no voucher.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("that is no voucher; one looks like KEYID.PROOF, as `keypool vouch` prints it")]
pub struct NoVoucher;

impl FromStr for Voucher {
    type Err = NoVoucher;

    fn from_str(text: &str) -> Result<Self, NoVoucher> {
        let (keyid, proof) = text.trim().split_once('.').ok_or(NoVoucher)?;
        let keyid = keyid.parse().map_err(|_| NoVoucher)?;
        let proof = BASE64URL_NOPAD.decode(proof.as_bytes()).map_err(|_| NoVoucher)?;
        Ok(Self { keyid, proof: Base64(proof) })
    }
}
