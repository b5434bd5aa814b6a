//! Fresh keys for this device in a group, as a Commit that survives a crash.

use data_encoding::HEXLOWER;
use keypool_ledger::GroupId;

use super::{
    connection::{CommitPost, DeliveryError, DeliveryService, MlsConnection},
    membership::{MlsMembership, Standing, clear_on, merge_on, standing_on},
};
use crate::{LocalStore, StorageError, UpdateError};

/// What the names of stored updates begin with.
const RECORD_PREFIX: &str = "update/";

/// An unfinished update of keys that was gone on with, and what became of it.
#[derive(Debug)]
pub struct ResumedUpdate {
    /// The group.
    pub group: GroupId,
    /// What became of it. After [`UpdateError::Unfinished`] it is to be resumed again; every other
    /// outcome is its end.
    pub outcome: Result<(), UpdateError>,
}

/// Carries out updates: over the groups and the Delivery Service. One at a time.
pub(crate) struct Updater<'a, D> {
    pub(crate) store: &'a LocalStore,
    pub(crate) membership: &'a MlsMembership,
    pub(crate) connection: &'a MlsConnection<D>,
}

impl<D: DeliveryService> Updater<'_, D> {
    /// Makes the Commit and posts it; one that is there already is posted again.
    pub(crate) async fn update(&self, group: &GroupId) -> Result<(), UpdateError> {
        let post = self.stage(group)?;
        self.post(&post).await
    }

    /// Goes on with every update that a crash or a lost answer has left unfinished.
    pub(crate) async fn resume(&self) -> Result<Vec<ResumedUpdate>, StorageError> {
        let mut resumed = Vec::new();
        for post in self.unfinished()? {
            let outcome = self.post(&post).await;
            resumed.push(ResumedUpdate { group: post.group, outcome });
        }
        Ok(resumed)
    }

    fn unfinished(&self) -> Result<Vec<CommitPost>, StorageError> {
        let staged = self.store.stage()?;
        let mut found = Vec::new();
        for name in staged.app_record_names(RECORD_PREFIX)? {
            found.extend(staged.app_record::<CommitPost>(&name)?);
        }
        Ok(found)
    }

    fn stage(&self, group: &GroupId) -> Result<CommitPost, UpdateError> {
        let staged = self.store.stage()?;
        if let Some(post) = staged.app_record(&record_name(group))? {
            return Ok(post);
        }
        let made = self.membership.self_update_on(&staged, group)?;
        let post = CommitPost { group: group.clone(), epoch: made.epoch, commit: made.commit };
        staged.put_app_record(&record_name(group), &post)?;
        staged.commit()?;
        Ok(post)
    }

    async fn post(&self, post: &CommitPost) -> Result<(), UpdateError> {
        let standing = standing_on(&self.store.stage()?, post);
        match standing {
            Ok(Standing::Pending | Standing::Passed) => {}
            // If it were accepted now, it could not be merged.
            Ok(Standing::Cleared) => return self.give_up(post, commit_missing(post)),
            Err(error) => return self.give_up(post, error),
        }
        match self.connection.post_commit(post).await {
            Ok(()) => {
                let staged = self.store.stage()?;
                let standing = merge_on(&staged, post)?;
                staged.remove_app_record(&record_name(&post.group));
                staged.commit()?;
                if standing == Standing::Cleared { Err(commit_missing(post)) } else { Ok(()) }
            }
            // It may have been accepted: it stays pending, and is posted again.
            Err(DeliveryError::Unanswered(source)) => Err(UpdateError::Unfinished(source)),
            Err(error) => self.give_up(post, error),
        }
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

fn record_name(group: &GroupId) -> String {
    format!("{RECORD_PREFIX}{}", HEXLOWER.encode(group.as_bytes()))
}

fn commit_missing(post: &CommitPost) -> UpdateError {
    UpdateError::CommitMissing { group: post.group.clone() }
}
