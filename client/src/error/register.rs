//! The error of a registration.

use keypool_api::Code;

use super::RefreshError;
use crate::ApiError;

/// Why the device's key was not registered at the server.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The name is bound to another key, or the user has a device already. Have that device vouch for this
    /// one, with [`MlsClient::vouch_for`](crate::MlsClient::vouch_for), or choose another name.
    #[error(transparent)]
    IdentityBound(ApiError),
    /// The key was removed or replaced before. Register with a new home.
    #[error(transparent)]
    KeyRetired(ApiError),
    /// The voucher was used, is too old, or the user's devices have changed since. Ask for another one.
    #[error(transparent)]
    VoucherInvalid(ApiError),
    /// The operator's token is missing or refused, or the voucher is not signed by the key it names. Ask
    /// the operator for a token, or the other device for a voucher.
    #[error(transparent)]
    NotAllowed(ApiError),
    /// The server did not answer. Call it again later: repeating it is harmless.
    #[error(transparent)]
    ServerUnreachable(ApiError),
    /// The server refused otherwise; the hint of its code is the next step.
    #[error(transparent)]
    Refused(ApiError),
    /// A rotation that a crash has left unfinished comes first, and failed here: in the store, the pool or
    /// the keys.
    #[error(transparent)]
    Rotation(RefreshError),
}

impl RegisterError {
    /// The server's error code, if it refused.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::IdentityBound(error)
            | Self::KeyRetired(error)
            | Self::VoucherInvalid(error)
            | Self::NotAllowed(error)
            | Self::ServerUnreachable(error)
            | Self::Refused(error) => error.code(),
            Self::Rotation(error) => error.code(),
        }
    }
}

impl From<ApiError> for RegisterError {
    /// Classifies a refusal of the server.
    fn from(error: ApiError) -> Self {
        match error.code() {
            Some(Code::IdentityBound) => Self::IdentityBound(error),
            Some(Code::KeyRetired) => Self::KeyRetired(error),
            Some(Code::StatementStale | Code::StatementExpired) => Self::VoucherInvalid(error),
            Some(Code::NotAllowed) => Self::NotAllowed(error),
            _ if error.is_unanswered() => Self::ServerUnreachable(error),
            _ => Self::Refused(error),
        }
    }
}

impl From<RefreshError> for RegisterError {
    /// Classifies the failure of the rotation that comes first: a server that refuses it, or does not answer,
    /// is met as in the registration itself.
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Api(error) => error.into(),
            error => Self::Rotation(error),
        }
    }
}
