//! Upkeep of the device's pool.

use keypool_client::{KeyPackageRef, PoolStatus};

use super::Device;
use crate::{
    DeviceError,
    records::{AuditReport, RefreshReport},
};

#[uniffi::export]
impl Device {
    /// Keeps the pool: deletes expired packages, and refills it if it is low. To be called when the app starts, after
    /// each Welcome, and now and then. This is all the upkeep there is; within a minute of the last one it asks
    /// nothing.
    ///
    /// # Errors
    ///
    /// Returns the server's code, or one of the store; the steps before it are kept.
    pub async fn refresh_key_packages(&self) -> Result<RefreshReport, DeviceError> {
        Ok(self.call(|device| async move { device.refresh_key_packages().await }).await?.into())
    }

    /// Refreshes the pool even if the last refresh was a moment ago.
    ///
    /// # Errors
    ///
    /// As `refresh_key_packages`.
    pub async fn refresh_now(&self) -> Result<RefreshReport, DeviceError> {
        Ok(self.call(|device| async move { device.refresh_now().await }).await?.into())
    }

    /// How full the pool is, as the server says.
    ///
    /// # Errors
    ///
    /// Returns the server's code.
    pub async fn status(&self) -> Result<PoolStatus, DeviceError> {
        self.call(|device| async move { device.status().await }).await
    }

    /// Audits the server's statements against the device's own records. To be called after a refresh; tell the user
    /// once if it is not sound. Nothing is sent.
    ///
    /// # Errors
    ///
    /// Returns a code of the store.
    pub async fn audit(&self) -> Result<AuditReport, DeviceError> {
        Ok(self.call(|device| async move { device.audit() }).await?.into())
    }

    /// Goes on with this copy of the home, where another one has taken over: see `Drift`.
    ///
    /// # Errors
    ///
    /// As `refresh_key_packages`.
    pub async fn adopt(&self) -> Result<RefreshReport, DeviceError> {
        Ok(self.call(|device| async move { device.adopt().await }).await?.into())
    }

    /// Withdraws all live packages of the device from the server, and returns how many there were. The next refresh
    /// makes new ones.
    ///
    /// # Errors
    ///
    /// Returns the server's code. Repeating it is harmless.
    pub async fn invalidate_credential_keys(&self) -> Result<u64, DeviceError> {
        let withdraw = self.call(|device| async move { device.invalidate_credential_keys().await });
        Ok(crate::records::count(withdraw.await?))
    }

    /// Withdraws some packages from the server.
    ///
    /// # Errors
    ///
    /// Returns the server's code. Repeating it is harmless.
    pub async fn withdraw_from_server(
        &self,
        packages: Vec<KeyPackageRef>,
    ) -> Result<(), DeviceError> {
        self.call(|device| async move { device.withdraw_from_server(packages).await }).await
    }
}
