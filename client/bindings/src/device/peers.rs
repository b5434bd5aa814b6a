//! Other users: their keys, and who may invite this device.

use keypool_client::PeerKeys;

use super::Device;
use crate::DeviceError;

#[uniffi::export]
impl Device {
    /// The safety number of this user and another one: 60 digits, which are the same on both sides if both see the
    /// same keys. None if one of them has no device.
    ///
    /// # Errors
    ///
    /// Returns the server's code.
    pub async fn safety_number(&self, user: String) -> Result<Option<String>, DeviceError> {
        self.call(|device| async move { device.safety_number(&user).await }).await
    }

    /// Notes that a person has compared the safety number with a user, and that it is the same. Returns false for a
    /// user who was never looked up.
    ///
    /// # Errors
    ///
    /// Returns a code of the store, and nothing has changed then.
    pub async fn verify_peer(&self, user: String) -> Result<bool, DeviceError> {
        self.call(|device| async move { device.verify_peer(&user) }).await
    }

    /// The keys of a user, as they were looked up last; none for one who was never looked up. Nothing is sent.
    ///
    /// # Errors
    ///
    /// Returns a code of the store.
    pub async fn peer(&self, user: String) -> Result<Option<PeerKeys>, DeviceError> {
        self.call(|device| async move { device.peer(&user) }).await
    }

    /// Looks a user up at the server, and follows the chain of the user's devices from the known keys.
    ///
    /// # Errors
    ///
    /// Returns the server's code.
    pub async fn look_up_peer(&self, user: String) -> Result<Option<PeerKeys>, DeviceError> {
        self.call(|device| async move { device.look_up_peer(&user).await }).await
    }

    /// Accepts the keys that the server names for a user now: the user is verified no more. Compare the safety number
    /// first.
    ///
    /// # Errors
    ///
    /// Returns the server's code.
    pub async fn accept_peer(&self, user: String) -> Result<Option<PeerKeys>, DeviceError> {
        self.call(|device| async move { device.accept_peer(&user).await }).await
    }

    /// Blocks users: they can neither reserve packages of this device, nor add it to a group, nor post to it.
    ///
    /// # Errors
    ///
    /// Returns the server's code. Repeating it is harmless.
    pub async fn block(&self, users: Vec<String>) -> Result<(), DeviceError> {
        self.call(|device| async move { device.block(users).await.map(|_| ()) }).await
    }

    /// Blocks users no more.
    ///
    /// # Errors
    ///
    /// Returns the server's code. Repeating it is harmless.
    pub async fn unblock(&self, users: Vec<String>) -> Result<(), DeviceError> {
        self.call(|device| async move { device.unblock(users).await.map(|_| ()) }).await
    }
}
