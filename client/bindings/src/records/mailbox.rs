//! The events of the mailbox.

use keypool_client::{
    Change, GroupId, InvitationAnswer, LeafContradiction, LeafTrust, MailboxEvent,
    MailboxEventKind, PoolId, Timestamp, UntrustedMember, WelcomeFault,
};

/// Something that came by the mailbox, or that this device's own posts have caused. It is kept until the app
/// confirms it.
#[uniffi::remote(Record)]
pub struct MailboxEvent {
    /// Its place in the server's log: later ones have higher positions. `confirm` takes it.
    pub position: u64,
    /// When it was posted, as the server says: milliseconds since 1970.
    pub at: Timestamp,
    /// The kind of event.
    pub kind: MailboxEventKind,
    /// Whether the app was given it before and has not confirmed it: it may have been shown already.
    pub repeated: bool,
}

/// The kinds of events.
#[uniffi::remote(Enum)]
pub enum MailboxEventKind {
    /// The device has joined a group.
    Joined {
        /// The group.
        group: GroupId,
        /// The name of the member who sent the Welcome.
        inviter: String,
        /// Whether that was by the package of last resort, because the pool was empty.
        last_resort: bool,
        /// Whether the inviter's leaf is that user's.
        trust: LeafTrust,
        /// The members whose leaves contradict the directory.
        untrusted: Vec<UntrustedMember>,
    },
    /// A Welcome was refused, because the inviter's key is not the user's whose name it carries.
    InvitationRefused {
        /// The group, as the server says.
        group: GroupId,
        /// The name that the inviter gives.
        inviter: String,
        /// How its leaf contradicts the directory.
        why: LeafContradiction,
    },
    /// The server named another sender than the message has.
    OtherSender {
        /// The group.
        group: GroupId,
        /// The name of the member who sent it.
        sender: String,
        /// The device that the server named.
        named: PoolId,
    },
    /// A member said something.
    Message {
        /// The group.
        group: GroupId,
        /// The name of the member.
        sender: String,
        /// Whether the leaf that it came from is that user's.
        trust: LeafTrust,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A member's Commit was taken as the group's new state.
    Changed(Change),
    /// A member proposed a change; the next Commit takes it up: see `take_up_proposals`.
    Proposed {
        /// The group.
        group: GroupId,
        /// The name of the member; empty for someone outside the group.
        sender: String,
        /// Whether the change is that the member leaves.
        to_leave: bool,
    },
    /// A Commit of this device was accepted and has removed members who had asked to leave.
    Left {
        /// The group.
        group: GroupId,
        /// The names of the members.
        members: Vec<String>,
    },
    /// A message or a Commit of this device found no room in the mailboxes of some members.
    NotReached {
        /// The group.
        group: GroupId,
        /// The members, the first hundred by name.
        members: Vec<PoolId>,
        /// Whether it was a Commit: the members cannot follow the group until they are removed and added again.
        commit: bool,
    },
    /// Something of the group was not kept, because its part of the mailbox was full.
    NotKept {
        /// The group.
        group: GroupId,
        /// The member whose messages were not kept; none if nothing of the group was, Commits included.
        sender: Option<PoolId>,
    },
    /// A member told the server of other removals than its Commit makes.
    RemovedOtherwise {
        /// The group.
        group: GroupId,
        /// The name of the member.
        sender: String,
        /// The devices that the server was told of.
        claimed: Vec<PoolId>,
        /// The names of the members that the Commit removes.
        removed: Vec<String>,
    },
    /// This home is an older copy of itself, or another copy of it is in use. Nothing is sent to these groups any
    /// more: leave them, and have this device removed from them and invited again.
    SetBack {
        /// The groups.
        groups: Vec<GroupId>,
    },
    /// A device has answered an invitation of this one.
    InvitationAnswered {
        /// The group.
        group: GroupId,
        /// The device.
        device: PoolId,
        /// Its answer.
        answer: InvitationAnswer,
    },
    /// This device went on with invitations by itself: the devices are in the group now.
    InvitationResumed {
        /// The group.
        group: GroupId,
        /// The devices that were added.
        devices: Vec<PoolId>,
    },
    /// It could not be opened, and never will be.
    Unreadable {
        /// The group, as the server says.
        group: GroupId,
        /// Why.
        why: String,
    },
}

/// The changes of a Commit.
#[uniffi::remote(Record)]
pub struct Change {
    /// The group.
    pub group: GroupId,
    /// The name of the member whose Commit it is.
    pub sender: String,
    /// The epoch the group is in now.
    pub epoch: u64,
    /// The names of new members.
    pub added: Vec<String>,
    /// The names of members who are gone.
    pub removed: Vec<String>,
    /// Whether this device was removed: it is not in the group any more.
    pub removed_self: bool,
    /// Whether a Commit of this device was pending: its change is to be done again in the new epoch.
    pub own_commit_lost: bool,
    /// The members whose new leaves contradict the directory: nothing is sent to the group until they are gone or
    /// accepted.
    pub untrusted: Vec<UntrustedMember>,
}

/// The outcome of an invitation, as its inviter is told.
#[uniffi::remote(Enum)]
pub enum InvitationAnswer {
    /// The device has joined the group.
    Joined,
    /// The device could not join from the Welcome.
    Failed {
        /// Why.
        reason: WelcomeFault,
    },
    /// The device left the group before it said that it had joined.
    Declined,
    /// The device did not accept the group within the time there is for that.
    Expired,
}

/// Why a device could not join from a Welcome.
#[uniffi::remote(Enum)]
pub enum WelcomeFault {
    /// The device has the private keys of none of the Welcome's packages.
    KeysGone,
    /// The lifetime of its package was over.
    Expired,
    /// It is damaged, or did not open at the last try.
    Unreadable,
    /// The device's policy on keys refuses the group.
    Untrusted,
}
