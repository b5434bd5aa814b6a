//! Devices and their registered keys, on the wire.

use std::{fmt, str::FromStr};

use keypool_ledger::{
    CredentialBytes, Hash, KeyPackageRef, PoolId, Signature, SignatureKey, SignedStatement,
    Timestamp,
};
use keypool_projections::statement::{Agreement, LedgerId, Statement};
use serde::{Deserialize, Serialize};

use super::{Base64, PoolCounts, UploadItem, UserDevices};

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
    /// The voucher of another device of the user; needed once the user has a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voucher: Option<Voucher>,
    /// The device's key, which signs its packages: only in requests of a frontend. Any other request registers
    /// the key that signs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub keyid: Option<SignatureKey>,
}

/// A voucher: a device of a user vouches for another one of that user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Voucher {
    /// The key of the device that vouches.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub keyid: SignatureKey,
    /// The head of the user's device list that it was made on, hex.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub head: Hash,
    /// When it ends, in Unix seconds: ten minutes ahead at most.
    pub until: u64,
    /// The key's signature of the statement `vouch`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub proof: Signature,
}

/// The answer to `GET /users/{user}/devices`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DevicesReply {
    /// The user's devices, and the chain of changes that led to them.
    #[serde(flatten)]
    pub devices: UserDevices,
    /// The ledger that statements are for: the name and key hash of its checkpoints, `NAME+HASH`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub ledger: LedgerId,
    /// The ledgers before it, which earlier statements are for: each restored copy of the data began another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub earlier_ledgers: Vec<LedgerId>,
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
    /// The head of the user's device list that the statement was made on, hex.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub head: Hash,
    /// When it ends, in Unix seconds: five minutes ahead at most.
    pub until: u64,
    /// The previous key's signature of the statement `rotate`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub proof: Signature,
}

/// `POST /devices/leaf-key`: declare the key that signs the device's packages of a signature scheme.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeafKeyRequest {
    /// The scheme, RFC 9420 section 5.1.2: 1027 (0x0403) is ECDSA over P-256.
    pub signature_scheme: u16,
    /// The public key, as it stands in the leaf.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub leaf_keyid: SignatureKey,
    /// The head of the user's device list that the statement was made on, hex.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub head: Hash,
    /// When it ends, in Unix seconds: five minutes ahead at most.
    pub until: u64,
    /// The device's key's signature of the statement `leaf-key`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub proof: Signature,
}

/// The answer to `POST /devices/leaf-key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeafKeyReply {
    /// The place of the declaration in the log.
    pub position: u64,
}

/// `POST /devices/remove`: remove a device of the caller's user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RemoveRequest {
    /// The device: the caller's own, or another one of its user.
    pub device: String,
}

/// The answer to `POST /devices/remove`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RemoveReply {
    /// The user.
    pub user: String,
    /// The device.
    pub device: String,
    /// Always true: no key speaks for it any more, and nobody is given a package of it.
    pub removed: bool,
    /// The user's registered devices that this one has vouched for, directly or through others: remove
    /// them as well if the device was stolen.
    pub introduced: Vec<String>,
    /// The place of the last thing that was recorded of it in the log.
    pub position: u64,
}

/// `POST /keypackages/rotate`: packages in the place of the live ones of their ciphersuites, or of all with
/// another key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RotatePackagesRequest {
    /// The packages: each a `KeyPackage`, or an `MLSMessage` that holds one.
    pub keypackages: Vec<Base64>,
    /// The device to register the signing key for, if it is not registered yet: as for
    /// `POST /devices/rotate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<RotateRequest>,
    /// The keys of other signature schemes that the new key declares with it: a rotation ends those that
    /// the one before had declared.
    #[serde(
        default,
        deserialize_with = "super::policy::null_as_none",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub leaf_keys: Vec<LeafKeyRequest>,
}

