//! Changes to a group that bring nobody new: fresh keys for this device, members removed. Each is a
//! Commit that survives a crash.

mod posting;

use keypool_ledger::{GroupId, PoolId};

pub(crate) use self::posting::{GroupChange, Updater};
use self::posting::{PendingGroupChange, record_name};
use super::{
    RACES_MAX,
    delivery::{catch_up::catch_up, mailbox::Mailbox},
    membership::PendingCommit,
};
use crate::{
    CommitPost, DeliveryError, DeliveryService, GroupError, Staged, StorageError, UpdateError,
};

/// An unfinished update of keys, or removal, that was resumed, and its outcome.
#[derive(Debug)]
pub struct ResumedUpdate {
    /// The group.
    pub group: GroupId,
    /// The outcome. After [`UpdateError::Unfinished`] it is to be resumed again; every other
    /// outcome is its end.
    pub outcome: Result<(), UpdateError>,
}

impl<D: DeliveryService> Updater<'_, D> {
    /// Makes the Commit and posts it. One that is there already is posted first; it is all there is to
    /// do if it does the same.
    pub(crate) async fn change(
        &self,
        group: &GroupId,
        wish: GroupChange,
    ) -> Result<(), UpdateError> {
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

    fn under_way(&self, group: &GroupId) -> Result<Option<PendingGroupChange>, StorageError> {
        self.store.stage()?.app_record(&record_name(group))
    }

    /// Makes the Commit and stores it; `None` if nothing is proposed that it would take up.
    fn begin(
        &self,
        group: &GroupId,
        wish: GroupChange,
    ) -> Result<Option<PendingGroupChange>, UpdateError> {
        let staged = self.store.stage()?;
        let Some(made) = self.make(&staged, group, &wish)? else {
            return match wish {
                GroupChange::FreshKeys | GroupChange::Proposals => Ok(None),
                GroupChange::Removal { user, device } => {
                    Err(nobody(group, &user, device.as_deref()).into())
                }
            };
        };
        let post = Some(made.into_post(group.clone()));
        let undertaking = PendingGroupChange { group: group.clone(), wish, post };
        staged.put_app_record(&record_name(group), &undertaking)?;
        staged.commit()?;
        Ok(Some(undertaking))
    }

    /// The Commit that does it; `None` if nobody is there to be removed, or nothing proposed.
    fn make(
        &self,
        staged: &Staged<'_>,
        group: &GroupId,
        wish: &GroupChange,
    ) -> Result<Option<PendingCommit>, GroupError> {
        match wish {
            GroupChange::FreshKeys => self.membership.self_update_on(staged, group).map(Some),
            GroupChange::Removal { user, device } => {
                self.membership.remove_user_on(staged, group, user, device.as_deref())
            }
            GroupChange::Proposals => self.membership.take_up_on(staged, group),
        }
    }

    /// Over the server's own delivery, a Commit that lost its epoch is made anew once the others' are
    /// taken in.
    async fn carry_out(&self, mut undertaking: PendingGroupChange) -> Result<(), UpdateError> {
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
            let caught_up = catch_up(&mailbox).await;
            caught_up.map_err(|error| UpdateError::Unfinished(error.into()))?;
        }
    }

    /// Makes the Commit if it is to be made anew, and posts it.
    async fn go_on(&self, undertaking: &mut PendingGroupChange) -> Result<(), UpdateError> {
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
    fn make_anew(
        &self,
        undertaking: &mut PendingGroupChange,
    ) -> Result<Option<CommitPost>, UpdateError> {
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

    fn forget(&self, undertaking: &PendingGroupChange) -> Result<(), StorageError> {
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
