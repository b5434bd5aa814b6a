//! The keys of the device and of its user's other devices.

use std::sync::Arc;

use keypool_client::{
    RecoveryError, RecoveryWords, RegisterReply, RemoveReply, SignatureKey, Voucher,
};

use super::Device;
use crate::{DeviceError, SharedDeviceKey};

#[uniffi::export]
impl Device {
    /// Registers the device's key at the server. Repeating it is harmless.
    ///
    /// # Errors
    ///
    /// Returns the code `identity_bound` if another key has the name, or if the user has a device and none has vouched
    /// for this one.
    pub async fn register(&self) -> Result<RegisterReply, DeviceError> {
        self.call(|device| async move { device.register().await }).await
    }

    /// Registers the device's key with the voucher of another device of the user: see `vouch_for`.
    ///
    /// # Errors
    ///
    /// As `register`; `statement_stale` or `statement_expired` if the voucher is too old.
    pub async fn register_vouched(&self, voucher: Voucher) -> Result<RegisterReply, DeviceError> {
        self.call(|device| async move { device.register_vouched(Some(voucher)).await }).await
    }

    /// Registers the device's key with a token of the server's operator, for servers that ask for one.
    ///
    /// # Errors
    ///
    /// As `register`; `not_allowed` if the token does not say so.
    pub async fn register_with_token(&self, token: String) -> Result<RegisterReply, DeviceError> {
        self.call(|device| async move { device.register_with_token(&token).await }).await
    }

    /// The device's public key, which another device of the user vouches for.
    ///
    /// # Errors
    ///
    /// Returns the code `closed`.
    pub async fn signature_key(&self) -> Result<SignatureKey, DeviceError> {
        let key = self
            .call(|device| async move { Ok::<_, DeviceError>(device.identity().signature_key()) });
        key.await
    }

    /// Seals the home with another device key. Afterwards the one before opens nothing of it any more.
    ///
    /// # Errors
    ///
    /// Returns a code of the store: the home then opens with either the key before or the new one.
    pub async fn change_device_key(&self, key: Arc<SharedDeviceKey>) -> Result<(), DeviceError> {
        self.call(move |device| async move { device.change_device_key(&key.key()) }).await
    }

    /// Vouches for another device of this one's user, whose key the person has compared. The voucher is good for ten
    /// minutes, and for one registration.
    ///
    /// # Errors
    ///
    /// Returns the server's code.
    pub async fn vouch_for(
        &self,
        device: String,
        key: SignatureKey,
    ) -> Result<Voucher, DeviceError> {
        self.call(|client| async move { client.vouch_for(&device, &key).await }).await
    }

    /// Removes a device of this one's user. Remove it from each group as well.
    ///
    /// # Errors
    ///
    /// Returns the server's code. Repeating it is harmless.
    pub async fn remove_device(&self, device: String) -> Result<RemoveReply, DeviceError> {
        self.call(|client| async move { client.remove_device(&device).await }).await
    }

    /// Replaces the device's signature key, and returns the new one. Call `update_keys` afterwards in each group of
    /// which `needs_fresh_keys` says so.
    ///
    /// # Errors
    ///
    /// Returns a code; call it again then: it goes on where it was.
    pub async fn rotate_key(&self) -> Result<SignatureKey, DeviceError> {
        self.call(|device| async move { device.rotate_key().await }).await
    }

    /// Draws a recovery key for the user, sets it, and returns its 24 words: they register a new device when all
    /// others are lost or stolen. Show them once, and have them written down: they are not stored. `before` are the
    /// words of the recovery key that the user has, if there is one.
    ///
    /// # Errors
    ///
    /// Returns the code `invalid_recovery_words`, `recovery_key_bound`, or another one of the server's.
    #[uniffi::method(default(before = None))]
    pub async fn set_recovery_key(&self, before: Option<String>) -> Result<String, DeviceError> {
        let before = before.map(|words| words.parse::<RecoveryWords>()).transpose()?;
        let set = self.call(|device| async move {
            let words = RecoveryWords::generate()?;
            device.set_recovery_key(&words, before.as_ref()).await?;
            Ok::<_, RecoveryError>(words.to_string())
        });
        set.await
    }

    /// Registers this device by the 24 words of the user's recovery key, and removes every other device of the user.
    /// Returns the devices that were removed. For a device in a new home; it is in no group then.
    ///
    /// # Errors
    ///
    /// Returns the code `invalid_recovery_words`, `not_the_recovery_key`, or another one of the server's.
    pub async fn recover(&self, words: String) -> Result<Vec<String>, DeviceError> {
        let words = words.parse::<RecoveryWords>()?;
        let reply = self.call(|device| async move { device.recover(&words).await }).await?;
        Ok(reply.removed)
    }
}
