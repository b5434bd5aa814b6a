//! The keys that speak for the device and for others of its user, and the users it wants nothing of.

use keypool_api::{PolicyReply, RegisterReply, RemoveReply, Voucher};
use keypool_ledger::SignatureKey;

use super::MlsClient;
use crate::{ApiError, DeliveryService, RefreshError, RegisterError};

impl<D: DeliveryService> MlsClient<D> {
    /// Registers the device's key at the server: see
    /// [`MlsConnection::register`](crate::MlsConnection::register).
    ///
    /// # Errors
    ///
    /// Returns a [`RegisterError`], [`RegisterError::IdentityBound`] if another key has the name, or if the
    /// user has a device and none has vouched for this one.
    pub async fn register(&self) -> Result<RegisterReply, RegisterError> {
        self.register_vouched(None).await
    }

    /// Registers the device's key with the voucher of another device of the user: see
    /// [`MlsClient::vouch_for`].
    ///
    /// # Errors
    ///
    /// As [`MlsClient::register`].
    pub async fn register_vouched(
        &self,
        voucher: Option<Voucher>,
    ) -> Result<RegisterReply, RegisterError> {
        let _alone = self.committing.lock().await;
        self.connection.register(voucher, self.now()).await
    }

    /// Registers the device's key with a token of the server's operator, for servers that ask for
    /// one.
    ///
    /// # Errors
    ///
    /// As [`MlsClient::register`]; [`RegisterError::NotAllowed`] if the token does not say so.
    pub async fn register_with_token(&self, token: &str) -> Result<RegisterReply, RegisterError> {
        self.set_registration_token(Some(token.to_owned()));
        self.register().await
    }

    /// Sets the token of the server's operator that the next registrations present, or none.
    pub fn set_registration_token(&self, token: Option<String>) {
        self.connection.api().set_registration_token(token);
    }

    /// Vouches for another device of this one's user: see
    /// [`MlsConnection::vouch_for`](crate::MlsConnection::vouch_for).
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn vouch_for(&self, device: &str, key: &SignatureKey) -> Result<Voucher, ApiError> {
        self.connection.vouch_for(device, key).await
    }

    /// Removes a device of this one's user: see
    /// [`MlsConnection::remove_device`](crate::MlsConnection::remove_device).
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]. Repeating it is harmless.
    pub async fn remove_device(&self, device: &str) -> Result<RemoveReply, ApiError> {
        self.connection.remove_device(device).await
    }

    /// Replaces the device's signature key: see
    /// [`MlsConnection::rotate_key`](crate::MlsConnection::rotate_key). Afterwards
    /// [`MlsClient::update_keys`] in each group of which
    /// [`needs_fresh_keys`](crate::MlsMembership::needs_fresh_keys) says so.
    ///
    /// # Errors
    ///
    /// Returns a [`RefreshError`]. Call it again: it goes on where it was.
    pub async fn rotate_key(&self) -> Result<SignatureKey, RefreshError> {
        let _alone = self.committing.lock().await;
        self.connection.rotate_key(self.now()).await
    }

    /// Blocks users: see [`MlsConnection::block`](crate::MlsConnection::block).
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]. Repeating it is harmless.
    pub async fn block(&self, users: Vec<String>) -> Result<PolicyReply, ApiError> {
        self.connection.block(users).await
    }

    /// Blocks users no more: see [`MlsConnection::unblock`](crate::MlsConnection::unblock).
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]. Repeating it is harmless.
    pub async fn unblock(&self, users: Vec<String>) -> Result<PolicyReply, ApiError> {
        self.connection.unblock(users).await
    }
}
