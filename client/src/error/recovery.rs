//! The error of recovery keys.

use super::{BoxError, ExchangeError, StorageError};
use crate::ApiError;

/// Why a recovery key was not set, or the name was not recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The server did not answer, or refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The user has no recovery key yet: set the first one without words of one before.
    #[error("the user has no recovery key yet")]
    NoRecoveryKey,
    /// The key cannot be made. A fault of the machine.
    #[error("the recovery key cannot be made")]
    Key(#[source] BoxError),
}

impl From<ExchangeError> for RecoveryError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Api(error) => Self::Api(error),
            ExchangeError::Storage(error) => Self::Storage(error),
        }
    }
}
