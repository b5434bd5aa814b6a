//! The device's identity: the key that signs its requests and its packages, those of other schemes that
//! go with it, and its credential.

mod credentials;
mod declared;
mod leaf_keys;
mod signing_key;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use keypool_ledger::{Hash, PoolId, SignatureKey};
use openmls::{
    credentials::{Credential, CredentialType, CredentialWithKey},
    prelude::{Capabilities, ExtensionType},
};
use openmls_traits::{
    OpenMlsProvider,
    crypto::OpenMlsCrypto,
    signatures::{Signer, SignerError},
    types::SignatureScheme,
};
use serde::{Deserialize, Serialize};

pub use self::credentials::{
    CredentialSource, CredentialValidator, LeafCredential, LeafOwner, PresentedLeaf,
};
pub(crate) use self::{
    declared::{forget_declared_credential, note_declared_credential, undeclared_credential},
    leaf_keys::{delete_leaf_keys, leaf_keys_of, note_declared, undeclared_leaf_keys},
    signing_key::{SigningKey, delete_signing_key, has_signing_key},
};
use super::SIGNATURE_SCHEME;
use crate::{IdentityError, LocalStore, Staged, StorageError};

/// The name of the record that says which key is the device's.
const RECORD: &str = "identity";

/// The identity of the device to everyone else. Cheap to clone, and all clones have the same key: another
/// one takes its place in all of them. The private key is never printed.
#[derive(Clone)]
pub struct DeviceIdentity {
    pool: PoolId,
    /// The Basic credential that names the device.
    named: LeafCredential,
    source: Option<Arc<dyn CredentialSource>>,
    validator: Option<Arc<dyn CredentialValidator>>,
    keys: Arc<RwLock<DeviceKeys>>,
}

/// The key of the moment.
#[derive(Clone)]
pub(crate) struct DeviceKeys {
    signing_key: SigningKey,
}

/// Which key is the device's. The private half is with the values of `OpenMLS`.
#[derive(Serialize, Deserialize)]
struct IdentityRecord {
    signature_key: SignatureKey,
}

impl DeviceIdentity {
    /// Loads the identity of the store's owner, or makes it: an Ed25519 key, and a Basic credential
    /// that names `user/device`.
    ///
    /// # Errors
    ///
    /// Returns an [`IdentityError`] if the store fails, or if the key is missing from it or cannot
    /// sign. Nothing has been written then.
    pub fn load_or_create(store: &LocalStore) -> Result<Self, IdentityError> {
        let staged = store.stage()?;
        let keys = if let Some(IdentityRecord { signature_key }) = staged.app_record(RECORD)? {
            stored_keys(&staged, &signature_key)?
        } else {
            let keys = make_keys(&staged)?;
            note_keys(&staged, keys.signature_key())?;
            keys
        };
        let identity = Self::with_keys(store.owner(), keys)?;
        staged.commit()?;
        Ok(identity)
    }

    /// The device with these keys, and the credential that names it.
    fn with_keys(pool: &PoolId, keys: DeviceKeys) -> Result<Self, IdentityError> {
        let named = LeafCredential::basic(pool.to_string().as_bytes()).map_err(unusable)?;
        let keys = Arc::new(RwLock::new(keys));
        Ok(Self { pool: pool.clone(), named, source: None, validator: None, keys })
    }

    /// The same device with other keys than its own.
    pub(crate) fn speaking_with(&self, keys: DeviceKeys) -> Self {
        Self { keys: Arc::new(RwLock::new(keys)), ..self.clone() }
    }

    /// The same device with the app's credential and its judgement of others'; `None` is the directory's, with
    /// the credential that names `user/device`.
    #[must_use]
    pub fn with_credentials(
        self,
        source: Option<Arc<dyn CredentialSource>>,
        validator: Option<Arc<dyn CredentialValidator>>,
    ) -> Self {
        Self { source, validator, ..self }
    }

