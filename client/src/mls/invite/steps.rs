//! The steps of an invitation after its Commit is made, over an app's own Delivery Service. Each ends
//! with one write, which records the next step.

use keypool_api::{Code, SpendRequest};
use keypool_ledger::KeyPackageRef;

use super::{
    invitee::{SkipReason, SkippedInvitee},
    inviter::{Inviter, StepOutcome, abandoned, commit_missing, done, unfinished},
    record::{Addition, Invitation, InvitationStep, Removal},
};
use crate::{
    ApiError, DeliveryError, DeliveryService, GroupError, InviteError, StorageError, WelcomePost,
    mls::membership::{CommitState, clear_on},
};

impl<D: DeliveryService> Inviter<'_, D> {
    /// Added: the reservations get their full time once more, right before the Commit is posted.
    pub(super) async fn renew(
        &self,
        invitation: &mut Invitation,
        addition: Addition,
    ) -> Result<InvitationStep, InviteError> {
        match self.standing(&addition.commit)? {
            CommitState::Pending => {}
            CommitState::Passed => {
                return self.give_up(invitation, &addition, DeliveryError::EpochTaken).await;
            }
            CommitState::Cleared => {
                let why = DeliveryError::Refused("it was cleared before it was posted".into());
                return self.give_up(invitation, &addition, why).await;
            }
        }
        match self.renew_all(invitation).await {
            Ok(lost) if lost.is_empty() => {
                self.put(self.store.stage()?, invitation, InvitationStep::Posting(addition))
            }
            Ok(lost) => self.start_over(invitation, &addition, &lost),
            Err(error) => {
                let error = InviteError::from_api(error);
                self.give_up(invitation, &addition, error).await
            }
        }
    }

    /// Posting: the Delivery Service takes the Commit, or another one was first.
    pub(super) async fn post(
        &self,
        invitation: &Invitation,
        addition: Addition,
    ) -> Result<InvitationStep, InviteError> {
        if self.standing(&addition.commit)? == CommitState::Cleared {
            // If it were accepted now, it could not be merged.
            return Err(self.stuck(invitation)?);
        }
        match self.connection.post_commit(&addition.commit).await {
            Ok(not_kept) => {
                let staged = self.store.stage()?;
                if self.merge(&staged, &addition.commit, not_kept)? == CommitState::Cleared {
                    drop(staged);
                    return Err(self.stuck(invitation)?);
                }
                self.put(staged, invitation, InvitationStep::Posted(addition))
            }
            // It may have been accepted: it stays pending, and is posted again by `resume`.
            Err(error @ DeliveryError::Unanswered(_)) => Err(unfinished(invitation, error)),
            Err(error) => self.give_up(invitation, &addition, error).await,
        }
    }

    /// Posted: the packages are used up, before their owners hear of it.
    pub(super) async fn spend(
        &self,
        invitation: &Invitation,
        addition: Addition,
    ) -> Result<InvitationStep, InviteError> {
        let mut lost = Vec::new();
        for kept in &invitation.kept {
            let request = SpendRequest {
                keypackage_ref: kept.keypackage_ref.clone(),
                reservation_id: kept.reservation,
                group_id: invitation.group.clone(),
                added_by: None,
            };
            let id = invitation.command_for("spend", kept);
            match self.connection.api().spend(&request, id).await {
                Ok(_) => {}
                Err(error) if may_be_mended(&error) => return Err(unfinished(invitation, error)),
                // Somebody else has the package: its owner is not to be welcomed with it.
                Err(_) => lost.push(kept.keypackage_ref.clone()),
            }
        }
        self.put(self.store.stage()?, invitation, InvitationStep::Spent(addition, lost))
    }

    /// Spent: the new members are told. Those whose packages were lost are removed again.
    pub(super) async fn hand_over(
        &self,
        invitation: &mut Invitation,
        addition: Addition,
        lost: Vec<KeyPackageRef>,
    ) -> Result<StepOutcome, InviteError> {
        let mut refused: Vec<(KeyPackageRef, SkippedInvitee)> = Vec::new();
        for kept in invitation.kept.iter().filter(|kept| !lost.contains(&kept.keypackage_ref)) {
            let post = WelcomePost {
                group: invitation.group.clone(),
                to: kept.owner.clone(),
                keypackage_ref: kept.keypackage_ref.clone(),
                welcome: addition.welcome.clone(),
            };
            match self.connection.delivery().send_welcome(&post).await {
                Ok(()) => {}
                Err(error @ DeliveryError::Unanswered(_)) => {
                    return Err(unfinished(invitation, error));
                }
                Err(error) => {
                    let (invitee, why) = (
                        kept.owner.clone().into(),
                        SkipReason::WelcomeRefused { said: error.to_string() },
                    );
                    refused.push((kept.keypackage_ref.clone(), SkippedInvitee { invitee, why }));
                }
            }
        }
        let mut absent = lost.clone();
        for (keypackage_ref, missing) in refused {
            absent.push(keypackage_ref);
            invitation.missing.push(missing);
        }
        invitation.note_added(&absent);
        if lost.is_empty() {
            self.forget(invitation, &SkipReason::Unanswered)?;
            return done(invitation);
        }
        invitation.kept.retain(|kept| lost.contains(&kept.keypackage_ref));
        invitation.lose(&lost);
        let is_lost = |(of, _): &(KeyPackageRef, _)| lost.contains(of);
        let leaves = addition.leaves.into_iter().filter(is_lost);
        let signature_keys = leaves.map(|(_, key)| key).collect();
        let removal = Removal { signature_keys, commit: None };
        self.put(self.store.stage()?, invitation, InvitationStep::Removing(removal))
            .map(StepOutcome::At)
    }

    /// Removing: the leaves whose packages were lost are removed, and fresh packages are tried.
    pub(super) async fn remove(
        &self,
        invitation: &Invitation,
        removal: Removal,
    ) -> Result<InvitationStep, InviteError> {
        let Some(post) = &removal.commit else {
            return self.stage_removal(invitation, removal);
        };
        if self.standing(post)? == CommitState::Cleared {
            let step = InvitationStep::Removing(Removal { commit: None, ..removal });
            return self.put(self.store.stage()?, invitation, step);
        }
        match self.connection.post_commit(post).await {
            Ok(not_kept) => {
                let staged = self.store.stage()?;
                if self.merge(&staged, post, not_kept)? == CommitState::Cleared {
                    drop(staged);
                    return Err(self.stuck(invitation)?);
                }
                self.put(staged, invitation, InvitationStep::Reserving)
            }
            Err(error @ DeliveryError::Unanswered(_)) => Err(unfinished(invitation, error)),
            Err(error) => {
                let staged = self.store.stage()?;
                clear_on(&staged, post)?;
                self.put(
                    staged,
                    invitation,
                    InvitationStep::Removing(Removal { commit: None, ..removal }),
                )?;
                Err(unfinished(invitation, error))
            }
        }
    }

    /// Makes the Commit that removes the leaves, unless other members have removed them before.
    fn stage_removal(
        &self,
        invitation: &Invitation,
        removal: Removal,
    ) -> Result<InvitationStep, InviteError> {
        let group = invitation.group.clone();
        let staged = self.store.stage()?;
        match self.membership.remove_leaves_on(&staged, &group, &removal.signature_keys) {
            Ok(Some(made)) => {
                let commit = Some(made.into_post(group));
                self.put(
                    staged,
                    invitation,
                    InvitationStep::Removing(Removal { commit, ..removal }),
                )
            }
            Ok(None) => self.put(staged, invitation, InvitationStep::Reserving),
            Err(error @ GroupError::CommitPending { .. }) => Err(unfinished(invitation, error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets an invitation whose Commit is not pending any more. Returns the error that says so.
    pub(super) fn stuck(&self, invitation: &Invitation) -> Result<InviteError, StorageError> {
        let error = commit_missing(invitation);
        self.forget(invitation, &abandoned(&error))?;
        Ok(error)
    }

    /// Ends an invitation whose Commit is not accepted: it is cleared and the invitation forgotten in
    /// one write; then the packages are given back.
    async fn give_up(
        &self,
        invitation: &Invitation,
        addition: &Addition,
        error: impl Into<InviteError>,
    ) -> Result<InvitationStep, InviteError> {
        let error = error.into();
        {
            let staged = self.store.stage()?;
            clear_on(&staged, &addition.commit)?;
            self.forget_on(&staged, invitation, &abandoned(&error))?;
            staged.commit()?;
        }
        self.release_all(invitation).await;
        Err(error)
    }
}

/// Whether a refused spend may still succeed: nothing is known, or something is to be set right first.
fn may_be_mended(error: &ApiError) -> bool {
    let final_codes = [
        Code::ReservationLost,
        Code::AlreadySpent,
        Code::ReservationMismatch,
        Code::Revoked,
        Code::UnknownKeyPackage,
    ];
    error.is_unanswered() || !error.code().is_some_and(|code| final_codes.contains(&code))
}
