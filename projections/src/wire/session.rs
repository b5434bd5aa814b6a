//! Session keys: what the two sides tell each other.

use serde::{Deserialize, Serialize};

use super::Base64;
use crate::signing::SessionId;

/// `POST /devices/sessions`: agree on a key that stands for the device's own for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionRequest {
    /// The device's X25519 public key for this one agreement: 32 bytes.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Byte))]
    pub public_key: Base64,
}

/// The answer to `POST /devices/sessions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionReply {
    /// The session's name, for `keyid`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub session: SessionId,
    /// The server's X25519 public key for this one agreement: 32 bytes.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = Byte))]
    pub public_key: Base64,
    /// When it ends, in Unix seconds.
    pub expires_at: u64,
}
