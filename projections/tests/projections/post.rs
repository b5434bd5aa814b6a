//! A log of groups, mailboxes and pools that are told one event after the other, for the stories of the delivery.

use std::time::Duration;

use keypool_ledger::{Event, GroupId, InvitationAnswer, LeaveCause, PoolId, StreamId, Timestamp};
use keypool_projections::{Deliveries, GroupState, MailboxState, Touched, WaitingKind};

use crate::history::{group, pool};

/// The fold of a log, the position of its last record, and the time.
#[derive(Clone, Default)]
pub(crate) struct Post {
    pub(crate) states: Deliveries,
    pub(crate) position: u64,
    pub(crate) now: Timestamp,
}

impl Post {
    /// Takes an event with a payload of some bytes, and tells which states it has changed.
    pub(crate) fn take(&mut self, stream: &StreamId, event: &Event, bytes: u64) -> String {
        self.position += 1;
        let Touched { groups, mailboxes, noted } =
            self.states.take(stream, event, (self.position, self.now, bytes));
        let groups = groups.iter().map(GroupId::as_bytes);
        let groups: Vec<String> = groups.map(|id| String::from_utf8_lossy(id).into()).collect();
        let names = |devices: &[PoolId]| devices.iter().map(short).collect::<Vec<_>>().join(" ");
        let (mailboxes, noted) = (names(&mailboxes), names(&noted));
        format!(
            "{}: groups [{}] told [{mailboxes}] noted [{noted}]",
            event.name(),
            groups.join(" ")
        )
    }

    pub(crate) fn in_group(&mut self, name: &str, event: &Event) -> String {
        self.take(&StreamId::Group(group(name)), event, 10)
    }

    pub(crate) fn in_pool(&mut self, device: &str, event: &Event) -> String {
        self.take(&StreamId::Pool(pool(device)), event, 10)
    }

    pub(crate) fn in_mailbox(&mut self, device: &str, event: &Event) -> String {
        self.take(&StreamId::Mailbox(pool(device)), event, 0)
    }

    /// A group that a device has made and added others to, by its first Commit and with a Welcome.
    pub(crate) fn invite(&mut self, name: &str, by: &str, added: &[&str]) {
        let epoch = self.group(name).epoch();
        if !self.group(name).is_made() {
            self.in_group(name, &Event::GroupMade { creator: pool(by) });
        }
        self.in_group(name, &committed(by, epoch, added, &[]));
        self.in_group(name, &welcomed(added, Some(by)));
    }

    /// A device acknowledges all, and has accepted some groups.
    pub(crate) fn read(&mut self, device: &str, accepted: &[&str]) {
        let accepted = accepted.iter().map(|name| group(name)).collect();
        let event = acknowledged(self.position, accepted, Vec::new());
        self.in_mailbox(device, &event);
    }

    pub(crate) fn wait(&mut self, span: Duration) {
        self.now = self.now.after(span);
    }

    pub(crate) fn mailbox(&self, device: &str) -> MailboxState {
        self.states.mailboxes.get(&pool(device)).cloned().unwrap_or_default()
    }

    pub(crate) fn group(&self, name: &str) -> GroupState {
        self.states.groups.get(&group(name)).cloned().unwrap_or_default()
    }

    /// The items that wait for a device: position, kind and sender of each.
    pub(crate) fn mail(&self, device: &str) -> String {
        let mailbox = self.mailbox(device);
        let items = mailbox.after(0).map(|item| {
            let from = item.sender.as_ref().map(short).unwrap_or_default();
            let kind = match item.kind {
                WaitingKind::Commit => "commit",
                WaitingKind::Welcome => "welcome",
                WaitingKind::Message => "message",
                WaitingKind::Answer => "answer",
            };
            format!("{} {kind} {from}", item.position).trim_end().to_owned()
        });
        items.collect::<Vec<_>>().join(", ")
    }
}

/// The name of a device, without the usual `main`.
pub(crate) fn short(device: &PoolId) -> String {
    device.to_string().trim_end_matches("/main").to_owned()
}

pub(crate) fn devices(names: &[&str]) -> Vec<PoolId> {
    names.iter().map(|name| pool(name)).collect()
}

pub(crate) fn committed(by: &str, epoch: u64, added: &[&str], removed: &[&str]) -> Event {
    let (committer, not_kept) = (pool(by), Vec::new());
    let (added, removed) = (devices(added), devices(removed));
    Event::Committed { epoch, committer, added, removed, not_kept }
}

pub(crate) fn welcomed(to: &[&str], by: Option<&str>) -> Event {
    Event::Welcomed { to: devices(to), by: by.map(pool) }
}

pub(crate) fn posted(by: &str) -> Event {
    Event::Posted { sender: pool(by), not_kept: Vec::new() }
}

pub(crate) fn left(device: &str, cause: LeaveCause) -> Event {
    Event::Left { device: pool(device), cause }
}

pub(crate) fn answered(device: &str, inviter: &str, answer: InvitationAnswer) -> Event {
    Event::InvitationAnswered { device: pool(device), inviter: pool(inviter), answer }
}

/// The acknowledgement of a device, with the groups that it has accepted and those it was told of.
pub(crate) fn acknowledged(through: u64, accepted: Vec<GroupId>, told: Vec<GroupId>) -> Event {
    Event::Acknowledged { through, overrun: false, accepted, told, available: Vec::new() }
}

/// A part of a mailbox that is closed: a group's, or a sender's in it.
pub(crate) fn overrun(name: &str, sender: Option<&str>, dropped_through: u64) -> Event {
    Event::Overrun { dropped_through, group: Some(group(name)), sender: sender.map(pool) }
}
