//! Packages made by hand for the tests: each part can be spoiled before the signatures are made.

use keypool_ledger::{PoolId, SignatureKey, Timestamp};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::{
    crypto::OpenMlsCrypto,
    types::{Ciphersuite, SignatureScheme},
};
use tls_codec::{Serialize, TlsSerialize, TlsSize, VLBytes};

use super::{
    Owner,
    structure::{
        CREDENTIAL_BASIC, Capabilities, Credential, KeyPackage, KeyPackageContent, LeafContent,
        LeafNode, LeafSource, Lifetime, MLS10,
    },
};

/// The moment at which the crafted packages are valid.
pub(super) const NOW: Timestamp = Timestamp::from_secs(1_766_400_000);

/// A device that makes packages.
pub(super) struct Maker {
    pub(super) suite: Ciphersuite,
    crypto: RustCrypto,
    private_key: Vec<u8>,
    pub(super) public_key: Vec<u8>,
}

impl Maker {
    pub(super) fn new(suite: u16) -> Self {
        let suite = Ciphersuite::try_from(suite).unwrap();
        let crypto = RustCrypto::default();
        let (private_key, public_key) =
            crypto.signature_key_gen(suite.signature_algorithm()).unwrap();
        Self { suite, crypto, private_key, public_key }
    }

    /// The pool `alice/phone`, spoken for by this maker's key where requests could be signed by it, and
    /// otherwise by another one.
    pub(super) fn owner(&self) -> Owner {
        let signs = self.suite.signature_algorithm() == SignatureScheme::ED25519;
        let speaks = if signs { self.public_key.as_slice() } else { &[7; 32] };
        let pool = PoolId::new("alice", "phone").unwrap();
        Owner::new(pool, Some(SignatureKey::new(speaks).unwrap()))
    }

    pub(super) fn hpke_key(&self, seed: u8) -> VLBytes {
        let pair = self.crypto.derive_hpke_keypair(self.suite.hpke_config(), &[seed; 32]).unwrap();
        pair.public.into()
    }

    /// A package that passes every check, not signed yet.
    pub(super) fn content(&self) -> KeyPackageContent {
        let number = u16::from(self.suite);
        let lifetime = Lifetime {
            not_before: NOW.as_secs() - 3600,
            not_after: NOW.as_secs() + 14 * 24 * 3600,
        };
        let content = LeafContent {
            encryption_key: self.hpke_key(2),
            signature_key: self.public_key.clone().into(),
            credential: Credential {
                credential_type: CREDENTIAL_BASIC,
                content: b"alice".to_vec().into(),
            },
            capabilities: Capabilities {
                versions: vec![MLS10],
                ciphersuites: vec![number],
                extensions: vec![],
                proposals: vec![],
                credentials: vec![CREDENTIAL_BASIC],
            },
            source: LeafSource::KeyPackage(lifetime),
            extensions: vec![],
        };
        KeyPackageContent {
            version: MLS10,
            ciphersuite: number,
            init_key: self.hpke_key(1),
            leaf: LeafNode { content, signature: vec![].into() },
            extensions: vec![],
        }
    }

    /// Signs the leaf and then the package.
    pub(super) fn sign(&self, mut content: KeyPackageContent) -> KeyPackage {
        content.leaf.signature = self.sign_with_label("LeafNodeTBS", &content.leaf.content);
        self.sign_package_only(content)
    }

    /// Signs the package and leaves the leaf's signature as it is.
    pub(super) fn sign_package_only(&self, content: KeyPackageContent) -> KeyPackage {
        let signature = self.sign_with_label("KeyPackageTBS", &content);
        KeyPackage { content, signature }
    }

    /// A package that is good but for the changes that `spoil` makes before it is signed.
    pub(super) fn spoiled(&self, spoil: impl FnOnce(&mut KeyPackageContent)) -> Vec<u8> {
        let mut content = self.content();
        spoil(&mut content);
        bytes(&self.sign(content))
    }

    fn sign_with_label(&self, label: &str, content: &impl Serialize) -> VLBytes {
        let content = SignContent {
            label: format!("MLS 1.0 {label}").into_bytes().into(),
            content: content.tls_serialize_detached().unwrap().into(),
        };
        let bytes = content.tls_serialize_detached().unwrap();
        let scheme = self.suite.signature_algorithm();
        self.crypto.sign(scheme, &bytes, &self.private_key).unwrap().into()
    }
}

/// The bytes of a structure.
pub(super) fn bytes(value: &impl Serialize) -> Vec<u8> {
    value.tls_serialize_detached().unwrap()
}

/// The content that MLS signs, RFC 9420 section 5.1.2.
#[derive(TlsSerialize, TlsSize)]
struct SignContent {
    label: VLBytes,
    content: VLBytes,
}
