//! Events for the app: items of the mailbox, and consequences of this device's own posts. Each
//! event is kept until the app confirms it.
//!
//! The consequence of a post is recorded in the write that ends the post, under a name of its own: an event
//! that the app was not given yet is never among those that it confirms.

use data_encoding::HEXLOWER;
use keypool_ledger::{GroupId, Hash, InvitationAnswer, PoolId, Timestamp};
use serde::{Deserialize, Serialize};

use super::progress::taken_in_on;
use crate::{
    Change, CommitPost, DeliveryService, GroupError, LeafContradiction, LeafTrust, LocalStore,
    MlsConnection, Staged, StorageError, UntrustedMember,
    mls::membership::{CommitState, left_on, merge_on},
};

/// The prefix of the names of stored events.
const EVENT_PREFIX: &str = "happening/";
/// The prefix of the names of events that the app was not given yet, and that have no position yet.
const NOTICE_PREFIX: &str = "notice/";
/// The name of the record that says up to which position events were given to the app.
const TOLD_RECORD: &str = "told";

/// Something that came by the mailbox, or that this device's own posts have caused. It is kept until the app
/// confirms it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxEvent {
    /// Its place in the server's log: later ones have higher positions. An event of this device's own posts
    /// has the position of the item before it.
    pub position: u64,
    /// When it was posted, as the server says.
    pub at: Timestamp,
    /// The kind of event.
    #[serde(rename = "what")]
    pub kind: MailboxEventKind,
    /// Whether the app was given it before and has not confirmed it, because it crashed, say: it may
    /// have been shown already.
    #[serde(skip)]
    pub repeated: bool,
}

/// The kinds of events.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MailboxEventKind {
    /// The device has joined a group.
    Joined {
        /// The group.
        group: GroupId,
        /// The name of the member who sent the Welcome.
        inviter: String,
        /// Whether that was by the package of last resort, because the pool was empty.
        #[serde(default)]
        last_resort: bool,
        /// Whether the inviter's leaf is that user's.
        #[serde(default)]
        trust: LeafTrust,
        /// The members whose leaves contradict the directory: see [`KeyPolicy`](crate::KeyPolicy).
        #[serde(default)]
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
        #[serde(default)]
        trust: LeafTrust,
        /// The text of the message.
        bytes: Vec<u8>,
    },
    /// A member's Commit was taken as the group's new state.
    Changed(Change),
    /// A member proposed a change; the next Commit takes it up.
    Proposed {
        /// The group.
        group: GroupId,
        /// The name of the member; empty for someone outside the group.
        sender: String,
        /// Whether the change is that the member leaves.
        #[serde(default)]
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
        /// The member whose messages were not kept; `None` if nothing of the group was, Commits included:
        /// have this device removed from it and added again.
        sender: Option<PoolId>,
    },
    /// A member told the server of other removals than its Commit makes: the server delivers nothing more
    /// to the devices it was told of.
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
    /// This home is an older copy of itself, or another copy of it is in use: later messages and changes are not known
    /// here. Nothing is sent to these groups any more: leave them, and have this device removed from them and invited
    /// again.
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
        /// Its answer, by the word of the server.
        answer: InvitationAnswer,
    },
    /// This device went on with invitations by itself: the devices have packages again, or are invited again
    /// because they could not join. They are in the group now.
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

impl std::fmt::Debug for MailboxEventKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Joined { group, inviter, last_resort, trust, untrusted } => f
                .debug_struct("Joined")
                .field("group", group)
                .field("inviter", inviter)
                .field("last_resort", last_resort)
                .field("trust", trust)
                .field("untrusted", untrusted)
                .finish(),
            Self::InvitationRefused { .. }
            | Self::InvitationAnswered { .. }
            | Self::InvitationResumed { .. } => self.fmt_invitation(f),
            Self::OtherSender { group, sender, named } => f
                .debug_struct("OtherSender")
                .field("group", group)
                .field("sender", sender)
                .field("named", named)
                .finish(),
            Self::Message { group, sender, trust, bytes: _ } => f
                .debug_struct("Message")
                .field("group", group)
                .field("sender", sender)
                .field("trust", trust)
                .finish_non_exhaustive(),
            Self::Changed(change) => f.debug_tuple("Changed").field(change).finish(),
            Self::Proposed { group, sender, to_leave } => f
                .debug_struct("Proposed")
                .field("group", group)
                .field("sender", sender)
                .field("to_leave", to_leave)
                .finish(),
            Self::Left { group, members } => {
                f.debug_struct("Left").field("group", group).field("members", members).finish()
            }
            Self::NotReached { group, members, commit } => f
                .debug_struct("NotReached")
                .field("group", group)
                .field("members", members)
                .field("commit", commit)
                .finish(),
            Self::NotKept { group, sender } => {
                f.debug_struct("NotKept").field("group", group).field("sender", sender).finish()
            }
            Self::RemovedOtherwise { group, sender, claimed, removed } => f
                .debug_struct("RemovedOtherwise")
                .field("group", group)
                .field("sender", sender)
                .field("claimed", claimed)
                .field("removed", removed)
                .finish(),
            Self::SetBack { groups } => f.debug_struct("SetBack").field("groups", groups).finish(),
            Self::Unreadable { group, why } => {
                f.debug_struct("Unreadable").field("group", group).field("why", why).finish()
            }
        }
    }
}

