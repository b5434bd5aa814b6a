//! The Commit of a change, posted: merged, cleared, or kept where its outcome is unknown.

use data_encoding::HEXLOWER;
use keypool_ledger::{GroupId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    CommitPost, DeliveryError, DeliveryService, LocalStore, StorageError, UpdateError,
    mls::{
        connection::MlsConnection,
        invite::cancel_removed_on,
        membership::{CommitState, MlsMembership, clear_on, standing_on},
    },
};

/// The prefix of the names of stored changes.
const RECORD_PREFIX: &str = "change/";

/// A change of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum GroupChange {
    /// This device's keys are replaced.
    FreshKeys,
    /// A user's devices are removed, or one of them.
    Removal { user: String, device: Option<String> },
    /// The proposals of other members are committed.
    Proposals,
}

/// A change under way, of which each group has one at most.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PendingGroupChange {
    pub(super) group: GroupId,
    pub(super) wish: GroupChange,
    /// The Commit that does it; none while it is to be made anew, since another one was first.
    pub(super) post: Option<CommitPost>,
}

/// Carries out changes: over the groups and the Delivery Service. One at a time.
pub(crate) struct Updater<'a, D> {
    pub(crate) store: &'a LocalStore,
    pub(crate) membership: &'a MlsMembership,
    pub(crate) connection: &'a MlsConnection<D>,
    pub(crate) now: Timestamp,
}

impl<D: DeliveryService> Updater<'_, D> {
    /// Finds out of every Commit that may have been posted whether it was accepted, by posting it again.
    /// A change whose Commit was not is left at its beginning, for `resume`.
    pub(crate) async fn settle(&self) -> Result<(), UpdateError> {
        for mut undertaking in self.unfinished()? {
            let Some(post) = undertaking.post.clone() else { continue };
            match self.post(&mut undertaking, &post).await {
                Err(error @ (UpdateError::Unfinished(_) | UpdateError::Storage(_))) => {
                    return Err(error);
                }
                Err(error) => tracing::info!(%error, "an unfinished change was not accepted"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Whether a change of a group is unfinished.
    pub(crate) fn is_unfinished(&self) -> Result<bool, StorageError> {
        Ok(!self.unfinished()?.is_empty())
    }

    pub(super) fn unfinished(&self) -> Result<Vec<PendingGroupChange>, StorageError> {
        let staged = self.store.stage()?;
        let mut found = Vec::new();
        for name in staged.app_record_names(RECORD_PREFIX)? {
            found.extend(staged.app_record::<PendingGroupChange>(&name)?);
        }
        Ok(found)
    }

    pub(super) async fn post(
        &self,
        undertaking: &mut PendingGroupChange,
        post: &CommitPost,
    ) -> Result<(), UpdateError> {
        let standing = standing_on(&self.store.stage()?, post);
        match standing {
            Ok(CommitState::Pending | CommitState::Passed) => {}
            // If it were accepted now, it could not be merged.
            Ok(CommitState::Cleared) => return self.give_up(post, commit_missing(post)),
            Err(error) => return self.give_up(post, error),
        }
        match self.connection.post_commit(post).await {
            Ok(not_kept) => {
                let staged = self.store.stage()?;
                let caused = (not_kept, self.now);
                let standing = self.connection.merge_accepted_on(&staged, post, caused)?;
                cancel_removed_on(
                    (&staged, self.connection.identity()),
                    &post.group,
                    &post.removed,
                    self.now,
                )?;
                staged.remove_app_record(&record_name(&post.group));
                staged.commit()?;
                if standing == CommitState::Cleared { Err(commit_missing(post)) } else { Ok(()) }
            }
            // It may have been accepted: it stays pending, and is posted again.
            Err(DeliveryError::Unanswered(source)) => Err(UpdateError::Unfinished(source)),
            Err(error) if self.connection.delivery().is_the_servers() => {
                self.start_over(undertaking, post)?;
                Err(error.into())
            }
            Err(error) => self.give_up(post, error),
        }
    }

    /// Clears the Commit and notes that it is to be made anew, in one write.
    fn start_over(
        &self,
        undertaking: &mut PendingGroupChange,
        post: &CommitPost,
    ) -> Result<(), UpdateError> {
        let staged = self.store.stage()?;
        clear_on(&staged, post)?;
        undertaking.post = None;
        staged.put_app_record(&record_name(&post.group), undertaking)?;
        Ok(staged.commit()?)
    }

    /// Clears the Commit and forgets it, in one write.
    fn give_up(&self, post: &CommitPost, error: impl Into<UpdateError>) -> Result<(), UpdateError> {
        let staged = self.store.stage()?;
        clear_on(&staged, post)?;
        staged.remove_app_record(&record_name(&post.group));
        staged.commit()?;
        Err(error.into())
    }
}

pub(super) fn record_name(group: &GroupId) -> String {
    format!("{RECORD_PREFIX}{}", HEXLOWER.encode(group.as_bytes()))
}

fn commit_missing(post: &CommitPost) -> UpdateError {
    UpdateError::CommitMissing { group: post.group.clone() }
}
