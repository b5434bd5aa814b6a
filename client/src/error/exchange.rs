//! The error of one exchange with the server.

use keypool_api::Code;

use super::StorageError;
use crate::ApiError;

/// Why an exchange with the server was not completed. Repeating it is harmless.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The server did not answer, or refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The store failed, or the server's history does not continue its earlier one.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ExchangeError {
    /// The server's error code, if it refused.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Api(error) => error.code(),
            Self::Storage(_) => None,
        }
    }
}