/// The answer to `POST /keypackages/rotate`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RotatePackagesReply {
    /// How many packages of this request are in the pool because of it.
    pub accepted: u64,
    /// The outcome of each package, in the order of the request.
    pub items: Vec<UploadItem>,
    /// The packages that were withdrawn for them.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub revoked: Vec<KeyPackageRef>,
    /// The pool afterwards.
    pub pool: PoolCounts,
    /// The place of the pool's last event in the log.
    pub position: u64,
}

/// `POST /devices/credential`: declare the credential that the device's packages carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CredentialRequest {
    /// The serialized `Credential` (RFC 9420 section 5.3), base64: its type and its content.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub credential: CredentialBytes,
    /// The head of the user's device list that the statement was made on, hex.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub head: Hash,
    /// When it ends, in Unix seconds: five minutes ahead at most.
    pub until: u64,
    /// The device's key's signature of the statement `credential`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub proof: Signature,
}

/// `POST /devices/recovery-key`: set the user's recovery key, or another one in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecoveryKeyRequest {
    /// The public key: Ed25519.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub recovery_keyid: SignatureKey,
    /// The key that agrees: that of the device that asks if the user has no recovery key, and the recovery
    /// key before if there is one.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub keyid: SignatureKey,
    /// The head of the user's device list that the statement was made on, hex.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub head: Hash,
    /// When it ends, in Unix seconds: five minutes ahead at most.
    pub until: u64,
    /// That key's signature of the statement `recovery-key`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub proof: Signature,
}

/// `POST /devices/recover`: let the key that signs this request speak for a device, by the word of the user's
/// recovery key, and remove every other device of the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecoverRequest {
    /// The user.
    pub user: String,
    /// The device; `main` if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The user's recovery key.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub recovery_keyid: SignatureKey,
    /// The head of the user's device list that the statement was made on, hex.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub head: Hash,
    /// When it ends, in Unix seconds: ten minutes ahead at most.
    pub until: u64,
    /// The recovery key's signature of the statement `recover`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub proof: Signature,
}

/// The answer to `POST /devices/credential`, `POST /devices/recovery-key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeclaredReply {
    /// The place of the declaration in the log.
    pub position: u64,
}

/// The answer to `POST /devices/recover`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecoverReply {
    /// The user.
    pub user: String,
    /// The device.
    pub device: String,
    /// The key that speaks for it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub keyid: SignatureKey,
    /// The other devices that were removed with it, by name.
    pub removed: Vec<String>,
    /// The place of the registration in the log.
    pub position: u64,
}

impl fmt::Display for Voucher {
    /// One word, to be carried from one device to the other: key, head, end and proof.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.keyid, self.head, self.until, self.proof)
    }
}

/// A word that is no voucher.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("that is no voucher; one looks like KEYID.HEAD.UNTIL.PROOF, as `keypool vouch` prints it")]
pub struct NoVoucher;

impl FromStr for Voucher {
    type Err = NoVoucher;

    fn from_str(text: &str) -> Result<Self, NoVoucher> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let &[keyid, head, until, proof] = parts.as_slice() else { return Err(NoVoucher) };
        Ok(Self {
            keyid: keyid.parse().map_err(|_| NoVoucher)?,
            head: head.parse().map_err(|_| NoVoucher)?,
            until: until.parse().map_err(|_| NoVoucher)?,
            proof: proof.parse().map_err(|_| NoVoucher)?,
        })
    }
}

impl Voucher {
    /// The bytes whose signature it is, for a device and its key.
    #[must_use]
    pub fn statement(&self, ledger: &LedgerId, device: &PoolId, key: &SignatureKey) -> Vec<u8> {
        let (by, head, until) = (&self.keyid, &self.head, Timestamp::from_secs(self.until));
        let agreement = Agreement::Vouch(key);
        Statement { ledger, subject: device, by, agreement, head, until }.to_bytes()
    }

