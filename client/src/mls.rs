//! MLS on the local store: who the device is, its pool of packages, its groups.
//!
//! All of it is synchronous and blocks while it computes and while the disk writes: in an async
//! program call it from a blocking task.

pub(crate) mod identity;

pub(crate) mod keypackage_pool;

pub(crate) mod membership;

pub(crate) mod delivery;

pub(crate) mod connection;

pub(crate) mod sync;

pub(crate) mod contacts;

pub(crate) mod peers;

pub(crate) mod recovery;

pub(crate) mod rotation;

mod statements;

pub(crate) mod invite;

pub(crate) mod update;

use std::time::Duration;

use keypool_ledger::{Hash, KeyPackageRef, PackageFacts, PoolId, Timestamp};
use openmls::{
    ciphersuite::hash_ref::HashReference,
    credentials::{Credential, CredentialType},
    key_packages::KeyPackage,
};
use openmls_traits::{
    storage::StorageProvider,
    types::{Ciphersuite, SignatureScheme},
};
use tls_codec::{Deserialize, Serialize, VLBytes};

use crate::{BoxError, Staged, StorageError};

/// How far two clocks may be apart: packages are dated this far back, and their keys are kept this
/// long after their end.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_hours(1);

/// How often a Commit is made anew because another one was first, over the server's own delivery.
const RACES_MAX: u32 = 3;

/// The signature scheme of the device's key, which signs its requests.
pub(crate) const SIGNATURE_SCHEME: SignatureScheme = SignatureScheme::ED25519;

/// The ciphersuite of packages, unless another is named.
pub(crate) const CIPHERSUITE: Ciphersuite =
    Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// The suite with that number, if the device can use it.
fn usable_suite(number: u16) -> Option<Ciphersuite> {
    let p256 = Ciphersuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256;
    let chacha = Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519;
    // X25519 and ML-KEM-768 together, against an opponent who records today and has a quantum computer later.
    let hybrid = Ciphersuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519;
    let hybrid_256 = Ciphersuite::MLS_128_MLKEM768X25519_AES256GCM_SHA384_Ed25519;
    let usable = [CIPHERSUITE, p256, chacha, hybrid, hybrid_256];
    usable.into_iter().find(|suite| u16::from(*suite) == number)
}

/// The facts of a package that events record.
fn facts_of(keypackage_ref: KeyPackageRef, package: &KeyPackage) -> Result<PackageFacts, BoxError> {
    let lifetime = package.life_time();
    Ok(PackageFacts {
        keypackage_ref,
        not_before: Timestamp::from_secs(lifetime.not_before()),
        not_after: Timestamp::from_secs(lifetime.not_after()),
        ciphersuite: package.ciphersuite().into(),
        credential: credential_hash(package.leaf_node().credential())?,
        init_key: Hash::of(package.hpke_init_key().as_slice()),
        last_resort: package.last_resort(),
        capabilities: None,
    })
}

/// The BLAKE3 digest of a credential as it stands in a package.
fn credential_hash(credential: &Credential) -> Result<Hash, BoxError> {
    Ok(Hash::of(&credential.tls_serialize_detached()?))
}

/// A reference as the ledger has it.
fn ledger_ref(reference: &HashReference) -> Result<KeyPackageRef, BoxError> {
    Ok(KeyPackageRef::new(reference.as_slice())?)
}

/// A reference as `OpenMLS` has it.
fn mls_ref(reference: &KeyPackageRef) -> Result<HashReference, StorageError> {
    VLBytes::from(reference.as_bytes())
        .tls_serialize_detached()
        .and_then(|bytes| HashReference::tls_deserialize_exact(&bytes))
        .map_err(|err| StorageError::Value { what: "reference".to_owned(), source: err.into() })
}

/// Removes a package and its private keys, as part of the operation.
fn delete_private_keys(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
) -> Result<(), StorageError> {
    staged.delete_key_package(&mls_ref(keypackage_ref)?)
}

/// The name in a Basic credential; `None` for other credentials and for names that are no text.
fn name_in(credential: &Credential) -> Option<String> {
    let is_basic = credential.credential_type() == CredentialType::Basic;
    let text = || std::str::from_utf8(credential.serialized_content()).ok();
    is_basic.then(text).flatten().map(ToOwned::to_owned)
}

/// Whether a credential's name is the user's, or the device's.
fn names(credential: &Credential, pool: &PoolId) -> bool {
    name_in(credential).is_some_and(|name| name == pool.user() || name == pool.to_string())
}
