//! Check 8: public keys that an inviter can encrypt to.
//!
//! HPKE cannot encrypt to a key of another length than its KEM's, to a point outside the curve, or to a
//! point of small order on Curve25519, with which every shared secret is zero (RFC 9180 section 7.1.4).
//! Looking for these costs a small part of a trial encryption, and finds the same keys.
//!
//! A key of X-Wing is one of ML-KEM-768 and one of X25519. The first must have coefficients below its modulus
//! (FIPS 203 section 7.2), which the trial encryption finds. It takes each point as the second; one of small
//! order would leave the secrecy to ML-KEM alone, so it is refused here as elsewhere.

use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    crypto::OpenMlsCrypto,
    types::{Ciphersuite, HpkeKemType},
};

use super::{AdmissionContext, AdmissionError, Check, refuse};

/// Bytes of a P-256 key: a point that is not compressed (RFC 9180 section 7.1.1). The library would take a
/// compressed one as well.
const P256_KEY_BYTES: usize = 65;
/// Bytes of an X25519 key.
const X25519_KEY_BYTES: usize = 32;

/// Refuses a key that nobody can encrypt to.
pub(super) fn check_usable(
    key: &[u8],
    name: &str,
    context: &AdmissionContext<'_>,
) -> Result<(), AdmissionError> {
    if is_usable(key, context.suite, context.crypto) {
        return Ok(());
    }
    let len = key.len();
    Err(refuse(Check::UsableKeys, format!("{name} ({len} bytes) is no key one can encrypt to")))
}

/// Decides whether HPKE can encrypt to a key. Keys of KEMs without a check of their own are tried.
pub(super) fn is_usable(key: &[u8], suite: Ciphersuite, crypto: &RustCrypto) -> bool {
    match suite.hpke_kem_algorithm() {
        HpkeKemType::DhKem25519 => is_usable_x25519(key),
        HpkeKemType::DhKemP256 => is_usable_p256(key),
        HpkeKemType::XWingKemDraft6 => is_usable_x_wing(key, suite, crypto),
        _ => can_seal(key, suite, crypto),
    }
}

fn is_usable_p256(key: &[u8]) -> bool {
    key.len() == P256_KEY_BYTES && p256::PublicKey::from_sec1_bytes(key).is_ok()
}

/// X25519 ignores the highest bit of a key and takes the rest modulo 2²⁵⁵ − 19.
fn is_usable_x25519(key: &[u8]) -> bool {
    let Ok(mut point) = <[u8; X25519_KEY_BYTES]>::try_from(key) else { return false };
    let [.., last] = &mut point;
    *last &= 0x7f;
    !SMALL_ORDER.contains(&point)
}

/// The X25519 key is at the end. The trial finds a wrong length.
fn is_usable_x_wing(key: &[u8], suite: Ciphersuite, crypto: &RustCrypto) -> bool {
    let point = key.split_last_chunk::<X25519_KEY_BYTES>();
    point.is_some_and(|(_, point)| is_usable_x25519(point)) && can_seal(key, suite, crypto)
}

/// Encrypts a word to a key.
pub(super) fn can_seal(key: &[u8], suite: Ciphersuite, crypto: &RustCrypto) -> bool {
    crypto.hpke_seal(suite.hpke_config(), key, b"", b"", b"keypool").is_ok()
}

/// The points of small order on Curve25519 and its twist, in each encoding without the highest bit.
const SMALL_ORDER: [[u8; 32]; 7] = [
    // 0 and 1
    small(0x00, 0x00, 0x00),
    small(0x01, 0x00, 0x00),
    // p - 1, then 0 and 1 again as p and p + 1
    small(0xec, 0xff, 0x7f),
    small(0xed, 0xff, 0x7f),
    small(0xee, 0xff, 0x7f),
    // the two of order 8
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
];

/// Little-endian bytes: the first, those between, and the last.
const fn small(first: u8, between: u8, last: u8) -> [u8; 32] {
    let mut bytes = [between; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}
