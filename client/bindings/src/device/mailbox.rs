//! The mailbox and the outbox.

use keypool_client::{GroupId, MailboxEvent, Sent};

use super::Device;
use crate::{DeviceError, records::MessageResumption};

#[uniffi::export]
impl Device {
    /// Applies the mailbox's items in order: joins groups, opens messages, follows Commits. If nothing waits, the
    /// server is asked to wait up to `wait_s` seconds, 30 at most, for something to come.
    ///
    /// Returns all events that are not confirmed, in order: show them, then call `confirm`. Cancelling it loses
    /// nothing.
    ///
    /// # Errors
    ///
    /// Returns the code `mailbox_overrun` if messages were lost: tell the user, and call `acknowledge_overrun`. Items
    /// that were applied before an error are kept: see `events`.
    #[uniffi::method(default(wait_s = 0))]
    pub async fn sync(&self, wait_s: u64) -> Result<Vec<MailboxEvent>, DeviceError> {
        self.call(move |device| async move { device.sync(wait_s).await }).await
    }

    /// The events that are not confirmed yet, in order. Nothing is sent.
    ///
    /// # Errors
    ///
    /// Returns a code of the store.
    pub async fn events(&self) -> Result<Vec<MailboxEvent>, DeviceError> {
        self.call(|device| async move { device.events() }).await
    }

    /// Confirms the events up to a position: they are safely shown, and do not come again.
    ///
    /// # Errors
    ///
    /// Returns a code of the store. They come again then.
    pub async fn confirm(&self, through: u64) -> Result<(), DeviceError> {
        self.call(move |device| async move { device.confirm(through) }).await
    }

    /// Takes note that messages were lost, after the code `mailbox_overrun`.
    ///
    /// # Errors
    ///
    /// Returns the server's code.
    pub async fn acknowledge_overrun(&self) -> Result<(), DeviceError> {
        self.call(|device| async move { device.acknowledge_overrun().await }).await
    }

    /// Seals a message for a group and posts it. Returns none if nobody else is in the group, and nothing was sent. It
    /// may have 1,500,000 bytes.
    ///
    /// # Errors
    ///
    /// After the code `unfinished` the message is in the outbox, and goes out by `resume_outbox`: do not send it again.
    /// After every other one it is not.
    pub async fn send(
        &self,
        group: GroupId,
        message: Vec<u8>,
    ) -> Result<Option<Sent>, DeviceError> {
        self.call(|device| async move { device.send(&group, &message).await }).await
    }

    /// Posts the messages that a crash or a lost answer has left in the outbox, in order. To be called when the app
    /// starts.
    ///
    /// # Errors
    ///
    /// Returns a code of the store. The error of a message is in its item.
    pub async fn resume_outbox(&self) -> Result<Vec<MessageResumption>, DeviceError> {
        let resumed = self.call(|device| async move { device.resume_outbox().await }).await?;
        Ok(resumed.into_iter().map(Into::into).collect())
    }

    /// Leaves a group: proposes that this device be removed, which the next Commit of another member does.
    ///
    /// # Errors
    ///
    /// After the code `unfinished` the proposal is in the outbox.
    pub async fn leave(&self, group: GroupId) -> Result<(), DeviceError> {
        self.call(|device| async move { device.leave(&group).await }).await
    }

    /// Says again that the device leaves, in every group where a Commit has passed that over. To be called when the
    /// app starts and after `sync`.
    ///
    /// # Errors
    ///
    /// As `leave`.
    pub async fn resume_leaving(&self) -> Result<(), DeviceError> {
        self.call(|device| async move { device.resume_leaving().await }).await
    }

    /// Declines a group, or leaves it at once: its state here is deleted, and the server delivers nothing more of it.
    ///
    /// # Errors
    ///
    /// Returns a code of the store, and nothing has changed then.
    pub async fn decline(&self, group: GroupId) -> Result<(), DeviceError> {
        self.call(|device| async move { device.decline(&group).await }).await
    }
}
