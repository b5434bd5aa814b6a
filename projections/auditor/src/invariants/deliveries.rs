//! The promises of the delivery: one Commit for each epoch, with its spends and its Welcomes or not at
//! all, from members only; one answer for each Welcome that asks for one; and mailboxes in the order of the
//! log.

mod mailbox;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use keypool_ledger::{CommandId, Event, GroupId, PoolId, StreamId};

use self::mailbox::AuditedMailbox;
use super::{AuditedEvent, broken};
use crate::{names::GroupName, verify::Finding};

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
    /// The invitees that owe an answer, each with its inviter, and whether that one's membership goes on.
    asked: BTreeMap<PoolId, (PoolId, bool)>,
}

impl AuditedGroup {
    fn end(&mut self, device: &PoolId) -> bool {
        self.asked.remove(device);
        for (inviter, goes_on) in self.asked.values_mut() {
            *goes_on &= inviter != device;
        }
        self.members.remove(device)
    }

    /// Takes in an answer; returns the device that is told.
    fn answer(
        &mut self,
        id: &GroupId,
        (device, inviter): (&PoolId, &PoolId),
        seq: u64,
    ) -> Result<Option<PoolId>, Finding> {
        let name = GroupName(id);
        let asked = self.asked.remove(device).filter(|(by, _)| by == inviter);
        asked.map(|(by, goes_on)| goes_on.then_some(by)).ok_or_else(|| {
            let what = format!(
                "{device} answers at {seq} an invitation of {inviter} to group {name}, which it has not, or has \
                 answered before."
            );
            broken("answer", &[seq], what)
        })
    }

    fn make(&mut self, id: &GroupId, creator: &PoolId, seq: u64) -> Option<Finding> {
        let was_there = self.made.is_some() || self.ended.is_some();
        self.made = Some(seq);
        self.members.insert(creator.clone());
        let what = || format!("group {} is made at {seq}, and was there before.", GroupName(id));
        was_there.then(|| broken("delivery", &[seq], what()))
    }

    /// The devices that an event reaches.
    fn recipients(
        &mut self,
        (id, event): (&GroupId, &Event),
        seq: u64,
        findings: &mut Vec<Finding>,
    ) -> Vec<PoolId> {
        let name = GroupName(id);
        match event {
            Event::Committed { committer: sender, .. } | Event::Posted { sender, .. } => {
                let began = self.ended.is_some() || self.made.is_some();
                if began && !self.members.contains(sender) {
                    let what =
                        format!("{sender} is no member of group {name}, and posts at {seq}.");
                    findings.push(broken("member", &[seq], what));
                }
                return self.members.iter().filter(|member| *member != sender).cloned().collect();
            }
            Event::Welcomed { to, .. } => return to.clone(),
            Event::GroupMade { creator } => findings.extend(self.make(id, creator, seq)),
            Event::Left { device, .. } => findings.extend(self.leave(id, device, seq)),
            Event::InvitationAnswered { device, inviter, .. } => {
                match self.answer(id, (device, inviter), seq) {
                    Ok(told) => return told.into_iter().collect(),
                    Err(finding) => findings.push(finding),
                }
            }
            _ => {
                let what = format!("an event {} stands in the history of a group.", event.name());
                findings.push(broken("delivery", &[seq], what));
            }
        }
        Vec::new()
    }

    fn leave(&mut self, id: &GroupId, device: &PoolId, seq: u64) -> Option<Finding> {
        let name = GroupName(id);
        let owes = self.asked.contains_key(device);
        let was_member = self.end(device);
        if !was_member {
            let what = format!("{device} leaves group {name} at {seq}, and is no member.");
            return Some(broken("member", &[seq], what));
        }
        let what =
            || format!("{device} leaves group {name} at {seq}, and owes its inviter an answer.");
        owes.then(|| broken("answer", &[seq], what()))
    }
}

