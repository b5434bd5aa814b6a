//! The budget of one group in a mailbox, and how much of it is used.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use keypool_ledger::{Event, GroupId, PoolId, Timestamp};

use super::DeliveryLimits;
use crate::packing::{Packer, Unpacker};

/// The budget of one group in a mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupBudget {
    /// The device that added this one, and when, until this one has accepted the group.
    pub(super) invited: Option<(PoolId, Timestamp)>,
    /// Whether the device is no longer a member; waiting messages are delivered all the same.
    pub(super) ended: bool,
    pub(super) used: Used,
    /// The use that each sender's messages make of it.
    pub(super) senders: OrdMap<Arc<str>, Used>,
    /// Whether nothing more of the group is kept until the device was told.
    pub(super) closed: bool,
    /// The senders whose messages are dropped until the device was told.
    pub(super) closed_senders: OrdSet<PoolId>,
}

/// How much of a budget is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) messages: usize,
    pub(super) bytes: u64,
}

impl Used {
    pub(super) fn add(&mut self, bytes: u64) {
        self.messages = self.messages.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    pub(super) fn subtract(&mut self, bytes: u64) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    const fn has_room(&self, bytes: u64, messages_max: usize, bytes_max: u64) -> bool {
        self.messages < messages_max && self.bytes.saturating_add(bytes) <= bytes_max
    }
}

impl GroupBudget {
    /// Whether nothing more of a sender is kept, nor of the other devices of that user.
    pub(super) fn is_closed_to(&self, sender: &PoolId) -> bool {
        self.closed_senders.iter().any(|closed| closed.user() == sender.user())
    }

    /// Decides whether a message closes the group's part of the mailbox, or its sender's; `None` if there
    /// is room for it.
    pub(super) fn decide_closing(
        &self,
        group: &GroupId,
        (sender, posted): (&PoolId, bool),
        bytes: u64,
        limits: &DeliveryLimits,
    ) -> Option<Event> {
        let (messages_max, bytes_max) = match self.invited {
            None => (limits.group_messages_max, limits.group_bytes_max),
            Some(_) => (limits.invited_messages_max, limits.invited_bytes_max),
        };
        let closed = |sender: Option<PoolId>| {
            Some(Event::Overrun { dropped_through: 0, group: Some(group.clone()), sender })
        };
        if !self.used.has_room(bytes, messages_max, bytes_max) {
            return closed(None);
        }
        let used = self.senders.get(sender.user()).copied().unwrap_or_default();
        if posted && !used.has_room(bytes, messages_max / 2, bytes_max / 2) {
            return closed(Some(sender.clone()));
        }
        None
    }

    pub(super) fn pack(&self, out: &mut Packer) {
        out.flag(self.invited.is_some());
        if let Some((by, since)) = &self.invited {
            out.pool(by);
            out.number(since.as_millis());
        }
        out.flag(self.ended);
        out.flag(self.closed);
        self.used.pack(out);
        out.number(self.senders.len() as u64);
        for (sender, used) in &self.senders {
            out.bytes(sender.as_bytes());
            used.pack(out);
        }
        out.number(self.closed_senders.len() as u64);
        self.closed_senders.iter().for_each(|sender| out.pool(sender));
    }

    pub(super) fn unpack(rest: &mut Unpacker<'_>) -> Option<Self> {
        let invited = if rest.flag()? { Some((rest.pool()?, rest.time()?)) } else { None };
        let (ended, closed) = (rest.flag()?, rest.flag()?);
        let used = Used::unpack(rest)?;
        let mut budget = Self { invited, ended, used, closed, ..Self::default() };
        for _ in 0..rest.number()? {
            budget.senders.insert(rest.text()?.as_str().into(), Used::unpack(rest)?);
        }
        for _ in 0..rest.number()? {
            budget.closed_senders.insert(rest.pool()?);
        }
        Some(budget)
    }
}

impl Used {
    pub(super) fn pack(self, out: &mut Packer) {
        out.number(self.messages as u64);
        out.number(self.bytes);
    }

    pub(super) fn unpack(rest: &mut Unpacker<'_>) -> Option<Self> {
        Some(Self { messages: usize::try_from(rest.number()?).ok()?, bytes: rest.number()? })
    }
}
