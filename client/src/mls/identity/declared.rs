//! The record of the credential that the server has heard of from this device.

use keypool_ledger::Hash;
use serde::{Deserialize, Serialize};

use super::{DeviceIdentity, LeafCredential};
use crate::{Staged, StorageError};

/// The name of the record.
const RECORD: &str = "declared-credential";

/// The credential that the server has heard of. Without the record it has heard of none, and takes packages with the
/// credential that names the device.
#[derive(Serialize, Deserialize)]
struct DeclaredCredential {
    /// Its digest; `None` if it is not known which it is.
    digest: Option<Hash>,
}

/// The credential of the device's leaves, if the server has not heard of it.
pub(crate) fn undeclared_credential(
    staged: &Staged<'_>,
    identity: &DeviceIdentity,
) -> Result<Option<LeafCredential>, StorageError> {
    let credential = identity.credential();
    let is_heard = match staged.app_record::<DeclaredCredential>(RECORD)? {
        Some(DeclaredCredential { digest }) => digest == Some(credential.digest()),
        None => credential == identity.named,
    };
    Ok((!is_heard).then_some(credential))
}

/// Notes that the server has heard of a credential, as part of the operation.
pub(crate) fn note_declared_credential(
    staged: &Staged<'_>,
    credential: &LeafCredential,
) -> Result<(), StorageError> {
    staged.put_app_record(RECORD, &DeclaredCredential { digest: Some(credential.digest()) })
}

/// Notes that it is not known which credential the server has heard of, as part of the operation: the next refresh
/// declares it.
pub(crate) fn forget_declared_credential(staged: &Staged<'_>) -> Result<(), StorageError> {
    staged.put_app_record(RECORD, &DeclaredCredential { digest: None })
}
