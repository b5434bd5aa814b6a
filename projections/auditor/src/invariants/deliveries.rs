//! The promises of the delivery: one Commit for each epoch, with its spends and its Welcomes or not at
//! all, from members only; and mailboxes in the order of the log.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use keypool_ledger::{CommandId, Event, GroupId, PoolId, StreamId};

use super::{AuditedEvent, broken};
use crate::verify::Finding;

/// All that the auditor knows of groups and mailboxes.
#[derive(Debug, Default)]
pub(super) struct AuditedDeliveries {
    groups: HashMap<GroupId, AuditedGroup>,
    mailboxes: HashMap<PoolId, AuditedMailbox>,
    /// Spends that no Commit has used yet: by group and package owner, whose they were.
    spends: HashMap<(GroupId, PoolId), Vec<PoolId>>,
    /// The Commit whose Welcomes are to follow in the same command.
    pending: Option<Pending>,
}

#[derive(Debug, Default)]
struct AuditedGroup {
    /// The position of its making; groups from before that began with their first Commit.
    made: Option<u64>,
    /// The epoch that was ended last, and where.
    ended: Option<(u64, u64)>,
    members: BTreeSet<PoolId>,
}

impl AuditedGroup {
    fn make(&mut self, id: &GroupId, creator: &PoolId, seq: u64) -> Option<Finding> {
        let was_there = self.made.is_some() || self.ended.is_some();
        self.made = Some(seq);
        self.members.insert(creator.clone());
        let what = || format!("group {id} is made at {seq}, and was there before.");
        was_there.then(|| broken("delivery", &[seq], what()))
    }

    fn leave(&mut self, id: &GroupId, device: &PoolId, seq: u64) -> Option<Finding> {
        let was_member = self.members.remove(device);
        let what = || format!("{device} leaves group {id} at {seq}, and is no member.");
        (!was_member).then(|| broken("member", &[seq], what()))
    }
}

#[derive(Debug, Default)]
struct AuditedMailbox {
    /// The positions of the messages that wait, each with its group.
    waiting: VecDeque<(u64, GroupId)>,
    through: u64,
    /// The position at which the whole mailbox was overrun, until its device was told.
    overrun: Option<u64>,
    /// The groups of which nothing more is kept, or nothing of a sender, until the device was told.
    closed: BTreeSet<(GroupId, Option<PoolId>)>,
    blocked: BTreeSet<String>,
}

impl AuditedMailbox {
    fn keeps(&self, group: &GroupId, sender: Option<&PoolId>, posted: bool) -> bool {
        let Some(sender) = sender else { return self.overrun.is_none() };
        let closed = |(of, by): &(GroupId, Option<PoolId>)| {
            let is_meant = match by {
                Some(by) => posted && by.user() == sender.user(),
                None => true,
            };
            of == group && is_meant
        };
        let refused = posted && self.blocked.contains(sender.user());
        self.overrun.is_none() && !self.closed.iter().any(closed) && !refused
    }

    fn reopen(&mut self, group: &GroupId) {
        self.closed.retain(|(closed, _)| closed != group);
    }
}

#[derive(Debug)]
struct Pending {
    command: CommandId,
    group: GroupId,
    seq: u64,
    unwelcomed: HashSet<PoolId>,
}

impl AuditedDeliveries {
    /// The epoch that a group is in and its members, if it was made or has had a Commit.
    pub(super) fn group(&self, group: &GroupId) -> Option<(u64, Vec<&PoolId>)> {
        let group = self.groups.get(group)?;
        let epoch = match (group.ended, group.made) {
            (Some((ended, _)), _) => ended.saturating_add(1),
            (None, Some(_)) => 0,
            (None, None) => return None,
        };
        Some((epoch, group.members.iter().collect()))
    }

    pub(super) fn see(&mut self, seen: AuditedEvent<'_>) -> Vec<Finding> {
        let mut findings = self.close_command(Some(seen.envelope.command));
        match (&seen.envelope.stream, &seen.envelope.event) {
            (StreamId::Pool(owner), Event::Spent { group, holder: Some(holder), .. }) => {
                let spends = self.spends.entry((group.clone(), owner.clone())).or_default();
                spends.push(holder.clone());
            }
            (StreamId::Pool(device), event) => self.see_device(device, event),
            (StreamId::Group(group), event) => self.see_group(seen, group, event, &mut findings),
            (StreamId::Mailbox(device), event) => {
                self.see_mailbox(seen, device, event, &mut findings);
            }
            _ => {}
        }
        findings
    }

