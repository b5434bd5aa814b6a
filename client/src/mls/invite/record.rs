//! The record of an invitation: its step, and the ids of its requests.

use keypool_api::{ClaimRequest, Code, ReserveManyReply, ReserveManyRequest};
use keypool_ledger::{
    CommandId, GroupId, Hash, KeyPackageRef, PoolId, ReservationId, SignatureKey,
};
use keypool_projections::RequiredCapabilities;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::invitee::{Invited, InvitedDevice, Invitee, SkipReason, SkippedInvitee};
use crate::{CommitPost, OfferedPackage, mls::contacts::ContactTokens};

/// The prefix of the names of stored invitations.
pub(super) const RECORD_PREFIX: &str = "inviting/";

/// How many packages of one device are tried.
const TRIES_MAX: u32 = 3;

/// An invitation under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Invitation {
    pub(super) id: Uuid,
    pub(super) group: GroupId,
    /// The invitees, as they were asked for.
    pub(super) invitees: Vec<Invitee>,
    /// How often packages were asked for, this time included.
    pub(super) round: u32,
    /// The invitees to reserve packages for.
    pub(super) wanted: Vec<PendingInvitee>,
    /// The packages that are set aside.
    pub(super) kept: Vec<ReservedPackage>,
    /// The devices that are in the group by an earlier Commit of this invitation.
    pub(super) added: Vec<InvitedDevice>,
    /// The invitees who will not be added, each with the reason.
    pub(super) missing: Vec<SkippedInvitee>,
    pub(super) step: InvitationStep,
    /// The contact tokens of this user when the invitation began.
    #[serde(default)]
    pub(super) tokens: ContactTokens,
    /// The capabilities that the group required of its members when the invitation began; none if nothing in
    /// particular.
    #[serde(default)]
    pub(super) required: Option<RequiredCapabilities>,
    /// Whether this device has made it by itself: for a package that was awaited, or in the place of one that
    /// could not be joined with.
    #[serde(default)]
    pub(super) is_automatic: bool,
}

/// An invitee to reserve a package for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PendingInvitee {
    pub(super) invitee: Invitee,
    /// How many packages were tried.
    pub(super) tries: u32,
    /// The fault of the last of them.
    pub(super) why: Option<SkipReason>,
}

/// A package that is set aside for this invitation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ReservedPackage {
    pub(super) owner: PoolId,
    pub(super) keypackage_ref: KeyPackageRef,
    pub(super) reservation: ReservationId,
    pub(super) last_resort: bool,
    pub(super) bytes: Vec<u8>,
    /// How many packages of the device were tried before.
    pub(super) tries: u32,
}

/// How far an invitation has come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum InvitationStep {
    /// Packages are being asked for, until nobody is left to ask for; then the Commit is made.
    Reserving,
    /// The Commit is made and pending, and nobody has seen it.
    Added(Addition),
    /// The Commit is being posted; it may have been accepted.
    Posting(Addition),
    /// The Commit is accepted and merged; the packages are not all spent yet.
    Posted(Addition),
    /// The packages are spent, but for those that were lost; the Welcome is to be handed over.
    Spent(Addition, Vec<KeyPackageRef>),
    /// Packages were lost after the Commit was accepted: the leaves that were added with them, and
    /// no others of their owners', are to be removed again.
    Removing(Removal),
}

/// The Commit that adds the kept packages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Addition {
    pub(super) commit: CommitPost,
    pub(super) welcome: Vec<u8>,
    /// The signature keys of the added leaves, by their packages.
    pub(super) leaves: Vec<(KeyPackageRef, SignatureKey)>,
}

/// Leaves that are to be removed, and the Commit that does it, once it is made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Removal {
    pub(super) signature_keys: Vec<SignatureKey>,
    pub(super) commit: Option<CommitPost>,
}

impl PendingInvitee {
    pub(super) const fn new(invitee: Invitee) -> Self {
        Self { invitee, tries: 0, why: None }
    }
}

