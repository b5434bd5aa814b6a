//! Upkeep of the device's pool: refreshes, the server's history, the audit and the doctor.

use keypool_api::PoolStatus;
use keypool_ledger::KeyPackageRef;
use keypool_projections::{ReservationStatus, TimelineEntry, timeline};
use keypool_transparency::NoteKey;

use super::{MlsClient, PackageUse};
use crate::{
    ApiError, DeliveryService, DoctorReport, ExchangeError, OwnerAudit, PoolListener, Refresh,
    RefreshError, StorageError,
};

impl<D: DeliveryService> MlsClient<D> {
    /// Withdraws all live packages: see
    /// [`MlsConnection::invalidate_credential_keys`](crate::MlsConnection::invalidate_credential_keys).
    ///
    /// # Errors
    ///
    /// Returns an [`ExchangeError`]. Repeating it is harmless.
    pub async fn invalidate_credential_keys(&self) -> Result<usize, ExchangeError> {
        self.connection.invalidate_credential_keys(self.now()).await
    }

    /// Keeps the pool: see [`MlsConnection::refresh_key_packages`](crate::MlsConnection::refresh_key_packages).
    ///
    /// # Errors
    ///
    /// Returns a [`RefreshError`]; the steps before it are kept.
    pub async fn refresh_key_packages(&self) -> Result<Refresh, RefreshError> {
        self.connection.refresh_key_packages(self.now()).await
    }

    /// Opens the event stream of the pool: see [`MlsConnection::listen`](crate::MlsConnection::listen).
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn listen(&self) -> Result<PoolListener<'_, D>, ApiError> {
        self.connection.listen().await
    }

    /// Audits the server's statements against the device's own records: see
    /// [`MlsConnection::audit`](crate::MlsConnection::audit). To be called after a refresh.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn audit(&self) -> Result<OwnerAudit, StorageError> {
        self.connection.audit(self.now())
    }

    /// How full the pool is, as the server says.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn status(&self) -> Result<PoolStatus, ApiError> {
        self.connection.status().await
    }

    /// Whether an open event stream keeps the mirror complete: see
    /// [`MlsConnection::is_subscribed`](crate::MlsConnection::is_subscribed).
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.connection.is_subscribed()
    }

    /// Refreshes the pool even if the last refresh was a moment ago: see
    /// [`MlsConnection::refresh_now`](crate::MlsConnection::refresh_now).
    ///
    /// # Errors
    ///
    /// As [`MlsClient::refresh_key_packages`].
    pub async fn refresh_now(&self) -> Result<Refresh, RefreshError> {
        self.connection.refresh_now(self.now()).await
    }

    /// Goes on with this copy of the home: see [`MlsConnection::adopt`](crate::MlsConnection::adopt).
    ///
    /// # Errors
    ///
    /// As [`MlsClient::refresh_key_packages`].
    pub async fn adopt(&self) -> Result<Refresh, RefreshError> {
        self.connection.adopt(self.now()).await
    }

    /// Fetches the server's history of the pool: see
    /// [`MlsConnection::fetch_history`](crate::MlsConnection::fetch_history).
    ///
    /// # Errors
    ///
    /// As [`MlsConnection::fetch_history`](crate::MlsConnection::fetch_history).
    pub async fn fetch_history(&self) -> Result<usize, ExchangeError> {
        self.connection.fetch_history(self.now()).await
    }

    /// Holds the server to its checkpoints: see
    /// [`MlsConnection::watch_ledger`](crate::MlsConnection::watch_ledger).
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store fails.
    pub async fn watch_ledger(&self) -> Result<(), StorageError> {
        self.connection.watch_ledger(self.now()).await
    }

    /// Trusts a key as that of the server's ledger: see
    /// [`MlsConnection::trust_ledger_key`](crate::MlsConnection::trust_ledger_key).
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store fails.
    pub fn trust_ledger_key(&self, key: &NoteKey) -> Result<bool, StorageError> {
        self.connection.trust_ledger_key(key)
    }

    /// Reports the inviters of joined groups to the server as contacts: see
    /// [`MlsConnection::tell_contacts`](crate::MlsConnection::tell_contacts).
    ///
    /// # Errors
    ///
    /// Returns an [`ExchangeError`]. Calling it again is harmless.
    pub async fn tell_contacts(&self) -> Result<usize, ExchangeError> {
        self.connection.tell_contacts().await
    }

    /// Compares the device's history with its store: see
    /// [`KeyPackagePool::check_up`](crate::KeyPackagePool::check_up).
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn check_up(&self) -> Result<DoctorReport, StorageError> {
        self.connection.pool().check_up(self.now())
    }

    /// Repairs the store: see [`KeyPackagePool::repair`](crate::KeyPackagePool::repair).
    ///
    /// # Errors
    ///
    /// As [`KeyPackagePool::repair`](crate::KeyPackagePool::repair).
    pub fn repair(&self) -> Result<DoctorReport, StorageError> {
        self.connection.pool().repair(self.now())
    }

    /// Withdraws packages from the server, such as those in [`DoctorReport::to_withdraw`]: see
    /// [`MlsConnection::withdraw_from_server`](crate::MlsConnection::withdraw_from_server).
    ///
    /// # Errors
    ///
    /// Returns an [`ExchangeError`]. Repeating it is harmless.
    pub async fn withdraw_from_server(
        &self,
        packages: Vec<KeyPackageRef>,
    ) -> Result<(), ExchangeError> {
        self.connection.withdraw_from_server(packages).await
    }

    /// Which of the device's packages somebody holds or has used, who, and for which group: as the
    /// server has told it up to the last refresh. An invitation may be on its way from each of them.
    #[must_use]
    pub fn package_uses(&self) -> Vec<PackageUse> {
        let pool = self.store.server_pool();
        let latest = pool.packages().filter_map(|package| pool.reservation(package.latest?));
        let uses = latest.filter_map(|reservation| {
            let spent = match reservation.status {
                ReservationStatus::Open => false,
                ReservationStatus::Spent { .. } => true,
                ReservationStatus::Cancelled
                | ReservationStatus::Lapsed
                | ReservationStatus::Lost => return None,
            };
            let (holder, group) = (reservation.holder.clone(), reservation.group.clone());
            let keypackage_ref = reservation.keypackage_ref.clone();
            Some(PackageUse { keypackage_ref, holder, group, spent })
        });
        uses.collect()
    }

    /// The timeline of the pool, or of one package of it, by the server's history up to the
    /// last refresh.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn history(
        &self,
        only: Option<&KeyPackageRef>,
    ) -> Result<Vec<TimelineEntry>, StorageError> {
        Ok(timeline(&self.store.mirror()?, only))
    }

    /// The timeline of the device's own history: packages made, uploaded, joined, expired.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn own_history(
        &self,
        only: Option<&KeyPackageRef>,
    ) -> Result<Vec<TimelineEntry>, StorageError> {
        Ok(timeline(&self.store.history()?, only))
    }
}
