//! Catching up with the other members: own Commits of unknown outcome are settled, then the mailbox is
//! taken in.

use keypool_api::MailboxReply;

use super::mailbox::Mailbox;
use crate::{
    DeliveryService, InviteError, SyncError, UpdateError,
    mls::{invite::Inviter, update::Updater},
};

/// Takes in the whole mailbox, and acknowledges it.
pub(crate) async fn catch_up<D: DeliveryService>(
    mailbox: &Mailbox<'_, D>,
) -> Result<(), SyncError> {
    let reply = mailbox.fetch(0).await?;
    catch_up_from(mailbox, reply).await
}

/// Takes in the items that were fetched and those that wait after them, and acknowledges them.
///
/// A Commit of this device that may have been accepted is settled first: items that others have sent after it
/// could not be opened.
pub(crate) async fn catch_up_from<D: DeliveryService>(
    mailbox: &Mailbox<'_, D>,
    reply: MailboxReply,
) -> Result<(), SyncError> {
    mailbox.compare(&reply)?;
    if !reply.items.is_empty() {
        settle(mailbox).await?;
    }
    mailbox.take_in_from(reply).await
}

async fn settle<D: DeliveryService>(mailbox: &Mailbox<'_, D>) -> Result<(), SyncError> {
    let Mailbox { store, membership, connection, now } = *mailbox;
    let settled = Inviter { store, membership, connection, now }.settle().await;
    settled.map_err(|error| match error {
        InviteError::Storage(error) => SyncError::Storage(error),
        error => SyncError::CommitUnfinished(error.into()),
    })?;
    let settled = Updater { store, membership, connection, now }.settle().await;
    settled.map_err(|error| match error {
        UpdateError::Storage(error) => SyncError::Storage(error),
        error => SyncError::CommitUnfinished(error.into()),
    })
}
