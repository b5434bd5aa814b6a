//! Groups and mailboxes as their events have left them, and the rules of the delivery. Pure.
//!
//! A group is an order of Commits: the first for an epoch wins. The device that makes a group is its
//! first member; accepted Commits add and remove members. A message waits in the mailbox of every other
//! member, in the order of the log, until its device acknowledges it.
//!
//! Each group has a budget of its own in each mailbox, and each sender a share of that budget, so that
//! no group and no sender costs a message of another. Until a device has accepted a group, the budget is
//! small.

mod group;

mod group_budget;

mod mailbox;

mod states;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use keypool_ledger::{Event, EventEnvelope, GroupId, PoolId, StreamId, Timestamp};

pub use self::mailbox::KeepDecision;
pub use self::{
    group::{GroupState, MembershipChange},
    mailbox::{Acknowledgement, Closed, MailboxState, Waiting},
    states::States,
};

/// The numbers that bound groups and mailboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryLimits {
    /// How many messages of one group wait in a mailbox.
    pub group_messages_max: usize,
    /// How many bytes of one group wait in a mailbox.
    pub group_bytes_max: u64,
    /// How many messages of a group wait that the device has not accepted.
    pub invited_messages_max: usize,
    /// How many bytes of a group wait that the device has not accepted, its Welcome apart.
    pub invited_bytes_max: u64,
    /// How many bytes a Welcome may have.
    pub welcome_bytes_max: usize,
    /// How many groups may wait for a device to accept them.
    pub invitations_max: usize,
    /// How many of these one user may have caused.
    pub invitations_of_user_max: usize,
    /// How long a group waits for a device to accept it.
    pub invitation_age_max: Duration,
    /// How long a message waits.
    pub age_max: Duration,
    /// How many members a group may have.
    pub members_max: usize,
}

impl DeliveryLimits {
    /// The defaults: 2,000 messages and 16 MiB for a group; 100 messages and 64 KiB before it is
    /// accepted, and a Welcome of 256 KiB; 64 groups to be accepted, 8 by one user, for 7 days; 30 days
    /// for a message; 2,000 members.
    pub const STANDARD: Self = Self {
        group_messages_max: 2_000,
        group_bytes_max: 16 * 1024 * 1024,
        invited_messages_max: 100,
        invited_bytes_max: 64 * 1024,
        welcome_bytes_max: 256 * 1024,
        invitations_max: 64,
        invitations_of_user_max: 8,
        invitation_age_max: Duration::from_hours(7 * 24),
        age_max: Duration::from_hours(720),
        members_max: 2_000,
    };
}

/// The reason why the delivery refuses a command. Nothing has changed when one is returned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryRejection {
    /// The group has no history here.
    #[error("group {0} is not known here; make it with POST /groups")]
    UnknownGroup(GroupId),
    /// The group exists already.
    #[error("group {0} exists already; draw another id at random")]
    GroupExists(GroupId),
    /// The device is not a member by any Commit that was accepted.
    #[error("{member} is not a member of group {group}")]
    NotAMember {
        /// The group.
        group: GroupId,
        /// The device that asked.
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
    /// A Welcome is too large.
    #[error("a Welcome of {bytes} bytes is too large; it may have {max}")]
    WelcomeTooLarge {
        /// How many bytes it has.
        bytes: usize,
        /// How many it may have.
        max: usize,
    },
    /// Two of the packages are one device's: a Commit takes one.
    #[error("two of the packages are of {0}; one Commit takes one of them")]
    SameDevice(PoolId),
    /// The device is in the group already.
    #[error("{0} is a member of the group already")]
    MemberAlready(PoolId),
    /// Too many groups wait for the device to accept them.
    #[error("{0} has too many invitations that wait to be accepted; try again after it was online")]
    InvitationsFull(PoolId),
    /// The device's owner has blocked the user who adds it.
    #[error("{0} does not accept invitations from you")]
    Blocked(PoolId),
    /// The group has as many members as it may.
    #[error("a group may have {0} members")]
    TooManyMembers(usize),
    /// One Commit may not remove so many.
    #[error(
        "one Commit may remove the devices of {max} of the other users at most; remove the rest in the next"
    )]
    RemovesTooMany {
        /// Of how many users it may remove the devices.
        max: usize,
    },
    /// A Commit names the device that commits among those it removes: MLS knows no such Commit.
    #[error("{0} cannot be removed by its own Commit; let it leave the group instead")]
    RemovesItself(PoolId),
    /// The position lies beyond the last record of the log.
    #[error("position {0} was never given out")]
    NeverGiven(u64),
}

/// Every group and every mailbox as the events of a log have left them, in maps or in another
/// place that keeps states by name.
#[derive(Clone, Debug, Default)]
pub struct Deliveries<G = BTreeMap<GroupId, GroupState>, M = HashMap<PoolId, MailboxState>> {
    /// The groups that have had an event.
    pub groups: G,
    /// The mailboxes of the devices that anything ever came for.
    pub mailboxes: M,
}