    /// Ends the memberships of a removed device, and drops its waiting messages.
    fn see_device(&mut self, device: &PoolId, event: &Event) {
        match event {
            Event::DeviceRemoved {} => {
                let through = self.mailboxes.remove(device).map_or(0, |mailbox| mailbox.through);
                self.mailboxes.insert(
                    device.clone(),
                    AuditedMailbox { through, ..AuditedMailbox::default() },
                );
                self.groups.values_mut().for_each(|group| {
                    group.members.remove(device);
                });
            }
            Event::UserBlocked { user } => {
                self.mailboxes.entry(device.clone()).or_default().blocked.insert(user.clone());
            }
            Event::UserUnblocked { user } => {
                self.mailboxes.entry(device.clone()).or_default().blocked.remove(user);
            }
            _ => {}
        }
    }

    pub(super) fn finish(&mut self) -> Vec<Finding> {
        self.close_command(None)
    }

    /// A Commit's Welcomes come with it: when its command is over, none may be missing.
    fn close_command(&mut self, next: Option<CommandId>) -> Vec<Finding> {
        let Some(pending) = self.pending.take_if(|pending| Some(pending.command) != next) else {
            return Vec::new();
        };
        let missing = |device: PoolId| {
            let what = format!(
                "the Commit at {} adds {device} to group {}, and no Welcome for it came with it.",
                pending.seq, pending.group
            );
            broken("welcome", &[pending.seq], what)
        };
        let mut devices: Vec<_> = pending.unwelcomed.into_iter().collect();
        devices.sort();
        devices.into_iter().map(missing).collect()
    }

    fn see_group(
        &mut self,
        seen: AuditedEvent<'_>,
        id: &GroupId,
        event: &Event,
        findings: &mut Vec<Finding>,
    ) {
        let seq = seen.seq;
        let group = self.groups.entry(id.clone()).or_default();
        let recipients: Vec<PoolId> = match event {
            Event::Committed { committer: sender, .. } | Event::Posted { sender, .. } => {
                let began = group.ended.is_some() || group.made.is_some();
                if began && !group.members.contains(sender) {
                    let what = format!("{sender} is no member of group {id}, and posts at {seq}.");
                    findings.push(broken("member", &[seq], what));
                }
                group.members.iter().filter(|member| *member != sender).cloned().collect()
            }
            Event::Welcomed { to, .. } => to.clone(),
            Event::GroupMade { creator } => {
                findings.extend(group.make(id, creator, seq));
                Vec::new()
            }
            Event::Left { device, .. } => {
                findings.extend(group.leave(id, device, seq));
                let mailbox = self.mailboxes.entry(device.clone()).or_default();
                mailbox.waiting.retain(|(_, of)| of != id);
                mailbox.reopen(id);
                Vec::new()
            }
            _ => {
                let what = format!("an event {} stands in the history of a group.", event.name());
                findings.push(broken("delivery", &[seq], what));
                Vec::new()
            }
        };
        if let (Event::Posted { .. }, None, None) = (event, group.ended, group.made) {
            let what =
                format!("a message stands at {seq} in group {id}, which no Commit has made.");
            findings.push(broken("member", &[seq], what));
        }
        match event {
            Event::Committed { .. } => self.see_commit(seen, id, event, findings),
            Event::Welcomed { to, .. } => self.see_welcome(seen, id, to, findings),
            _ => {}
        }
        let (sender, posted) = match event {
            Event::Posted { sender, .. } => (Some(sender), true),
            Event::Committed { committer, .. } => (Some(committer), false),
            _ => (None, false),
        };
        for recipient in recipients {
            let mailbox = self.mailboxes.entry(recipient).or_default();
            if mailbox.keeps(id, sender, posted) {
                mailbox.waiting.push_back((seq, id.clone()));
            }
        }
        if let Event::Committed { added, .. } = event {
            for device in added {
                self.mailboxes.entry(device.clone()).or_default().reopen(id);
            }
        }
    }

