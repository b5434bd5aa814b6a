//! A group: its epoch, its members, and the rules of its Commits.

use std::collections::BTreeSet;

use imbl::OrdSet;
use keypool_ledger::{Event, GroupId, InvitationAnswer, LeaveCause, PoolId, WelcomeFault};

use super::{DeliveryLimits, DeliveryRejection, invitation::PendingInvitations, sender_of};
use crate::packing::{Packer, Unpacker};

/// The fold of a group's events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    version: u64,
    epoch: u64,
    members: OrdSet<PoolId>,
    /// Whether it was made by `GroupMade`: groups from before that began with their first Commit.
    made: bool,
    invitations: PendingInvitations,
}

/// The members that a Commit adds and removes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipChange {
    /// The devices whose packages it uses.
    pub added: Vec<PoolId>,
    /// The devices that it removes, by the committer's word.
    pub removed: Vec<PoolId>,
}

impl GroupState {
    /// How many events the group has had; 0 for a group without a history.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The epoch the group is in: the next Commit must be for it.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a device made the group, and not its first Commit, as in logs from before.
    #[must_use]
    pub const fn is_made(&self) -> bool {
        self.made
    }

    /// The members, in order.
    pub fn members(&self) -> impl Iterator<Item = &PoolId> {
        self.members.iter()
    }

    /// Whether a device is a member.
    #[must_use]
    pub fn has_member(&self, device: &PoolId) -> bool {
        self.members.contains(device)
    }