impl Invitation {
    /// A new invitation, at its beginning.
    pub(super) fn new(
        group: &GroupId,
        invitees: Vec<Invitee>,
        (wanted, missing): (Vec<PendingInvitee>, Vec<SkippedInvitee>),
        tokens: ContactTokens,
        required: Option<RequiredCapabilities>,
    ) -> Self {
        Self {
            id: Uuid::new_v4(),
            group: group.clone(),
            invitees,
            round: 1,
            wanted,
            kept: Vec::new(),
            added: Vec::new(),
            missing,
            step: InvitationStep::Reserving,
            tokens,
            required,
            is_automatic: false,
        }
    }

    /// The result of the invitation once it is carried out.
    pub(super) fn invited(&self) -> Invited {
        Invited {
            group: self.group.clone(),
            added: self.added.clone(),
            missing: self.missing.clone(),
            attempts: self.round,
        }
    }

    /// The request for packages of some of those that are wanted, and its id.
    pub(super) fn request(
        &self,
        part: usize,
        wanted: &[PendingInvitee],
        suite: u16,
    ) -> (ReserveManyRequest, CommandId) {
        let request = ReserveManyRequest {
            group_id: self.group.clone(),
            reservation_id: ReservationId(self.derived(&format!("{} claims {part}", self.round))),
            targets: wanted.iter().map(|wanted| wanted.invitee.target(&self.tokens)).collect(),
            ciphersuites: vec![suite],
            required: self.required.clone(),
        };
        (request, self.command(&format!("{} reserve {part}", self.round)))
    }

    /// Applies the reply to a request for packages. Ignores users that were not requested, and reports
    /// requested users missing from the reply. Returns the invitees to request again.
    pub(super) fn take_in(
        &mut self,
        wanted: &[PendingInvitee],
        reply: ReserveManyReply,
    ) -> Vec<PendingInvitee> {
        let mut again = Vec::new();
        let mut heard = vec![false; wanted.len()];
        let mut find = |user: &str, device: Option<&str>| {
            let place = wanted.iter().position(|wanted| wanted.invitee.means(user, device));
            place.and_then(|place| heard.get_mut(place)).into_iter().for_each(|it| *it = true);
            place.and_then(|place| wanted.get(place))
        };
        for found in reply.reservations {
            let reserved = found.reservation;
            let owner = PoolId::new(&found.user, &reserved.device).ok();
            let asked = find(&found.user, Some(&reserved.device));
            let (Some(owner), Some(asked)) = (owner, asked) else {
                tracing::warn!(user = found.user, "the server reserves what nobody asked for");
                continue;
            };
            self.kept.push(ReservedPackage {
                owner,
                keypackage_ref: reserved.keypackage_ref,
                reservation: reserved.reservation_id,
                last_resort: reserved.last_resort,
                bytes: reserved.keypackage.0,
                tries: asked.tries,
            });
        }
        for missing in reply.missing {
            let Some(asked) = find(&missing.user, missing.device.as_deref()) else { continue };
            let invitee = Invitee { user: missing.user, device: missing.device };
            match (missing.code, &asked.why) {
                (Code::ReservationLost, _) => {
                    let attempts = asked.tries.saturating_add(1);
                    again.extend(self.retry(
                        invitee,
                        asked.tries,
                        SkipReason::ReservationLost { attempts },
                    ));
                }
                (Code::PoolExhausted, Some(why @ SkipReason::PackageRejected { .. })) => {
                    let why = why.clone();
                    self.missing.push(SkippedInvitee { invitee, why });
                }
                (Code::RateLimited | Code::TooManyReservations, _) => {
                    let why = SkipReason::OverQuota { retry_after_s: missing.retry_after_s };
                    self.missing.push(SkippedInvitee { invitee, why });
                }
                (code, _) => {
                    let why = match missing.requirement {
                        Some(requirement) => SkipReason::RequirementUnmet { requirement },
                        None => SkipReason::of_invitee(code),
                    };
                    self.missing.push(SkippedInvitee { invitee, why });
                }
            }
        }
        for (asked, _) in wanted.iter().zip(heard).filter(|(_, heard)| !heard) {
            let invitee = asked.invitee.clone();
            self.missing.push(SkippedInvitee { invitee, why: SkipReason::Unanswered });
        }
        again
    }

