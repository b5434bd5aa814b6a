//! The facts of a package that its events and the rules need.

use serde::{Deserialize, Serialize};

use super::PackageCapabilities;
use crate::{Hash, KeyPackageRef, Timestamp};

/// The facts of a package, read from its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageFacts {
    /// Its reference.
    pub keypackage_ref: KeyPackageRef,
    /// The first moment at which it may be used.
    pub not_before: Timestamp,
    /// The last moment at which it may be used.
    pub not_after: Timestamp,
    /// The number of its ciphersuite, RFC 9420 section 17.1.
    pub ciphersuite: u16,
    /// The BLAKE3 digest of its serialized credential.
    pub credential: Hash,
    /// The BLAKE3 digest of its `init_key`, which must be unique for each client (RFC 9420 section 10).
    pub init_key: Hash,
    /// Whether it may be used more than once when nothing else is left.
    pub last_resort: bool,
    /// The capabilities that its leaf lists; `None` in records from before they were recorded, and in those of
    /// clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Box<PackageCapabilities>>,
}