/// The groups and mailboxes that an event changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// The groups.
    pub groups: Vec<GroupId>,
    /// The mailboxes, by device.
    pub mailboxes: Vec<PoolId>,
}

impl<G, M> Deliveries<G, M>
where
    G: States<GroupId, GroupState>,
    M: States<PoolId, MailboxState>,
{
    /// Applies the next event of the log, of any stream, and returns the groups and mailboxes that it
    /// changed. `bytes` is the size of the event's payload.
    ///
    /// Events of pools matter too: removing a device ends its memberships and closes its mailbox, and
    /// messages of a blocked user are not delivered.
    pub fn evolve(&mut self, seq: u64, envelope: &EventEnvelope, bytes: u64) -> Touched {
        let EventEnvelope { stream, event, at, .. } = envelope;
        self.take(stream, event, (seq, *at, bytes))
    }

    /// As [`Deliveries::evolve`], of an event that may not stand in the log yet: position, time and size
    /// of its payload are the ones it is given.
    pub fn take(
        &mut self,
        stream: &StreamId,
        event: &Event,
        place: (u64, Timestamp, u64),
    ) -> Touched {
        match stream {
            StreamId::Pool(pool) => self.evolve_device(pool, event),
            StreamId::Group(group) => self.evolve_group(group, event, place),
            StreamId::Mailbox(device) => {
                self.mailboxes.get_or_new(device).evolve(event);
                Touched { groups: Vec::new(), mailboxes: vec![device.clone()] }
            }
            StreamId::Server => Touched::default(),
        }
    }

    fn evolve_device(&mut self, device: &PoolId, event: &Event) -> Touched {
        match event {
            Event::DeviceRemoved {} => {
                let groups: Vec<GroupId> = match self.mailboxes.get_mut(device) {
                    Some(mailbox) => mailbox.close(),
                    None => Vec::new(),
                };
                for group in &groups {
                    if let Some(state) = self.groups.get_mut(group) {
                        state.end_membership(device);
                    }
                }
                Touched { groups, mailboxes: vec![device.clone()] }
            }
            Event::UserBlocked { user } => {
                self.mailboxes.get_or_new(device).block(user);
                Touched { groups: Vec::new(), mailboxes: vec![device.clone()] }
            }
            // The key that listens at the mailbox speaks for the device no more.
            Event::KeyRotated { .. } => {
                Touched { groups: Vec::new(), mailboxes: vec![device.clone()] }
            }
            Event::UserUnblocked { user } => {
                self.mailboxes.get_or_new(device).unblock(user);
                Touched { groups: Vec::new(), mailboxes: vec![device.clone()] }
            }
            _ => Touched::default(),
        }
    }

    fn evolve_group(
        &mut self,
        group: &GroupId,
        event: &Event,
        (position, at, bytes): (u64, Timestamp, u64),
    ) -> Touched {
        let state = self.groups.get_or_new(group);
        let recipients: Vec<PoolId> = state.recipients(event).cloned().collect();
        let joining = state.joining(event);
        let is_made = state.is_made();
        state.evolve(event);
        let mut touched = Touched { groups: vec![group.clone()], mailboxes: recipients.clone() };
        let sender = sender_of(event).cloned();
        let posted = matches!(event, Event::Posted { .. });
        for recipient in recipients {
            let waiting = Waiting {
                position,
                bytes,
                at,
                group: group.clone(),
                sender: sender.clone(),
                posted,
            };
            self.mailboxes.get_or_new(&recipient).deliver(waiting);
        }
        let leaving: &[PoolId] = match event {
            Event::Committed { removed, .. } => removed,
            _ => &[],
        };
        for device in leaving {
            if let Some(mailbox) = self.mailboxes.get_mut(device) {
                mailbox.end_membership(group);
            }
        }
        for (device, inviter) in joining {
            // Groups from before consent are accepted as they stand, and so is what a user's own device does.
            let stranger = |inviter: &PoolId| is_made && inviter.user() != device.user();
            let mailbox = self.mailboxes.get_or_new(&device);
            mailbox.join(group, inviter.filter(stranger), at);
            touched.mailboxes.push(device);
        }
        if let Event::Left { device, .. } = event
            && let Some(mailbox) = self.mailboxes.get_mut(device)
        {
            mailbox.leave(group);
            touched.mailboxes.push(device.clone());
        }
        if let Some(sender) = sender
            && let Some(mailbox) = self.mailboxes.get_mut(&sender)
            && mailbox.accept(group)
        {
            touched.mailboxes.push(sender);
        }
        touched
    }
}

/// The device that an event of a group comes from, where it is one that waits for the others.
const fn sender_of(event: &Event) -> Option<&PoolId> {
    match event {
        Event::Committed { committer: sender, .. } | Event::Posted { sender, .. } => Some(sender),
        _ => None,
    }
}
