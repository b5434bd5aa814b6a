//! The packages of an invitation: asked for, looked at, replaced where they cannot be used, and added.

use std::collections::{BTreeMap, BTreeSet};

use keypool_api::{Code, ReportReason, ReportRequest};
use keypool_ledger::{GroupId, KeyPackageRef, PoolId};

use super::{
    invitee::{Invitee, SkipReason, SkippedInvitee},
    inviter::{Inviter, StepOutcome, done},
    record::{Addition, Invitation, InvitationStep, PendingInvitee, ReservedPackage},
    records::dead_leaves_on,
};
use crate::{
    AddError, CommitPost, DeliveryService, ExchangeError, InviteError, PackageCheck, PeerDoubt,
    mls::{
        membership::{Sorted, device_leaves_on},
        peers::{PeerRecord, peer_record},
    },
};

/// How many targets one request names.
const TARGETS_MAX: usize = 256;

impl<D: DeliveryService> Inviter<'_, D> {
    /// Returns the invitees to reserve packages for, and those who are members already. The devices of a user
    /// are asked
    /// for only where some of them are members.
    pub(super) async fn resolve(
        &self,
        group: &GroupId,
        invitees: &[Invitee],
    ) -> Result<(Vec<PendingInvitee>, Vec<SkippedInvitee>), InviteError> {
        let members = self.living_members(group)?;
        let (mut wanted, mut missing, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        let in_doubt = self.look_up(invitees).await?;
        for invitee in invitees {
            if !seen.insert(invitee.to_string()) {
                continue;
            }
            if let Some(why) = in_doubt.get(&invitee.user) {
                let why = SkipReason::KeysChanged { why: why.clone() };
                missing.push(SkippedInvitee { invitee: invitee.clone(), why });
                continue;
            }
            let is_known = members.iter().any(|member| member.user() == invitee.user);
            let found = match (invitee.pool(), &invitee.device) {
                (Err(error), _) => Err(SkipReason::InvalidName { said: error.to_string() }),
                (Ok(_), None) if is_known => self.others_of(invitee, &members).await?,
                (Ok(_), _) => Ok(vec![invitee.clone()]),
            };
            match found {
                Ok(found) => wanted.extend(found.into_iter().map(PendingInvitee::new)),
                Err(why) => missing.push(SkippedInvitee { invitee: invitee.clone(), why }),
            }
        }
        Ok((wanted, missing))
    }

    /// The devices in a group, without those that could not join and are replaced when they are invited again.
    fn living_members(&self, group: &GroupId) -> Result<BTreeSet<PoolId>, InviteError> {
        // Refuses a group that the device is not in.
        self.membership.epoch(group)?;
        let staged = self.store.stage()?;
        let dead = dead_leaves_on(&staged, group)?;
        let leaves = device_leaves_on(&staged, self.connection.identity(), group)?.into_iter();
        Ok(leaves.filter(|(_, mark)| !dead.contains(mark)).map(|(device, _)| device).collect())
    }

    /// Declares the keys and the credential by which the invitees will know this device's leaf, and looks the invitees' users up.
    /// Returns those whose keys do not follow from the known ones.
    async fn look_up(
        &self,
        invitees: &[Invitee],
    ) -> Result<BTreeMap<String, PeerDoubt>, InviteError> {
        let named = invitees.iter().filter(|invitee| invitee.pool().is_ok());
        let users: BTreeSet<String> = named.map(|invitee| invitee.user.clone()).collect();
        let declare_and_look_up = async || {
            self.connection.declare_leaf_keys().await?;
            self.connection.declare_credential(self.now).await?;
            self.connection.fetch_peers(&users, self.now).await
        };
        match declare_and_look_up().await {
            Ok(()) => {}
            Err(ExchangeError::Api(error)) => return Err(InviteError::from_api(error)),
            Err(ExchangeError::Storage(error)) => return Err(error.into()),
        }
        let staged = self.store.stage()?;
        let mut in_doubt = BTreeMap::new();
        for user in users {
            let record = peer_record(&staged, &user)?;
            if let Some(why) = record.as_ref().and_then(PeerRecord::doubt) {
                in_doubt.insert(user, why.clone());
            }
        }
        Ok(in_doubt)
    }

    /// The devices of a user that are no members.
    async fn others_of(
        &self,
        invitee: &Invitee,
        members: &BTreeSet<PoolId>,
    ) -> Result<Result<Vec<Invitee>, SkipReason>, InviteError> {
        let devices = match self.connection.api().devices_of(&invitee.user).await {
            Ok(devices) => devices,
            Err(error) if error.code() == Some(Code::UnknownUser) => {
                return Ok(Err(SkipReason::UnknownUser));
            }
            Err(error) => return Err(InviteError::from_api(error)),
        };
        let others = devices.into_iter().filter(|device| !members.contains(device));
        let others: Vec<Invitee> = others.map(Invitee::from).collect();
        Ok(if others.is_empty() { Err(SkipReason::AlreadyMember) } else { Ok(others) })
    }

    /// Reserving: packages are set aside for those who are wanted; once nobody is, they are added.
    pub(super) async fn reserve_and_add(
        &self,
        invitation: &mut Invitation,
    ) -> Result<StepOutcome, InviteError> {
        if invitation.wanted.is_empty() {
            return self.add(invitation).await;
        }
        let suite = self.membership.ciphersuite(&invitation.group)?;
        let wanted = std::mem::take(&mut invitation.wanted);
        for (part, some) in wanted.chunks(TARGETS_MAX).enumerate() {
            let (request, id) = invitation.request(part, some, suite);
            match self.connection.api().reserve_many(&request, id).await {
                Ok(reply) => {
                    let again = invitation.take_in(some, reply);
                    invitation.wanted.extend(again);
                }
                Err(error) => {
                    // Nothing is posted: giving up costs reservations alone, which lapse.
                    invitation.wanted = wanted;
                    let why = error.code().map_or(SkipReason::Unanswered, SkipReason::from);
                    self.forget(invitation, &why)?;
                    if !error.is_unanswered() {
                        self.release_all(invitation).await;
                    }
                    if invitation.added.is_empty() {
                        return Err(InviteError::from_api(error));
                    }
                    let wanted = std::mem::take(&mut invitation.wanted);
                    invitation.miss(wanted, &why);
                    return done(invitation);
                }
            }
        }
        invitation.begin_round();
        self.put(self.store.stage()?, invitation, InvitationStep::Reserving).map(StepOutcome::At)
    }

    /// Adds all kept packages in a Commit that nobody sees yet. Packages that cannot be added are replaced
    /// first.
    async fn add(&self, invitation: &mut Invitation) -> Result<StepOutcome, InviteError> {
        if invitation.kept.is_empty() {
            self.forget(invitation, &SkipReason::Unanswered)?;
            return done(invitation);
        }
        let offers: Vec<_> = invitation.kept.iter().map(ReservedPackage::offer).collect();
        let sorted = {
            let staged = self.store.stage()?;
            let group = &invitation.group;
            let dead = dead_leaves_on(&staged, group)?;
            match self.membership.stage_good_on(&staged, group, (&offers, &dead), self.now) {
                Ok(Sorted { made: Some(made), bad }) if bad.is_empty() => {
                    let keys = made.signature_keys.into_iter();
                    let addition = Addition {
                        commit: CommitPost {
                            group: group.clone(),
                            epoch: made.epoch,
                            commit: made.commit,
                            removed: made.removed,
                            added: Vec::new(),
                            welcome: Vec::new(),
                        },
                        welcome: made.welcome,
                        leaves: made.keypackage_refs.into_iter().zip(keys).collect(),
                    };
                    return self
                        .put(staged, invitation, InvitationStep::Added(addition))
                        .map(StepOutcome::At);
                }
                Ok(Sorted { bad, .. }) => Ok(bad),
                Err(error) => Err(error),
            }
        };
        match sorted {
            Ok(bad) => {
                self.dispose(invitation, bad).await;
                self.put(self.store.stage()?, invitation, InvitationStep::Reserving)
                    .map(StepOutcome::At)
            }
            Err(error) => {
                self.end(invitation, &error).await?;
                Err(error.into())
            }
        }
    }

    /// Gives packages that cannot be added back, or reports them, so that others are asked for.
    async fn dispose(&self, invitation: &mut Invitation, bad: Vec<(KeyPackageRef, AddError)>) {
        for (keypackage_ref, error) in bad {
            let is_it = |kept: &ReservedPackage| kept.keypackage_ref == keypackage_ref;
            let Some(place) = invitation.kept.iter().position(is_it) else { continue };
            let kept = invitation.kept.remove(place);
            let short = keypackage_ref.short();
            tracing::info!(%error, keypackage_ref = short, "a package cannot be added");
            let invitee = Invitee::from(kept.owner.clone());
            let check = match error {
                AddError::PackageRejected { check, .. } => Some(check),
                AddError::AlreadyMember { .. } => {
                    invitation
                        .missing
                        .push(SkippedInvitee { invitee, why: SkipReason::AlreadyMember });
                    self.release(invitation, &kept).await;
                    continue;
                }
                AddError::SameDevice { .. } | AddError::Group(_) => None,
            };
            match check.and_then(reported_as) {
                Some(reason) => self.report(invitation, &kept, reason).await,
                None => self.release(invitation, &kept).await,
            }
            let Some(check) = check else { continue };
            let why = SkipReason::PackageRejected { check };
            if matches!(
                check,
                PackageCheck::Group
                    | PackageCheck::Ciphersuite
                    | PackageCheck::Directory
                    | PackageCheck::Clock
            ) {
                // Another package of the device would do no better.
                invitation.missing.push(SkippedInvitee { invitee, why });
            } else {
                let again = invitation.retry(invitee, kept.tries, why);
                invitation.wanted.extend(again);
            }
        }
        invitation.begin_round();
    }

    /// Reports a package. If that fails its reservation lapses, and the next inviter reports it.
    async fn report(&self, invitation: &Invitation, kept: &ReservedPackage, reason: ReportReason) {
        let request = ReportRequest {
            keypackage_ref: kept.keypackage_ref.clone(),
            reservation_id: kept.reservation,
            reason: Some(reason),
        };
        let id = invitation.command_for("report", kept);
        if let Err(error) = self.connection.api().report(&request, id).await {
            let keypackage_ref = kept.keypackage_ref.short();
            tracing::warn!(%error, keypackage_ref, "a package was not reported");
        }
    }
}

/// The reason to report for a package that failed a check. A wrong clock here, or a group that cannot take its
/// owner, is no fault of the package.
const fn reported_as(check: PackageCheck) -> Option<ReportReason> {
    match check {
        PackageCheck::Encoding => Some(ReportReason::Encoding),
        PackageCheck::Reference => Some(ReportReason::Reference),
        PackageCheck::Identity => Some(ReportReason::Identity),
        PackageCheck::Validity => Some(ReportReason::Validity),
        PackageCheck::Keys => Some(ReportReason::Keys),
        PackageCheck::Lifetime
        | PackageCheck::Clock
        | PackageCheck::Ciphersuite
        | PackageCheck::Group
        | PackageCheck::Directory => None,
    }
}
