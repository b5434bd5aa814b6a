//! Where this home stands in the server's delivery, compared with where the server says that it stood: a home that
//! is behind was set back to an older copy of itself, or another copy of it is in use.
//!
//! The server tells with each answer to `GET /mailbox` up to where the device has acknowledged, and where its last
//! Commit or message stands. This home never acknowledges items that it has not stored, and stores the place of all that it
//! posts: so it is behind neither, unless it was set back. It is asked once before the first thing is sealed after
//! the app has started, and whenever mail is fetched. All groups may only be read then, until they are left.

use std::sync::atomic::Ordering;

use keypool_api::MailboxReply;
use keypool_ledger::Hash;

use super::{
    events::MailboxEventKind,
    mailbox::Mailbox,
    progress::{MailboxProgress, progress, put_progress},
};
use crate::{
    DeliveryService, ExchangeError, MlsConnection, Staged, StorageError,
    mls::{invite::Inviter, membership::close_on, update::Updater},
};

/// Why it is not known whether this home is the newest copy of itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotCompared {
    /// Work that a crash has left unfinished is to be resumed first.
    #[error("unfinished work is to be resumed first")]
    Unfinished,
    /// The server did not answer, or the store failed.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

impl From<StorageError> for NotCompared {
    fn from(error: StorageError) -> Self {
        Self::Exchange(error.into())
    }
}

impl<D: DeliveryService> Mailbox<'_, D> {
    /// Asks the server where this home stood, unless that was done since the app has started. To be called by the
    /// one who holds the turn to commit, before anything is sealed.
    ///
    /// Work that a crash has left unfinished may have been posted: it is to be resumed first.
    pub(crate) async fn compare_once(&self) -> Result<(), NotCompared> {
        if !self.connection.delivery().is_the_servers() || self.connection.is_compared() {
            return Ok(());
        }
        let MailboxProgress { taken_in: after, posted, .. } = progress(&self.store.stage()?)?;
        if (after, posted) == (0, Some(0)) {
            // No earlier life of this copy has sealed anything for others, or joined a group.
            self.connection.note_compared();
            return Ok(());
        }
        let reply = self.connection.api().mailbox(after, 1, 0).await;
        self.compare(&reply.map_err(ExchangeError::from)?)?;
        if self.connection.is_compared() { Ok(()) } else { Err(NotCompared::Unfinished) }
    }

    /// Compares where this home stands with where the server says that it stood.
    pub(super) fn compare(&self, reply: &MailboxReply) -> Result<(), StorageError> {
        let (own, posted) = (progress(&self.store.stage()?)?, self.connection.api().posted());
        let known = own.taken_in.max(own.set_back_to);
        let has_forgotten_mail = known < reply.acknowledged;
        let is_settled = !self.has_unfinished()?;
        let is_behind = |own: u64| is_settled && own.max(posted) < reply.last_posted;
        if has_forgotten_mail || own.posted.is_some_and(is_behind) {
            self.close_groups(reply)?;
        } else if own.posted.is_none() && is_settled {
            self.learn_posted(reply.last_posted)?;
        }
        if is_settled {
            self.connection.note_compared();
        }
        Ok(())
    }

    /// Takes the server's word for the place of the last post, once: this home kept none before.
    fn learn_posted(&self, last_posted: u64) -> Result<(), StorageError> {
        let staged = self.store.stage()?;
        let own = MailboxProgress { posted: Some(last_posted), ..progress(&staged)? };
        put_progress(&staged, &own)?;
        staged.commit()
    }

    /// Lets all groups be read alone, and tells the app.
    fn close_groups(&self, reply: &MailboxReply) -> Result<(), StorageError> {
        let groups = self.membership.groups()?;
        let staged = self.store.stage()?;
        let groups = close_on(&staged, groups, self.now)?;
        let mut own = progress(&staged)?;
        let is_news = !groups.is_empty() || own.set_back_to == 0;
        own.posted = own.posted.max(Some(reply.last_posted));
        own.set_back_to = own.set_back_to.max(reply.acknowledged);
        put_progress(&staged, &own)?;
        if is_news {
            tracing::warn!(?groups, "this home is an older copy of itself");
            let mark = Hash::of(format!("{} {}", reply.acknowledged, reply.last_posted).as_bytes());
            let what = MailboxEventKind::SetBack { groups };
            self.connection.note_on(&staged, what, mark, self.now)?;
        }
        staged.commit()
    }

    /// Whether something of this device may have been posted whose outcome is not known.
    fn has_unfinished(&self) -> Result<bool, StorageError> {
        let Mailbox { store, membership, connection, now } = *self;
        let inviter = Inviter { store, membership, connection, now };
        let updater = Updater { store, membership, connection, now };
        Ok(super::outbox::is_waiting(&store.stage()?)?
            || inviter.is_unfinished()?
            || updater.is_unfinished()?)
    }
}

impl<D> MlsConnection<D> {
    /// Records the place of this device's last post, as part of the operation that ends the post.
    pub(super) fn note_posted_on(&self, staged: &Staged<'_>) -> Result<(), StorageError> {
        let (mut own, posted) = (progress(staged)?, self.api().posted());
        if own.posted.is_some_and(|own| own < posted) {
            own.posted = Some(posted);
            put_progress(staged, &own)?;
        }
        Ok(())
    }

    pub(crate) fn is_compared(&self) -> bool {
        self.compared().load(Ordering::Acquire)
    }

    fn note_compared(&self) {
        self.compared().store(true, Ordering::Release);
    }
}
