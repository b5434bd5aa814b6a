//! Admission: the checks between uploaded bytes and a package of a pool. Nothing is trusted here.
//!
//! Admitted packages may be offered to an inviter, whose whole Commit fails if one of the packages in it
//! is bad. `OpenMLS` validates the signatures and versions of RFC 9420; everything else that an inviter
//! relies on is checked beside it. The inviter still validates for itself.

mod check;

mod framing;

mod identity;

mod leaf_key;

mod public_commit;

mod structure;

mod usable_key;

mod welcome;

mod x509;

use std::{sync::Arc, time::Duration};

use keypool_ledger::{
    Hash, KeyPackageRef, PackageCapabilities, PackageFacts, PoolId, SignatureKey, Timestamp,
};
use keypool_projections::{LeafKey, NewPackage};
use openmls::prelude::{KeyPackageIn, KeyPackageVerifyError, ProtocolVersion, hash_ref};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::{crypto::OpenMlsCrypto, types::Ciphersuite};
use tls_codec::{Deserialize, Serialize};

use self::{
    identity::check_identity,
    leaf_key::check_signature_key,
    structure::{
        COMPONENT_LAST_RESORT, Capabilities, Component, EXTENSION_APP_DATA, EXTENSION_LAST_RESORT,
        Extension, KeyPackage, KeyPackageContent, LeafSource, Lifetime, MLS10,
        WIRE_FORMAT_KEY_PACKAGE,
    },
    usable_key::check_usable,
};

pub use self::{
    check::Check,
    x509::{X509Roots, X509RootsError},
};
pub(crate) use self::{
    framing::{Framed, check_framing},
    identity::is_credential,
    public_commit::check_public_changes,
    welcome::welcomed,
};

/// The bounds of admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionRules {
    /// How many bytes a package may have.
    pub package_bytes_max: usize,
    /// How long a package's whole lifetime may be.
    pub lifetime_max: Duration,
    /// How long the whole lifetime of a package marked as a last resort may be.
    pub last_resort_lifetime_max: Duration,
    /// How far ahead of this machine's clock the maker's clock may be.
    pub clock_skew_max: Duration,
    /// How much life a package must have left: enough for one reservation.
    pub life_left_min: Duration,
    /// The ciphersuites that are admitted, by number.
    pub ciphersuites: Vec<u16>,
    /// The roots to which the chains of X.509 credentials must lead; `None` if these are opaque.
    pub x509_roots: Option<Arc<X509Roots>>,
}

impl Default for AdmissionRules {
    /// 16 KiB, 14 days and an hour, 84 days and an hour for a last resort, an hour of skew, two minutes of
    /// life, ciphersuites 1, 2 and 3, and the hybrid ones 0x004E and 0x004F.
    fn default() -> Self {
        Self {
            package_bytes_max: 16 * 1024,
            lifetime_max: Duration::from_hours(14 * 24 + 1),
            last_resort_lifetime_max: Duration::from_hours(84 * 24 + 1),
            clock_skew_max: Duration::from_hours(1),
            life_left_min: Duration::from_mins(2),
            ciphersuites: vec![1, 2, 3, 0x004e, 0x004f],
            x509_roots: None,
        }
    }
}

/// The pool that a package must belong to, and how its packages are recognized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The pool it is for.
    pub pool: PoolId,
    /// The key that speaks for the pool; `None` only where requests are not signed.
    pub signature_key: Option<SignatureKey>,
    /// The key that signs its packages of ciphersuites with Ed25519, where the device has declared another
    /// one than the registered key.
    pub leaf_key: Option<SignatureKey>,
    /// The digest of the credential that its packages carry, as the device has declared; `None` for the Basic
    /// credential that names the device.
    pub credential: Option<Hash>,
}

impl Owner {
    /// The owner of a pool that has declared neither a leaf key nor a credential.
    #[must_use]
    pub const fn new(pool: PoolId, signature_key: Option<SignatureKey>) -> Self {
        Self { pool, signature_key, leaf_key: None, credential: None }
    }
}

