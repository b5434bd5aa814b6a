//! Functions of a device over the server's own delivery.

use std::path::Path;

use keypool_ledger::{GroupId, PoolId};

use super::{ClientOpenError, ClientOptions, MlsClient};
use crate::{
    ExchangeError, InvitationRecord, Invitee, ResumedMessage, SendError, Sent, ServerDelivery,
    StorageError, SyncError,
    mls::{
        delivery::{
            catch_up::catch_up_from,
            events::{self, MailboxEvent},
            outbox::Outbox,
        },
        invite::invitation_records,
    },
};

/// Why a message is not sealed yet.
const NOT_COMPARED: &str = "the server has not said where this home stood";

impl MlsClient<ServerDelivery> {
    /// Opens a device's home, as [`MlsClient::open_with`] does, with the server's own delivery.
    ///
    /// When the app starts: `resume_outbox`, `resume_invitations` and `resume_updates` finish operations that a
    /// crash has interrupted, and [`MlsClient::sync`] returns the events of the meantime.
    ///
    /// # Errors
    ///
    /// As [`MlsClient::open`].
    pub fn open_at_server(
        home: &Path,
        owner: &PoolId,
        server: &str,
        options: impl Into<ClientOptions>,
    ) -> Result<Self, ClientOpenError> {
        let delivery = |api: &crate::ApiClient| ServerDelivery::new(api.clone());
        Self::assemble(home, owner, server, delivery, options.into())
    }

    /// Applies the mailbox's items in order: joins groups, opens messages, follows Commits. If
    /// nothing waits, the server is asked to wait up to `wait_s` seconds, 30 at most, for something to
    /// come; invitations, other Commits and messages do not wait for that.
    ///
    /// Invitations that wait for a package go on here once there is one, and devices that could not join are
    /// invited again, if [`ClientOptions::reinvite`] lets them. If that fails, it is tried again at the next
    /// call: see [`MlsClient::invitations`].
    ///
    /// Returns all events that are not confirmed, in order, those of this device's own posts included: show
    /// them, then call [`MlsClient::confirm`]. If there are any to begin with, nothing is waited for. An event
    /// that is returned a
    /// second time, after a crash, is marked as [`repeated`](MailboxEvent::repeated).
    ///
    /// # Errors
    ///
    /// Returns a [`SyncError`]. Items that were applied before it are kept: see [`MlsClient::events`].
    pub async fn sync(&self, wait_s: u64) -> Result<Vec<MailboxEvent>, SyncError> {
        let is_something_there = !self.events()?.is_empty() || events::has_notices(&self.store)?;
        let wait_s = if is_something_there { 0 } else { wait_s };
        let mailbox = self.mailbox();
        let reply = tokio::select! {
            reply = mailbox.fetch(wait_s) => reply?,
            () = self.connection.notices().notified() => mailbox.fetch(0).await?,
        };
        {
            let _alone = self.committing.lock().await;
            catch_up_from(&self.mailbox(), reply).await?;
            self.inviter().follow_up(self.reinvites).await?;
        }
        Ok(events::tell(&self.store)?)
    }