impl MailboxEventKind {
    fn fmt_invitation(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InvitationRefused { group, inviter, why } => f
                .debug_struct("InvitationRefused")
                .field("group", group)
                .field("inviter", inviter)
                .field("why", why)
                .finish(),
            Self::InvitationAnswered { group, device, answer } => f
                .debug_struct("InvitationAnswered")
                .field("group", group)
                .field("device", device)
                .field("answer", answer)
                .finish(),
            Self::InvitationResumed { group, devices } => f
                .debug_struct("InvitationResumed")
                .field("group", group)
                .field("devices", devices)
                .finish(),
            _ => Ok(()),
        }
    }

    /// Whether it is an item of the mailbox, with a position of its own.
    const fn is_an_item(&self) -> bool {
        !matches!(
            self,
            Self::NotKept { .. }
                | Self::Left { .. }
                | Self::NotReached { .. }
                | Self::SetBack { .. }
                | Self::InvitationResumed { .. }
        )
    }
}

impl<D: DeliveryService> MlsConnection<D> {
    /// Merges a Commit of this device that has been accepted, as part of an operation, if it is pending.
    /// Over the server's own delivery, records the members who have left by it and those it did not reach.
    pub(crate) fn merge_accepted_on(
        &self,
        staged: &Staged<'_>,
        post: &CommitPost,
        (not_kept, now): (Vec<PoolId>, Timestamp),
    ) -> Result<CommitState, GroupError> {
        let left = left_on(staged, &post.group, self.identity())?;
        let standing = merge_on(staged, post)?;
        if self.delivery().is_the_servers() {
            self.note_posted_on(staged)?;
        }
        if standing == CommitState::Pending && self.delivery().is_the_servers() {
            let (group, mark) = (post.group.clone(), Hash::of(&post.commit));
            if !left.is_empty() {
                let what = MailboxEventKind::Left { group: group.clone(), members: left };
                self.note_on(staged, what, mark, now)?;
            }
            if !not_kept.is_empty() {
                let what = MailboxEventKind::NotReached { group, members: not_kept, commit: true };
                self.note_on(staged, what, mark, now)?;
            }
        }
        Ok(standing)
    }

    /// Records the consequence of a post of this device, as part of an operation. `mark` is the hash of the
    /// post.
    pub(crate) fn note_on(
        &self,
        staged: &Staged<'_>,
        what: MailboxEventKind,
        mark: Hash,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let kind = match what {
            MailboxEventKind::Left { .. } => "left",
            MailboxEventKind::SetBack { .. } => "set back",
            MailboxEventKind::InvitationResumed { .. } => "resumed",
            _ => "reach",
        };
        let name = format!("{NOTICE_PREFIX}{} {kind}", HEXLOWER.encode(mark.as_bytes()));
        let position = taken_in_on(staged)?;
        staged.put_app_record(
            &name,
            &MailboxEvent { position, at: now, kind: what, repeated: false },
        )?;
        self.notices().notify_one();
        Ok(())
    }
}

/// Whether something is noted that the app was not given yet.
pub(crate) fn has_notices(store: &LocalStore) -> Result<bool, StorageError> {
    Ok(!store.stage()?.app_record_names(NOTICE_PREFIX)?.is_empty())
}

/// Assigns recorded events their position: after the items that had been applied by then.
fn take_up_notices(store: &LocalStore) -> Result<(), StorageError> {
    let staged = store.stage()?;
    let names = staged.app_record_names(NOTICE_PREFIX)?;
    if names.is_empty() {
        return Ok(());
    }
    for notice in names {
        if let Some(noted) = staged.app_record::<MailboxEvent>(&notice)? {
            let its_name = format!("{} {notice}", name(noted.position));
            staged.put_app_record(&its_name, &noted)?;
        }
        staged.remove_app_record(&notice);
    }
    staged.commit()
}

/// The events that the app has not confirmed, in order.
pub(crate) fn events(store: &LocalStore) -> Result<Vec<MailboxEvent>, StorageError> {
    let staged = store.stage()?;
    let told: u64 = staged.app_record(TOLD_RECORD)?.unwrap_or_default();
    let mut found = Vec::new();
    for name in staged.app_record_names(EVENT_PREFIX)? {
        let event: Option<MailboxEvent> = staged.app_record(&name)?;
        let is_repeated = |it: &MailboxEvent| it.position <= told && it.kind.is_an_item();
        found.extend(event.map(|it| MailboxEvent { repeated: is_repeated(&it), ..it }));
    }
    Ok(found)
}

/// Those and the events of this device's own posts, to be given to the app: after a crash they are known to be
/// repeated.
pub(crate) fn tell(store: &LocalStore) -> Result<Vec<MailboxEvent>, StorageError> {
    take_up_notices(store)?;
    let found = events(store)?;
    if let Some(last) = found.last().filter(|last| !last.repeated) {
        let staged = store.stage()?;
        staged.put_app_record(TOLD_RECORD, &last.position)?;
        staged.commit()?;
    }
    Ok(found)
}

/// Forgets the events up to a position.
pub(crate) fn confirm(store: &LocalStore, through: u64) -> Result<(), StorageError> {
    let staged = store.stage()?;
    let last = name(through);
    for name in staged.app_record_names(EVENT_PREFIX)? {
        if name.get(..last.len()).is_some_and(|position| position <= last.as_str()) {
            staged.remove_app_record(&name);
        }
    }
    staged.commit()
}

/// The name of a event's record. Names are in the order of the positions.
pub(super) fn name(position: u64) -> String {
    format!("{EVENT_PREFIX}{position:020}")
}
