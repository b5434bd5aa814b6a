//! Check 11: whose signature key stands in the leaf.
//!
//! The keys that speak for devices are Ed25519 keys, and so is the key in a leaf of ciphersuites 1, 3, 0x004E and 0x004F:
//! it must be the registered one, unless the device has declared another one. In a leaf of ciphersuite 2
//! stands a P-256 key. The device's key has declared it before, by a statement: the pool refuses packages of
//! every other one.

use keypool_ledger::SignatureKey;
use keypool_projections::LeafKey;
use openmls_traits::types::SignatureScheme;

use super::{AdmissionContext, AdmissionError, Check, refuse};

/// How many bytes a P-256 key has in a leaf: a point that is not compressed (RFC 9420 section 5.1.1).
const P256_KEY_BYTES: usize = 65;
/// The first byte of such a point.
const P256_KEY_BEGIN: u8 = 4;

/// The key that the pool is to hold the package to, where it is not the registered one.
pub(super) fn check_signature_key(
    key: &[u8],
    context: &AdmissionContext<'_>,
) -> Result<Option<LeafKey>, AdmissionError> {
    let Some(registered) = &context.owner.signature_key else { return Ok(None) };
    let refuse = |detail: &str| Err(refuse(Check::SignatureKey, detail));
    let scheme = context.suite.signature_algorithm();
    if scheme == SignatureScheme::ED25519 {
        return match &context.owner.leaf_key {
            None if registered.as_bytes() == key => Ok(None),
            None => refuse(
                "the leaf's signature key is not the device's registered key; declare another one with \
                 POST /devices/leaf-key before the upload",
            ),
            Some(declared) if declared.as_bytes() == key => {
                let signature_key = declared.clone();
                Ok(Some(LeafKey { signature_scheme: scheme as u16, signature_key }))
            }
            Some(_) => refuse(
                "the leaf's signature key is not the one that the device has declared with \
                 POST /devices/leaf-key",
            ),
        };
    }
    let is_compressed = key.len() != P256_KEY_BYTES || key.first() != Some(&P256_KEY_BEGIN);
    if scheme == SignatureScheme::ECDSA_SECP256R1_SHA256 && is_compressed {
        return refuse("the leaf's signature key is no point of P-256 in 65 bytes");
    }
    match SignatureKey::new(key) {
        Ok(signature_key) => Ok(Some(LeafKey { signature_scheme: scheme as u16, signature_key })),
        Err(_) => refuse("the leaf's signature key is longer or shorter than any of its kind"),
    }
}
