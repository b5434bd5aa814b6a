//! Groups and mailboxes as their events have left them, and the rules of the delivery. Pure.
//!
//! A group is an order of Commits: the first for an epoch wins. The device that makes a group is its
//! first member; accepted Commits add and remove members. A message waits in the mailbox of every other
//! member, in the order of the log, until its device acknowledges it.
//!
//! Each group has a budget of its own in each mailbox, and each sender a share of that budget, so that
//! no group and no sender costs a message of another. Until a device has accepted a group, the budget is
//! small.

mod acknowledgement;

mod group;

mod group_budget;

mod invitation;

mod mailbox;

mod states;

mod waiting;

mod waiting_list;

mod waits;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use keypool_ledger::{Event, EventEnvelope, GroupId, PoolId, ReservePolicy, StreamId, Timestamp};

pub use self::{
    acknowledgement::Acknowledgement,
    group::{GroupState, MembershipChange},
    mailbox::{Closed, KeepDecision, MailboxState},
    states::States,
    waiting::{Waiting, WaitingKind},
    waiting_list::AwaitTarget,
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
    /// For packages of how many devices one may wait, those included of which it was not told yet.
    pub awaited_max: usize,
    /// How many strangers may wait for packages of one device.
    pub awaiters_max: usize,
    /// How long a device waits for packages of another.
    pub await_age_max: Duration,
}

impl DeliveryLimits {
    /// The defaults: 2,000 messages and 16 MiB for a group; 100 messages and 64 KiB before it is
    /// accepted, and a Welcome of 256 KiB; 64 groups to be accepted, 8 by one user, for 7 days; 30 days
    /// for a message; 2,000 members; 64 awaited devices, 1,024 strangers that await one, for 14 days.
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
        awaited_max: 64,
        awaiters_max: 1_024,
        await_age_max: Duration::from_hours(14 * 24),
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
    /// The device would wait for packages of too many others.
    #[error("a device may wait for packages of {0} others")]
    WaitingListFull(usize),
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
    /// The mailboxes that have noted something of which there is nothing to tell their devices.
    pub noted: Vec<PoolId>,
}

impl Touched {
    /// The mailbox of one device.
    fn mailbox(device: &PoolId) -> Self {
        Self { mailboxes: vec![device.clone()], ..Self::default() }
    }
}

impl<G, M> Deliveries<G, M>
where
    G: States<GroupId, GroupState>,
    M: States<PoolId, MailboxState>,
{
    /// Applies the next event of the log, of any stream, and returns the groups and mailboxes that it
    /// changed. `bytes` is the size of the event's payload.
    ///
    /// Events of pools matter too: removing a device ends its memberships and closes its mailbox,
    /// messages of a blocked user are not delivered, and a package that arrives is told to those who wait
    /// for it.
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
            StreamId::Pool(pool) => self.evolve_device(pool, event, place.1),
            StreamId::Group(group) => self.evolve_group(group, event, place),
            StreamId::Mailbox(device) => {
                self.mailboxes.get_or_new(device).evolve(event);
                let noted = match event {
                    Event::Awaited { targets, as_stranger, until } => {
                        self.await_packages(device, (targets, as_stranger), *until, place.1)
                    }
                    Event::AwaitStopped { targets } => self.stop_awaiting(device, targets),
                    _ => Vec::new(),
                };
                Touched { noted, ..Touched::mailbox(device) }
            }
            StreamId::Server | StreamId::Names(_) => Touched::default(),
        }
    }

    fn evolve_device(&mut self, device: &PoolId, event: &Event, at: Timestamp) -> Touched {
        match event {
            Event::Uploaded(_) => self.arrive(device, at),
            Event::PolicySet { reserve: ReservePolicy::Contacts } => {
                let noted = self.end_waits(device, |_, is_stranger| is_stranger);
                Touched { noted, ..Touched::default() }
            }
            Event::DeviceRemoved { .. } => {
                let noted = self.end_all_waits(device);
                let groups: Vec<GroupId> = match self.mailboxes.get_mut(device) {
                    Some(mailbox) => mailbox.close(),
                    None => Vec::new(),
                };
                for group in &groups {
                    if let Some(state) = self.groups.get_mut(group) {
                        state.end_membership(device);
                    }
                }
                Touched { groups, noted, ..Touched::mailbox(device) }
            }
            Event::UserBlocked { user } => {
                self.mailboxes.get_or_new(device).block(user);
                let noted = self.end_waits(device, |inviter, _| inviter.user() == user);
                Touched { noted, ..Touched::mailbox(device) }
            }
            // The key that listens at the mailbox speaks for the device no more.
            Event::KeyRotated { .. } => Touched::mailbox(device),
            Event::UserUnblocked { user } => {
                self.mailboxes.get_or_new(device).unblock(user);
                Touched::mailbox(device)
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
        let mut touched = Touched { groups: vec![group.clone()], ..Touched::default() };
        touched.mailboxes.clone_from(&recipients);
        if let Some((kind, sender)) = WaitingKind::of(event) {
            for recipient in recipients {
                let (group, sender) = (group.clone(), sender.cloned());
                let waiting = Waiting { position, bytes, at, group, sender, kind };
                self.mailboxes.get_or_new(&recipient).deliver(waiting);
            }
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
        if let Some(author) = sender_of(event)
            && let Some(mailbox) = self.mailboxes.get_mut(author)
        {
            mailbox.accept(group);
            mailbox.note_posted(position);
            touched.noted.push(author.clone());
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
