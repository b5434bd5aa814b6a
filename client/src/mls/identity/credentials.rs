//! Credentials that the app gives: the one that this device's leaves carry, and the app's judgement of others'.

use std::fmt;

use keypool_ledger::{CredentialBytes, Hash, NameError, PoolId};
use openmls::credentials::{Credential, CredentialType};
use tls_codec::Serialize;

/// The credential of this device, given by the app in
/// [`ClientOptions::credential_source`](crate::ClientOptions::credential_source).
///
/// Packages, groups that are made, and updates of keys carry it. The client declares it to the server before it
/// uploads or invites. When it changes, the next refresh withdraws the packages with the one before and
/// uploads others; [`needs_fresh_keys`](crate::MlsClient::needs_fresh_keys) names the groups whose leaf is to be
/// updated.
pub trait CredentialSource: Send + Sync {
    /// Returns the credential of now. It is called often, and must answer at once.
    fn credential(&self) -> LeafCredential;
}

/// The app's judgement of leaves, given in
/// [`ClientOptions::credential_validator`](crate::ClientOptions::credential_validator).
///
/// Each leaf of another device goes through it: at a join, of each Add, Update and path of a Commit, of each sender
/// and inviter, and of each package before it is added.
pub trait CredentialValidator: Send + Sync {
    /// Returns the device that a leaf is of. It is called often, and must answer at once and the same each time,
    /// as long as nothing has changed.
    fn owner(&self, leaf: &PresentedLeaf<'_>) -> LeafOwner;

    /// Returns the numbers of the credential types that it knows (RFC 9420 section 17.5), beside Basic and that of
    /// this device: the device's leaves list them, since MLS lets nobody into a group who does not list all types
    /// in it.
    fn credential_types(&self) -> Vec<u16> {
        Vec::new()
    }
}

/// The device that a leaf is of, by the app's judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafOwner {
    /// The directory decides, as without a validator: by the name in a Basic credential, or by the key among the
    /// known users'.
    Undecided,
    /// The leaf names this device; the directory decides whether its key is that device's.
    Listed(PoolId),
    /// The leaf is this device's: the app has checked credential and key, and the directory is not asked.
    Trusted(PoolId),
    /// The leaf is nobody's.
    Refused {
        /// Why, for the app's people.
        reason: String,
    },
}

/// A leaf for the app to judge. MLS has verified that the key has signed the leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresentedLeaf<'a> {
    /// The number of its credential's type, RFC 9420 section 17.5: 1 is Basic, 2 is X.509.
    pub credential_type: u16,
    /// The content of its credential: see [`LeafCredential::new`].
    pub content: &'a [u8],
    /// Its signature key.
    pub signature_key: &'a [u8],
}

impl<'a> PresentedLeaf<'a> {
    pub(crate) fn new(credential: &'a Credential, signature_key: &'a [u8]) -> Self {
        let (credential_type, content) =
            (credential.credential_type().into(), credential.serialized_content());
        Self { credential_type, content, signature_key }
    }
}

/// A credential for this device's leaves.
#[derive(Clone, PartialEq, Eq)]
pub struct LeafCredential {
    credential: Credential,
    bytes: CredentialBytes,
}

impl LeafCredential {
    /// Returns the credential of a type (RFC 9420 section 17.5), with the exact bytes of its content: those within
    /// the vector that follows the type. For Basic (1) that is the identity; for X.509 (2) each certificate in DER,
    /// the leaf's first, behind its length as an MLS vector has it.
    ///
    /// # Errors
    ///
    /// Returns a [`NameError`] if there are more than 8192 bytes, type and length included.
    pub fn new(credential_type: u16, content: &[u8]) -> Result<Self, NameError> {
        let kind = CredentialType::from(credential_type);
        let credential = Credential::new(kind, content.to_vec());
        let bytes = CredentialBytes::new(&serialized(&credential))?;
        Ok(Self { credential, bytes })
    }

    /// Returns the Basic credential with an identity, which needs not be text.
    ///
    /// # Errors
    ///
    /// As [`LeafCredential::new`].
    pub fn basic(identity: &[u8]) -> Result<Self, NameError> {
        Self::new(CredentialType::Basic.into(), identity)
    }

    /// The number of its type.
    #[must_use]
    pub fn credential_type(&self) -> u16 {
        self.bytes.credential_type()
    }

    /// The bytes of its content.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        self.credential.serialized_content()
    }

    pub(crate) const fn as_mls(&self) -> &Credential {
        &self.credential
    }

    pub(crate) const fn as_bytes(&self) -> &CredentialBytes {
        &self.bytes
    }

    /// The digest by which events name it.
    pub(crate) fn digest(&self) -> Hash {
        self.bytes.digest()
    }
}

/// The bytes of a credential in a leaf. An empty result, which is no credential, stands for one that is too long for
/// MLS.
fn serialized(credential: &Credential) -> Vec<u8> {
    credential.tls_serialize_detached().unwrap_or_default()
}

impl fmt::Debug for LeafCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes.fmt(f)
    }
}