/// Why a package was not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct AdmissionError {
    /// The check it did not pass.
    pub check: Check,
    /// The fault of the package, as a sentence.
    pub detail: String,
    /// Its reference, where the bytes got far enough to have one.
    pub keypackage_ref: Option<KeyPackageRef>,
}

/// Turns bytes into a package that may enter a pool.
///
/// The bytes are a bare `KeyPackage` or an `MLSMessage` that holds one, and are kept as they are. The
/// result depends on the arguments alone: `now` is handed in. The checks that need the pool (whether
/// it has seen the package or its `init_key`, whether it is full) are made by the pool's rules.
/// Takes up to a millisecond of computing.
///
/// # Errors
///
/// Returns an [`AdmissionError`] that names the first [`Check`] that failed, cheap ones first.
pub fn admit(
    bytes: &[u8],
    owner: &Owner,
    now: Timestamp,
    rules: &AdmissionRules,
) -> Result<NewPackage, AdmissionError> {
    if rules.package_bytes_max < bytes.len() {
        let (len, max) = (bytes.len(), rules.package_bytes_max);
        return Err(refuse(Check::Size, format!("the package has {len} bytes; at most {max}")));
    }
    let (package, exact) = decode(bytes)?;
    let crypto = RustCrypto::default();
    let suite = supported_suite(&package.content, &crypto, rules)?;
    let keypackage_ref = reference(exact, suite, &crypto)?;
    let judged =
        judge(&package, exact, &AdmissionContext { owner, now, rules, suite, crypto: &crypto });
    let (last_resort, leaf_key) = judged
        .map_err(|err| AdmissionError { keypackage_ref: Some(keypackage_ref.clone()), ..err })?;
    let facts = facts(&package, keypackage_ref, last_resort)?;
    Ok(NewPackage { facts, bytes: bytes.to_vec(), leaf_key })
}

/// The context that a package is checked in.
struct AdmissionContext<'a> {
    owner: &'a Owner,
    now: Timestamp,
    rules: &'a AdmissionRules,
    suite: Ciphersuite,
    crypto: &'a RustCrypto,
}

/// Makes all checks that come after the reference is known; says whether it is a last resort, and which
/// key the pool is to hold it to.
fn judge(
    package: &KeyPackage,
    exact: &[u8],
    context: &AdmissionContext<'_>,
) -> Result<(bool, Option<LeafKey>), AdmissionError> {
    let KeyPackageContent { init_key, leaf, extensions, .. } = &package.content;
    let leaf = &leaf.content;
    // A mark that is not well-formed is refused later, by a check of its own.
    let lifetime_max = match is_last_resort(extensions) {
        Ok(true) => ("--last-resort-lifetime-max", context.rules.last_resort_lifetime_max),
        Ok(false) | Err(_) => ("--lifetime-max", context.rules.lifetime_max),
    };
    check_lifetime(&leaf.source, lifetime_max, context)?;
    if init_key.as_slice() == leaf.encryption_key.as_slice() {
        return Err(refuse(Check::InitKeyDistinct, "init_key equals the leaf's encryption key"));
    }
    let credential_type = leaf.credential.credential_type;
    check_capabilities(&leaf.capabilities, package.content.ciphersuite, credential_type)?;
    check_extensions(extensions, ExtensionPlace::Package, &leaf.capabilities)?;
    check_extensions(&leaf.extensions, ExtensionPlace::Leaf, &leaf.capabilities)?;
    check_identity(leaf, context)?;
    let leaf_key = check_signature_key(leaf.signature_key.as_slice(), context)?;
    let last_resort = is_last_resort(extensions)?;
    check_signatures(exact, context.crypto)?;
    check_usable(init_key.as_slice(), "init_key", context)?;
    check_usable(leaf.encryption_key.as_slice(), "the leaf's encryption key", context)?;
    Ok((last_resort, leaf_key))
}

