//! An invitation, from the reservation to the Welcome, as a sequence of steps that survive a crash.
//!
//! ```text
//! Reserving ──► Added ──► Posting ──► Posted ──► Spent ──► done
//!                 │ refused  │ not accepted │ lost
//!                 ▼          ▼              ▼
//!            cleared and released       Removing ──► Reserving, with a fresh package
//! ```
//!
//! Each step is stored, together with what it changes in the group, before the next one is tried. Every
//! request's id follows from the invitation and the step, so that a step that is repeated is a
//! repeated request, and the server answers it as it did before.

use keypool_ledger::{CommandId, GroupId, Hash, KeyPackageRef, PoolId, ReservationId, Timestamp};
use keypool_projections::wire::{ClaimRequest, Code, ReserveReply, ReserveRequest, SpendRequest};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    CIPHERSUITE,
    connection::{CommitPost, DeliveryError, DeliveryService, MlsConnection, WelcomePost},
    membership::{MlsMembership, OfferedPackage, clear_on, merge_on},
};
use crate::{AddError, ApiError, GroupError, InviteError, LocalStore, StorageError};

/// How many packages an invitation tries before it gives up.
const ATTEMPTS_MAX: u32 = 3;
/// What the names of stored invitations begin with.
const RECORD_PREFIX: &str = "invitation/";

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

/// An invitation under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Invitation {
    id: Uuid,
    user: String,
    device: Option<String>,
    group: GroupId,
    attempt: u32,
    step: Step,
}

/// How far an invitation has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Step {
    /// A package is being asked for.
    Reserving,
    /// The Commit is made and pending, and nobody has seen it.
    Added(Addition),
    /// The Commit is being posted; it may have been accepted.
    Posting(Addition),
    /// The Commit is accepted and merged; the package is not spent yet.
    Posted(Addition),
    /// The package is spent; the Welcome is to be handed over.
    Spent(Addition),
    /// The package was lost after the Commit was accepted: its owner is to be removed again. The
    /// Commit that does it, once it is made.
    Removing(PoolId, Option<CommitPost>),
}

/// A package that was added to a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Addition {
    owner: PoolId,
    keypackage_ref: KeyPackageRef,
    last_resort: bool,
    commit: CommitPost,
    welcome: Vec<u8>,
}

impl Invitation {
    fn reservation(&self) -> ReservationId {
        ReservationId(self.derived("reservation"))
    }

    fn command(&self, step: &str) -> CommandId {
        CommandId(self.derived(step))
    }

