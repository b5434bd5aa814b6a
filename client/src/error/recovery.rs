//! The error of recovery keys.

use super::BoxError;
use crate::ApiError;

/// Why a recovery key was not set, or the name was not recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The server did not answer, or refused.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The user has no recovery key yet: set the first one without words of one before.
    #[error("the user has no recovery key yet")]
    NoRecoveryKey,
    /// The key cannot be made. A fault of the machine.
    #[error("the recovery key cannot be made")]
    Key(#[source] BoxError),
}