    /// Lets other keys take the place of those there are, in all clones.
    pub(crate) fn replace(&self, keys: DeviceKeys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    pub(crate) fn keys(&self) -> DeviceKeys {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whose identity this is.
    #[must_use]
    pub fn pool(&self) -> &PoolId {
        &self.pool
    }

    /// The public key, which is also the `keyid` of signed requests.
    #[must_use]
    pub fn signature_key(&self) -> SignatureKey {
        self.keys().signature_key().clone()
    }

    /// The BLAKE3 digest of the serialized credential, as events carry it.
    #[must_use]
    pub fn credential_hash(&self) -> Hash {
        self.credential().digest()
    }

    /// The credential that the device's leaves carry from now on.
    pub(crate) fn credential(&self) -> LeafCredential {
        self.source.as_ref().map_or_else(|| self.named.clone(), |source| source.credential())
    }

    /// Whether the device's leaves carry a credential from now on.
    pub(crate) fn carries(&self, credential: &Credential) -> bool {
        match &self.source {
            Some(source) => source.credential().as_mls() == credential,
            None => self.named.as_mls() == credential,
        }
    }

    /// The app's judgement of a leaf.
    pub(crate) fn owner_of(&self, leaf: &PresentedLeaf<'_>) -> LeafOwner {
        self.validator.as_ref().map_or(LeafOwner::Undecided, |validator| validator.owner(leaf))
    }

    /// The capabilities of the device's leaves: those of its crypto provider, the given extensions, and the
    /// credential types that it has or knows.
    pub(crate) fn capabilities(
        &self,
        provider: &impl OpenMlsProvider,
        extensions: Vec<ExtensionType>,
    ) -> Capabilities {
        Capabilities::builder()
            .ciphersuites(provider.crypto().supported_ciphersuites())
            .extensions(extensions)
            .credentials(self.credential_types())
            .build()
    }

    /// The credential types that the device has or knows.
    pub(crate) fn credential_types(&self) -> Vec<CredentialType> {
        let mut types = vec![CredentialType::Basic];
        let own = self.source.as_ref().map(|source| source.credential().credential_type());
        let known = self.validator.as_ref().map(|validator| validator.credential_types());
        for number in own.into_iter().chain(known.into_iter().flatten()) {
            let named = CredentialType::from(number);
            if !types.contains(&named) {
                types.push(named);
            }
        }
        types
    }

    /// The raw Ed25519 signature of some bytes: 64 bytes.
    ///
    /// # Errors
    ///
    /// Returns [`IdentityError::Keystore`] if the key is in a keystore that refuses. A key of the store always signs.
    pub fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, IdentityError> {
        self.keys().sign(bytes)
    }

    /// The credential with the key that signs for the device by some scheme.
    pub(crate) fn credential_with(&self, key: &SigningKey) -> CredentialWithKey {
        let signature_key = key.public().as_bytes().into();
        CredentialWithKey { credential: self.credential().as_mls().clone(), signature_key }
    }
}

/// Signs as the device, for an app that has `OpenMLS` groups of its own.
impl Signer for DeviceIdentity {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Signer::sign(&self.keys().signing_key, payload)
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SIGNATURE_SCHEME
    }
}

impl DeviceKeys {
    /// The keys of a device whose requests are signed by this one. A key of the store that cannot sign is refused
    /// here, so that none fails later.
    pub(super) fn of(signing_key: SigningKey) -> Result<Self, IdentityError> {
        Ok(Self { signing_key: signing_key.tried()? })
    }

    pub(crate) const fn signature_key(&self) -> &SignatureKey {
        self.signing_key.public()
    }

    pub(crate) fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, IdentityError> {
        self.signing_key.sign(bytes)
    }
}

/// Makes a key for the device, as part of the operation.
pub(crate) fn make_keys(staged: &Staged<'_>) -> Result<DeviceKeys, IdentityError> {
    DeviceKeys::of(SigningKey::make(staged, SIGNATURE_SCHEME)?)
}

/// A key that the device has, or had before it was followed by another.
pub(crate) fn stored_keys(
    staged: &Staged<'_>,
    signature_key: &SignatureKey,
) -> Result<DeviceKeys, IdentityError> {
    DeviceKeys::of(SigningKey::stored(staged, signature_key, SIGNATURE_SCHEME)?)
}

/// Notes which key is the device's, as part of the operation.
pub(crate) fn note_keys(staged: &Staged<'_>, key: &SignatureKey) -> Result<(), StorageError> {
    staged.put_app_record(RECORD, &IdentityRecord { signature_key: key.clone() })
}

impl fmt::Debug for DeviceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceKeys").finish_non_exhaustive()
    }
}

impl fmt::Debug for DeviceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceIdentity").finish_non_exhaustive()
    }
}

fn unusable(err: impl std::error::Error + Send + Sync + 'static) -> IdentityError {
    IdentityError::Unusable(err.into())
}
