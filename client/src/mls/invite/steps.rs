//! The steps of an invitation. Each ends with one write, which says what the next step is.

use keypool_projections::wire::{ClaimRequest, Code, ReserveReply, ReserveRequest, SpendRequest};

use super::{
    Invited, Inviter,
    record::{Addition, Invitation, Removal, Step},
};
use crate::{
    ApiError, BoxError, CommitPost, DeliveryError, DeliveryService, GroupError, InviteError,
    OfferedPackage, Staged, StorageError, WelcomePost,
    mls::membership::{Standing, clear_on, merge_on, standing_on},
    storage::fresh_command,
};

/// How many packages an invitation tries before it gives up.
const ATTEMPTS_MAX: u32 = 3;

impl<D: DeliveryService> Inviter<'_, D> {
    /// Reserving: a package is set aside, checked, and added in a Commit that nobody sees yet.
    pub(super) async fn reserve_and_add(
        &self,
        invitation: &Invitation,
    ) -> Result<Step, InviteError> {
        let suite = self.membership.ciphersuite(&invitation.group)?;
        let reply = match self.reserve(invitation, suite).await {
            Ok(reply) => reply,
            Err(error) => {
                // Nothing is posted: giving up costs at most one reservation, which lapses.
                self.forget(invitation)?;
                return Err(InviteError::from_api(invitation.target(), error));
            }
        };
        let claim = invitation.claim(&reply.keypackage_ref);
        let added = self.add(invitation, reply);
        if added.is_err() {
            self.forget(invitation)?;
            self.release(invitation, &claim).await;
        }
        added
    }

    async fn reserve(&self, invitation: &Invitation, suite: u16) -> Result<ReserveReply, ApiError> {
        let request = ReserveRequest {
            target_user: invitation.user.clone(),
            target_device: invitation.device.clone(),
            group_id: invitation.group.clone(),
            reservation_id: Some(invitation.reservation()),
            ciphersuites: vec![suite],
        };
        self.connection.api().reserve(&request, invitation.command("reserve")).await
    }

    fn add(&self, invitation: &Invitation, reply: ReserveReply) -> Result<Step, InviteError> {
        let owner = invitation.owner(&reply.device, &reply.keypackage_ref)?;
        let offer = OfferedPackage {
            keypackage_ref: reply.keypackage_ref.clone(),
            owner: owner.clone(),
            bytes: reply.keypackage.0,
        };
        let group = invitation.group.clone();
        let staged = self.store.stage()?;
        let made = self.membership.stage_add_on(&staged, &group, &[offer], self.now)?;
        let signature_key = made.signature_keys.into_iter().next();
        let step = Step::Added(Addition {
            owner,
            keypackage_ref: reply.keypackage_ref,
            signature_key: signature_key
                .ok_or_else(|| GroupError::Mls("the Commit adds nobody".into()))?,
            last_resort: reply.last_resort,
            commit: CommitPost {
                group,
                epoch: made.epoch,
                commit: made.commit,
                removed: made.removed,
                added: None,
            },
            welcome: made.welcome,
        });
        put(staged, invitation, step)
    }

    /// Added: the reservation gets its full time once more, right before the Commit is posted.
    pub(super) async fn renew(
        &self,
        invitation: &mut Invitation,
        addition: Addition,
    ) -> Result<Step, InviteError> {
        match self.standing(&addition.commit)? {
            Standing::Pending => {}
            Standing::Passed => {
                return self.give_up(invitation, &addition, DeliveryError::EpochTaken).await;
            }
            Standing::Cleared => {
                let why = DeliveryError::Refused("it was cleared before it was posted".into());
                return self.give_up(invitation, &addition, why).await;
            }
        }
        let claim = invitation.claim(&addition.keypackage_ref);
        // A repetition under the same id would be told the deadline of the first time, which may be
        // long over.
        let renewed = self.connection.api().renew(&claim, fresh_command()).await;
        let Err(error) = renewed else {
            return put(self.store.stage()?, invitation, Step::Posting(addition));
        };
        if is_lost(&error) {
            let staged = self.store.stage()?;
            clear_on(&staged, &addition.commit)?;
            return start_over(staged, invitation);
        }
        let error = InviteError::from_api(invitation.target(), error);
        self.give_up(invitation, &addition, error).await
    }

    /// Posting: the Delivery Service takes the Commit, or another one was first.
    pub(super) async fn post(
        &self,
        invitation: &Invitation,
        addition: Addition,
    ) -> Result<Step, InviteError> {
        if self.standing(&addition.commit)? == Standing::Cleared {
            // If it were accepted now, it could not be merged.
            self.forget(invitation)?;
            return Err(commit_missing(invitation));
        }
        match self.connection.post_commit(&addition.commit).await {
            Ok(()) => {
                let staged = self.store.stage()?;
                if merge_on(&staged, &addition.commit)? == Standing::Cleared {
                    drop(staged);
                    self.forget(invitation)?;
                    return Err(commit_missing(invitation));
                }
                put(staged, invitation, Step::Posted(addition))
            }
            // It may have been accepted: it stays pending, and is posted again by `resume`.
            Err(error @ DeliveryError::Unanswered(_)) => Err(unfinished(invitation, error)),
            Err(error) => self.give_up(invitation, &addition, error).await,
        }
    }

    /// Posted: the package is used up, before its owner hears of it.
    pub(super) async fn spend(
        &self,
        invitation: &Invitation,
        addition: Addition,
    ) -> Result<Step, InviteError> {
        let request = SpendRequest {
            keypackage_ref: addition.keypackage_ref.clone(),
            reservation_id: invitation.reservation(),
            group_id: invitation.group.clone(),
            added_by: None,
        };
        let spent = self.connection.api().spend(&request, invitation.command("spend")).await;
        let step = match spent {
            Ok(_) => Step::Spent(addition),
            Err(error) if may_be_mended(&error) => return Err(unfinished(invitation, error)),
            // Somebody else has the package: whoever has been added is not to be welcomed with it.
            Err(_) => {
                Step::Removing(Removal { signature_key: addition.signature_key, commit: None })
            }
        };
        put(self.store.stage()?, invitation, step)
    }

    /// Removing: the leaf whose package was lost is removed, and a fresh package is tried.
    pub(super) async fn remove(
        &self,
        invitation: &mut Invitation,
        removal: Removal,
    ) -> Result<Step, InviteError> {
        let Some(post) = &removal.commit else {
            return self.stage_removal(invitation, removal);
        };
        if self.standing(post)? == Standing::Cleared {
            let step = Step::Removing(Removal { commit: None, ..removal });
            return put(self.store.stage()?, invitation, step);
        }
        match self.connection.post_commit(post).await {
            Ok(()) => {
                let staged = self.store.stage()?;
                if merge_on(&staged, post)? == Standing::Cleared {
                    drop(staged);
                    self.forget(invitation)?;
                    return Err(commit_missing(invitation));
                }
                start_over(staged, invitation)
            }
            Err(error @ DeliveryError::Unanswered(_)) => Err(unfinished(invitation, error)),
            Err(error) => {
                let staged = self.store.stage()?;
                clear_on(&staged, post)?;
                put(staged, invitation, Step::Removing(Removal { commit: None, ..removal }))?;
                Err(unfinished(invitation, error))
            }
        }
    }

    /// Makes the Commit that removes the leaf, unless another member has removed it before.
    fn stage_removal(
        &self,
        invitation: &mut Invitation,
        removal: Removal,
    ) -> Result<Step, InviteError> {
        let group = invitation.group.clone();
        let staged = self.store.stage()?;
        match self.membership.remove_leaf_on(&staged, &group, &removal.signature_key) {
            Ok(Some(made)) => {
                let commit = Some(made.into_post(group));
                put(staged, invitation, Step::Removing(Removal { commit, ..removal }))
            }
            Ok(None) => start_over(staged, invitation),
            Err(error @ GroupError::CommitPending { .. }) => Err(unfinished(invitation, error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Spent: the new member is told.
    pub(super) async fn hand_over(
        &self,
        invitation: &Invitation,
        addition: Addition,
    ) -> Result<Invited, InviteError> {
        let post = WelcomePost {
            group: invitation.group.clone(),
            to: addition.owner.clone(),
            keypackage_ref: addition.keypackage_ref.clone(),
            welcome: addition.welcome.clone(),
        };
        match self.connection.delivery().send_welcome(&post).await {
            Ok(()) => self.forget(invitation)?,
            Err(error @ DeliveryError::Unanswered(_)) => return Err(unfinished(invitation, error)),
            Err(
                source @ (DeliveryError::EpochTaken
                | DeliveryError::PackageLost(_)
                | DeliveryError::Refused(_)),
            ) => {
                self.forget(invitation)?;
                let (group, device) = (invitation.group.clone(), addition.owner);
                return Err(InviteError::WelcomeRefused { group, device, source });
            }
        }
        Ok(invitation.invited(addition))
    }

    /// Ends an invitation whose Commit is not accepted: it is cleared and the invitation forgotten in
    /// one write; then the package is given back.
    async fn give_up(
        &self,
        invitation: &Invitation,
        addition: &Addition,
        error: impl Into<InviteError>,
    ) -> Result<Step, InviteError> {
        self.clear_and_forget(invitation, &addition.commit)?;
        self.release(invitation, &invitation.claim(&addition.keypackage_ref)).await;
        Err(error.into())
    }

    fn clear_and_forget(
        &self,
        invitation: &Invitation,
        post: &CommitPost,
    ) -> Result<(), InviteError> {
        let staged = self.store.stage()?;
        clear_on(&staged, post)?;
        staged.remove_app_record(&invitation.record_name());
        Ok(staged.commit()?)
    }

    /// Gives a package back. If that fails the reservation lapses by itself.
    pub(super) async fn release(&self, invitation: &Invitation, claim: &ClaimRequest) {
        let released = self.connection.api().release(claim, invitation.command("release")).await;
        if let Err(error) = released {
            let keypackage_ref = claim.keypackage_ref.short();
            tracing::info!(%error, keypackage_ref, "a package was not given back; it will lapse");
        }
    }

    pub(super) fn standing(&self, post: &CommitPost) -> Result<Standing, InviteError> {
        Ok(standing_on(&self.store.stage()?, post)?)
    }

    pub(super) fn forget(&self, invitation: &Invitation) -> Result<(), StorageError> {
        let staged = self.store.stage()?;
        staged.remove_app_record(&invitation.record_name());
        staged.commit()
    }
}

/// Ends a step: what is staged and how far the invitation has come are written together.
pub(super) fn put(
    staged: Staged<'_>,
    invitation: &Invitation,
    step: Step,
) -> Result<Step, InviteError> {
    staged.put_app_record(&invitation.record_name(), &invitation.at(&step))?;
    staged.commit()?;
    Ok(step)
}

/// A package was lost, and nothing of it is in the group: another one is tried, if any is left to
/// try. What is staged is written in any case.
pub(super) fn start_over(
    staged: Staged<'_>,
    invitation: &mut Invitation,
) -> Result<Step, InviteError> {
    let attempts = invitation.attempt;
    if attempts < ATTEMPTS_MAX {
        invitation.attempt = attempts.saturating_add(1);
        return put(staged, invitation, Step::Reserving);
    }
    staged.remove_app_record(&invitation.record_name());
    staged.commit()?;
    Err(InviteError::ReservationLost { target: invitation.target(), attempts })
}

pub(super) fn unfinished(invitation: &Invitation, source: impl Into<BoxError>) -> InviteError {
    InviteError::Unfinished { target: invitation.target(), source: source.into() }
}

pub(super) fn commit_missing(invitation: &Invitation) -> InviteError {
    InviteError::CommitMissing { group: invitation.group.clone(), target: invitation.target() }
}

/// Whether a refused renewal means that the package is not the invitation's any more.
fn is_lost(error: &ApiError) -> bool {
    let lost_codes = [
        Code::ReservationLost,
        Code::RenewalLimit,
        Code::Expired,
        Code::Revoked,
        Code::AlreadySpent,
    ];
    error.code().is_some_and(|code| lost_codes.contains(&code))
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
