//! Signature keys in a keystore of the platform's: a foreign implementation of the client's `SignatureKeystore`.

use std::sync::Arc;

use keypool_client::{BoxError, SignatureKey, SignatureKeystore, SignatureScheme};

/// A keystore of the platform's or of a token, which makes the device's signature keys and never gives them away.
///
/// The functions are called on threads of the library's own, several at once, and may block: to ask for a fingerprint,
/// say. A signature scheme is a number of RFC 9420: 2055 (0x0807) is Ed25519, which every device needs, and 1027
/// (0x0403) ECDSA with P-256 for ciphersuite 2.
#[uniffi::export(foreign)]
pub trait AppKeystore: Send + Sync {
    /// Makes a key, and returns its public half: 32 bytes of Ed25519, or the 65 bytes of an uncompressed point of P-256.
    ///
    /// # Errors
    ///
    /// Returns the keystore's own error, also for a scheme that it does not have.
    fn generate(&self, scheme: u16) -> Result<Vec<u8>, AppKeystoreError>;

    /// Signs by the key with that public half: 64 bytes by Ed25519, or a DER-encoded ECDSA signature over the SHA-256
    /// digest.
    ///
    /// # Errors
    ///
    /// Returns the keystore's own error: the call of the device fails with the code `keystore_refused`, and nothing is
    /// lost.
    fn sign(&self, key: Vec<u8>, payload: Vec<u8>) -> Result<Vec<u8>, AppKeystoreError>;

    /// Deletes a key. A key that is gone already is no error.
    ///
    /// # Errors
    ///
    /// Returns the keystore's own error if the key is still there. It is asked again by a later refresh.
    fn delete(&self, key: Vec<u8>) -> Result<(), AppKeystoreError>;
}

/// Why the keystore refused. An exception of another type becomes one of these.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Error)]
pub enum AppKeystoreError {
    /// The keystore's own error.
    Refused {
        /// Its text.
        reason: String,
    },
}

impl std::fmt::Display for AppKeystoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Refused { reason } = self;
        write!(f, "the app's keystore refused: {reason}")
    }
}

impl std::error::Error for AppKeystoreError {}

impl From<uniffi::UnexpectedUniFFICallbackError> for AppKeystoreError {
    fn from(error: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::Refused { reason: error.reason }
    }
}

/// The app's keystore as the client library calls it.
pub(crate) struct ForeignKeystore(pub(crate) Arc<dyn AppKeystore>);

impl SignatureKeystore for ForeignKeystore {
    fn generate(&self, scheme: SignatureScheme) -> Result<SignatureKey, BoxError> {
        Ok(SignatureKey::new(&self.0.generate(scheme as u16)?)?)
    }

    fn sign(&self, key: &SignatureKey, payload: &[u8]) -> Result<Vec<u8>, BoxError> {
        Ok(self.0.sign(key.as_bytes().to_vec(), payload.to_vec())?)
    }

    fn delete(&self, key: &SignatureKey) -> Result<(), BoxError> {
        Ok(self.0.delete(key.as_bytes().to_vec())?)
    }
}
