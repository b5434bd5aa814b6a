//! Changes to a group that bring nobody new: fresh keys for this device, members removed. Each is a
//! Commit that survives a crash.

use data_encoding::HEXLOWER;
use keypool_ledger::{GroupId, PoolId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    RACES_MAX,
    connection::MlsConnection,
    delivery::mailbox::Mailbox,
    membership::{MlsMembership, PendingCommit, Standing, clear_on, standing_on},
};
use crate::{
    CommitPost, DeliveryError, DeliveryService, GroupError, LocalStore, Staged, StorageError,
    UpdateError,
};

/// What the names of stored changes begin with.
const RECORD_PREFIX: &str = "change/";

/// An unfinished update of keys, or removal, that was gone on with, and what became of it.
#[derive(Debug)]
pub struct ResumedUpdate {
    /// The group.
    pub group: GroupId,
    /// What became of it. After [`UpdateError::Unfinished`] it is to be resumed again; every other
    /// outcome is its end.
    pub outcome: Result<(), UpdateError>,
}

/// What is to be changed in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Wish {
    /// This device's keys are replaced.
    FreshKeys,
    /// A user's devices are removed, or one of them.
    Removal { user: String, device: Option<String> },
    /// What other members have proposed is done.
    Proposals,
}

/// A change under way, of which each group has one at most.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Undertaking {
    group: GroupId,
    wish: Wish,
    /// The Commit that does it; none while it is to be made anew, since another one was first.
    post: Option<CommitPost>,
}

/// Carries out changes: over the groups and the Delivery Service. One at a time.
pub(crate) struct Updater<'a, D> {
    pub(crate) store: &'a LocalStore,
    pub(crate) membership: &'a MlsMembership,
    pub(crate) connection: &'a MlsConnection<D>,
    pub(crate) now: Timestamp,
}

