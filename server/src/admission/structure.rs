//! The shape of a `KeyPackage` on the wire (RFC 9420 sections 7.2 and 10), with nothing judged.
//!
//! `OpenMLS` parses packages too, but it keeps most fields to itself until it has validated them, and
//! it accepts packages that a pool must not. Here each field can be looked at by the check it belongs to.

use tls_codec::{TlsDeserialize, TlsSerialize, TlsSize, VLBytes};

/// The protocol version `mls10`.
pub(super) const MLS10: u16 = 1;
/// The wire format of an `MLSMessage` that holds a `KeyPackage`.
pub(super) const WIRE_FORMAT_KEY_PACKAGE: u16 = 5;
/// The type of a Basic credential.
pub(super) const CREDENTIAL_BASIC: u16 = 1;
/// The type of an X.509 credential.
pub(super) const CREDENTIAL_X509: u16 = 2;
/// The extension that marks a last-resort package.
pub(super) const EXTENSION_LAST_RESORT: u16 = 0x000a;
/// The extension that holds application components, which may mark a last-resort package too.
pub(super) const EXTENSION_APP_DATA: u16 = 0x0006;
/// The component that marks a last-resort package.
pub(super) const COMPONENT_LAST_RESORT: u16 = 0x0004;

/// A signed `KeyPackage`.
#[derive(Clone, Debug, TlsDeserialize, TlsSerialize, TlsSize)]
pub(super) struct KeyPackage {
    pub(super) content: KeyPackageContent,
    pub(super) signature: VLBytes,
}

/// The signed content of a `KeyPackage`.
#[derive(Clone, Debug, TlsDeserialize, TlsSerialize, TlsSize)]
pub(super) struct KeyPackageContent {
    pub(super) version: u16,
    pub(super) ciphersuite: u16,
    pub(super) init_key: VLBytes,
    pub(super) leaf: LeafNode,
    pub(super) extensions: Vec<Extension>,
}

/// A signed leaf node.
#[derive(Clone, Debug, TlsDeserialize, TlsSerialize, TlsSize)]
pub(super) struct LeafNode {
    pub(super) content: LeafContent,
    pub(super) signature: VLBytes,
}

/// The signed content of a leaf node.
#[derive(Clone, Debug, TlsDeserialize, TlsSerialize, TlsSize)]
pub(super) struct LeafContent {
    pub(super) encryption_key: VLBytes,
    pub(super) signature_key: VLBytes,
    pub(super) credential: Credential,
    pub(super) capabilities: Capabilities,
    pub(super) source: LeafSource,
    pub(super) extensions: Vec<Extension>,
}

/// A credential: for a Basic one, `content` is the identity.
#[derive(Clone, Debug, TlsDeserialize, TlsSerialize, TlsSize)]
pub(super) struct Credential {
    pub(super) credential_type: u16,
    pub(super) content: VLBytes,
}

/// The capabilities of a member.
#[derive(Clone, Debug, TlsDeserialize, TlsSerialize, TlsSize)]
pub(super) struct Capabilities {
    pub(super) versions: Vec<u16>,
    pub(super) ciphersuites: Vec<u16>,
    pub(super) extensions: Vec<u16>,
    pub(super) proposals: Vec<u16>,
    pub(super) credentials: Vec<u16>,
}

/// The source of a leaf node.
#[derive(Clone, Debug, TlsDeserialize, TlsSerialize, TlsSize)]
#[repr(u8)]
pub(super) enum LeafSource {
    /// To be published in a `KeyPackage`.
    #[tls_codec(discriminant = 1)]
    KeyPackage(Lifetime),
    /// By an Update proposal.
    Update,
    /// By a Commit.
    Commit(VLBytes),
}

/// When a package may be used, in seconds since the Unix epoch, both ends included.
#[derive(Clone, Copy, Debug, TlsDeserialize, TlsSerialize, TlsSize)]
pub(super) struct Lifetime {
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

/// An extension of a package or of its leaf.
#[derive(Clone, Debug, TlsDeserialize, TlsSerialize, TlsSize)]
pub(super) struct Extension {
    pub(super) extension_type: u16,
    pub(super) data: VLBytes,
}

/// One entry of the dictionary of application components.
#[derive(Clone, Debug, TlsDeserialize, TlsSerialize, TlsSize)]
pub(super) struct Component {
    pub(super) id: u16,
    pub(super) data: VLBytes,
}