    /// The statement as the log keeps it.
    #[must_use]
    pub fn signed(&self) -> SignedStatement {
        signed(&self.keyid, self.head, self.until, &self.proof)
    }
}

impl RotateRequest {
    /// The bytes whose signature its proof is, for a device and the key that follows.
    #[must_use]
    pub fn statement(&self, ledger: &LedgerId, device: &PoolId, next: &SignatureKey) -> Vec<u8> {
        let (by, head, until) =
            (&self.previous_keyid, &self.head, Timestamp::from_secs(self.until));
        let agreement = Agreement::Rotate(next);
        Statement { ledger, subject: device, by, agreement, head, until }.to_bytes()
    }

    /// The statement as the log keeps it.
    #[must_use]
    pub fn signed(&self) -> SignedStatement {
        signed(&self.previous_keyid, self.head, self.until, &self.proof)
    }
}

impl LeafKeyRequest {
    /// The bytes whose signature its proof is, for a device and the key that speaks for it.
    #[must_use]
    pub fn statement(&self, ledger: &LedgerId, device: &PoolId, by: &SignatureKey) -> Vec<u8> {
        let (head, until) = (&self.head, Timestamp::from_secs(self.until));
        let agreement = Agreement::LeafKey(self.signature_scheme, &self.leaf_keyid);
        Statement { ledger, subject: device, by, agreement, head, until }.to_bytes()
    }

    /// The statement as the log keeps it.
    #[must_use]
    pub fn signed(&self, by: &SignatureKey) -> SignedStatement {
        signed(by, self.head, self.until, &self.proof)
    }
}

impl CredentialRequest {
    /// The bytes whose signature its proof is, for a device and the key that speaks for it.
    #[must_use]
    pub fn statement(&self, ledger: &LedgerId, device: &PoolId, by: &SignatureKey) -> Vec<u8> {
        let (head, until) = (&self.head, Timestamp::from_secs(self.until));
        let digest = self.credential.digest();
        let agreement = Agreement::Credential(&digest);
        Statement { ledger, subject: device, by, agreement, head, until }.to_bytes()
    }

    /// The statement as the log keeps it.
    #[must_use]
    pub fn signed(&self, by: &SignatureKey) -> SignedStatement {
        signed(by, self.head, self.until, &self.proof)
    }
}

impl RecoveryKeyRequest {
    /// The bytes whose signature its proof is. The subject is the device in whose history the recovery keys
    /// of the user stand: that of the one that set the first.
    #[must_use]
    pub fn statement(&self, ledger: &LedgerId, device: &PoolId) -> Vec<u8> {
        let (by, head, until) = (&self.keyid, &self.head, Timestamp::from_secs(self.until));
        let agreement = Agreement::RecoveryKey(&self.recovery_keyid);
        Statement { ledger, subject: device, by, agreement, head, until }.to_bytes()
    }

    /// The statement as the log keeps it.
    #[must_use]
    pub fn signed(&self) -> SignedStatement {
        signed(&self.keyid, self.head, self.until, &self.proof)
    }
}

impl RecoverRequest {
    /// The bytes whose signature its proof is, for a device and its key.
    #[must_use]
    pub fn statement(&self, ledger: &LedgerId, device: &PoolId, key: &SignatureKey) -> Vec<u8> {
        let (by, head, until) =
            (&self.recovery_keyid, &self.head, Timestamp::from_secs(self.until));
        let agreement = Agreement::Recover(key);
        Statement { ledger, subject: device, by, agreement, head, until }.to_bytes()
    }

    /// The statement as the log keeps it.
    #[must_use]
    pub fn signed(&self) -> SignedStatement {
        signed(&self.recovery_keyid, self.head, self.until, &self.proof)
    }
}

fn signed(by: &SignatureKey, head: Hash, until: u64, proof: &Signature) -> SignedStatement {
    let until = Timestamp::from_secs(until);
    SignedStatement { by: by.clone(), head, until, proof: proof.clone() }
}
