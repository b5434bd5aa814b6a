//! The device's identity: the key that signs its packages and its requests, and its credential.

use std::{fmt, sync::Arc};

use keypool_ledger::{Hash, PoolId, SignatureKey};
use openmls::credentials::{BasicCredential, CredentialWithKey};
use openmls_basic_credential::SignatureKeyPair;
use openmls_traits::signatures::Signer;
use serde::{Deserialize, Serialize};

use super::{SIGNATURE_SCHEME, credential_hash};
use crate::{IdentityError, LocalStore, Staged};

/// The name of the record that says which key is the device's.
const RECORD: &str = "identity";

/// Who the device is to everyone else. Cheap to clone; the private key is never printed.
#[derive(Clone)]
pub struct DeviceIdentity {
    pool: PoolId,
    signature_key: SignatureKey,
    credential: CredentialWithKey,
    credential_hash: Hash,
    keys: Arc<SignatureKeyPair>,
}

/// Which key is the device's. The private half is with the values of `OpenMLS`.
#[derive(Serialize, Deserialize)]
struct Record {
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
        let keys = match staged.app_record::<Record>(RECORD)? {
            Some(Record { signature_key }) => {
                SignatureKeyPair::read(&staged, signature_key.as_bytes(), SIGNATURE_SCHEME)
                    .ok_or(IdentityError::KeyMissing { signature_key })?
            }
            None => make_keys(&staged)?,
        };
        let identity = Self::from_keys(store.owner(), keys)?;
        staged.commit()?;
        Ok(identity)
    }

    /// Puts the parts together. A key that cannot sign is refused here, so that none fails later.
    fn from_keys(pool: &PoolId, keys: SignatureKeyPair) -> Result<Self, IdentityError> {
        Signer::sign(&keys, b"keypool: can this key sign?")
            .map_err(|err| IdentityError::Unusable(format!("{err:?}").into()))?;
        let credential = BasicCredential::new(pool.to_string().into_bytes()).into();
        let credential_hash = credential_hash(&credential).map_err(IdentityError::Unusable)?;
        Ok(Self {
            pool: pool.clone(),
            signature_key: SignatureKey::new(keys.public()).map_err(unusable)?,
            credential: CredentialWithKey { credential, signature_key: keys.public().into() },
            credential_hash,
            keys: Arc::new(keys),
        })
    }

    /// Whose identity this is.
    #[must_use]
    pub fn pool(&self) -> &PoolId {
        &self.pool
    }

    /// The public key, which is also the `keyid` of signed requests.
    #[must_use]
    pub fn signature_key(&self) -> &SignatureKey {
        &self.signature_key
    }

    /// The BLAKE3 digest of the serialized credential, as events carry it.
    #[must_use]
    pub fn credential_hash(&self) -> Hash {
        self.credential_hash
    }

    /// The raw Ed25519 signature of some bytes: 64 bytes.
    ///
    /// It cannot fail: a key that cannot sign is refused when the identity is loaded.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        Signer::sign(self.signer(), bytes).unwrap_or_default()
    }

    pub(crate) fn signer(&self) -> &SignatureKeyPair {
        &self.keys
    }

    pub(crate) fn credential(&self) -> CredentialWithKey {
        self.credential.clone()
    }
}

/// Makes the device's key, as part of the operation.
fn make_keys(staged: &Staged<'_>) -> Result<SignatureKeyPair, IdentityError> {
    let keys = SignatureKeyPair::new(SIGNATURE_SCHEME).map_err(unusable)?;
    keys.store(staged)?;
    let signature_key = SignatureKey::new(keys.public()).map_err(unusable)?;
    staged.put_app_record(RECORD, &Record { signature_key })?;
    Ok(keys)
}

impl fmt::Debug for DeviceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceIdentity").finish_non_exhaustive()
    }
}

fn unusable(err: impl std::error::Error + Send + Sync + 'static) -> IdentityError {
    IdentityError::Unusable(err.into())
}
