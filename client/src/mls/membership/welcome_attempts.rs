//! The count of failed Welcomes for a package, which bounds the cost of bad Welcomes for the device.

use data_encoding::HEXLOWER;
use keypool_ledger::KeyPackageRef;

use super::MlsMembership;
use crate::{JoinError, Staged, StorageError};

/// How many Welcomes for one package may fail before no more are tried.
///
/// Each costs a decryption and a write. The one inviter who was given the package sends one; a few more
/// come of networks that damage and repeat. Anyone who knows the package can exhaust the number: the private
/// keys are kept then, the inviter can ask for another package, and the app may allow more attempts.
pub const WELCOME_ATTEMPTS_MAX: u32 = 16;

impl MlsMembership {
    /// Lets Welcomes for a package be tried again, after
    /// [`JoinError::TooManyAttempts`](crate::JoinError::TooManyAttempts). Returns how many had failed.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store fails.
    pub fn allow_more_attempts(&self, keypackage_ref: &KeyPackageRef) -> Result<u32, StorageError> {
        let staged = self.store.stage()?;
        let failed = attempts(&staged, keypackage_ref)?;
        if failed > 0 {
            forget_attempts(&staged, keypackage_ref);
            staged.commit()?;
        }
        Ok(failed)
    }
}

/// Counts a Welcome that was not valid, as part of an operation.
pub(crate) fn count_attempt(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
) -> Result<(), StorageError> {
    let failed = attempts(staged, keypackage_ref)?.saturating_add(1);
    staged.put_app_record(&record_name(keypackage_ref), &failed)
}

/// Forgets how many there were: the package is over.
pub(crate) fn forget_attempts(staged: &Staged<'_>, keypackage_ref: &KeyPackageRef) {
    staged.remove_app_record(&record_name(keypackage_ref));
}

/// Refuses a package for which too many have failed.
pub(super) fn refuse_after_too_many(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
) -> Result<(), JoinError> {
    let attempts = attempts(staged, keypackage_ref)?;
    if attempts >= WELCOME_ATTEMPTS_MAX {
        let keypackage_ref = keypackage_ref.clone();
        return Err(JoinError::TooManyAttempts { keypackage_ref, attempts });
    }
    Ok(())
}

/// Whether no more are tried for a package.
pub(crate) fn has_no_attempts_left(
    staged: &Staged<'_>,
    keypackage_ref: &KeyPackageRef,
) -> Result<bool, StorageError> {
    Ok(WELCOME_ATTEMPTS_MAX <= attempts(staged, keypackage_ref)?)
}

fn attempts(staged: &Staged<'_>, keypackage_ref: &KeyPackageRef) -> Result<u32, StorageError> {
    Ok(staged.app_record(&record_name(keypackage_ref))?.unwrap_or_default())
}

fn record_name(keypackage_ref: &KeyPackageRef) -> String {
    format!("welcome-attempts/{}", HEXLOWER.encode(keypackage_ref.as_bytes()))
}
