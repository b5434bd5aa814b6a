//! A mailbox: the messages that wait for a device, and the budget of each group in it.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet, Vector};
use keypool_ledger::{Event, GroupId, PoolId, Timestamp};

use super::{
    AwaitTarget, DeliveryLimits, DeliveryRejection, Waiting, WaitingKind,
    group_budget::GroupBudget, waiting_list::WaitingList,
};
use crate::packing::{Packer, Unpacker};

/// The messages that wait for a device and its acknowledgements, folded from the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailboxState {
    version: u64,
    pub(super) waiting: Vector<Waiting>,
    acknowledged: u64,
    /// The position of the device's last Commit, message or made group.
    last_posted: u64,
    /// Whether the whole mailbox keeps nothing more: only in logs from before budgets of groups.
    pub(super) overrun: bool,
    pub(super) groups: OrdMap<GroupId, GroupBudget>,
    blocked: OrdSet<Arc<str>>,
    pub(super) list: WaitingList,
}

/// Whether a mailbox keeps a message, and the events to record before that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeepDecision {
    /// Whether it does.
    pub kept: bool,
    /// Whether it does not because its owner has blocked the sender, who is not told.
    pub blocked: bool,
    /// The parts of the mailbox that are closed from now on.
    pub closing: Vec<Event>,
}

/// A part of a mailbox that is closed until its device was told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Closed {
    /// The group.
    pub group: GroupId,
    /// The sender whose messages were not kept; `None` if nothing of the group was.
    pub sender: Option<PoolId>,
}

impl MailboxState {
    /// How many events the device's own history of it has had.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The messages that wait after a position, in the order of the log.
    pub fn after(&self, position: u64) -> impl Iterator<Item = &Waiting> {
        let found = self.waiting.binary_search_by_key(&position, |waiting| waiting.position);
        let start = found.map_or_else(|place| place, |place| place + 1);
        self.waiting.iter().skip(start)
    }

    /// The awaited devices that have something to hand out, until this one says that it was told.
    pub fn available(&self) -> impl Iterator<Item = &PoolId> {
        self.list.available()
    }

    /// The moment until which the device waits for packages of another; `None` if it does not.
    #[must_use]
    pub fn awaits(&self, device: &PoolId, now: Timestamp) -> Option<Timestamp> {
        self.list.awaits(device, now)
    }

    /// Whether as many strangers wait for packages of the device as may.
    #[must_use]
    pub fn has_many_awaiters(&self, now: Timestamp, limits: &DeliveryLimits) -> bool {
        limits.awaiters_max <= self.list.strangers(now)
    }

    /// Decides that the device waits for packages of others, and no longer for some, whose places are free
    /// for the new ones. Nothing is recorded for devices that it waits for already.
    ///
    /// # Errors
    ///
    /// Returns [`DeliveryRejection::WaitingListFull`] if it would wait for too many.
    pub fn decide_await(
        &self,
        targets: &[AwaitTarget],
        stop: &[PoolId],
        now: Timestamp,
        limits: &DeliveryLimits,
    ) -> Result<Vec<Event>, DeliveryRejection> {
        self.list.decide(targets, stop, now, limits)
    }

    /// How many messages wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no message waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The position of the device's last Commit, message or made group; 0 if there is none since it was
    /// registered.
    #[must_use]
    pub const fn last_posted(&self) -> u64 {
        self.last_posted
    }

    /// The position up to which the device has everything; 0 if it has acknowledged nothing since it was
    /// registered.
    #[must_use]
    pub const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether the whole mailbox keeps nothing more, as logs from before budgets of groups have it.
    #[must_use]
    pub const fn is_overrun(&self) -> bool {
        self.overrun
    }

