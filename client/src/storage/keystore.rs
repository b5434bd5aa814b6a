//! Signature keys whose private halves are in no file of the device: in the platform's keystore, or in a token.

use std::fmt;

use keypool_ledger::SignatureKey;
use openmls_traits::types::SignatureScheme;

use crate::BoxError;

/// A keystore of the platform's or of a token, which makes the device's signature keys and never gives them away.
///
/// It is asked on the caller's thread, and may take its time: to ask for a fingerprint, say.
pub trait SignatureKeystore: Send + Sync {
    /// Makes a key, and returns its public half: 32 bytes of Ed25519, or the 65 bytes of an uncompressed point of
    /// P-256. An app that dies now has one key too many in the keystore, and nothing else.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot, or has no keys of this signature scheme: groups of it are then out of reach.
    fn generate(&self, scheme: SignatureScheme) -> Result<SignatureKey, BoxError>;

    /// Signs by a key: 64 bytes by Ed25519, or a DER-encoded ECDSA signature over the SHA-256 digest (RFC 9420,
    /// section 5.1.1).
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot: because the person refused it, say. Nothing has happened then.
    fn sign(&self, key: &SignatureKey, payload: &[u8]) -> Result<Vec<u8>, BoxError>;

    /// Deletes a key. A key that is gone already is no error.
    ///
    /// # Errors
    ///
    /// Returns an error if the key is still there. It is asked again by a later refresh.
    fn delete(&self, key: &SignatureKey) -> Result<(), BoxError>;
}

impl fmt::Debug for dyn SignatureKeystore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignatureKeystore")
    }
}
