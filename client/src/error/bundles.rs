//! Why a stored key package was not loaded, and why one was not deleted.

use keypool_ledger::{KeyPackageRef, Timestamp};

use super::{KeyFate, StorageError};

/// Why a key package was not loaded with its private keys.
#[derive(Debug, thiserror::Error)]
pub enum BundleLoadError {
    /// The store failed.
    #[error("the key package cannot be read")]
    Storage(#[from] StorageError),
    /// Its private keys are not here. Ask to be invited again, which uses another package.
    #[error("the private key of package {keypackage_ref} is not here: {fate}")]
    MissingPrivateKey {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// Its fate, by the device's own history.
        fate: KeyFate,
    },
}

/// Why a key package was not deleted. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum BundleDeleteError {
    /// The store failed.
    #[error("the key package cannot be read or deleted")]
    Storage(#[from] StorageError),
    /// A Welcome for it may still come. Delete it after that time; to have it handed out no more, withdraw it.
    #[error(
        "package {keypackage_ref} is not deleted, since an invitation for it may come until Unix time {} s; \
         delete it then, and withdraw it to have no more of them",
        until.as_secs()
    )]
    StillNeeded {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// When no Welcome can come for it any more.
        until: Timestamp,
    },
}