/// The package that some bytes hold, and those of the bytes that are the package itself.
fn decode(bytes: &[u8]) -> Result<(KeyPackage, &[u8]), AdmissionError> {
    let [v0, v1] = MLS10.to_be_bytes();
    let [f0, f1] = WIRE_FORMAT_KEY_PACKAGE.to_be_bytes();
    // A bare package of ciphersuite 5 begins alike, and goes on with the length of a P-521 key.
    let wrapped = bytes.strip_prefix(&[v0, v1, f0, f1]).filter(|rest| rest.starts_with(&[v0, v1]));
    let exact = wrapped.unwrap_or(bytes);
    let package = KeyPackage::tls_deserialize_exact(exact).map_err(|_| {
        refuse(Check::Decode, "the bytes are not exactly one KeyPackage or one MLSMessage with one")
    })?;
    Ok((package, exact))
}

fn supported_suite(
    content: &KeyPackageContent,
    crypto: &RustCrypto,
    rules: &AdmissionRules,
) -> Result<Ciphersuite, AdmissionError> {
    let (version, number) = (content.version, content.ciphersuite);
    if version != MLS10 {
        let detail = format!("protocol version {version} is not mls10 (1)");
        return Err(refuse(Check::Protocol, detail));
    }
    let known = Ciphersuite::try_from(number).ok();
    known
        .filter(|suite| rules.ciphersuites.contains(&number) && crypto.supports(*suite).is_ok())
        .ok_or_else(|| {
            let welcome = &rules.ciphersuites;
            let detail = format!("ciphersuite {number} is not accepted here; {welcome:?} are");
            refuse(Check::Protocol, detail)
        })
}

/// The reference of a package: `RefHash`, RFC 9420 section 5.2.
fn reference(
    exact: &[u8],
    suite: Ciphersuite,
    crypto: &RustCrypto,
) -> Result<KeyPackageRef, AdmissionError> {
    let label = b"MLS 1.0 KeyPackage Reference";
    let hash = hash_ref::KeyPackageRef::new(exact, suite, crypto, label)
        .map_err(|_| refuse(Check::Protocol, "its reference cannot be computed"))?;
    KeyPackageRef::new(hash.as_slice()).map_err(|err| refuse(Check::Protocol, err.to_string()))
}

fn check_lifetime(
    source: &LeafSource,
    (setting, lifetime_max): (&str, Duration),
    context: &AdmissionContext<'_>,
) -> Result<(), AdmissionError> {
    let LeafSource::KeyPackage(Lifetime { not_before, not_after }) = *source else {
        let detail = "the leaf was made by an update or a commit, not for a key package";
        return Err(refuse(Check::LeafSignature, detail));
    };
    let (now, rules) = (context.now, context.rules);
    let refuse = |detail: String| Err(refuse(Check::Lifetime, detail));
    let now_s = now.as_secs();
    if not_after < not_before {
        return refuse(format!("it ends at {not_after}, before it begins at {not_before}"));
    }
    if lifetime_max.as_secs() < not_after - not_before {
        let (range, max) = (not_after - not_before, lifetime_max.as_secs());
        return refuse(format!(
            "its lifetime spans {range} s; at most {max} s ({setting}); {LIBRARY_LIFETIMES}"
        ));
    }
    if now.after(rules.clock_skew_max) < Timestamp::from_secs(not_before) {
        return refuse(format!("it begins at {not_before}, too far after now ({now_s})"));
    }
    if Timestamp::from_secs(not_after) < now.after(rules.life_left_min) {
        return refuse(format!("it ends at {not_after}, before or too soon after now ({now_s})"));
    }
    Ok(())
}

/// The lifetimes that makers of packages meet without having asked for them.
const LIBRARY_LIFETIMES: &str = "unless told otherwise OpenMLS makes packages of 84 days and an hour, mls-rs of 365 \
    days, ts-mls without an end";

