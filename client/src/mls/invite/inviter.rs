//! The parts that all steps of an invitation share: its record, its reservations, and the fate of its Commit.

use keypool_api::Code;
use keypool_ledger::{KeyPackageRef, PoolId, Timestamp};

use super::{
    invitee::{Invited, SkipReason},
    record::{Addition, Invitation, InvitationStep, RECORD_PREFIX, ReservedPackage},
    records::note_on,
};
use crate::{
    ApiError, BoxError, CommitPost, DeliveryService, GroupError, InviteError, LocalStore, Staged,
    StorageError,
    mls::{
        connection::MlsConnection,
        membership::{CommitState, MlsMembership, clear_on, standing_on},
    },
    storage::fresh_command,
};

/// Carries out invitations: over the groups, the server and the Delivery Service. One at a time.
pub(crate) struct Inviter<'a, D> {
    pub(crate) store: &'a LocalStore,
    pub(crate) membership: &'a MlsMembership,
    pub(crate) connection: &'a MlsConnection<D>,
    pub(crate) now: Timestamp,
}

/// The outcome of one step of an invitation.
pub(super) enum StepOutcome {
    /// It goes on from there.
    At(InvitationStep),
    /// The invitation is carried out.
    Done(Invited),
}

impl<D: DeliveryService> Inviter<'_, D> {
    /// Whether an invitation is unfinished.
    pub(crate) fn is_unfinished(&self) -> Result<bool, StorageError> {
        Ok(!self.unfinished()?.is_empty())
    }

    pub(super) fn unfinished(&self) -> Result<Vec<Invitation>, StorageError> {
        let staged = self.store.stage()?;
        let mut found = Vec::new();
        for name in staged.app_record_names(RECORD_PREFIX)? {
            found.extend(staged.app_record::<Invitation>(&name)?);
        }
        Ok(found)
    }

    /// Gives all packages back.
    pub(super) async fn release_all(&self, invitation: &Invitation) {
        for kept in &invitation.kept {
            self.release(invitation, kept).await;
        }
    }

    /// Gives a package back. If that fails the reservation lapses by itself.
    pub(super) async fn release(&self, invitation: &Invitation, kept: &ReservedPackage) {
        let id = invitation.command_for("release", kept);
        if let Err(error) = self.connection.api().release(&kept.claim(), id).await {
            let keypackage_ref = kept.keypackage_ref.short();
            tracing::info!(%error, keypackage_ref, "a package was not given back; it will lapse");
        }
    }

    /// Ends an invitation of which nothing is in the group, and gives its packages back.
    pub(super) async fn end(
        &self,
        invitation: &Invitation,
        why: &(impl std::error::Error + 'static),
    ) -> Result<(), StorageError> {
        self.forget(invitation, &abandoned(why))?;
        self.release_all(invitation).await;
        Ok(())
    }

    /// Asks for more time for every package. Returns those that are lost.
    pub(super) async fn renew_all(
        &self,
        invitation: &Invitation,
    ) -> Result<Vec<KeyPackageRef>, ApiError> {
        let mut lost = Vec::new();
        for kept in &invitation.kept {
            // A repetition under the same id would be told the deadline of the first time, which may
            // be long over.
            match self.connection.api().renew(&kept.claim(), fresh_command()).await {
                Ok(_) => {}
                Err(error) if is_lost(&error) => lost.push(kept.keypackage_ref.clone()),
                Err(error) => return Err(error),
            }
        }
        Ok(lost)
    }

    /// Clears the Commit, of which some packages are lost: others are asked for, and a new one is made.
    pub(super) fn start_over(
        &self,
        invitation: &mut Invitation,
        addition: &Addition,
        lost: &[KeyPackageRef],
    ) -> Result<InvitationStep, InviteError> {
        let staged = self.store.stage()?;
        clear_on(&staged, &addition.commit)?;
        invitation.lose(lost);
        self.put(staged, invitation, InvitationStep::Reserving)
    }

    pub(super) fn merge(
        &self,
        staged: &Staged<'_>,
        post: &CommitPost,
        not_kept: Vec<PoolId>,
    ) -> Result<CommitState, GroupError> {
        self.connection.merge_accepted_on(staged, post, (not_kept, self.now))
    }

    pub(super) fn standing(&self, post: &CommitPost) -> Result<CommitState, InviteError> {
        Ok(standing_on(&self.store.stage()?, post)?)
    }

    /// Forgets an invitation. `why` is recorded for invitees who were neither added nor skipped.
    pub(super) fn forget(
        &self,
        invitation: &Invitation,
        why: &SkipReason,
    ) -> Result<(), StorageError> {
        let staged = self.store.stage()?;
        self.forget_on(&staged, invitation, why)?;
        staged.commit()
    }

    /// As [`Inviter::forget`], as part of an operation.
    pub(super) fn forget_on(
        &self,
        staged: &Staged<'_>,
        invitation: &Invitation,
        why: &SkipReason,
    ) -> Result<(), StorageError> {
        staged.remove_app_record(&invitation.record_name());
        let mut ended = invitation.clone();
        let wanted = std::mem::take(&mut ended.wanted);
        ended.miss(wanted, why);
        self.note(staged, &ended)
    }

    /// Ends a step: the staged changes and the invitation's next step are written together.
    pub(super) fn put(
        &self,
        staged: Staged<'_>,
        invitation: &Invitation,
        step: InvitationStep,
    ) -> Result<InvitationStep, InviteError> {
        let at = Invitation { step: step.clone(), ..invitation.clone() };
        staged.put_app_record(&invitation.record_name(), &at)?;
        self.note(&staged, &at)?;
        staged.commit()?;
        Ok(step)
    }

    /// Records how far an invitation has come for each invitee. Over another delivery than the server's own
    /// no answers come, and nothing is recorded.
    pub(super) fn note(
        &self,
        staged: &Staged<'_>,
        invitation: &Invitation,
    ) -> Result<(), StorageError> {
        if self.connection.delivery().is_the_servers() {
            note_on(staged, invitation, self.now)?;
        }
        Ok(())
    }
}

/// The reason of invitees whose whole invitation has ended.
pub(super) fn abandoned(why: &(impl std::error::Error + 'static)) -> SkipReason {
    SkipReason::Abandoned { said: why.to_string() }
}

pub(super) fn unfinished(invitation: &Invitation, source: impl Into<BoxError>) -> InviteError {
    InviteError::Unfinished { target: invitation.target(), source: source.into() }
}

pub(super) fn commit_missing(invitation: &Invitation) -> InviteError {
    InviteError::CommitMissing { group: invitation.group.clone(), target: invitation.target() }
}

/// The result of an invitation with no invitee left to reserve for, and no package kept.
pub(super) fn done(invitation: &Invitation) -> Result<StepOutcome, InviteError> {
    if invitation.added.is_empty() {
        return Err(InviteError::Nobody { missing: invitation.missing.clone() });
    }
    Ok(StepOutcome::Done(invitation.invited()))
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
