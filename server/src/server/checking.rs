//! Checks settings as a start does, without one.

use keypool_ledger::Timestamp;

use super::Server;
use crate::{
    admin_guard::AdminGuard,
    registration::Registrar,
    settings::{Settings, SettingsError},
};

impl Server {
    /// Checks settings, and reads the files that they name, as a start does.
    ///
    /// # Errors
    ///
    /// Returns the first [`SettingsError`] there is.
    pub fn check(settings: &Settings, now: Timestamp) -> Result<(), SettingsError> {
        settings.check()?;
        if let Some(backups) = settings.backups.as_deref().filter(|dir| !dir.is_dir()) {
            return Err(SettingsError::NoBackups(backups.to_owned()));
        }
        settings.clone().with_x509_roots()?;
        AdminGuard::open(settings.admin_token_file.as_deref())?;
        Registrar::open(&settings.registration, now)?;
        settings.open_tls().map(drop)
    }
}