/// Checks that the leaf lists each capability that the package needs, and no default one.
fn check_capabilities(
    capabilities: &Capabilities,
    ciphersuite: u16,
    credential_type: u16,
) -> Result<(), AdmissionError> {
    let refuse = |detail: String| Err(refuse(Check::Capabilities, detail));
    if !capabilities.versions.contains(&MLS10) {
        return refuse("the capabilities do not list protocol version mls10".to_owned());
    }
    if !capabilities.ciphersuites.contains(&ciphersuite) {
        return refuse(format!("the capabilities do not list its own ciphersuite {ciphersuite}"));
    }
    if !capabilities.credentials.contains(&credential_type) {
        return refuse(format!("the capabilities do not list credential type {credential_type}"));
    }
    let is_default = |max: u16| move |number: &&u16| (1..=max).contains(*number);
    if let Some(listed) = capabilities.extensions.iter().find(is_default(EXTENSION_DEFAULT_MAX)) {
        return refuse(format!(
            "the capabilities list extension {listed}, which everyone supports"
        ));
    }
    if let Some(listed) = capabilities.proposals.iter().find(is_default(PROPOSAL_DEFAULT_MAX)) {
        return refuse(format!("the capabilities list proposal {listed}, which everyone supports"));
    }
    Ok(())
}

/// The last of the extension types that every implementation supports (RFC 9420 section 7.2).
const EXTENSION_DEFAULT_MAX: u16 = 5;
/// The last of the proposal types that every implementation supports (RFC 9420 section 7.2).
const PROPOSAL_DEFAULT_MAX: u16 = 7;
/// The extension `application_id`, the only default one that may stand in a leaf.
const EXTENSION_APPLICATION_ID: u16 = 1;

/// How many extensions, proposals and credentials of a package's capabilities are recorded, of each.
const CAPABILITIES_RECORDED_MAX: usize = 64;

/// The place of an extension.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ExtensionPlace {
    Package,
    Leaf,
}

fn check_extensions(
    extensions: &[Extension],
    place: ExtensionPlace,
    capabilities: &Capabilities,
) -> Result<(), AdmissionError> {
    let mut seen = Vec::new();
    for number in extensions.iter().map(|extension| extension.extension_type) {
        let fits = match (place, number) {
            (ExtensionPlace::Leaf, EXTENSION_APPLICATION_ID) => true,
            (_, 1..=EXTENSION_DEFAULT_MAX) | (ExtensionPlace::Leaf, EXTENSION_LAST_RESORT) => false,
            // GREASE is welcome in the capabilities. As an extension it would be too, but OpenMLS
            // does not find it listed there, and the inviter's Commit would fail.
            (_, number) if is_grease(number) => false,
            (_, number) => capabilities.extensions.contains(&number),
        };
        if !fits {
            let detail = format!(
                "extension {number} may not stand there, or is not listed in the capabilities"
            );
            return Err(refuse(Check::Capabilities, detail));
        }
        if seen.contains(&number) {
            return Err(refuse(
                Check::Capabilities,
                format!("extension {number} stands there twice"),
            ));
        }
        seen.push(number);
    }
    Ok(())
}

/// Whether a number is one of the reserved ones that mean nothing (RFC 9420 section 13.5).
const fn is_grease(number: u16) -> bool {
    number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff && number != 0xfafa
}

/// Whether the package is marked as one that may be used again when nothing else is left.
fn is_last_resort(extensions: &[Extension]) -> Result<bool, AdmissionError> {
    let find = |number| extensions.iter().find(|found| found.extension_type == number);
    let marked = match find(EXTENSION_LAST_RESORT) {
        Some(mark) if !mark.data.as_slice().is_empty() => {
            return Err(refuse(Check::LastResort, "the last-resort extension is not empty"));
        }
        mark => mark.is_some(),
    };
    let Some(dictionary) = find(EXTENSION_APP_DATA) else { return Ok(marked) };
    let components = Vec::<Component>::tls_deserialize_exact(dictionary.data.as_slice());
    let components = components
        .map_err(|_| refuse(Check::LastResort, "the dictionary of components cannot be read"))?;
    let mark = components.iter().find(|component| component.id == COMPONENT_LAST_RESORT);
    if mark.is_some_and(|mark| !mark.data.as_slice().is_empty()) {
        return Err(refuse(Check::LastResort, "the last-resort component is not empty"));
    }
    Ok(marked || mark.is_some())
}

