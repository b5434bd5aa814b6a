//! Groups and mailboxes as their events have left them, and the rules of the delivery. Pure.
//!
//! A group is an order of Commits: the first for an epoch wins. Whoever the accepted Commits have made
//! a member may post, and what is posted waits in the mailbox of every other member's device, in the
//! order of the log, until the device has acknowledged it.

use std::time::Duration;

use imbl::{OrdSet, Vector};
use keypool_ledger::{Event, GroupId, PoolId, Timestamp};

use crate::packing::{Packer, Unpacker};

/// The numbers that bound a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryLimits {
    /// How many messages wait in a mailbox.
    pub messages_max: usize,
    /// How many bytes wait in a mailbox.
    pub bytes_max: u64,
    /// How long a message waits.
    pub age_max: Duration,
}

impl DeliveryLimits {
    /// The defaults: 10,000 messages, 64 MiB, 30 days.
    pub const STANDARD: Self = Self {
        messages_max: 10_000,
        bytes_max: 64 * 1024 * 1024,
        age_max: Duration::from_hours(720),
    };
}

/// The fold of a group's events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    version: u64,
    epoch: u64,
    members: OrdSet<PoolId>,
}

/// The fold of what was posted to a device and what it has acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailboxState {
    version: u64,
    waiting: Vector<Waiting>,
    bytes: u64,
    acknowledged: u64,
    overrun: bool,
}

/// Something that waits in a mailbox: where it stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The position of its record.
    pub position: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// When it was posted.
    pub at: Timestamp,
}

/// Why the delivery refuses a command. Nothing has changed when one is returned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryRejection {
    /// The group has no history here: its first Commit makes one.
    #[error("group {0} is not known here")]
    UnknownGroup(GroupId),
    /// The device is not a member by any Commit that was accepted.
    #[error("{member} is not a member of group {group}")]
    NotAMember {
        /// The group.
        group: GroupId,
        /// Who asked.
        member: PoolId,
    },
    /// Another Commit was accepted for the epoch.
    #[error("a Commit for epoch {epoch} was accepted already; group {group} is in epoch {current}")]
    EpochTaken {
        /// The group.
        group: GroupId,
        /// The epoch that was to be ended.
        epoch: u64,
        /// The epoch the group is in.
        current: u64,
    },
    /// The group has not come to the epoch yet.
    #[error("group {group} is in epoch {current}; a Commit for epoch {epoch} is too early")]
    EpochAhead {
        /// The group.
        group: GroupId,
        /// The epoch that was to be ended.
        epoch: u64,
        /// The epoch the group is in.
        current: u64,
    },
    /// The Welcomes are not for exactly the packages that are spent.
    #[error("the Welcomes are not for exactly the packages that are spent")]
    WelcomeMismatch,
    /// Two of the packages are one device's: a Commit takes one.
    #[error("two of the packages are of {0}; one Commit takes one of them")]
    SameDevice(PoolId),
    /// The position lies beyond what the mailbox was ever given.
    #[error("position {0} was never given out")]
    NeverGiven(u64),
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

    /// The devices that the accepted Commits have made members, in order.
    pub fn members(&self) -> impl Iterator<Item = &PoolId> {
        self.members.iter()
    }

    /// Whether a device is a member.
    #[must_use]
    pub fn has_member(&self, device: &PoolId) -> bool {
        self.members.contains(device)
    }

    /// Who is to receive what an event says: the members of that moment but the one who sent it, or the
    /// new members a Welcome is for.
    #[must_use]
    pub fn recipients(&self, event: &Event) -> Vec<PoolId> {
        match event {
            Event::Committed { committer: sender, .. } | Event::Posted { sender, .. } => {
                self.members.iter().filter(|member| *member != sender).cloned().collect()
            }
            Event::Welcomed { to } => to.clone(),
            _ => Vec::new(),
        }
    }

    /// Takes in one event of the group.
    pub fn evolve(&mut self, event: &Event) {
        self.version = self.version.saturating_add(1);
        if let Event::Committed { epoch, committer, added, removed, .. } = event {
            self.epoch = epoch.saturating_add(1);
            self.members.insert(committer.clone());
            self.members.extend(added.iter().cloned());
            for gone in removed {
                self.members.remove(gone);
            }
        }
    }

    /// Decides whether a device's Commit is the first for its epoch. The first Commit of a group with no
    /// history makes the group, and its sender the first member.
    ///
    /// # Errors
    ///
    /// Returns a [`DeliveryRejection`] if another was first, or the device is no member.
    pub fn decide_commit(
        &self,
        group: &GroupId,
        committer: &PoolId,
        epoch: u64,
        (added, removed): (Vec<PoolId>, Vec<PoolId>),
    ) -> Result<Event, DeliveryRejection> {
        if 0 < self.version {
            self.check_member(group, committer)?;
            let (group, current) = (group.clone(), self.epoch);
            if epoch < current {
                return Err(DeliveryRejection::EpochTaken { group, epoch, current });
            }
            if current < epoch {
                return Err(DeliveryRejection::EpochAhead { group, epoch, current });
            }
        }
        Ok(Event::Committed {
            epoch,
            committer: committer.clone(),
            added,
            removed,
            not_kept: Vec::new(),
        })
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

    fn check_member(&self, group: &GroupId, member: &PoolId) -> Result<(), DeliveryRejection> {
        if self.version == 0 {
            return Err(DeliveryRejection::UnknownGroup(group.clone()));
        }
        if self.has_member(member) {
            return Ok(());
        }
        Err(DeliveryRejection::NotAMember { group: group.clone(), member: member.clone() })
    }
}