    fn see_commit(
        &mut self,
        seen: AuditedEvent<'_>,
        id: &GroupId,
        event: &Event,
        findings: &mut Vec<Finding>,
    ) {
        let Event::Committed { epoch, committer, added, removed, .. } = event else { return };
        let seq = seen.seq;
        let group = self.groups.entry(id.clone()).or_default();
        if let Some((ended, before)) = group.ended
            && *epoch != ended.saturating_add(1)
        {
            let what = format!(
                "the Commit at {seq} is for epoch {epoch} of group {id}; the one before it, at \
                 {before}, ended epoch {ended}: each epoch has one Commit."
            );
            findings.push(broken("epoch", &[before, seq], what));
        }
        if let (None, Some(made)) = (group.ended, group.made)
            && *epoch != 0
        {
            let what = format!(
                "the first Commit of group {id}, at {seq}, is for epoch {epoch}; the group was made at \
                 {made} in epoch 0."
            );
            findings.push(broken("epoch", &[made, seq], what));
        }
        group.ended = Some((*epoch, seq));
        group.members.insert(committer.clone());
        group.members.retain(|member| !removed.contains(member));
        group.members.extend(added.iter().cloned());
        for device in added {
            let spends = self.spends.get_mut(&(id.clone(), device.clone()));
            let place = spends
                .as_ref()
                .and_then(|spends| spends.iter().position(|holder| holder == committer));
            if let (Some(spends), Some(place)) = (spends, place) {
                spends.swap_remove(place);
                continue;
            }
            let what = format!(
                "the Commit at {seq} adds {device} to group {id}, and {committer} has spent no package \
                 of it for that group."
            );
            findings.push(broken("spend", &[seq], what));
        }
        self.pending = Some(Pending {
            command: seen.envelope.command,
            group: id.clone(),
            seq,
            unwelcomed: added.iter().cloned().collect(),
        });
    }

    fn see_welcome(
        &mut self,
        seen: AuditedEvent<'_>,
        id: &GroupId,
        to: &[PoolId],
        findings: &mut Vec<Finding>,
    ) {
        let seq = seen.seq;
        let Some(pending) = self.pending.as_mut().filter(|pending| pending.group == *id) else {
            let what = format!("a Welcome stands at {seq} without the Commit that it belongs to.");
            findings.push(broken("welcome", &[seq], what));
            return;
        };
        let commit = pending.seq;
        for device in to {
            if !pending.unwelcomed.remove(device) {
                let what = format!(
                    "the Welcome at {seq} is for {device}, whom the Commit at {commit} does not add."
                );
                findings.push(broken("welcome", &[commit, seq], what));
            }
        }
    }

    fn see_mailbox(
        &mut self,
        seen: AuditedEvent<'_>,
        device: &PoolId,
        event: &Event,
        findings: &mut Vec<Finding>,
    ) {
        let seq = seen.seq;
        let mailbox = self.mailboxes.entry(device.clone()).or_default();
        let mut wrong = |what: &str| {
            let what = format!("the mailbox of {device} at {seq}: {what}.");
            findings.push(broken("mailbox", &[seq], what));
        };
        match event {
            Event::Acknowledged { through, overrun, accepted, told, available } => {
                if seq <= *through {
                    wrong("it acknowledges what was not there yet");
                }
                let says_more =
                    *overrun || !accepted.is_empty() || !told.is_empty() || !available.is_empty();
                if !says_more && *through <= mailbox.through {
                    wrong("it acknowledges less than it did before");
                }
                if *overrun && mailbox.overrun.is_none() {
                    wrong("its device was told of an overrun that there was not");
                }
                let waited = mailbox.waiting.len();
                mailbox.through = mailbox.through.max(*through);
                mailbox.waiting.retain(|(position, _)| through < position);
                for group in told {
                    mailbox.reopen(group);
                }
                if !says_more && mailbox.waiting.len() == waited {
                    wrong("it acknowledges something, and nothing waited up to there");
                }
                if *overrun {
                    mailbox.overrun = None;
                }
            }
            Event::Overrun { dropped_through, group: Some(group), sender } => {
                if seq <= *dropped_through {
                    wrong("it drops what was not there yet");
                }
                let mine =
                    |(position, of): &(u64, GroupId)| position <= dropped_through && of == group;
                let waited = mailbox.waiting.len();
                mailbox.waiting.retain(|waiting| !mine(waiting));
                let is_new = mailbox.closed.insert((group.clone(), sender.clone()));
                // What has waited too long is dropped, closed or not.
                if !is_new && mailbox.waiting.len() == waited {
                    wrong("a group is closed in it twice, and its device was not told in between");
                }
            }
            Event::Overrun { dropped_through, group: None, .. } => {
                if seq <= *dropped_through {
                    wrong("it drops what was not there yet");
                }
                if mailbox.overrun.is_some() {
                    wrong("it is overrun twice, and its device was not told in between");
                }
                mailbox.waiting.retain(|(position, _)| dropped_through < position);
                mailbox.overrun = Some(seq);
            }
            other => wrong(&format!("an event {} does not belong there", other.name())),
        }
    }
}
