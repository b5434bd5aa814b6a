//! An invitation, from the reservation to the Welcome, as a sequence of steps that survive a crash.
//!
//! ```text
//! Reserving ──► Added ──► Posting ──► Posted ──► Spent ──► done
//!                 │ refused  │ not accepted │ lost
//!                 ▼          ▼              ▼
//!            cleared and released       Removing ──► Reserving, with a fresh package
//! ```
//!
//! Each step is stored, together with what it changes in the group, before the next one is tried. A
//! step that is repeated repeats its request under the same id, and the server answers it as it did
//! before; but a renewal always asks anew, since what it asks is how things stand now.

mod record;
mod steps;

use keypool_ledger::{GroupId, KeyPackageRef, PoolId, Timestamp};
use serde::Serialize;

use self::record::{Invitation, RECORD_PREFIX, Step};
use super::{
    connection::{DeliveryService, MlsConnection},
    membership::MlsMembership,
};
use crate::{AddError, GroupError, InviteError, LocalStore, StorageError};

/// An invitation that has been carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Invited {
    /// The group.
    pub group: GroupId,
    /// The device that was added.
    pub device: PoolId,
    /// The package that was used.
    pub keypackage_ref: KeyPackageRef,
    /// Whether it is a last-resort package, which others may be given as well.
    pub last_resort: bool,
    /// How many packages were tried.
    pub attempts: u32,
}

/// An unfinished invitation that was gone on with, and what became of it.
#[derive(Debug)]
pub struct ResumedInvitation {
    /// The group.
    pub group: GroupId,
    /// Who was to be invited: a user, or `user/device`.
    pub target: String,
    /// What became of it. After [`InviteError::Unfinished`] it is to be resumed again; every other
    /// outcome is its end.
    pub outcome: Result<Invited, InviteError>,
}

/// Carries out invitations: over the groups, the server and the Delivery Service. One at a time.
pub(crate) struct Inviter<'a, D> {
    pub(crate) store: &'a LocalStore,
    pub(crate) membership: &'a MlsMembership,
    pub(crate) connection: &'a MlsConnection<D>,
    pub(crate) now: Timestamp,
}

impl<D: DeliveryService> Inviter<'_, D> {
    /// Invites a user to a group.
    pub(crate) async fn invite(
        &self,
        group: &GroupId,
        user: &str,
        device: Option<&str>,
    ) -> Result<Invited, InviteError> {
        let invitation = self.begin(group, user, device)?;
        self.carry_out(invitation).await
    }

    fn begin(
        &self,
        group: &GroupId,
        user: &str,
        device: Option<&str>,
    ) -> Result<Invitation, InviteError> {
        let in_this_group = |other: &Invitation| other.group == *group;
        if let Some(other) = self.unfinished()?.into_iter().find(in_this_group) {
            let (group, target) = (group.clone(), other.target());
            return Err(InviteError::OtherUnfinished { group, target });
        }
        if self.membership.has_pending_commit(group)? {
            return Err(GroupError::CommitPending { group: group.clone() }.into());
        }
        let invitation = Invitation::new(group, user, device);
        let staged = self.store.stage()?;
        staged.put_app_record(&invitation.record_name(), &invitation)?;
        staged.commit()?;
        Ok(invitation)
    }

    /// Goes on with every invitation that a crash or a lost answer has left unfinished.
    pub(crate) async fn resume(&self) -> Result<Vec<ResumedInvitation>, StorageError> {
        let mut resumed = Vec::new();
        for invitation in self.unfinished()? {
            let (group, target) = (invitation.group.clone(), invitation.target());
            let outcome = self.carry_out(invitation).await;
            resumed.push(ResumedInvitation { group, target, outcome });
        }
        Ok(resumed)
    }

    fn unfinished(&self) -> Result<Vec<Invitation>, StorageError> {
        let staged = self.store.stage()?;
        let mut found = Vec::new();
        for name in staged.app_record_names(RECORD_PREFIX)? {
            found.extend(staged.app_record::<Invitation>(&name)?);
        }
        Ok(found)
    }

    async fn carry_out(&self, mut invitation: Invitation) -> Result<Invited, InviteError> {
        loop {
            let step = invitation.step.clone();
            let next = match step {
                Step::Reserving => self.reserve_and_add(&invitation).await,
                Step::Added(addition) => self.renew(&mut invitation, addition).await,
                Step::Posting(addition) => self.post(&invitation, addition).await,
                Step::Posted(addition) => self.spend(&invitation, addition).await,
                Step::Removing(removal) => self.remove(&mut invitation, removal).await,
                Step::Spent(addition) => return self.hand_over(&invitation, addition).await,
            };
            if let Err(InviteError::Group(GroupError::NotInGroup { .. })) = &next {
                // Whoever is not in the group any more has nothing left to do in it.
                self.forget(&invitation)?;
            }
            invitation.step = next?;
        }
    }
}

impl From<AddError> for InviteError {
    fn from(error: AddError) -> Self {
        match error {
            AddError::Group(error) => Self::Group(error),
            error => Self::PackageRejected(error),
        }
    }
}