    /// An id that follows from the invitation's random one, the attempt and the step.
    fn derived(&self, step: &str) -> Uuid {
        let name = format!("{} {} {step}", self.id, self.attempt);
        let mut bytes = [0; 16];
        bytes
            .iter_mut()
            .zip(Hash::of(name.as_bytes()).as_bytes())
            .for_each(|(to, from)| *to = *from);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    fn claim(&self, addition: &Addition) -> ClaimRequest {
        let keypackage_ref = addition.keypackage_ref.clone();
        ClaimRequest { keypackage_ref, reservation_id: self.reservation() }
    }

    fn record_name(&self) -> String {
        format!("{RECORD_PREFIX}{}", self.id)
    }

    fn target(&self) -> String {
        match &self.device {
            Some(device) => format!("{}/{device}", self.user),
            None => self.user.clone(),
        }
    }
}

/// Carries out invitations: over the groups, the server and the Delivery Service.
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
        let invitation = Invitation {
            id: Uuid::new_v4(),
            user: user.to_owned(),
            device: device.map(ToOwned::to_owned),
            group: group.clone(),
            attempt: 1,
            step: Step::Reserving,
        };
        if self.membership.has_pending_commit(group)? {
            return Err(GroupError::CommitPending { group: group.clone() }.into());
        }
        self.store(&invitation)?;
        self.carry_out(invitation).await
    }

    /// Goes on with every invitation that a crash or a lost answer has left unfinished.
    pub(crate) async fn resume(&self) -> Result<Vec<Invited>, InviteError> {
        let mut finished = Vec::new();
        for invitation in self.unfinished()? {
            finished.push(self.carry_out(invitation).await?);
        }
        Ok(finished)
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
            invitation.step = match step {
                Step::Reserving => self.reserve_and_add(&mut invitation).await?,
                Step::Added(addition) => self.renew(&mut invitation, addition).await?,
                Step::Posting(addition) => self.post(&invitation, addition).await?,
                Step::Posted(addition) => self.spend(&invitation, addition).await?,
                Step::Removing(owner, commit) => {
                    self.remove(&mut invitation, owner, commit).await?
                }
                Step::Spent(addition) => return self.hand_over(&invitation, addition).await,
            };
        }
    }

    /// Reserving: a package is set aside, checked, and added in a Commit that nobody sees yet.
    async fn reserve_and_add(&self, invitation: &mut Invitation) -> Result<Step, InviteError> {
        let reply = match self.reserve(invitation).await {
            Ok(reply) => reply,
            Err(error) => {
                // Nothing is posted: giving up costs at most one reservation, which lapses.
                self.forget(invitation)?;
                return Err(InviteError::from_api(invitation.target(), error));
            }
        };
        let added = self.add(invitation, reply.clone());
        if added.is_err() {
            let keypackage_ref = reply.keypackage_ref;
            let reservation_id = invitation.reservation();
            self.release(invitation, &ClaimRequest { keypackage_ref, reservation_id }).await;
            self.forget(invitation)?;
        }
        added
    }

    async fn reserve(&self, invitation: &Invitation) -> Result<ReserveReply, ApiError> {
        let request = ReserveRequest {
            target_user: invitation.user.clone(),
            target_device: invitation.device.clone(),
            group_id: invitation.group.clone(),
            reservation_id: Some(invitation.reservation()),
            ciphersuites: vec![CIPHERSUITE.into()],
        };
        self.connection.api().reserve(&request, invitation.command("reserve")).await
    }

    fn add(&self, invitation: &Invitation, reply: ReserveReply) -> Result<Step, InviteError> {
        let owner = PoolId::new(&invitation.user, &reply.device)
            .map_err(|err| GroupError::Mls(err.into()))?;
        let offer = OfferedPackage {
            keypackage_ref: reply.keypackage_ref.clone(),
            owner: owner.clone(),
            bytes: reply.keypackage.0,
        };
        let staged = self.store.stage()?;
        let made = self.membership.stage_add_on(&staged, &invitation.group, &[offer], self.now);
        let made = made.map_err(InviteError::from)?;
        let step = Step::Added(Addition {
            owner,
            keypackage_ref: reply.keypackage_ref,
            last_resort: reply.last_resort,
            commit: CommitPost {
                group: invitation.group.clone(),
                epoch: made.epoch,
                commit: made.commit,
            },
            welcome: made.welcome,
        });
        let next = Invitation { step: step.clone(), ..invitation.clone() };
        staged.put_app_record(&next.record_name(), &next)?;
        staged.commit()?;
        Ok(step)
    }

    /// Added: the reservation gets its full time once more, right before the Commit is posted.
    async fn renew(
        &self,
        invitation: &mut Invitation,
        addition: Addition,
    ) -> Result<Step, InviteError> {
        let claim = invitation.claim(&addition);
        let renewed = self.connection.api().renew(&claim, invitation.command("renew")).await;
        let Err(error) = renewed else {
            let step = Step::Posting(addition);
            self.store(&Invitation { step: step.clone(), ..invitation.clone() })?;
            return Ok(step);
        };
        let lost = matches!(
            error.code(),
            Some(Code::ReservationLost | Code::Expired | Code::Revoked | Code::AlreadySpent)
        );
        if lost && invitation.attempt < ATTEMPTS_MAX {
            self.clear(invitation)?;
            invitation.attempt += 1;
            let step = Step::Reserving;
            self.store(&Invitation { step: step.clone(), ..invitation.clone() })?;
            return Ok(step);
        }
        self.give_up(invitation, &addition).await?;
        Err(InviteError::from_api(invitation.target(), error))
    }

    /// Posting: the Delivery Service takes the Commit, or another one was first.
    async fn post(&self, invitation: &Invitation, addition: Addition) -> Result<Step, InviteError> {
        match self.connection.post_commit(&addition.commit).await {
            Ok(()) => {
                let step = Step::Posted(addition);
                self.merge(&Invitation { step: step.clone(), ..invitation.clone() })?;
                Ok(step)
            }
            // It may have been accepted: it stays pending, and is posted again by `resume`.
            Err(error @ DeliveryError::Unanswered(_)) => {
                Err(InviteError::Unfinished { target: invitation.target(), source: error.into() })
            }
            Err(error) => {
                self.give_up(invitation, &addition).await?;
                Err(error.into())
            }
        }
    }

    /// Posted: the package is used up, before its owner hears of it.
    async fn spend(
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
            Err(error) if may_be_mended(&error) => {
                let target = invitation.target();
                return Err(InviteError::Unfinished { target, source: error.into() });
            }
            // Somebody else has the package: whoever has been added is not to be welcomed with it.
            Err(_) => Step::Removing(addition.owner, None),
        };
        self.store(&Invitation { step: step.clone(), ..invitation.clone() })?;
        Ok(step)
    }

    /// Removing: the member whose package was lost is removed, and a fresh package is tried.
    async fn remove(
        &self,
        invitation: &mut Invitation,
        owner: PoolId,
        commit: Option<CommitPost>,
    ) -> Result<Step, InviteError> {
        let Some(post) = commit else {
            // A crash may have come between making the Commit and storing it.
            self.clear(invitation)?;
            let made = self.membership.remove_member(&invitation.group, &owner)?;
            let group = invitation.group.clone();
            let post = CommitPost { group, epoch: made.epoch, commit: made.commit };
            let step = Step::Removing(owner, Some(post));
            self.store(&Invitation { step: step.clone(), ..invitation.clone() })?;
            return Ok(step);
        };
        match self.connection.post_commit(&post).await {
            Ok(()) => {}
            Err(error @ DeliveryError::Unanswered(_)) => {
                let target = invitation.target();
                return Err(InviteError::Unfinished { target, source: error.into() });
            }
            Err(error) => {
                self.clear(invitation)?;
                let step = Step::Removing(owner, None);
                self.store(&Invitation { step, ..invitation.clone() })?;
                let target = invitation.target();
                return Err(InviteError::Unfinished { target, source: error.into() });
            }
        }
        let lost = invitation.attempt;
        invitation.attempt += 1;
        self.merge(&Invitation { step: Step::Reserving, ..invitation.clone() })?;
        if lost < ATTEMPTS_MAX {
            return Ok(Step::Reserving);
        }
        self.forget(invitation)?;
        Err(InviteError::ReservationLost { target: invitation.target(), attempts: lost })
    }

    /// Spent: the new member is told.
    async fn hand_over(
        &self,
        invitation: &Invitation,
        addition: Addition,
    ) -> Result<Invited, InviteError> {
        let post = WelcomePost {
            group: invitation.group.clone(),
            to: addition.owner.clone(),
            keypackage_ref: addition.keypackage_ref.clone(),
            welcome: addition.welcome,
        };
        if let Err(error) = self.connection.delivery().send_welcome(&post).await {
            let target = invitation.target();
            return Err(InviteError::Unfinished { target, source: error.into() });
        }
        self.forget(invitation)?;
        Ok(Invited {
            group: invitation.group.clone(),
            device: addition.owner,
            keypackage_ref: addition.keypackage_ref,
            last_resort: addition.last_resort,
            attempts: invitation.attempt,
        })
    }

    /// Ends an invitation whose Commit was not accepted: nothing of it remains, and the package is
    /// given back.
    async fn give_up(
        &self,
        invitation: &Invitation,
        addition: &Addition,
    ) -> Result<(), InviteError> {
        self.clear(invitation)?;
        self.release(invitation, &invitation.claim(addition)).await;
        Ok(self.forget(invitation)?)
    }

    /// Gives a package back. If that fails the reservation lapses by itself.
    async fn release(&self, invitation: &Invitation, claim: &ClaimRequest) {
        let released = self.connection.api().release(claim, invitation.command("release")).await;
        if let Err(error) = released {
            let keypackage_ref = claim.keypackage_ref.short();
            tracing::info!(%error, keypackage_ref, "a package was not given back; it will lapse");
        }
    }

    /// Merges the pending Commit and stores how far the invitation has come, in one write.
    fn merge(&self, invitation: &Invitation) -> Result<(), InviteError> {
        let staged = self.store.stage()?;
        merge_on(&staged, &invitation.group)?;
        staged.put_app_record(&invitation.record_name(), invitation)?;
        Ok(staged.commit()?)
    }

    fn clear(&self, invitation: &Invitation) -> Result<(), InviteError> {
        let staged = self.store.stage()?;
        clear_on(&staged, &invitation.group)?;
        Ok(staged.commit()?)
    }

    fn store(&self, invitation: &Invitation) -> Result<(), StorageError> {
        let staged = self.store.stage()?;
        staged.put_app_record(&invitation.record_name(), invitation)?;
        staged.commit()
    }

    fn forget(&self, invitation: &Invitation) -> Result<(), StorageError> {
        let staged = self.store.stage()?;
        staged.remove_app_record(&invitation.record_name());
        staged.commit()
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

impl From<AddError> for InviteError {
    fn from(error: AddError) -> Self {
        match error {
            AddError::Group(error) => Self::Group(error),
            error => Self::PackageRejected(error),
        }
    }
}