impl<D: DeliveryService> Updater<'_, D> {
    /// Makes the Commit and posts it. One that is there already is posted first; it is all there is to
    /// do if it does the same.
    pub(crate) async fn change(&self, group: &GroupId, wish: Wish) -> Result<(), UpdateError> {
        if let Some(other) = self.under_way(group)? {
            let is_the_same = other.wish == wish;
            self.carry_out(other).await?;
            if is_the_same {
                return Ok(());
            }
        }
        match self.begin(group, wish)? {
            Some(undertaking) => self.carry_out(undertaking).await,
            None => Ok(()),
        }
    }

    /// Goes on with every change that a crash or a lost answer has left unfinished.
    pub(crate) async fn resume(&self) -> Result<Vec<ResumedUpdate>, StorageError> {
        let mut resumed = Vec::new();
        for undertaking in self.unfinished()? {
            let group = undertaking.group.clone();
            let outcome = self.carry_out(undertaking).await;
            resumed.push(ResumedUpdate { group, outcome });
        }
        Ok(resumed)
    }

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

    fn under_way(&self, group: &GroupId) -> Result<Option<Undertaking>, StorageError> {
        self.store.stage()?.app_record(&record_name(group))
    }

    fn unfinished(&self) -> Result<Vec<Undertaking>, StorageError> {
        let staged = self.store.stage()?;
        let mut found = Vec::new();
        for name in staged.app_record_names(RECORD_PREFIX)? {
            found.extend(staged.app_record::<Undertaking>(&name)?);
        }
        Ok(found)
    }

    /// Makes the Commit and stores it; `None` if nothing is proposed that it would take up.
    fn begin(&self, group: &GroupId, wish: Wish) -> Result<Option<Undertaking>, UpdateError> {
        let staged = self.store.stage()?;
        let Some(made) = self.make(&staged, group, &wish)? else {
            return match wish {
                Wish::FreshKeys | Wish::Proposals => Ok(None),
                Wish::Removal { user, device } => {
                    Err(nobody(group, &user, device.as_deref()).into())
                }
            };
        };
        let post = Some(made.into_post(group.clone()));
        let undertaking = Undertaking { group: group.clone(), wish, post };
        staged.put_app_record(&record_name(group), &undertaking)?;
        staged.commit()?;
        Ok(Some(undertaking))
    }

    /// The Commit that does it; `None` if nobody is there to be removed, or nothing proposed.
    fn make(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
        wish: &Wish,
    ) -> Result<Option<PendingCommit>, GroupError> {
        match wish {
            Wish::FreshKeys => self.membership.self_update_on(staged, group).map(Some),
            Wish::Removal { user, device } => {
                self.membership.remove_user_on(staged, group, user, device.as_deref())
            }
            Wish::Proposals => self.membership.take_up_on(staged, group),
        }
    }

    /// Over the server's own delivery, a Commit that lost its epoch is made anew once the others' are
    /// taken in.
    async fn carry_out(&self, mut undertaking: Undertaking) -> Result<(), UpdateError> {
        let mut races = 0;
        loop {
            let outcome = self.go_on(&mut undertaking).await;
            let Err(UpdateError::NotAccepted(lost)) = &outcome else { return outcome };
            if undertaking.post.is_some() {
                return outcome;
            }
            if !matches!(lost, DeliveryError::EpochTaken) || races == RACES_MAX {
                self.forget(&undertaking)?;
                return outcome;
            }
            races += 1;
            let mailbox = Mailbox {
                store: self.store,
                membership: self.membership,
                connection: self.connection,
                now: self.now,
            };
            let caught_up = mailbox.take_in_all().await;
            caught_up.map_err(|error| UpdateError::Unfinished(error.into()))?;
        }
    }

    /// Makes the Commit if it is to be made anew, and posts it.
    async fn go_on(&self, undertaking: &mut Undertaking) -> Result<(), UpdateError> {
        let post = match undertaking.post.clone() {
            Some(post) => Some(post),
            None => self.make_anew(undertaking)?,
        };
        match post {
            Some(post) => self.post(undertaking, &post).await,
            // Somebody else has done it, which is as good.
            None => Ok(()),
        }
    }

    /// Makes the Commit anew; if that is of no use any more, the change is forgotten.
    fn make_anew(&self, undertaking: &mut Undertaking) -> Result<Option<CommitPost>, UpdateError> {
        let staged = self.store.stage()?;
        let made = match self.make(&staged, &undertaking.group, &undertaking.wish) {
            Ok(Some(made)) => made,
            ended => {
                drop(staged);
                self.forget(undertaking)?;
                return ended.map(|_| None).map_err(UpdateError::from);
            }
        };
        undertaking.post = Some(made.into_post(undertaking.group.clone()));
        staged.put_app_record(&record_name(&undertaking.group), undertaking)?;
        staged.commit()?;
        Ok(undertaking.post.clone())
    }

    async fn post(
        &self,
        undertaking: &mut Undertaking,
        post: &CommitPost,
    ) -> Result<(), UpdateError> {
        let standing = standing_on(&self.store.stage()?, post);
        match standing {
            Ok(Standing::Pending | Standing::Passed) => {}
            // If it were accepted now, it could not be merged.
            Ok(Standing::Cleared) => return self.give_up(post, commit_missing(post)),
            Err(error) => return self.give_up(post, error),
        }
        match self.connection.post_commit(post).await {
            Ok(not_kept) => {
                let staged = self.store.stage()?;
                let caused = (not_kept, self.now);
                let standing = self.connection.merge_accepted_on(&staged, post, caused)?;
                staged.remove_app_record(&record_name(&post.group));
                staged.commit()?;
                if standing == Standing::Cleared { Err(commit_missing(post)) } else { Ok(()) }
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
        undertaking: &mut Undertaking,
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

    fn forget(&self, undertaking: &Undertaking) -> Result<(), StorageError> {
        let staged = self.store.stage()?;
        staged.remove_app_record(&record_name(&undertaking.group));
        staged.commit()
    }
}

fn nobody(group: &GroupId, user: &str, device: Option<&str>) -> GroupError {
    match PoolId::of(user, device) {
        Ok(member) => GroupError::NotAMember { group: group.clone(), member },
        Err(error) => GroupError::Mls(error.into()),
    }
}

fn record_name(group: &GroupId) -> String {
    format!("{RECORD_PREFIX}{}", HEXLOWER.encode(group.as_bytes()))
}

fn commit_missing(post: &CommitPost) -> UpdateError {
    UpdateError::CommitMissing { group: post.group.clone() }
}
