//! The capabilities of a package, as far as an inviter may ask for them.

use serde::{Deserialize, Serialize};

/// The capabilities that a package's leaf lists (RFC 9420 section 7.2), without GREASE values. Those that every
/// implementation has are listed nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageCapabilities {
    /// The types of extensions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<u16>,
    /// The types of proposals.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proposals: Vec<u16>,
    /// The types of credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<u16>,
}
