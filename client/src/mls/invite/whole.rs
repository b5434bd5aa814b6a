//! The last step of an invitation over the server's own delivery, where the Commit, its Welcome and the
//! spending of its package are one request: nothing is left to be done after it.

use super::{
    Inviter,
    record::{Addition, Invitation, Step},
    steps::{commit_missing, put, start_over, unfinished},
};
use crate::{
    AddedMember, CommitPost, DeliveryError, DeliveryService, InviteError, Invited, StorageError,
    mls::membership::{Standing, clear_on, merge_on},
};

/// What has become of an invitation in one step.
pub(super) enum Progress {
    /// It goes on from there.
    At(Step),
    /// It is carried out.
    Done(Invited),
}

impl<D: DeliveryService> Inviter<'_, D> {
    /// Posts the Commit with all that belongs to it. If it is accepted, it is merged and the invitation
    /// forgotten in one write. If it is not, it is cleared, and the invitation begins again: with a
    /// fresh package if this one is lost.
    pub(super) async fn post_whole(
        &self,
        invitation: &mut Invitation,
        addition: Addition,
    ) -> Result<Progress, InviteError> {
        if self.standing(&addition.commit)? == Standing::Cleared {
            // If it were accepted now, it could not be merged.
            self.forget(invitation)?;
            return Err(commit_missing(invitation));
        }
        let posted = self.connection.post_commit(&whole(invitation, &addition)).await;
        if let Err(error @ DeliveryError::Unanswered(_)) = posted {
            return Err(unfinished(invitation, error));
        }
        let staged = self.store.stage()?;
        match posted {
            Ok(()) => {
                let standing = merge_on(&staged, &addition.commit)?;
                staged.remove_app_record(&invitation.record_name());
                staged.commit()?;
                if standing == Standing::Cleared {
                    return Err(commit_missing(invitation));
                }
                Ok(Progress::Done(invitation.invited(addition)))
            }
            Err(DeliveryError::PackageLost(_)) => {
                clear_on(&staged, &addition.commit)?;
                start_over(staged, invitation).map(Progress::At)
            }
            Err(error) => {
                clear_on(&staged, &addition.commit)?;
                put(staged, invitation, Step::Reserving)?;
                Err(error.into())
            }
        }
    }

    /// Finds out of every Commit that may have been posted whether it was accepted, by posting it again.
    /// An invitation whose Commit was not is left at its beginning, for `resume_invitations`.
    pub(crate) async fn settle(&self) -> Result<(), InviteError> {
        for mut invitation in self.unfinished()? {
            let (Step::Added(addition) | Step::Posting(addition)) = invitation.step.clone() else {
                continue;
            };
            match self.post_whole(&mut invitation, addition).await {
                Err(error @ (InviteError::Unfinished { .. } | InviteError::Storage(_))) => {
                    return Err(error);
                }
                Err(error) => tracing::info!(%error, "an unfinished invitation was not accepted"),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Ends an invitation that waits at its beginning, and gives the package back that it may hold.
    pub(super) async fn end(
        &self,
        invitation: &Invitation,
        lost: Option<&Addition>,
    ) -> Result<(), StorageError> {
        self.forget(invitation)?;
        if let Some(addition) = lost {
            self.release(invitation, &invitation.claim(&addition.keypackage_ref)).await;
        }
        Ok(())
    }
}

/// The Commit with its Welcome and the claim on its package.
fn whole(invitation: &Invitation, addition: &Addition) -> CommitPost {
    let added = AddedMember {
        device: addition.owner.clone(),
        keypackage_ref: addition.keypackage_ref.clone(),
        reservation_id: invitation.reservation(),
        welcome: addition.welcome.clone(),
    };
    CommitPost { added: Some(added), ..addition.commit.clone() }
}
