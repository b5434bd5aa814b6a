//! The commands about members' keys: who is in a group, safety numbers, devices, and keys that have changed.

use std::collections::BTreeSet;

use keypool_client::{AuditFinding, GroupId, GroupMember, LeafTrust, PeerKeys, PeerStatus, PoolId};

use super::{
    Chat, ChatEnd,
    commands::{NO_ANSWER, in_time},
    names::{marked, target},
};
use crate::identity::{device_lines, devices_text, keys_changed, no_device, number_text};

impl Chat<'_> {
    /// The members of a group, each with a mark if the key is not known as theirs.
    pub(super) async fn list(&mut self, group: &GroupId) -> Result<String, ChatEnd> {
        let mut members = match self.client.members(group) {
            Ok(members) => members,
            Err(error) => return self.told(&error),
        };
        if members.iter().any(|member| !member.trust.is_known()) {
            // Without an answer the members are listed as they are known.
            drop(in_time(self.client.check_members(group)).await);
            members = self.client.members(group)?;
            self.key_changes.are_due = true;
        }
        let own = self.client.identity().pool().to_string();
        let listed = |member: &GroupMember| {
            let name = marked(&member.name, &member.trust);
            match &member.trust {
                trust if trust.is_known() && member.name == own => format!("{name} (you)"),
                LeafTrust::Verified => format!("{name} (verified)"),
                _ => name,
            }
        };
        let people: Vec<String> = members.iter().map(listed).collect();
        let mut lines = vec![format!("in {}: {}", self.name(group), people.join(", "))];
        lines.extend(members.iter().filter_map(doubt));
        Ok(lines.join("\n"))
    }

    /// Shows the safety number of this user and another one. With `is_same`, verifies the user, if the number
    /// is the one that was shown before.
    pub(super) async fn verify(&mut self, who: &str, is_same: bool) -> Result<String, ChatEnd> {
        let user = target(who).0;
        let own = self.client.identity().pool().user();
        if user == own {
            return Ok("that is you; /devices shows your devices".to_owned());
        }
        let number = match in_time(self.client.safety_number(user)).await {
            Some(Ok(Some(number))) => number,
            Some(Ok(None)) => return Ok(no_device(user)),
            Some(Err(error)) => return self.told(&error),
            None => return Ok(NO_ANSWER.to_owned()),
        };
        self.key_changes.are_due = true;
        let Some(peer) = self.client.peer(user)? else { return Ok(no_device(user)) };
        if let PeerStatus::Changed { why, .. } = &peer.status {
            return Ok(format!("{}; /accept {user} shows more", keys_changed(user, why)));
        }
        let shown = self.shown_numbers.insert(user.to_owned(), number.clone());
        if is_same && shown.as_ref() == Some(&number) {
            self.client.verify_peer(user)?;
            return Ok(format!("{user} is verified; you are told if the keys of {user} change"));
        }
        let next = match &peer.status {
            PeerStatus::Verified { .. } => format!("{user} is verified"),
            _ => format!(
                "{user} sees it by /verify {own}. Compare all of it, face to face or on the phone, not in this \
                 chat\nif it is the same: /verify {user} yes"
            ),
        };
        Ok(format!("{}\n{next}", number_text(user, &number)))
    }

    /// The devices of a user, or of this one.
    pub(super) async fn devices(&mut self, who: Option<&str>) -> Result<String, ChatEnd> {
        let user = who.map_or_else(|| self.client.identity().pool().user(), |who| target(who).0);
        match in_time(self.client.look_up_peer(user)).await {
            Some(Ok(Some(peer))) if !peer.devices.is_empty() => {
                self.key_changes.are_due = true;
                Ok(devices_text(self.client, &peer))
            }
            Some(Ok(_)) => Ok(no_device(user)),
            Some(Err(error)) => self.told(&error),
            None => Ok(NO_ANSWER.to_owned()),
        }
    }

    /// Shows how a user's keys have changed. With `is_sure`, accepts the new ones, and shows them.
    pub(super) async fn accept_keys(
        &mut self,
        who: &str,
        is_sure: bool,
    ) -> Result<String, ChatEnd> {
        let user = target(who).0;
        let before = match in_time(self.client.look_up_peer(user)).await {
            Some(Ok(Some(peer))) => peer,
            Some(Ok(None)) => return Ok(no_device(user)),
            Some(Err(error)) => return self.told(&error),
            None => return Ok(NO_ANSWER.to_owned()),
        };
        let is_changed = matches!(before.status, PeerStatus::Changed { .. });
        if before.devices.is_empty() && !is_changed {
            return Ok(no_device(user));
        }
        let PeerStatus::Changed { why, .. } = &before.status else {
            return Ok(format!(
                "the keys of {user} follow from those you have seen; /verify {user} compares them"
            ));
        };
        let changed = format!(
            "{}; seen before were:\n{}",
            keys_changed(user, why),
            device_lines(&before, None)
        );
        if !is_sure {
            return Ok(format!(
                "{changed}\nask {user} by another way than this chat; if the change is theirs: /accept {user} yes"
            ));
        }
        match in_time(self.client.accept_peer(user)).await {
            Some(Ok(after)) => self.accepted(user, &changed, after.as_ref()).await,
            Some(Err(error)) => self.told(&error),
            None => Ok(NO_ANSWER.to_owned()),
        }
    }

    async fn accepted(
        &mut self,
        user: &str,
        changed: &str,
        after: Option<&PeerKeys>,
    ) -> Result<String, ChatEnd> {
        self.key_changes.are_due = true;
        // The members of groups are judged by the new keys.
        for group in self.groups()? {
            drop(in_time(self.client.check_members(&group)).await);
        }
        let now = after.map(|after| device_lines(after, None)).unwrap_or_default();
        Ok(format!(
            "{changed}\naccepted are:\n{now}\n{user} is not verified now; /verify {user} compares the keys"
        ))
    }

    /// Accepts the members of a group whose keys are not known as theirs: messages go to them again.
    pub(super) async fn accept_members(&mut self, group: &GroupId) -> Result<String, ChatEnd> {
        let name = self.name(group);
        let members = match in_time(self.client.check_members(group)).await {
            Some(Ok(members)) => members,
            Some(Err(error)) => return self.told(&error),
            None => return Ok(NO_ANSWER.to_owned()),
        };
        if members.is_empty() {
            return Ok(format!("nobody in {name} waits to be accepted; /list shows who is there"));
        }
        self.client.accept_untrusted(group)?;
        let names: Vec<String> = members
            .iter()
            .map(|member| marked(&member.name, &LeafTrust::Contradicts(member.why.clone())))
            .collect();
        Ok(format!("{} in {name}: accepted; what you write goes to them", names.join(", ")))
    }

    /// Shows once the findings of the audit, and the changes of verified users' devices.
    pub(super) fn tell_keys(&mut self) -> Result<(), ChatEnd> {
        self.key_changes.are_due = false;
        self.audit()?;
        self.tell_changes()
    }

    /// Shows once each change of the devices of verified users.
    pub(super) fn tell_changes(&mut self) -> Result<(), ChatEnd> {
        for user in self.known_users()? {
            let news = self.client.peer(&user)?.and_then(|peer| self.key_changes.news(&peer));
            if let Some(news) = news {
                self.screen.say(&news);
            }
        }
        Ok(())
    }

    /// The users of all groups.
    fn known_users(&self) -> Result<BTreeSet<String>, ChatEnd> {
        let mut users = BTreeSet::new();
        for group in self.groups()? {
            let members = self.client.members(&group)?;
            let devices = members.iter().filter_map(|member| member.name.parse::<PoolId>().ok());
            users.extend(devices.map(|device| device.user().to_owned()));
        }
        Ok(users)
    }
}

/// The line of a member whose key is not known as theirs.
fn doubt(member: &GroupMember) -> Option<String> {
    let name = marked(&member.name, &member.trust);
    match &member.trust {
        LeafTrust::Verified | LeafTrust::Known => None,
        LeafTrust::Unchecked => Some(format!("{name}: not looked up at the server yet")),
        LeafTrust::Contradicts(why) => Some(format!("{name}: {why}")),
    }
}

/// The alarm for an identity that the audit has found, unless it is told where it happens.
pub(super) fn alarm(finding: &AuditFinding) -> Option<String> {
    let AuditFinding::KeysChanged { user, why, .. } = finding else { return None };
    Some(format!(
        "ATTENTION: {}. Nobody is invited by the new ones: ask {user} by another way than this chat, then \
         /accept {user}, and /verify {user}",
        keys_changed(user, why)
    ))
}

/// Whether a finding of the audit is told where it happens, or by [`alarm`].
pub(super) const fn is_told_apart(finding: &AuditFinding) -> bool {
    matches!(
        finding,
        AuditFinding::InvitationRefused { .. }
            | AuditFinding::KeysChanged { .. }
            | AuditFinding::DeviceNotIntroduced { .. }
            | AuditFinding::HomeSetBack { .. }
    )
}
