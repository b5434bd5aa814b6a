//! Which devices there are: the operator's word for one that registers, the next key with its packages,
//! and the end of a device.

use std::sync::PoisonError;

use keypool_api::{
    CredentialRequest, DeclaredReply, LeafKeyReply, LeafKeyRequest, RecoverReply, RecoverRequest,
    RecoveryKeyRequest, RemoveReply, RemoveRequest, RotatePackagesReply, RotatePackagesRequest,
    UsersDevicesReply, UsersDevicesRequest,
};
use keypool_ledger::{CommandId, NameError};

use super::{ApiClient, ApiError};

/// The rule for a name in a URL path, shown in a [`NameError`].
const PATH_NAME_RULE: &str = "other than . and .., which mean folders in an address";

impl ApiClient {
    /// Sets the token of the server's operator that goes along when the device registers. It is kept in
    /// memory, and goes with no other request.
    pub fn set_registration_token(&self, token: Option<String>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// The `Authorization` header of a registration.
    pub(super) fn token(&self) -> Option<String> {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        token.as_ref().map(|token| format!("Bearer {token}"))
    }

    /// The devices of several users, each with the chain of changes that led to them after the position that is
    /// known.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `too_large` for more than 256 users.
    pub async fn users_devices(
        &self,
        request: &UsersDevicesRequest,
        id: CommandId,
    ) -> Result<UsersDevicesReply, ApiError> {
        self.post("/users/devices", request, id).await
    }

    /// Removes a device of the caller's user: its key never speaks for anything again, nobody is given a
    /// package of it, and its mailbox is closed.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `unknown_user` if the user has no such device registered.
    pub async fn remove_device(
        &self,
        device: &str,
        id: CommandId,
    ) -> Result<RemoveReply, ApiError> {
        let request = RemoveRequest { device: device.to_owned() };
        self.post("/devices/remove", &request, id).await
    }

    /// Sets the user's recovery key, or another one in its place.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn set_recovery_key(
        &self,
        request: &RecoveryKeyRequest,
        id: CommandId,
    ) -> Result<DeclaredReply, ApiError> {
        self.post("/devices/recovery-key", request, id).await
    }

    /// Registers the key that speaks here by the user's recovery key, and removes every other device.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; if its code is `statement_stale`, its problem names the head of now.
    pub async fn recover(
        &self,
        request: &RecoverRequest,
        id: CommandId,
    ) -> Result<RecoverReply, ApiError> {
        self.post("/devices/recover", request, id).await
    }

    /// Declares the key that signs the device's packages of another signature scheme than its own.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `statement_stale` if the user's devices have changed since the
    /// statement was made.
    pub async fn declare_leaf_key(
        &self,
        request: &LeafKeyRequest,
        id: CommandId,
    ) -> Result<LeafKeyReply, ApiError> {
        self.post("/devices/leaf-key", request, id).await
    }

    /// Declares the credential that the device's packages carry.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; its code is `credential_in_use` while packages with another one are live, and
    /// `statement_stale` if the user's devices have changed since the statement was made.
    pub async fn declare_credential(
        &self,
        request: &CredentialRequest,
        id: CommandId,
    ) -> Result<DeclaredReply, ApiError> {
        self.post("/devices/credential", request, id).await
    }

    /// Replaces the live packages of the ciphersuites in the request. With a next key all live packages are
    /// replaced, and this API signs with that key from then on.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]; if none of the packages is acceptable nothing has changed, and its problem
    /// carries the items.
    pub async fn rotate_packages(
        &self,
        request: &RotatePackagesRequest,
        id: CommandId,
    ) -> Result<RotatePackagesReply, ApiError> {
        self.post("/keypackages/rotate", request, id).await
    }

    /// The path of some segments. Two names mean other folders in a path, and no device is called so.
    pub(super) fn path_of(&self, segments: &[&str]) -> Result<String, ApiError> {
        segments.iter().try_for_each(|name| check_segment(name))?;
        let mut url = self.server.clone();
        let no_address = |()| ApiError::Address(self.server.to_string());
        url.path_segments_mut().map_err(no_address)?.clear().extend(segments);
        Ok(url.path().to_owned())
    }
}

fn check_segment(name: &str) -> Result<(), NameError> {
    let error = || NameError { what: "name", value: name.to_owned(), rule: PATH_NAME_RULE };
    if matches!(name, "." | "..") { Err(error()) } else { Ok(()) }
}
