//! An invitation, from the reservations to the Welcome, as a sequence of steps that survive a crash.
//!
//! ```text
//! Reserving ──► Added ──► Posting ──► Posted ──► Spent ──► done
//!   ▲   ▲ a bad │ refused  │ not accepted          │ some are lost
//!   └───┘ one is▼          ▼                       ▼
//!  replaced  cleared and released              Removing ──► Reserving, with fresh packages
//! ```
//!
//! Over the server's own delivery it is shorter, since one request does all the rest:
//!
//! ```text
//! Reserving ──► Added ──► done
//!     ▲           │ not accepted: another Commit was first, or packages are lost
//!     └───────────┘
//! ```
//!
//! All devices of all who are invited are added by one Commit. Each step is stored, together with the
//! change in the group, before the next one is tried. A step that is repeated repeats its requests
//! under the same ids, and the server answers them as it did before; but a renewal always asks anew,
//! since it asks for the present state.

mod atomic_commit;
mod follow_up;
mod invitee;
mod inviter;
mod outcome;
mod record;
mod records;
mod reserve;
mod steps;

use keypool_ledger::GroupId;

pub use self::{
    invitee::{Invited, InvitedDevice, Invitee, SkipReason, SkippedInvitee},
    outcome::{InvitationRecord, InvitationState, NextStep},
};
pub(crate) use self::{
    inviter::Inviter,
    records::{answer_on, cancel_removed_on, invitation_records, resume_waiting_on},
};
use self::{
    inviter::{StepOutcome, abandoned, unfinished},
    record::{Invitation, InvitationStep},
    records::prune_on,
};
use super::{
    RACES_MAX,
    delivery::{catch_up::catch_up, mailbox::Mailbox, server},
};
use crate::{DeliveryError, DeliveryService, GroupError, InviteError, StorageError};

/// An unfinished invitation that was resumed, and its outcome.
#[derive(Debug)]
pub struct ResumedInvitation {
    /// The group.
    pub group: GroupId,
    /// The invitees, as they were asked for.
    pub target: String,
    /// The outcome. After [`InviteError::Unfinished`] it is to be resumed again; every other
    /// outcome is its end.
    pub outcome: Result<Invited, InviteError>,
}

impl<D: DeliveryService> Inviter<'_, D> {
    /// Invites people to a group.
    pub(crate) async fn invite(
        &self,
        group: &GroupId,
        invitees: Vec<Invitee>,
    ) -> Result<Invited, InviteError> {
        let outcome = match self.begin(group, invitees, false).await {
            Ok(invitation) => self.carry_out(invitation).await,
            Err(error) => Err(error),
        };
        self.await_packages().await?;
        outcome
    }

    /// Stores a new invitation, of which nothing has been asked for yet.
    async fn begin(
        &self,
        group: &GroupId,
        invitees: Vec<Invitee>,
        is_automatic: bool,
    ) -> Result<Invitation, InviteError> {
        self.check_free(group)?;
        self.make_at_server(group).await?;
        let resolved = self.resolve(group, &invitees).await?;
        let tokens = self.connection.contact_tokens(self.now)?;
        let required = self.membership.required_capabilities(group)?;
        let invitation = Invitation::new(group, invitees, resolved, tokens, required);
        let invitation = Invitation { is_automatic, ..invitation };
        let staged = self.store.stage()?;
        prune_on(&staged, self.now)?;
        if invitation.wanted.is_empty() {
            self.note(&staged, &invitation)?;
            staged.commit()?;
            return Err(InviteError::Nobody { missing: invitation.missing });
        }
        self.put(staged, &invitation, InvitationStep::Reserving)?;
        Ok(invitation)
    }

    /// Makes a group at the server before the first invitation to it: nobody else can take its id then.
    async fn make_at_server(&self, group: &GroupId) -> Result<(), InviteError> {
        let is_the_servers = self.connection.delivery().is_the_servers();
        if is_the_servers && self.membership.epoch(group)? == 0 {
            let made = server::make(self.connection.api(), group).await;
            made.map_err(InviteError::from_api)?;
        }
        Ok(())
    }

    /// Refuses where something else is under way in the group.
    fn check_free(&self, group: &GroupId) -> Result<(), InviteError> {
        let in_this_group = |other: &Invitation| other.group == *group;
        if let Some(other) = self.unfinished()?.into_iter().find(in_this_group) {
            let (group, target) = (group.clone(), other.target());
            return Err(InviteError::OtherUnfinished { group, target });
        }
        if self.membership.has_pending_commit(group)? {
            return Err(GroupError::CommitPending { group: group.clone() }.into());
        }
        Ok(())
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

    /// Carries an invitation out. Over the server's own delivery, a Commit that lost its epoch is made
    /// anew once the others' are taken in.
    async fn carry_out(&self, mut invitation: Invitation) -> Result<Invited, InviteError> {
        let mut races = 0;
        loop {
            let outcome = self.go_on(&mut invitation).await;
            let is_the_servers = self.connection.delivery().is_the_servers();
            let Err(InviteError::NotAccepted(lost)) = &outcome else { return outcome };
            if !is_the_servers {
                return outcome;
            }
            if !matches!(lost, DeliveryError::EpochTaken) || races == RACES_MAX {
                self.end(&invitation, lost).await?;
                return outcome;
            }
            races += 1;
            let caught_up = catch_up(&self.mailbox()).await;
            caught_up.map_err(|error| unfinished(&invitation, error))?;
            // The same packages, unless they are lost by now.
            invitation.step = InvitationStep::Reserving;
        }
    }

    async fn go_on(&self, invitation: &mut Invitation) -> Result<Invited, InviteError> {
        loop {
            let next = match self.step(invitation).await {
                Err(error @ InviteError::Group(GroupError::NotInGroup { .. })) => {
                    // Whoever is not in the group any more has nothing left to do in it.
                    self.forget(invitation, &abandoned(&error))?;
                    return Err(error);
                }
                next => next?,
            };
            match next {
                StepOutcome::At(step) => invitation.step = step,
                StepOutcome::Done(invited) => return Ok(invited),
            }
        }
    }

    async fn step(&self, invitation: &mut Invitation) -> Result<StepOutcome, InviteError> {
        let is_whole = self.connection.delivery().is_the_servers();
        let next = match invitation.step.clone() {
            InvitationStep::Reserving => return self.reserve_and_add(invitation).await,
            InvitationStep::Added(addition) | InvitationStep::Posting(addition) if is_whole => {
                return self.post_whole(invitation, addition).await;
            }
            InvitationStep::Added(addition) => self.renew(invitation, addition).await,
            InvitationStep::Posting(addition) => self.post(invitation, addition).await,
            InvitationStep::Posted(addition) => self.spend(invitation, addition).await,
            InvitationStep::Removing(removal) => self.remove(invitation, removal).await,
            InvitationStep::Spent(addition, lost) => {
                return self.hand_over(invitation, addition, lost).await;
            }
        };
        next.map(StepOutcome::At)
    }

    fn mailbox(&self) -> Mailbox<'_, D> {
        let Self { store, membership, connection, now } = *self;
        Mailbox { store, membership, connection, now }
    }
}