    /// The events that are not confirmed yet, in order, without those of this device's own posts since
    /// the last [`MlsClient::sync`]. Nothing is sent.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn events(&self) -> Result<Vec<MailboxEvent>, StorageError> {
        events::events(&self.store)
    }

    /// Confirms the events up to a position: they are safely shown, and do not come again.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`]. They come again then.
    pub fn confirm(&self, through: u64) -> Result<(), StorageError> {
        events::confirm(&self.store, through)
    }

    /// Takes note that messages were lost, after [`SyncError::Overrun`]: the server gives out again
    /// items that come from now on.
    ///
    /// # Errors
    ///
    /// Returns an [`ExchangeError`].
    pub async fn acknowledge_overrun(&self) -> Result<(), ExchangeError> {
        let _alone = self.committing.lock().await;
        self.mailbox().acknowledge(true).await
    }

    /// Seals a message for a group and posts it, after those of the group that were left in the outbox.
    /// Returns its position in the server's log and the members it did not reach; `None` if nobody else is
    /// in the group, and nothing was sent. It may have [`MESSAGE_BYTES_MAX`](crate::MESSAGE_BYTES_MAX)
    /// bytes.
    ///
    /// # Errors
    ///
    /// Returns a [`SendError`]. After [`SendError::Unfinished`] the message is in the outbox; after
    /// every other one it is not.
    pub async fn send(&self, group: &GroupId, message: &[u8]) -> Result<Option<Sent>, SendError> {
        let _alone = self.committing.lock().await;
        let outbox = self.outbox();
        let why = match self.make_ready().await {
            Err(SendError::NotCompared(source)) => source,
            // Those before it go out first.
            Ok(()) if outbox.drafts()?.contains(group) => NOT_COMPARED.into(),
            Ok(()) => return outbox.send(group, message).await,
            Err(error) => return Err(error),
        };
        if outbox.keep_draft(group, message)? { Err(SendError::Unfinished(why)) } else { Ok(None) }
    }

    /// Posts the messages that a crash or a lost answer has left in the outbox, in order. To be called when
    /// the app starts. Returns the outcome of each message; after one that cannot be posted now, those of
    /// its group wait.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if it cannot be read which there are.
    pub async fn resume_outbox(&self) -> Result<Vec<ResumedMessage>, StorageError> {
        let _alone = self.committing.lock().await;
        let outbox = self.outbox();
        let mut resumed = outbox.resume().await?;
        let drafts = outbox.drafts()?;
        if !drafts.is_empty() {
            match self.compare_once().await {
                Ok(()) => {
                    resumed.extend(outbox.seal_drafts()?);
                    resumed.extend(outbox.resume().await?);
                }
                Err(_) => resumed.extend(drafts.into_iter().map(|group| {
                    let outcome = Err(SendError::Unfinished(NOT_COMPARED.into()));
                    ResumedMessage { group, outcome }
                })),
            }
        }
        Ok(resumed)
    }

    /// Leaves a group: proposes that this device be removed, which the next Commit of another member
    /// does. Until then the group is in [`MlsMembership::leaving`](crate::MlsMembership::leaving), and no
    /// longer among the device's groups. A group in which nobody else is, is deleted, and one that may only be read is
    /// declined.
    ///
    /// # Errors
    ///
    /// Returns a [`SendError`]. After [`SendError::Unfinished`] the proposal is in the outbox.
    pub async fn leave(&self, group: &GroupId) -> Result<(), SendError> {
        let _alone = self.committing.lock().await;
        self.make_ready().await?;
        if self.membership.is_read_only(group)? {
            let mailbox = self.mailbox();
            mailbox.decline(group)?;
            return Ok(mailbox.leave_over().await?);
        }
        self.outbox().leave(group).await
    }

    /// Says again that the device leaves, in every group where a Commit has passed that over. To be
    /// called when the app starts and after [`MlsClient::sync`]. Mostly there is nothing to do.
    ///
    /// # Errors
    ///
    /// Returns a [`SendError`], as [`MlsClient::leave`] does.
    pub async fn resume_leaving(&self) -> Result<(), SendError> {
        let _alone = self.committing.lock().await;
        for group in self.membership.leaving()? {
            self.outbox().leave(&group).await?;
        }
        Ok(())
    }

    /// Declines a group, or leaves it at once: its state here is deleted, and the server delivers nothing
    /// more of it. A server that does not take that now is told again by each [`MlsClient::sync`]. The others
    /// see this device as a member until one of them removes it.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`], and nothing has changed then. Repeating it is harmless.
    pub async fn decline(&self, group: &GroupId) -> Result<(), StorageError> {
        let _alone = self.committing.lock().await;
        let mailbox = self.mailbox();
        mailbox.decline(group)?;
        mailbox.leave_over().await
    }

    /// The invitations of this device, each with its state for each invitee, in the order of the groups.
    ///
    /// They are kept until 30 days after their end, and 1,000 of the ended ones at most. Nothing is sent.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store cannot be read.
    pub fn invitations(&self) -> Result<Vec<InvitationRecord>, StorageError> {
        invitation_records(&self.store.stage()?, self.now())
    }

    /// Cancels the invitations of a user to a group, or of one of their devices, that wait for a package or
    /// would go on by themselves. Returns whether there was one. A device that was added already is removed by
    /// [`MlsClient::remove`].
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`], and nothing has changed then.
    pub async fn cancel_invitation(
        &self,
        group: &GroupId,
        invitee: impl Into<Invitee>,
    ) -> Result<bool, StorageError> {
        let _alone = self.committing.lock().await;
        self.inviter().cancel(group, &invitee.into()).await
    }

    /// Makes ready for sealing, once: the messages that an earlier life has left in the outbox are posted, then the server is asked
    /// where this home stood.
    async fn make_ready(&self) -> Result<(), SendError> {
        if !self.connection.is_compared() {
            self.outbox().resume().await?;
        }
        self.compare_once().await.map_err(|error| SendError::NotCompared(error.into()))
    }

    fn outbox(&self) -> Outbox<'_> {
        let (store, now) = (self.store.as_ref(), self.now());
        Outbox { store, membership: &self.membership, connection: &self.connection, now }
    }
}
