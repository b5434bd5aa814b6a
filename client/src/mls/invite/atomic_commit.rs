//! The last step of an invitation over the server's own delivery, where the Commit, its Welcome and the
//! spending of its packages are one request: nothing is left to be done after it.

use keypool_ledger::{Hash, KeyPackageRef, PoolId};

use super::{
    invitee::{SkipReason, SkippedInvitee},
    inviter::{Inviter, StepOutcome, done, unfinished},
    record::{Addition, Invitation, InvitationStep, ReservedPackage},
    records::note_leaves_on,
};
use crate::{
    AddedMember, ApiError, CommitPost, DeliveryError, DeliveryService, InviteError,
    MailboxEventKind,
    mls::membership::{CommitState, clear_on},
};

impl<D: DeliveryService> Inviter<'_, D> {
    /// Posts the Commit with all that belongs to it. If it is accepted, it is merged and the invitation
    /// forgotten in one write. If it is not, it is cleared, and the invitation begins again: with
    /// fresh packages for those that are lost.
    pub(super) async fn post_whole(
        &self,
        invitation: &mut Invitation,
        addition: Addition,
    ) -> Result<StepOutcome, InviteError> {
        if self.standing(&addition.commit)? == CommitState::Cleared {
            // If it were accepted now, it could not be merged.
            return Err(self.stuck(invitation)?);
        }
        let posted = self.connection.post_commit(&whole(invitation, &addition)).await;
        let error = match posted {
            Ok(not_kept) => return self.accepted(invitation, &addition, not_kept),
            Err(error @ DeliveryError::Unanswered(_)) => return Err(unfinished(invitation, error)),
            Err(error) => error,
        };
        if let DeliveryError::InviteeRefused(refused) = &error
            && let Some(place) = place_of(invitation, refused)
        {
            return self.leave_out(invitation, &addition, place, refused).await;
        }
        if let DeliveryError::PackageLost(refused) = &error {
            let lost = self.lost(invitation, refused).await;
            if !lost.is_empty() {
                return self.start_over(invitation, &addition, &lost).map(StepOutcome::At);
            }
        }
        let staged = self.store.stage()?;
        clear_on(&staged, &addition.commit)?;
        self.put(staged, invitation, InvitationStep::Reserving)?;
        Err(error.into())
    }

    /// Goes on without a device that does not take the invitation.
    async fn leave_out(
        &self,
        invitation: &mut Invitation,
        addition: &Addition,
        place: usize,
        refused: &ApiError,
    ) -> Result<StepOutcome, InviteError> {
        let kept = invitation.kept.remove(place);
        let why = refused.code().map_or(SkipReason::Unanswered, SkipReason::of_invitee);
        invitation.missing.push(SkippedInvitee { invitee: kept.owner.clone().into(), why });
        let step = self.start_over(invitation, addition, &[])?;
        self.release(invitation, &kept).await;
        Ok(StepOutcome::At(step))
    }

    fn accepted(
        &self,
        invitation: &mut Invitation,
        addition: &Addition,
        not_kept: Vec<PoolId>,
    ) -> Result<StepOutcome, InviteError> {
        let staged = self.store.stage()?;
        if self.merge(&staged, &addition.commit, not_kept)? == CommitState::Cleared {
            drop(staged);
            return Err(self.stuck(invitation)?);
        }
        invitation.note_added(&[]);
        invitation.kept.clear();
        self.forget_on(&staged, invitation, &SkipReason::Unanswered)?;
        note_leaves_on((&staged, self.connection.identity()), invitation, self.now)?;
        if invitation.is_automatic {
            let devices = invitation.added.iter().map(|added| added.device.clone()).collect();
            let group = invitation.group.clone();
            let what = MailboxEventKind::InvitationResumed { group, devices };
            self.connection.note_on(&staged, what, Hash::of(&addition.commit.commit), self.now)?;
        }
        staged.commit()?;
        done(invitation)
    }

    /// The packages that are lost: the one that a refusal names, and others that are found.
    async fn lost(&self, invitation: &Invitation, refused: &ApiError) -> Vec<KeyPackageRef> {
        let named = match refused {
            ApiError::Refused(problem) => problem.keypackage_ref.clone(),
            _ => None,
        };
        let is_kept =
            |of: &KeyPackageRef| invitation.kept.iter().any(|kept| kept.keypackage_ref == *of);
        let mut lost: Vec<KeyPackageRef> = named.into_iter().filter(is_kept).collect();
        // The refusal names one alone, and each Commit that is tried costs.
        if 1 < invitation.kept.len() {
            lost.extend(self.renew_all(invitation).await.unwrap_or_default());
        }
        lost
    }

    /// Finds out of every Commit that may have been posted whether it was accepted, by posting it again.
    /// An invitation whose Commit was not is left at its beginning, for `resume_invitations`.
    pub(crate) async fn settle(&self) -> Result<(), InviteError> {
        for mut invitation in self.unfinished()? {
            let (InvitationStep::Added(addition) | InvitationStep::Posting(addition)) =
                invitation.step.clone()
            else {
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
}

/// The place of the package that a refusal is about: the one it names, or the only one there is.
fn place_of(invitation: &Invitation, refused: &ApiError) -> Option<usize> {
    let named = match refused {
        ApiError::Refused(problem) => problem.keypackage_ref.as_ref(),
        _ => None,
    };
    let is_named =
        |kept: &ReservedPackage| named.is_some_and(|named| *named == kept.keypackage_ref);
    let only = (invitation.kept.len() == 1).then_some(0);
    invitation.kept.iter().position(is_named).or(only)
}

/// The Commit with its Welcome and the claims on its packages.
fn whole(invitation: &Invitation, addition: &Addition) -> CommitPost {
    let member = |kept: &ReservedPackage| AddedMember {
        device: kept.owner.clone(),
        keypackage_ref: kept.keypackage_ref.clone(),
        reservation_id: kept.reservation,
    };
    let added = invitation.kept.iter().map(member).collect();
    CommitPost { added, welcome: addition.welcome.clone(), ..addition.commit.clone() }
}
