//! The error of a refresh and of a rotation of the device's key.

use keypool_api::Code;

use super::{ExchangeError, IdentityError, PoolError, StorageError};
use crate::ApiError;

/// Why a refresh, or a rotation of the device's key, has ended early. The steps before it are kept, and the next
/// call goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The server did not answer, or refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The store failed, or the server's history does not continue its earlier one.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Packages for the pool could not be made.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A key of the device cannot be made, or is missing.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl RefreshError {
    /// The server's error code, if it refused.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Api(error) => error.code(),
            Self::Identity(_) | Self::Storage(_) | Self::Pool(_) => None,
        }
    }
}

impl From<ExchangeError> for RefreshError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Api(error) => Self::Api(error),
            ExchangeError::Storage(error) => Self::Storage(error),
        }
    }
}
