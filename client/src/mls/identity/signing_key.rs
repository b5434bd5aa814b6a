//! A key that signs for the device: with the values of `OpenMLS`, or in the keystore that the app has given.

use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::HEXLOWER;
use keypool_ledger::SignatureKey;
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    crypto::OpenMlsCrypto,
    signatures::{Signer, SignerError},
    types::SignatureScheme,
};

use super::unusable;
use crate::{IdentityError, SignatureKeystore, Staged, StorageError, mls::SIGNATURE_SCHEME};

/// The prefix of the names of the records of the keys that are in the keystore.
const PREFIX: &str = "keystore-key/";
/// The bytes that a new key signs, so that one that cannot is noticed before anybody knows it.
const TRIAL: &[u8] = b"keypool: can this key sign?";

/// A key of the device, with the place of its private half.
#[derive(Clone)]
pub(crate) struct SigningKey {
    public: SignatureKey,
    scheme: SignatureScheme,
    holder: KeyHolder,
    /// The last failure in an operation of `OpenMLS`, which keeps no reason.
    failure: Arc<Mutex<Option<IdentityError>>>,
}

/// The place of a private key.
#[derive(Clone)]
enum KeyHolder {
    Store(Arc<SignatureKeyPair>),
    Keystore(Arc<dyn SignatureKeystore>),
}

impl SigningKey {
    /// Makes a key: in the keystore if there is one, and otherwise as part of the operation.
    pub(super) fn make(
        staged: &Staged<'_>,
        scheme: SignatureScheme,
    ) -> Result<Self, IdentityError> {
        let Some(keystore) = staged.keystore() else {
            let pair = SignatureKeyPair::new(scheme).map_err(unusable)?;
            pair.store(staged)?;
            return Self::of_pair(pair);
        };
        let public = keystore.generate(scheme).map_err(IdentityError::Keystore)?;
        let made = Self::new(public, scheme, KeyHolder::Keystore(Arc::clone(keystore)));
        let signature = made.sign(TRIAL)?;
        RustCrypto::default()
            .verify_signature(scheme, TRIAL, made.public.as_bytes(), &signature)
            .map_err(|_| IdentityError::Keystore("its signature does not verify".into()))?;
        staged.put_app_record(&name_of(made.public.as_bytes()), &(scheme as u16))?;
        Ok(made)
    }

    /// A key of the device that was made before.
    pub(in crate::mls) fn stored(
        staged: &Staged<'_>,
        public: &SignatureKey,
        scheme: SignatureScheme,
    ) -> Result<Self, IdentityError> {
        if is_in_keystore(staged, public.as_bytes())? {
            let keystore = staged
                .keystore()
                .map(Arc::clone)
                .ok_or_else(|| IdentityError::KeystoreMissing { signature_key: public.clone() })?;
            return Ok(Self::new(public.clone(), scheme, KeyHolder::Keystore(keystore)));
        }
        let pair = SignatureKeyPair::read(staged, public.as_bytes(), scheme);
        let missing = || IdentityError::KeyMissing { signature_key: public.clone() };
        Self::of_pair(pair.ok_or_else(missing)?)
    }

    /// A key whose private half is in memory.
    pub(in crate::mls) fn of_pair(pair: SignatureKeyPair) -> Result<Self, IdentityError> {
        let public = SignatureKey::new(pair.public()).map_err(unusable)?;
        let scheme = pair.signature_scheme();
        Ok(Self::new(public, scheme, KeyHolder::Store(Arc::new(pair))))
    }

    fn new(public: SignatureKey, scheme: SignatureScheme, holder: KeyHolder) -> Self {
        Self { public, scheme, holder, failure: Arc::default() }
    }

    /// Refuses a key of the store that cannot sign. A keystore is not bothered before it is needed.
    pub(super) fn tried(self) -> Result<Self, IdentityError> {
        if let KeyHolder::Store(_) = self.holder {
            self.sign(TRIAL)?;
        }
        Ok(self)
    }

    /// The public half.
    pub(crate) const fn public(&self) -> &SignatureKey {
        &self.public
    }

    /// The outcome of an operation of `OpenMLS` that this key signed in; if it could not sign, the reason.
    pub(in crate::mls) fn explain<T, E: From<IdentityError>>(
        &self,
        outcome: Result<T, E>,
    ) -> Result<T, E> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (outcome, failure) {
            (Err(_), Some(failure)) => Err(failure.into()),
            (outcome, _) => outcome,
        }
    }

    /// The signature of some bytes.
    pub(super) fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, IdentityError> {
        match &self.holder {
            KeyHolder::Store(pair) => Signer::sign(pair.as_ref(), bytes).map_err(unusable_signer),
            KeyHolder::Keystore(keystore) => {
                keystore.sign(&self.public, bytes).map_err(IdentityError::Keystore)
            }
        }
    }
}

/// Signs in a group. `OpenMLS` keeps no reason for a failure: [`SigningKey::explain`] has it.
impl Signer for SigningKey {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        self.sign(payload).map_err(|error| {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            SignerError::SigningError
        })
    }

    fn signature_scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

/// Whether the device has the private half of a key.
pub(crate) fn has_signing_key(staged: &Staged<'_>, public: &[u8]) -> Result<bool, StorageError> {
    let schemes = [SIGNATURE_SCHEME, SignatureScheme::ECDSA_SECP256R1_SHA256];
    let in_store =
        schemes.into_iter().any(|scheme| SignatureKeyPair::read(staged, public, scheme).is_some());
    Ok(in_store || is_in_keystore(staged, public)?)
}

/// Deletes a key of the device: in the keystore at once, and in the store as part of the operation.
pub(crate) fn delete_signing_key(
    staged: &Staged<'_>,
    public: &SignatureKey,
    scheme: SignatureScheme,
) -> Result<(), IdentityError> {
    if is_in_keystore(staged, public.as_bytes())? {
        let keystore = staged
            .keystore()
            .ok_or_else(|| IdentityError::KeystoreMissing { signature_key: public.clone() })?;
        keystore.delete(public).map_err(IdentityError::Keystore)?;
        staged.remove_app_record(&name_of(public.as_bytes()));
        return Ok(());
    }
    Ok(SignatureKeyPair::delete(staged, public.as_bytes(), scheme)?)
}

fn is_in_keystore(staged: &Staged<'_>, public: &[u8]) -> Result<bool, StorageError> {
    Ok(staged.app_record::<u16>(&name_of(public))?.is_some())
}

fn name_of(public: &[u8]) -> String {
    format!("{PREFIX}{}", HEXLOWER.encode(public))
}

fn unusable_signer(error: SignerError) -> IdentityError {
    IdentityError::Unusable(format!("{error:?}").into())
}
