//! The items that wait in a mailbox.

use keypool_ledger::{Event, GroupId, PoolId, Timestamp};

use crate::packing::{Packer, Unpacker};

/// An item that waits in a mailbox: its place in the log, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The position of its record.
    pub position: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// When it was posted.
    pub at: Timestamp,
    /// The group it is of.
    pub group: GroupId,
    /// The device it comes from; `None` for a Welcome.
    pub sender: Option<PoolId>,
    /// Its kind.
    pub kind: WaitingKind,
}

/// The kind of an item that waits in a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitingKind {
    /// A Commit.
    Commit,
    /// A Welcome, which comes with the membership and uses nothing of the group's budget.
    Welcome,
    /// A message of a member.
    Message,
    /// The answer to an invitation that the device has made; it uses nothing of the group's budget.
    Answer,
}

/// The kinds, each at the place of its packed number.
const KINDS: [WaitingKind; 4] =
    [WaitingKind::Commit, WaitingKind::Welcome, WaitingKind::Message, WaitingKind::Answer];

impl WaitingKind {
    /// The kind of the items that an event of a group is, and the device that they come from; `None` for an
    /// event that nobody receives.
    pub(super) fn of(event: &Event) -> Option<(Self, Option<&PoolId>)> {
        match event {
            Event::Committed { committer, .. } => Some((Self::Commit, Some(committer))),
            Event::Welcomed { .. } => Some((Self::Welcome, None)),
            Event::Posted { sender, .. } => Some((Self::Message, Some(sender))),
            Event::InvitationAnswered { device, .. } => Some((Self::Answer, Some(device))),
            _ => None,
        }
    }

    /// Whether its owner's blocks keep items of this kind out: those that a member sends alone.
    pub(super) const fn may_be_blocked(self) -> bool {
        matches!(self, Self::Message | Self::Answer)
    }

    const fn number(self) -> u8 {
        match self {
            Self::Commit => 0,
            Self::Welcome => 1,
            Self::Message => 2,
            Self::Answer => 3,
        }
    }
}

impl Waiting {
    /// The sender, where the item uses the group's budget.
    pub(super) fn budgeted(&self) -> Option<&PoolId> {
        let uses = matches!(self.kind, WaitingKind::Commit | WaitingKind::Message);
        self.sender.as_ref().filter(|_| uses)
    }

    /// Whether it is a message, and not a Commit, a Welcome or an answer.
    pub(super) fn is_posted(&self) -> bool {
        self.kind == WaitingKind::Message
    }

    /// Packs the item behind one at the position `before`.
    pub(super) fn pack(&self, before: u64, out: &mut Packer) {
        let Self { position, bytes, at, group, sender, kind } = self;
        out.number(position.saturating_sub(before));
        out.number(*bytes);
        out.number(at.as_millis());
        out.bytes(group.as_bytes());
        out.byte(kind.number());
        out.flag(sender.is_some());
        if let Some(sender) = sender {
            out.pool(sender);
        }
    }

    /// Unpacks the item behind one at the position `before`.
    pub(super) fn unpack(before: u64, rest: &mut Unpacker<'_>) -> Option<Self> {
        let position = before.checked_add(rest.number()?)?;
        let (bytes, at) = (rest.number()?, rest.time()?);
        let group = GroupId::new(rest.bytes()?).ok()?;
        let kind = *KINDS.get(usize::from(rest.byte()?))?;
        let sender = if rest.flag()? { Some(rest.pool()?) } else { None };
        Some(Self { position, bytes, at, group, sender, kind })
    }
}