impl MailboxState {
    /// How many events the device's own history of it has had.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// What waits, in the order of the log, after a position.
    pub fn after(&self, position: u64) -> impl Iterator<Item = &Waiting> {
        let found = self.waiting.binary_search_by_key(&position, |waiting| waiting.position);
        let start = found.map_or_else(|place| place, |place| place + 1);
        self.waiting.iter().skip(start)
    }

    /// The position up to which the device has everything.
    #[must_use]
    pub const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether something was not kept, because the mailbox was over its limits.
    #[must_use]
    pub const fn is_overrun(&self) -> bool {
        self.overrun
    }

    /// Keeps something for the device, unless the mailbox is overrun.
    pub fn deliver(&mut self, waiting: Waiting) {
        if !self.overrun {
            self.bytes = self.bytes.saturating_add(waiting.bytes);
            self.waiting.push_back(waiting);
        }
    }

    /// Takes in one event of the device's own history of its mailbox.
    pub fn evolve(&mut self, event: &Event) {
        self.version = self.version.saturating_add(1);
        match event {
            Event::Acknowledged { through, overrun, .. } => {
                self.acknowledged = self.acknowledged.max(*through);
                self.drop_through(*through);
                self.overrun &= !overrun;
            }
            Event::Overrun { dropped_through, .. } => {
                self.drop_through(*dropped_through);
                self.overrun = true;
            }
            _ => {}
        }
    }

    fn drop_through(&mut self, position: u64) {
        while let Some(first) = self.waiting.front().filter(|first| first.position <= position) {
            self.bytes = self.bytes.saturating_sub(first.bytes);
            self.waiting.pop_front();
        }
    }

    /// Decides what an acknowledgement changes; `None` if nothing. `overrun` says that the device has been
    /// told that something was not kept; until then the mailbox stays overrun.
    ///
    /// # Errors
    ///
    /// Returns [`DeliveryRejection::NeverGiven`] if the position lies beyond `last`, the last of the log.
    pub fn decide_acknowledge(
        &self,
        through: u64,
        overrun: bool,
        last: u64,
    ) -> Result<Option<Event>, DeliveryRejection> {
        if last < through {
            return Err(DeliveryRejection::NeverGiven(through));
        }
        let told = overrun && self.overrun;
        let changes = told || self.waiting.front().is_some_and(|w| w.position <= through);
        Ok(changes.then_some(Event::Acknowledged {
            through,
            overrun: told,
            accepted: Vec::new(),
            told: Vec::new(),
        }))
    }

    /// What becomes of a mailbox that is given `bytes` more at `now`; `None` if it has room.
    ///
    /// Nothing is dropped without a word: an overrun is an event, and the device is told before it gets
    /// anything that came afterwards.
    #[must_use]
    pub fn decide_overrun(
        &self,
        bytes: u64,
        now: Timestamp,
        limits: &DeliveryLimits,
    ) -> Option<Event> {
        if self.overrun {
            return None;
        }
        let full = limits.messages_max <= self.waiting.len()
            || limits.bytes_max < self.bytes.saturating_add(bytes);
        let too_old = |waiting: &&Waiting| waiting.at.after(limits.age_max) <= now;
        let dropped_through = self.waiting.iter().take_while(too_old).last();
        let dropped_through = dropped_through.map(|waiting| waiting.position);
        if !full && dropped_through.is_none() {
            return None;
        }
        Some(Event::Overrun {
            dropped_through: dropped_through.unwrap_or_default(),
            group: None,
            sender: None,
        })
    }
}

impl GroupState {
    /// The state as bytes, for a snapshot.
    pub(crate) fn pack(&self, out: &mut Packer) {
        out.number(self.version);
        out.number(self.epoch);
        out.number(self.members.len() as u64);
        self.members.iter().for_each(|member| out.pool(member));
    }

    /// The state that some bytes are.
    pub(crate) fn unpack(rest: &mut Unpacker<'_>) -> Option<Self> {
        let (version, epoch) = (rest.number()?, rest.number()?);
        let mut members = OrdSet::new();
        for _ in 0..rest.number()? {
            members.insert(rest.pool()?);
        }
        Some(Self { version, epoch, members })
    }
}

impl MailboxState {
    /// The state as bytes, for a snapshot.
    pub(crate) fn pack(&self, out: &mut Packer) {
        out.number(self.version);
        out.number(self.acknowledged);
        out.flag(self.overrun);
        out.number(self.waiting.len() as u64);
        let mut before = 0;
        for Waiting { position, bytes, at } in &self.waiting {
            out.number(position.saturating_sub(before));
            out.number(*bytes);
            out.number(at.as_millis());
            before = *position;
        }
    }

    /// The state that some bytes are.
    pub(crate) fn unpack(rest: &mut Unpacker<'_>) -> Option<Self> {
        let mut state =
            Self { version: rest.number()?, acknowledged: rest.number()?, ..Self::default() };
        state.overrun = rest.flag()?;
        let mut position = 0_u64;
        for _ in 0..rest.number()? {
            position = position.checked_add(rest.number()?)?;
            let waiting = Waiting { position, bytes: rest.number()?, at: rest.time()? };
            state.bytes = state.bytes.checked_add(waiting.bytes)?;
            state.waiting.push_back(waiting);
        }
        Some(state)
    }
}