    /// Whether another package is to be tried; if not, they are missing.
    pub(super) fn retry(
        &mut self,
        invitee: Invitee,
        tries: u32,
        why: SkipReason,
    ) -> Option<PendingInvitee> {
        let tries = tries.saturating_add(1);
        if tries < TRIES_MAX {
            return Some(PendingInvitee { invitee, tries, why: Some(why) });
        }
        self.missing.push(SkippedInvitee { invitee, why });
        None
    }

    /// Lets go of packages that were lost to others: other ones are to be asked for.
    pub(super) fn lose(&mut self, lost: &[KeyPackageRef]) {
        let kept = std::mem::take(&mut self.kept).into_iter();
        let (gone, kept): (Vec<ReservedPackage>, Vec<ReservedPackage>) =
            kept.partition(|kept| lost.contains(&kept.keypackage_ref));
        self.kept = kept;
        for ReservedPackage { owner, tries, .. } in gone {
            let why = SkipReason::ReservationLost { attempts: tries.saturating_add(1) };
            let again = self.retry(owner.into(), tries, why);
            self.wanted.extend(again);
        }
        self.begin_round();
    }

    /// Counts all who are not added yet as missing.
    pub(super) fn miss(&mut self, wanted: Vec<PendingInvitee>, why: &SkipReason) {
        let kept = std::mem::take(&mut self.kept).into_iter();
        let wanted = wanted.into_iter().map(|wanted| wanted.invitee);
        let all = kept.map(|kept| Invitee::from(kept.owner)).chain(wanted);
        self.missing.extend(all.map(|invitee| SkippedInvitee { invitee, why: why.clone() }));
    }

    /// Asks anew, if there is somebody to ask for.
    pub(super) fn begin_round(&mut self) {
        if !self.wanted.is_empty() {
            self.round = self.round.saturating_add(1);
        }
    }

    /// Counts the owners of the kept packages as added, but for those whose packages were lost.
    pub(super) fn note_added(&mut self, lost: &[KeyPackageRef]) {
        let is_there = |kept: &&ReservedPackage| !lost.contains(&kept.keypackage_ref);
        let device = |kept: &ReservedPackage| InvitedDevice {
            device: kept.owner.clone(),
            keypackage_ref: kept.keypackage_ref.clone(),
            last_resort: kept.last_resort,
        };
        self.added.extend(self.kept.iter().filter(is_there).map(device));
    }

    /// The id of the request that takes a step, the same each time it is repeated.
    pub(super) fn command(&self, step: &str) -> CommandId {
        CommandId(self.derived(step))
    }

    /// As [`Invitation::command`], for a step that is taken for each package.
    pub(super) fn command_for(&self, step: &str, kept: &ReservedPackage) -> CommandId {
        self.command(&format!("{step} {}", kept.reservation))
    }

    /// An id that follows from the invitation's random one and the step.
    fn derived(&self, step: &str) -> Uuid {
        let name = format!("{} {step}", self.id);
        let mut bytes = [0; 16];
        bytes
            .iter_mut()
            .zip(Hash::of(name.as_bytes()).as_bytes())
            .for_each(|(to, from)| *to = *from);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    pub(super) fn record_name(&self) -> String {
        format!("{RECORD_PREFIX}{}", self.id)
    }

    /// The invitees, as they were asked for.
    pub(super) fn target(&self) -> String {
        let names: Vec<String> = self.invitees.iter().map(ToString::to_string).collect();
        names.join(", ")
    }
}

impl ReservedPackage {
    pub(super) fn claim(&self) -> ClaimRequest {
        let keypackage_ref = self.keypackage_ref.clone();
        ClaimRequest { keypackage_ref, reservation_id: self.reservation }
    }

    pub(super) fn offer(&self) -> OfferedPackage {
        let (keypackage_ref, owner) = (self.keypackage_ref.clone(), self.owner.clone());
        OfferedPackage { keypackage_ref, owner, bytes: self.bytes.clone() }
    }
}