#[derive(Debug)]
struct Pending {
    command: CommandId,
    group: GroupId,
    seq: u64,
    committer: PoolId,
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
            Event::DeviceRemoved { .. } => {
                if let Some(mailbox) = self.mailboxes.get_mut(device) {
                    *mailbox = mailbox.after_removal();
                }
                for group in self.groups.values_mut() {
                    group.end(device);
                }
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
                pending.seq,
                GroupName(&pending.group)
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
        let (seq, name) = (seen.seq, GroupName(id));
        let group = self.groups.entry(id.clone()).or_default();
        let recipients = group.recipients((id, event), seq, findings);
        if let Event::Left { device, .. } = event {
            self.mailboxes.entry(device.clone()).or_default().forget(id);
        }
        if let (Event::Posted { .. }, None, None) = (event, group.ended, group.made) {
            let what =
                format!("a message stands at {seq} in group {name}, which no Commit has made.");
            findings.push(broken("member", &[seq], what));
        }
        match event {
            Event::Committed { .. } => self.see_commit(seen, id, event, findings),
            Event::Welcomed { to, by } => {
                self.see_welcome(seen, id, (to, by.as_ref()), findings);
            }
            _ => {}
        }
        let (sender, posted) = match event {
            Event::Posted { sender, .. } => (Some(sender), true),
            Event::Committed { committer, .. } => (Some(committer), false),
            _ => (None, false),
        };
        let answering = match event {
            Event::InvitationAnswered { device, .. } => Some(device),
            _ => None,
        };
        for recipient in recipients {
            let mailbox = self.mailboxes.entry(recipient).or_default();
            match answering {
                Some(by) => mailbox.keep_answer((seq, id), by),
                None => mailbox.keep((seq, id), sender, posted),
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
        let (seq, name) = (seen.seq, GroupName(id));
        let group = self.groups.entry(id.clone()).or_default();
        if let Some((ended, before)) = group.ended
            && *epoch != ended.saturating_add(1)
        {
            let what = format!(
                "the Commit at {seq} is for epoch {epoch} of group {name}; the one before it, at \
                 {before}, ended epoch {ended}: each epoch has one Commit."
            );
            findings.push(broken("epoch", &[before, seq], what));
        }
        if let (None, Some(made)) = (group.ended, group.made)
            && *epoch != 0
        {
            let what = format!(
                "the first Commit of group {name}, at {seq}, is for epoch {epoch}; the group was made at \
                 {made} in epoch 0."
            );
            findings.push(broken("epoch", &[made, seq], what));
        }
        group.ended = Some((*epoch, seq));
        group.members.insert(committer.clone());
        for gone in removed {
            group.end(gone);
        }
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
                "the Commit at {seq} adds {device} to group {name}, and {committer} has spent no package \
                 of it for that group."
            );
            findings.push(broken("spend", &[seq], what));
        }
        self.pending = Some(Pending {
            command: seen.envelope.command,
            group: id.clone(),
            seq,
            committer: committer.clone(),
            unwelcomed: added.iter().cloned().collect(),
        });
    }

    fn see_welcome(
        &mut self,
        seen: AuditedEvent<'_>,
        id: &GroupId,
        (to, by): (&[PoolId], Option<&PoolId>),
        findings: &mut Vec<Finding>,
    ) {
        let seq = seen.seq;
        if let Some(by) = by {
            let asked = to.iter().map(|device| (device.clone(), (by.clone(), true)));
            self.groups.entry(id.clone()).or_default().asked.extend(asked);
        }
        let Some(pending) = self.pending.as_mut().filter(|pending| pending.group == *id) else {
            let what = format!("a Welcome stands at {seq} without the Commit that it belongs to.");
            findings.push(broken("welcome", &[seq], what));
            return;
        };
        let commit = pending.seq;
        if let Some(by) = by.filter(|by| **by != pending.committer) {
            let what = format!("the Welcome at {seq} is by {by}, whose Commit at {commit} is not.");
            findings.push(broken("welcome", &[commit, seq], what));
        }
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
        for what in mailbox.see((seq, seen.envelope.at), event) {
            let what = format!("the mailbox of {device} at {seq}: {what}.");
            findings.push(broken("mailbox", &[seq], what));
        }
    }
}