    /// The devices that receive an event of the group: the members of that moment without the sender,
    /// the new members that a Welcome is for, or the inviter that an answer is for.
    pub fn recipients<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = &'a PoolId> {
        let sender = sender_of(event);
        let members = sender.is_some().then(|| self.members.iter()).into_iter().flatten();
        let invited: &[PoolId] = match event {
            Event::Welcomed { to, .. } => to,
            _ => &[],
        };
        let told = match event {
            Event::InvitationAnswered { device, .. } => self.invitations.told_by(device),
            _ => None,
        };
        members.filter(move |member| Some(*member) != sender).chain(invited).chain(told)
    }

    /// The devices that an event makes members, each with the device that added it; `None` for the
    /// device that made the group, or began it with the first Commit.
    #[must_use]
    pub(super) fn joining(&self, event: &Event) -> Vec<(PoolId, Option<PoolId>)> {
        match event {
            Event::GroupMade { creator } => vec![(creator.clone(), None)],
            Event::Committed { committer, added, .. } => {
                let begins = (!self.has_member(committer)).then(|| (committer.clone(), None));
                let added = added.iter().map(|device| (device.clone(), Some(committer.clone())));
                begins.into_iter().chain(added).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Takes in one event of the group.
    pub fn evolve(&mut self, event: &Event) {
        self.version = self.version.saturating_add(1);
        match event {
            Event::GroupMade { creator } => {
                self.made = true;
                self.members.insert(creator.clone());
            }
            Event::Committed { epoch, committer, added, removed, .. } => {
                self.epoch = epoch.saturating_add(1);
                self.members.insert(committer.clone());
                self.invitations.note_posted(committer);
                for gone in removed {
                    self.end_membership(gone);
                }
                // A device whose old leaf is removed may be added by the same Commit.
                self.members.extend(added.iter().cloned());
            }
            Event::Welcomed { to, by: Some(inviter) } => self.invitations.invite(inviter, to),
            Event::InvitationAnswered { device, .. } => self.invitations.remove(device),
            Event::Posted { sender, .. } => self.invitations.note_posted(sender),
            Event::Left { device, .. } => self.end_membership(device),
            _ => {}
        }
    }

    /// Takes in that a device is no member any more: its own history says so.
    pub fn end_membership(&mut self, device: &PoolId) {
        self.members.remove(device);
        self.invitations.end_membership(device);
    }

    /// Decides whether a device may make the group.
    ///
    /// # Errors
    ///
    /// Returns [`DeliveryRejection::GroupExists`] if it has a history.
    pub fn decide_make(
        &self,
        group: &GroupId,
        creator: &PoolId,
    ) -> Result<Event, DeliveryRejection> {
        if 0 < self.version {
            return Err(DeliveryRejection::GroupExists(group.clone()));
        }
        Ok(Event::GroupMade { creator: creator.clone() })
    }

    /// Decides whether a device's Commit is the first for its epoch, and may change the members so.
    ///
    /// # Errors
    ///
    /// Returns a [`DeliveryRejection`] if another was first, the device is no member, or the change is
    /// larger than one Commit may make.
    pub fn decide_commit(
        &self,
        group: &GroupId,
        committer: &PoolId,
        epoch: u64,
        change: &MembershipChange,
        limits: &DeliveryLimits,
    ) -> Result<Event, DeliveryRejection> {
        self.check_member(group, committer)?;
        let current = self.epoch;
        if epoch < current {
            return Err(DeliveryRejection::EpochTaken { group: group.clone(), epoch, current });
        }
        // No epoch follows the last number there is: a Commit for it would be accepted for ever.
        if current < epoch || epoch == u64::MAX {
            return Err(DeliveryRejection::EpochAhead { group: group.clone(), epoch, current });
        }
        self.check_removals(committer, change)?;
        let added = change.added.clone();
        // Only members can be removed: other names would be stored and told for nothing. A device that is
        // added again is one in MLS, whether or not it has left the delivery meanwhile.
        let is_meant = |gone: &&PoolId| self.has_member(gone) || added.contains(gone);
        let gone: BTreeSet<&PoolId> = change.removed.iter().filter(is_meant).collect();
        let staying = self.members.iter().filter(|member| !gone.contains(member)).count();
        if limits.members_max < staying.saturating_add(added.len()) {
            return Err(DeliveryRejection::TooManyMembers(limits.members_max));
        }
        let removed = gone.into_iter().cloned().collect();
        let (committer, not_kept) = (committer.clone(), Vec::new());
        Ok(Event::Committed { epoch, committer, added, removed, not_kept })
    }

    /// Half of the other users at most, and one in any case, and never the committer itself. The server
    /// cannot read a Commit: without a bound one member could silence all others by a claim. A device that
    /// the same Commit adds again is silenced by none.
    fn check_removals(
        &self,
        committer: &PoolId,
        MembershipChange { added, removed }: &MembershipChange,
    ) -> Result<(), DeliveryRejection> {
        if removed.contains(committer) {
            return Err(DeliveryRejection::RemovesItself(committer.clone()));
        }
        let is_other = |device: &&PoolId| device.user() != committer.user();
        let users = |devices: &mut dyn Iterator<Item = &PoolId>| {
            devices.filter(is_other).map(|device| device.user().to_owned()).collect::<BTreeSet<_>>()
        };
        let others = users(&mut self.members.iter()).len();
        let is_silenced = |device: &&PoolId| self.has_member(device) && !added.contains(device);
        let gone = users(&mut removed.iter().filter(is_silenced)).len();
        let max = (others / 2).max(1);
        if max < gone { Err(DeliveryRejection::RemovesTooMany { max }) } else { Ok(()) }
    }

    /// Decides whether a device may post a message.
    ///
    /// # Errors
    ///
    /// Returns a [`DeliveryRejection`] if it is no member.
    pub fn decide_post(
        &self,
        group: &GroupId,
        sender: &PoolId,
    ) -> Result<Event, DeliveryRejection> {
        self.check_member(group, sender)?;
        Ok(Event::Posted { sender: sender.clone(), not_kept: Vec::new() })
    }

    /// The devices that owe an answer to the Welcomes by which they were invited, in order.
    pub fn unanswered(&self) -> impl Iterator<Item = &PoolId> {
        self.invitations.invitees()
    }

    /// Decides the answer of a device that has joined; `None` if it owes none.
    #[must_use]
    pub fn decide_joined(&self, device: &PoolId) -> Option<Event> {
        self.invitations.answered(device, InvitationAnswer::Joined)
    }

    /// Decides the answer of a device that could not join from its Welcome, whose membership ends with it;
    /// nothing if the device owes no answer.
    #[must_use]
    pub fn decide_failed(&self, device: &PoolId, reason: WelcomeFault) -> Vec<Event> {
        let answer = InvitationAnswer::Failed { reason };
        let Some(answer) = self.invitations.answered(device, answer) else { return Vec::new() };
        vec![answer, Event::Left { device: device.clone(), cause: LeaveCause::Failed }]
    }

    /// Decides that a device leaves, by itself or because it did not accept the group in time: in front of
    /// that comes the answer that it owes. Nothing if it is no member.
    #[must_use]
    pub fn decide_leave(&self, device: &PoolId, cause: LeaveCause) -> Vec<Event> {
        if !self.has_member(device) {
            return Vec::new();
        }
        let answer = match cause {
            _ if self.invitations.has_posted(device) => InvitationAnswer::Joined,
            LeaveCause::Ignored => InvitationAnswer::Expired,
            LeaveCause::Left | LeaveCause::Failed => InvitationAnswer::Declined,
        };
        let left = Event::Left { device: device.clone(), cause };
        self.invitations.answered(device, answer).into_iter().chain([left]).collect()
    }

    fn check_member(&self, group: &GroupId, member: &PoolId) -> Result<(), DeliveryRejection> {
        if self.version == 0 {
            return Err(DeliveryRejection::UnknownGroup(group.clone()));
        }
        if self.has_member(member) {
            return Ok(());
        }
        Err(DeliveryRejection::NotAMember { group: group.clone(), member: member.clone() })
    }

    /// The state as bytes, for a snapshot.
    pub fn pack(&self, out: &mut Packer) {
        out.number(self.version);
        out.number(self.epoch);
        out.flag(self.made);
        out.number(self.members.len() as u64);
        self.members.iter().for_each(|member| out.pool(member));
        self.invitations.pack(out);
    }

    /// The state that some bytes are.
    pub fn unpack(rest: &mut Unpacker<'_>) -> Option<Self> {
        let (version, epoch, made) = (rest.number()?, rest.number()?, rest.flag()?);
        let mut members = OrdSet::new();
        for _ in 0..rest.number()? {
            members.insert(rest.pool()?);
        }
        let invitations = PendingInvitations::unpack(rest)?;
        Some(Self { version, epoch, members, made, invitations })
    }
}
