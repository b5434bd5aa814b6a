//! Mailbox events, shown on the screen.

use keypool_client::{Change, GroupId, MailboxEvent, MailboxEventKind, PoolId, SyncError};

use super::{
    Chat, ChatEnd,
    commands::{is_unregistered, not_reached},
    names::{marked, name_among, person},
    trust,
};
use crate::output::{plain, sentence};

impl Chat<'_> {
    /// Shows new events, or an error once.
    pub(super) fn receive(
        &mut self,
        outcome: Result<Vec<MailboxEvent>, SyncError>,
    ) -> Result<(), ChatEnd> {
        match outcome {
            Ok(events) => {
                self.server_is_back();
                self.tell_all(events)
            }
            Err(SyncError::Storage(error)) => Err(error.into()),
            Err(SyncError::Api(error)) if is_unregistered(&error) => {
                if self.is_registered {
                    self.disown();
                } else {
                    // It answers, so that the device can register.
                    self.server_is_back();
                    self.is_waiting = true;
                }
                Ok(())
            }
            Err(error) => {
                self.is_waiting = true;
                let text = sentence(&error);
                if self.mail_trouble.as_ref() != Some(&text) {
                    self.screen.say(&format!("{text} (trying again; what you write is kept)"));
                    self.mail_trouble = Some(text);
                }
                Ok(())
            }
        }
    }

    fn server_is_back(&mut self) {
        if self.mail_trouble.take().is_some() {
            self.screen.say("the server is back");
            self.is_refresh_due = true;
        }
    }

    /// Shows events, and confirms them once they are shown.
    fn tell_all(&mut self, events: Vec<MailboxEvent>) -> Result<(), ChatEnd> {
        let Some(last) = events.last().map(|last| last.position) else { return Ok(()) };
        for event in events {
            let again = if event.repeated { "(perhaps shown before) " } else { "" };
            if let Some(text) = self.text_of(event.kind)? {
                self.screen.say(&format!("{again}{text}"));
            }
        }
        self.screen.flush();
        Ok(self.client.confirm(last)?)
    }

    /// Applies an event to the chat's state, and returns its text. `None` if there is nothing to show.
    fn text_of(&mut self, what: MailboxEventKind) -> Result<Option<String>, ChatEnd> {
        Ok(match what {
            MailboxEventKind::Joined { group, inviter, last_resort, trust, untrusted } => {
                let inviter = marked(&inviter, &trust);
                let joined = self.joined(&group, &inviter, last_resort)?;
                Some(with_untrusted(&joined, trust::untrusted(&self.name(&group), &untrusted)))
            }
            MailboxEventKind::InvitationRefused { group, inviter, why } => {
                self.key_changes.are_due = true;
                Some(trust::refused_invitation(&self.name(&group), &inviter, &why))
            }
            MailboxEventKind::OtherSender { group, sender, named } => {
                Some(trust::other_sender(&self.name(&group), &sender, &named))
            }
            MailboxEventKind::Message { group, sender, trust, bytes } => {
                self.key_changes.are_due |= !trust.is_known();
                self.message(&group, &marked(&sender, &trust), &bytes)?
            }
            MailboxEventKind::Changed(change) => self.changed(&change),
            MailboxEventKind::Proposed { group, sender, to_leave } => {
                let (who, name) = (person(&sender), self.name(&group));
                self.proposed.insert(group);
                Some(if to_leave {
                    format!("{who} asks to leave {name}")
                } else {
                    format!("{who} proposes a change of {name}")
                })
            }
            MailboxEventKind::Left { group, members } => {
                let have = if members.len() == 1 { "has" } else { "have" };
                Some(format!("{} {have} left {}", people(&members), self.name(&group)))
            }
            MailboxEventKind::NotReached { group, members, commit } => {
                Some(self.missed(&group, &members, commit))
            }
            MailboxEventKind::SetBack { groups } => Some(self.set_back(&groups)),
            MailboxEventKind::NotKept { group, sender } => {
                Some(self.not_kept(&group, sender.as_ref()))
            }
            MailboxEventKind::RemovedOtherwise { group, sender, claimed, removed } => {
                let claimed: Vec<String> = claimed.iter().map(ToString::to_string).collect();
                Some(format!(
                    "{} told the server that {} left {}, and the group that {} did; whom only the server \
                     was told of gets no messages any more",
                    person(&sender),
                    people(&claimed),
                    self.name(&group),
                    people(&removed)
                ))
            }
            MailboxEventKind::InvitationAnswered { group, device, answer } => {
                Some(self.answered(&group, &device, answer)?)
            }
            MailboxEventKind::InvitationResumed { group, devices } => {
                self.key_changes.are_due = true;
                self.resumed(&group, &devices)?
            }
            MailboxEventKind::Unreadable { group, why } => {
                Some(format!("something in {} cannot be read: {}", self.name(&group), plain(&why)))
            }
        })
    }

    /// The group that the device was brought into; it is the current one if there was none.
    fn joined(
        &mut self,
        group: &GroupId,
        inviter: &str,
        last_resort: bool,
    ) -> Result<String, ChatEnd> {
        self.is_refresh_due = true;
        self.key_changes.are_due = true;
        let name = self.name(group);
        let is_first = self.current.is_none();
        let where_to = if is_first { String::new() } else { format!("; /switch {name}") };
        if is_first {
            self.current = Some(group.clone());
            self.redraw_first()?;
        }
        let how = if last_resort { ", by your last-resort KeyPackage" } else { "" };
        Ok(format!("{inviter} has brought you into {name}{how}{where_to}"))
    }

    /// A message; those of a group that is being left are not shown.
    fn message(
        &mut self,
        group: &GroupId,
        sender: &str,
        bytes: &[u8],
    ) -> Result<Option<String>, ChatEnd> {
        self.messages = self.messages.saturating_add(1);
        self.is_refresh_due |= self.messages >= self.options.refresh_messages;
        let all = self.groups()?;
        if !all.contains(group) {
            return Ok(None);
        }
        let said = plain(&String::from_utf8_lossy(bytes));
        if self.current.as_ref() == Some(group) {
            return Ok(Some(format!("{sender}: {said}")));
        }
        *self.unread.entry(group.clone()).or_default() += 1;
        Ok(Some(format!("[{}] {sender}: {said}", name_among(group, &all))))
    }

    /// Says that this home is an older copy of itself, and how to go on in its groups.
    fn set_back(&self, groups: &[GroupId]) -> String {
        let names: Vec<String> = groups.iter().map(|group| self.name(group)).collect();
        let what = "this home is an older copy of itself, or another copy of it is in use: what was said since is \
                    lost here";
        if names.is_empty() {
            return what.to_owned();
        }
        format!(
            "{what}. Nothing is sent to {} any more: /leave, and ask to be removed and invited again",
            names.join(", ")
        )
    }

    /// Says that messages of a member, or all items of a group, were not kept.
    fn not_kept(&self, group: &GroupId, sender: Option<&PoolId>) -> String {
        let name = self.name(group);
        match sender {
            Some(sender) => format!(
                "some messages of {} in {name} were not kept: there were too many while you were away",
                person(&sender.to_string())
            ),
            None => format!(
                "messages of {name} were lost: there were too many while you were away; ask to be removed \
                 from {name} and invited again"
            ),
        }
    }

    /// Names the members whose mailboxes had no room for a message or a Commit of this device.
    fn missed(&self, group: &GroupId, members: &[PoolId], commit: bool) -> String {
        let name = self.name(group);
        if !commit {
            return not_reached(members, &format!("a message to {name} that had waited"));
        }
        let line = |member: &PoolId| {
            let who = person(&member.to_string());
            format!(
                "{who} did not get a change of {name}: their mailbox is full for it, and they cannot read what \
                 follows; /remove {who}, then /invite {who}"
            )
        };
        members.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// The members who came and went, and the sender of the change.
    fn changed(&mut self, change: &Change) -> Option<String> {
        let (who, name) = (person(&change.sender), self.name(&change.group));
        self.key_changes.are_due = true;
        if change.removed_self {
            // Nobody is spoken to by accident: the next group is chosen by the user.
            self.current.take_if(|current| *current == change.group);
            if self.prompted.as_ref() == Some(&change.group) {
                self.screen.redraw(&["(no group)> ", "(none)> ", "> "]);
            }
            return Some(format!("you are out of {name}; {who} has seen to it"));
        }
        let mut parts = Vec::new();
        if !change.added.is_empty() {
            parts.push(format!("brought {} into {name}", people(&change.added)));
        }
        if !change.removed.is_empty() {
            parts.push(format!("taken {} out of {name}", people(&change.removed)));
        }
        let changed = (!parts.is_empty()).then(|| format!("{who} has {}", parts.join(" and ")));
        let untrusted = trust::untrusted(&name, &change.untrusted);
        match changed {
            Some(changed) => Some(with_untrusted(&changed, untrusted)),
            None => untrusted,
        }
    }
}

/// A text, and on lines of its own the members whose keys are not known as theirs.
fn with_untrusted(text: &str, untrusted: Option<String>) -> String {
    untrusted.map_or_else(|| text.to_owned(), |untrusted| format!("{text}\n{untrusted}"))
}

/// Some members by name, or that it is nobody.
fn people(names: &[String]) -> String {
    match names {
        [] => "nobody".to_owned(),
        names => names.iter().map(|name| person(name)).collect::<Vec<_>>().join(", "),
    }
}