/// Has `OpenMLS` validate the package, with a lifetime that was checked against our own clock before.
fn check_signatures(exact: &[u8], crypto: &RustCrypto) -> Result<(), AdmissionError> {
    let malformed = || refuse(Check::Decode, "OpenMLS cannot read the package");
    let package = KeyPackageIn::tls_deserialize_exact(exact).map_err(|_| malformed())?;
    let again = package.tls_serialize_detached().map_err(|_| malformed())?;
    if again != exact {
        return Err(refuse(Check::Decode, "the package is not encoded in the one way there is"));
    }
    let (check, detail) = match package.validate(crypto, ProtocolVersion::Mls10) {
        // OpenMLS asks the machine's clock, and does so last: all else was in order.
        Ok(_) | Err(KeyPackageVerifyError::LifetimeError(_)) => return Ok(()),
        Err(KeyPackageVerifyError::InvalidSignature | KeyPackageVerifyError::LibraryError(_)) => {
            (Check::PackageSignature, "the package's signature does not verify")
        }
        Err(KeyPackageVerifyError::InvalidLeafNodeSignature) => {
            (Check::LeafSignature, "the leaf's signature does not verify")
        }
        Err(
            KeyPackageVerifyError::InvalidLeafNodeSourceType
            | KeyPackageVerifyError::MissingLifetime,
        ) => (Check::LeafSignature, "the leaf was not made for a key package"),
        Err(KeyPackageVerifyError::InitKeyEqualsEncryptionKey) => {
            (Check::InitKeyDistinct, "init_key equals the leaf's encryption key")
        }
        Err(KeyPackageVerifyError::InvalidProtocolVersion) => {
            (Check::Protocol, "the protocol version is not mls10")
        }
        Err(
            KeyPackageVerifyError::UnsupportedExtension
            | KeyPackageVerifyError::ExtensionTypeNotValidInKeyPackage(_),
        ) => (Check::Capabilities, "an extension may not stand in a key package"),
    };
    Err(refuse(check, detail))
}

fn facts(
    package: &KeyPackage,
    keypackage_ref: KeyPackageRef,
    last_resort: bool,
) -> Result<PackageFacts, AdmissionError> {
    let KeyPackageContent { ciphersuite, init_key, leaf, .. } = &package.content;
    let LeafSource::KeyPackage(Lifetime { not_before, not_after }) = leaf.content.source else {
        return Err(refuse(Check::LeafSignature, "the leaf was not made for a key package"));
    };
    let credential = identity::digest(&leaf.content.credential)?;
    Ok(PackageFacts {
        keypackage_ref,
        not_before: Timestamp::from_secs(not_before),
        not_after: Timestamp::from_secs(not_after),
        ciphersuite: *ciphersuite,
        credential,
        init_key: Hash::of(init_key.as_slice()),
        last_resort,
        capabilities: Some(Box::new(recorded(&leaf.content.capabilities))),
    })
}

/// The capabilities that are recorded: without GREASE, and so many of a kind at most.
fn recorded(capabilities: &Capabilities) -> PackageCapabilities {
    let kept = |numbers: &[u16]| {
        let numbers = numbers.iter().copied().filter(|number| !is_grease(*number));
        numbers.take(CAPABILITIES_RECORDED_MAX).collect()
    };
    PackageCapabilities {
        extensions: kept(&capabilities.extensions),
        proposals: kept(&capabilities.proposals),
        credentials: kept(&capabilities.credentials),
    }
}

fn refuse(check: Check, detail: impl Into<String>) -> AdmissionError {
    AdmissionError { check, detail: detail.into(), keypackage_ref: None }
}

#[cfg(test)]
mod crafting;

#[cfg(test)]
mod tests;
