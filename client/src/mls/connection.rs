//! The link between the device's pool, the server, and the app's Delivery Service: its parts and nothing else.

use std::sync::{Arc, atomic::AtomicBool};

use keypool_api::PoolStatus;
use keypool_ledger::PoolId;

use super::{keypackage_pool::KeyPackagePool, sync::subscription::Subscription};
use crate::{
    ApiClient, ApiError, CommitPost, DeliveryError, DeliveryService, DeviceIdentity, LocalStore,
};

/// The link between the device's pool, the server, and the app's Delivery Service.
#[derive(Debug)]
pub struct MlsConnection<D> {
    store: Arc<LocalStore>,
    pool: KeyPackagePool,
    api: ApiClient,
    delivery: D,
    /// Held during a refresh, so that no other refresh changes its findings.
    refreshing: tokio::sync::Mutex<()>,
    /// The event streams that are open, and the alarms that came by them.
    subscription: Subscription,
    /// Signaled when something is noted for the app that did not come by the mailbox.
    notices: tokio::sync::Notify,
    /// Whether the server was asked, since the app has started, where this home stood.
    compared: AtomicBool,
}

impl<D> MlsConnection<D> {
    /// Puts the parts together.
    #[must_use]
    pub fn new(store: Arc<LocalStore>, pool: KeyPackagePool, api: ApiClient, delivery: D) -> Self {
        let (refreshing, subscription) = (tokio::sync::Mutex::default(), Subscription::default());
        let notices = tokio::sync::Notify::new();
        let compared = AtomicBool::new(false);
        Self { store, pool, api, delivery, refreshing, subscription, notices, compared }
    }

    pub(crate) const fn notices(&self) -> &tokio::sync::Notify {
        &self.notices
    }

    pub(super) const fn compared(&self) -> &AtomicBool {
        &self.compared
    }

    pub(super) const fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// Waits for its turn to refresh the pool.
    pub(super) async fn lock_refresh(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.refreshing.lock().await
    }

    pub(super) fn store(&self) -> &LocalStore {
        &self.store
    }

    pub(in crate::mls) fn identity(&self) -> &DeviceIdentity {
        self.pool.identity()
    }

    /// The server's API.
    #[must_use]
    pub fn api(&self) -> &ApiClient {
        &self.api
    }

    /// The app's Delivery Service.
    #[must_use]
    pub fn delivery(&self) -> &D {
        &self.delivery
    }

    /// The device's own packages.
    #[must_use]
    pub fn pool(&self) -> &KeyPackagePool {
        &self.pool
    }

    /// How full the pool is, as the server says.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn status(&self) -> Result<PoolStatus, ApiError> {
        self.api.status().await
    }
}

impl<D: DeliveryService> MlsConnection<D> {
    /// Posts a Commit through the app's Delivery Service. Returns the members that it does not reach.
    ///
    /// # Errors
    ///
    /// Returns a [`DeliveryError`].
    pub async fn post_commit(&self, post: &CommitPost) -> Result<Vec<PoolId>, DeliveryError> {
        self.delivery.post_commit(post).await
    }
}