    /// The groups and senders of which something was not kept and the device is still to be told.
    pub fn closed(&self) -> impl Iterator<Item = Closed> + '_ {
        self.groups.iter().flat_map(|(group, budget)| {
            let whole = budget.closed.then_some(None).into_iter();
            let senders = budget.closed_senders.iter().cloned().map(Some);
            whole.chain(senders).map(|sender| Closed { group: group.clone(), sender })
        })
    }

    /// The groups in which the device is a member, accepted or not.
    pub fn groups(&self) -> impl Iterator<Item = &GroupId> {
        self.groups.iter().filter(|(_, budget)| !budget.ended).map(|(group, _)| group)
    }

    /// Whether the device has not accepted a group yet, and the time for that is over at `now`.
    #[must_use]
    pub fn has_ignored(&self, group: &GroupId, now: Timestamp, limits: &DeliveryLimits) -> bool {
        let invited = self.groups.get(group).and_then(|budget| budget.invited.as_ref());
        invited.is_some_and(|(_, since)| since.after(limits.invitation_age_max) <= now)
    }

    /// The groups that the device has not accepted, and the time for that is over at `now`.
    pub fn ignored<'a>(
        &'a self,
        now: Timestamp,
        limits: &'a DeliveryLimits,
    ) -> impl Iterator<Item = &'a GroupId> {
        self.groups.keys().filter(move |group| self.has_ignored(group, now, limits))
    }

    /// Decides whether a device may be added to a group by another. An invitation to the same group that
    /// waits is replaced, and does not count.
    ///
    /// # Errors
    ///
    /// Returns [`DeliveryRejection::Blocked`] if its owner has blocked the user who adds it, and
    /// [`DeliveryRejection::InvitationsFull`] if too many groups wait to be accepted.
    pub fn decide_invitation(
        &self,
        device: &PoolId,
        (inviter, is_contact): (&PoolId, bool),
        group: &GroupId,
        now: Timestamp,
        limits: &DeliveryLimits,
    ) -> Result<(), DeliveryRejection> {
        if self.blocked.contains(inviter.user()) {
            return Err(DeliveryRejection::Blocked(device.clone()));
        }
        if device.user() == inviter.user() {
            return Ok(());
        }
        let open = self.groups.iter().filter(|(of, budget)| !budget.ended && *of != group);
        let by_inviter =
            open.filter_map(|(group, budget)| budget.invited.as_ref().map(|(by, _)| (group, by)));
        let (mut waiting, mut by_user) = (0_usize, 0_usize);
        for (_, by) in by_inviter.filter(|(group, _)| !self.has_ignored(group, now, limits)) {
            waiting += 1;
            by_user += usize::from(by.user() == inviter.user());
        }
        // Strangers cannot take the places of contacts.
        let is_full = !is_contact && limits.invitations_max <= waiting;
        if is_full || limits.invitations_of_user_max <= by_user {
            return Err(DeliveryRejection::InvitationsFull(device.clone()));
        }
        Ok(())
    }

    /// Decides whether a Commit or a message of a group is kept; `posted` for a message.
    ///
    /// A sender's messages have half of the group's budget, so that others' still fit; a Commit is
    /// everybody's, and counts against the whole.
    #[must_use]
    pub fn decide_keep(
        &self,
        group: &GroupId,
        (sender, posted): (&PoolId, bool),
        bytes: u64,
        now: Timestamp,
        limits: &DeliveryLimits,
    ) -> KeepDecision {
        if posted && self.blocked.contains(sender.user()) {
            return KeepDecision { blocked: true, ..KeepDecision::default() };
        }
        let empty = GroupBudget::default();
        let budget = self.groups.get(group).unwrap_or(&empty);
        if self.overrun || budget.closed || posted && budget.is_closed_to(sender) {
            return KeepDecision::default();
        }
        let mut closing = self.decide_drops(now, limits);
        let is_own =
            |event: &Event| matches!(event, Event::Overrun { group: Some(of), .. } if of == group);
        if closing.iter().any(is_own) {
            return KeepDecision { closing, ..KeepDecision::default() };
        }
        let closes = budget.decide_closing(group, (sender, posted), bytes, limits);
        let kept = closes.is_none();
        closing.extend(closes);
        KeepDecision { kept, blocked: false, closing }
    }

    /// Drops messages that have waited too long, group by group.
    fn decide_drops(&self, now: Timestamp, limits: &DeliveryLimits) -> Vec<Event> {
        let too_old = |waiting: &&Waiting| waiting.at.after(limits.age_max) <= now;
        let mut last: OrdMap<&GroupId, u64> = OrdMap::new();
        let old = self.waiting.iter().take_while(too_old);
        for waiting in old.filter(|waiting| waiting.kind != WaitingKind::Answer) {
            last.insert(&waiting.group, waiting.position);
        }
        let dropped = |(group, position): (&&GroupId, &u64)| Event::Overrun {
            dropped_through: *position,
            group: Some((*group).clone()),
            sender: None,
        };
        last.iter().map(dropped).collect()
    }

    /// Keeps an item for the device, unless its part of the mailbox is closed or its sender blocked.
    pub(super) fn deliver(&mut self, waiting: Waiting) {
        let posted = waiting.is_posted();
        let from = waiting.sender.as_ref().filter(|_| waiting.kind.may_be_blocked());
        if self.overrun || from.is_some_and(|sender| self.blocked.contains(sender.user())) {
            return;
        }
        if let Some(sender) = waiting.budgeted() {
            let budget = self.groups.entry(waiting.group.clone()).or_default();
            if budget.closed || posted && budget.is_closed_to(sender) {
                return;
            }
            if posted {
                budget.senders.entry(sender.user().into()).or_default().add(waiting.bytes);
            }
            budget.used.add(waiting.bytes);
        }
        self.waiting.push_back(waiting);
    }

    /// Takes in one event of the device's own history of its mailbox.
    pub(super) fn evolve(&mut self, event: &Event) {
        self.version = self.version.saturating_add(1);
        match event {
            Event::Acknowledged { through, overrun, accepted, told, available } => {
                self.acknowledged = self.acknowledged.max(*through);
                self.drop_where(|waiting| waiting.position <= *through);
                self.overrun &= !overrun;
                for group in accepted {
                    self.accept(group);
                }
                for group in told {
                    self.reopen(group);
                }
                for device in available {
                    self.list.note_told(device);
                }
            }
            Event::Overrun { dropped_through, group: None, .. } => {
                self.drop_where(|waiting| waiting.position <= *dropped_through);
                self.overrun = true;
            }
            Event::Overrun { dropped_through, group: Some(group), sender } => {
                let ended = self.groups.get(group).is_some_and(|budget| budget.ended);
                self.drop_where(|waiting| {
                    let is_old = waiting.position <= *dropped_through && waiting.group == *group;
                    is_old && waiting.kind != WaitingKind::Answer
                });
                // A group that has ended is kept until its device was told.
                let budget = self.groups.entry(group.clone()).or_default();
                budget.ended = ended;
                match sender {
                    Some(sender) => drop(budget.closed_senders.insert(sender.clone())),
                    None => budget.closed = true,
                }
            }
            _ => {}
        }
    }

    /// Drops messages: most often the first ones, so these are looked at first.
    fn drop_where(&mut self, is_dropped: impl Fn(&Waiting) -> bool) {
        while let Some(first) = self.waiting.front().filter(|first| is_dropped(first)).cloned() {
            self.waiting.pop_front();
            self.free(&first);
        }
        if self.waiting.iter().any(&is_dropped) {
            let (dropped, kept): (Vector<Waiting>, Vector<Waiting>) =
                self.waiting.iter().cloned().partition(&is_dropped);
            self.waiting = kept;
            dropped.iter().for_each(|waiting| self.free(waiting));
        }
    }

    /// Subtracts a message from the used part of its group's budget.
    fn free(&mut self, waiting: &Waiting) {
        let Some(budget) = self.groups.get_mut(&waiting.group) else { return };
        let Some(sender) = waiting.budgeted() else { return };
        budget.used.subtract(waiting.bytes);
        if waiting.is_posted()
            && let Some(used) = budget.senders.get_mut(sender.user())
        {
            used.subtract(waiting.bytes);
            if used.messages == 0 {
                budget.senders.remove(sender.user());
            }
        }
        if budget.ended && budget.used.messages == 0 {
            self.groups.remove(&waiting.group);
        }
    }

    /// Takes in that the device is a member of a group; `inviter` if it still has to accept that.
    pub(super) fn join(&mut self, group: &GroupId, inviter: Option<PoolId>, at: Timestamp) {
        let budget = self.groups.entry(group.clone()).or_default();
        budget.ended = false;
        budget.closed = false;
        budget.closed_senders = OrdSet::new();
        budget.invited = inviter.map(|inviter| (inviter, at));
    }

    /// Takes in that the device has accepted a group.
    pub(super) fn accept(&mut self, group: &GroupId) {
        if let Some(budget) = self.groups.get_mut(group) {
            budget.invited = None;
        }
    }

    /// Takes in the position of a Commit, a message or a made group of the device.
    pub(super) const fn note_posted(&mut self, position: u64) {
        self.last_posted = position;
    }

    fn reopen(&mut self, group: &GroupId) {
        let Some(budget) = self.groups.get_mut(group) else { return };
        budget.closed = false;
        budget.closed_senders = OrdSet::new();
        if budget.ended && budget.used.messages == 0 {
            self.groups.remove(group);
        }
    }

    /// Ends the device's membership of a group. Its waiting messages are still delivered, but a group that
    /// the device has not accepted is dropped whole, or removals would make room for ever more invitations.
    pub(super) fn end_membership(&mut self, group: &GroupId) {
        let Some(budget) = self.groups.get_mut(group) else { return };
        if budget.invited.is_some() {
            return self.leave(group);
        }
        budget.ended = true;
        budget.invited = None;
        if budget.used.messages == 0 {
            self.groups.remove(group);
        }
    }

    /// Takes in that the device has left a group: nothing of it is delivered any more.
    pub(super) fn leave(&mut self, group: &GroupId) {
        self.drop_where(|waiting| waiting.group == *group);
        self.groups.remove(group);
    }

    /// Closes the mailbox of a device that was removed, and returns the groups it was in.
    pub(super) fn close(&mut self) -> Vec<GroupId> {
        let groups = self.groups().cloned().collect();
        *self = Self { version: self.version, ..Self::default() };
        groups
    }

    pub(super) fn block(&mut self, user: &str) {
        self.blocked.insert(user.into());
    }

    pub(super) fn unblock(&mut self, user: &str) {
        self.blocked.remove(user);
    }

    /// The state as bytes, for a snapshot.
    pub fn pack(&self, out: &mut Packer) {
        out.number(self.version);
        out.number(self.acknowledged);
        out.number(self.last_posted);
        out.flag(self.overrun);
        out.number(self.blocked.len() as u64);
        self.blocked.iter().for_each(|user| out.bytes(user.as_bytes()));
        out.number(self.groups.len() as u64);
        for (group, budget) in &self.groups {
            out.bytes(group.as_bytes());
            budget.pack(out);
        }
        out.number(self.waiting.len() as u64);
        let mut before = 0;
        for waiting in &self.waiting {
            waiting.pack(before, out);
            before = waiting.position;
        }
        self.list.pack(out);
    }

    /// The state that some bytes are.
    pub fn unpack(rest: &mut Unpacker<'_>) -> Option<Self> {
        let (version, acknowledged) = (rest.number()?, rest.number()?);
        let last_posted = rest.number()?;
        let mut state = Self { version, acknowledged, last_posted, ..Self::default() };
        state.overrun = rest.flag()?;
        for _ in 0..rest.number()? {
            state.blocked.insert(rest.text()?.as_str().into());
        }
        for _ in 0..rest.number()? {
            let group = GroupId::new(rest.bytes()?).ok()?;
            state.groups.insert(group, GroupBudget::unpack(rest)?);
        }
        let mut position = 0_u64;
        for _ in 0..rest.number()? {
            let waiting = Waiting::unpack(position, rest)?;
            position = waiting.position;
            state.waiting.push_back(waiting);
        }
        state.list = WaitingList::unpack(rest)?;
        Some(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_an_ended_group_once_its_device_was_told() {
        let group = GroupId::new(b"g").unwrap();
        let (at, sender) = (Timestamp::default(), PoolId::new("alice", "main").ok());
        let mut mailbox = MailboxState::default();
        mailbox.join(&group, None, at);
        let (of, kind) = (group.clone(), WaitingKind::Message);
        mailbox.deliver(Waiting { position: 1, bytes: 1, at, group: of, sender, kind });
        mailbox.end_membership(&group);
        let of = Some(group.clone());
        mailbox.evolve(&Event::Overrun { dropped_through: 1, group: of, sender: None });
        assert_eq!((mailbox.groups.len(), mailbox.closed().count()), (1, 1));
        let (accepted, told) = (Vec::new(), vec![group]);
        mailbox.evolve(&Event::Acknowledged {
            through: 1,
            overrun: false,
            accepted,
            told,
            available: Vec::new(),
        });
        assert!(mailbox.groups.is_empty());
    }
}
