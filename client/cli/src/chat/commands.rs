//! The commands of the chat, carried out, and the follow-up work that no command asks for.

use std::{future::Future, time::Duration};

use keypool_client::{
    ApiError, Code, GroupError, GroupId, InviteError, Invited, PolicyReply, PoolId, Problem,
    RegisterError, ResumedMessage, SendError, UpdateError,
};
use tokio::time::timeout;

use super::{
    Chat, ChatEnd,
    command::{ChatCommand, HELP, parse},
    invitees::are,
    names::{find, fresh_group, name_among, name_and_suite, person, target},
    trust::not_sent,
};
use crate::{
    output::{bar, plain, sentence},
    pool::{KEY_RETIRED, history_table, is_of},
};

/// How long a command waits for the server. Unfinished work goes on when the server answers.
const COMMAND_WAIT: Duration = Duration::from_secs(20);

/// The reply to a group command when the device is in no group.
const NO_GROUP: &str = "you are in no group; /create NAME makes one, /groups lists yours";
/// The reply to a group command when the device is in groups and the user has chosen none.
const NO_GROUP_CHOSEN: &str = "no group is chosen; /switch NAME goes to one, /groups lists yours";

/// The text for a command that needs a registered device.
const NOT_LINKED: &str = "this device is not linked yet: type /link and the word that the other \
                                     device shows, or /quit";

impl Chat<'_> {
    /// Carries out the command of a line, and shows its outcome.
    pub(super) async fn obey(&mut self, line: &str) -> Result<(), ChatEnd> {
        let command = match parse(line) {
            Ok(command) => command,
            Err(why) => {
                self.screen.say(&why);
                return Ok(());
            }
        };
        let text = match command {
            ChatCommand::Nothing => return Ok(()),
            ChatCommand::Quit => return Err(ChatEnd::Asked),
            ChatCommand::Help => HELP.to_owned(),
            ChatCommand::Link(word) => self.link(&word).await?,
            _ if self.refused.is_some() => NOT_LINKED.to_owned(),
            ChatCommand::Create(name) => self.create(&name)?,
            ChatCommand::Invitations => self.list_invitations()?,
            ChatCommand::Groups => self.list_groups()?,
            ChatCommand::Switch(word) => self.switch(&word)?,
            ChatCommand::Block(people) => {
                let said = format!("{} can neither invite you nor write to you", listed(&people));
                self.change_policy(self.client.block(people), said).await?
            }
            ChatCommand::Unblock(people) => {
                let said = format!("{} can invite you and write to you again", listed(&people));
                self.change_policy(self.client.unblock(people), said).await?
            }
            ChatCommand::Verify { user, is_same } => self.verify(&user, is_same).await?,
            ChatCommand::AcceptKeys { user, is_sure } => self.accept_keys(&user, is_sure).await?,
            ChatCommand::Devices(user) => self.devices(user.as_deref()).await?,
            ChatCommand::Pool => self.pool().await?,
            ChatCommand::Refresh => {
                self.refresh_trouble = None;
                self.refresh().await?;
                self.pool().await?
            }
            ChatCommand::History(begins) => self.history(&begins).await?,
            ChatCommand::Say(_)
            | ChatCommand::Invite(_)
            | ChatCommand::AcceptMembers
            | ChatCommand::List
            | ChatCommand::Remove(_)
            | ChatCommand::Leave => match self.group_of_line() {
                Ok(group) => self.in_group(&group, command).await?,
                Err(why) => why,
            },
        };
        if !text.is_empty() {
            self.screen.say(&text);
        }
        Ok(())
    }

    /// The group that a line is for: the one of the prompt it was typed under, if it is still the current
    /// one. A line typed under no group is for the first one that the device was brought into meanwhile.
    fn group_of_line(&self) -> Result<GroupId, String> {
        match (&self.prompted, &self.current) {
            (Some(prompted), current) if current.as_ref() != Some(prompted) => Err(format!(
                "nothing was done with that line: it was for {}, which you are out of; /switch NAME goes to \
                 another group",
                self.name(prompted)
            )),
            (_, Some(current)) => Ok(current.clone()),
            (_, None) if self.groups().is_ok_and(|all| all.is_empty()) => Err(NO_GROUP.to_owned()),
            (_, None) => Err(NO_GROUP_CHOSEN.to_owned()),
        }
    }

    /// Carries out a command in a group. Returns the text to show.
    async fn in_group(&mut self, group: &GroupId, command: ChatCommand) -> Result<String, ChatEnd> {
        let mut said = Vec::new();
        match command {
            ChatCommand::Say(text) => said.push(self.speak(group, &text).await?),
            ChatCommand::Invite(people) => said.push(self.invite(group, people).await?),
            ChatCommand::Remove(people) => {
                for who in people {
                    said.push(self.remove(group, &who).await?);
                }
            }
            ChatCommand::List => said.push(self.list(group).await?),
            ChatCommand::AcceptMembers => said.push(self.accept_members(group).await?),
            ChatCommand::Leave => said.push(self.leave(group).await?),
            _ => {}
        }
        said.retain(|text| !text.is_empty());
        // Errors name a group by its id, which nobody knows here.
        Ok(said.join("\n").replace(&group.to_string(), &self.name(group)))
    }

    fn create(&mut self, name: &str) -> Result<String, ChatEnd> {
        let (name, suite) = name_and_suite(name);
        let group = match fresh_group(name) {
            Ok(group) => group,
            Err(why) => return Ok(why),
        };
        let made = match suite {
            Some(suite) => self.client.create_group_in(&group, suite),
            None => self.client.create_group(&group),
        };
        if let Err(error) = made {
            return self.told(&error);
        }
        self.current = Some(group.clone());
        Ok(format!("{} is made; /invite USER… brings people in", self.name(&group)))
    }

    fn list_groups(&self) -> Result<String, ChatEnd> {
        let all = self.groups()?;
        let line = |(number, group): (usize, &GroupId)| {
            let members = self.client.members(group).map_or(0, |members| members.len());
            let unread = self.unread.get(group).map(|count| format!(", {count} unread"));
            let here = if self.current.as_ref() == Some(group) { " <- here" } else { "" };
            let (name, unread) = (name_among(group, &all), unread.unwrap_or_default());
            let s = if members == 1 { "" } else { "s" };
            format!("{} {name}: {members} member{s}{unread}{here}", number + 1)
        };
        let lines: Vec<String> = all.iter().enumerate().map(line).collect();
        Ok(if lines.is_empty() { NO_GROUP.to_owned() } else { lines.join("\n") })
    }

    fn switch(&mut self, word: &str) -> Result<String, ChatEnd> {
        let all = self.groups()?;
        match find(word, &all) {
            Ok(group) => {
                self.unread.remove(group);
                self.current = Some(group.clone());
                Ok(String::new())
            }
            Err(why) => Ok(why),
        }
    }

    async fn speak(&mut self, group: &GroupId, text: &str) -> Result<String, ChatEnd> {
        self.messages = self.messages.saturating_add(1);
        self.is_refresh_due |= self.messages >= self.options.refresh_messages;
        match in_time(self.client.send(group, text.as_bytes())).await {
            Some(Ok(Some(sent))) => Ok(not_reached(&sent.not_kept, "this")),
            Some(Ok(None)) => Ok("nobody else is here yet; /invite USER… first".to_owned()),
            None | Some(Err(SendError::Unfinished(_))) => {
                self.is_waiting = true;
                Ok("the server does not answer; the message goes out when it does".to_owned())
            }
            Some(Err(error)) => match not_sent(&self.name(group), &error) {
                Some(text) => Ok(text),
                None => self.told(&error),
            },
        }
    }

    async fn invite(&mut self, group: &GroupId, people: Vec<String>) -> Result<String, ChatEnd> {
        let who = people.join(", ");
        self.key_changes.are_due = true;
        match in_time(self.client.invite(group, people)).await {
            Some(outcome) => self.invited(&who, outcome),
            None => Ok(self.waits(&format!("the invitation of {}", plain(&who)))),
        }
    }

    /// The text for the outcome of an invitation.
    pub(super) fn invited(
        &mut self,
        who: &str,
        outcome: Result<Invited, InviteError>,
    ) -> Result<String, ChatEnd> {
        match outcome {
            Ok(Invited { group, added, missing, .. }) => {
                let (worn, fresh): (Vec<_>, Vec<_>) =
                    added.into_iter().partition(|added| added.last_resort);
                let group = self.name(&group);
                let mut said = Vec::new();
                if !fresh.is_empty() {
                    said.push(format!(
                        "{} in {group}; they see what is said from now on",
                        are(&fresh)
                    ));
                }
                if !worn.is_empty() {
                    said.push(format!(
                        "{} in {group}, by their last-resort KeyPackage; they see what is said from \
                         now on",
                        are(&worn)
                    ));
                }
                for skipped in &missing {
                    said.push(self.missed_out(skipped)?);
                }
                Ok(said.join("\n"))
            }
            Err(InviteError::Nobody { missing }) => {
                let said: Result<Vec<String>, _> =
                    missing.iter().map(|skipped| self.missed_out(skipped)).collect();
                Ok(said?.join("\n"))
            }
            Err(InviteError::Unfinished { .. }) => {
                Ok(self.waits(&format!("the invitation of {}", plain(who))))
            }
            Err(error) => self.told(&error),
        }
    }

    async fn remove(&mut self, group: &GroupId, who: &str) -> Result<String, ChatEnd> {
        let (user, device) = target(who);
        let removed = in_time(self.client.remove(group, user, device)).await;
        let is_uninvited = self.uninvite(group, who).await?;
        let who = plain(who);
        match removed {
            Some(Ok(())) => Ok(format!("{who} is out of {}", self.name(group))),
            Some(Err(UpdateError::Group(GroupError::NotAMember { .. }))) if is_uninvited => {
                Ok(format!("{who} is not invited to {} any more", self.name(group)))
            }
            Some(Err(UpdateError::Group(GroupError::NotAMember { .. }))) => {
                Ok(format!("{who} is not in {}; /list says who is", self.name(group)))
            }
            None | Some(Err(UpdateError::Unfinished(_))) => {
                Ok(self.waits(&format!("the removal of {who}")))
            }
            Some(Err(error)) => self.told(&error),
        }
    }

    async fn leave(&mut self, group: &GroupId) -> Result<String, ChatEnd> {
        let name = self.name(group);
        let outcome = in_time(self.client.leave(group)).await;
        match outcome {
            None | Some(Ok(()) | Err(SendError::Unfinished(_))) => {
                self.is_waiting |= !matches!(outcome, Some(Ok(())));
                self.current = self.groups()?.into_iter().next();
                Ok(format!("you have left {name}"))
            }
            Some(Err(error)) => self.told(&error),
        }
    }

    /// Sends a policy change to the server and returns `said` when the server has accepted it.
    async fn change_policy(
        &self,
        change: impl Future<Output = Result<PolicyReply, ApiError>>,
        said: String,
    ) -> Result<String, ChatEnd> {
        match in_time(change).await {
            Some(Ok(_)) => Ok(said),
            Some(Err(error)) => self.told(&error),
            None => Ok(NO_ANSWER.to_owned()),
        }
    }

    /// How full the pool is, as one line.
    async fn pool(&mut self) -> Result<String, ChatEnd> {
        let status = match in_time(self.client.status()).await {
            Some(Ok(status)) => status,
            Some(Err(error)) => return self.told(&error),
            None => return Ok(NO_ANSWER.to_owned()),
        };
        let (counts, size) = (&status.counts, self.options.size.target);
        let lasts = status.seconds_to_empty.map(|seconds| seconds / 3600);
        let lasts = lasts.map(|hours| format!("; at today's pace it lasts {hours} hours"));
        Ok(format!(
            "pool: {} {} {} of {size} available, {} of last resort, {} reserved, {} spent{}",
            status.pool_health,
            bar(counts.available),
            counts.available,
            counts.last_resort,
            counts.reserved,
            counts.spent,
            lasts.unwrap_or_default()
        ))
    }

    async fn history(&mut self, begins: &str) -> Result<String, ChatEnd> {
        let fetch = self.client.fetch_history();
        if let Some(Err(error)) = in_time(fetch).await {
            let told = self.told(&error)?;
            self.screen.say(&format!("{told} (what is known already:)"));
        }
        let mut moments = self.client.history(None)?;
        moments.retain(|moment| begins.is_empty() || is_of(moment, begins));
        Ok(match moments.as_slice() {
            [] if begins.is_empty() => "nothing has happened to the pool yet".to_owned(),
            [] => format!("no KeyPackage here has a reference that begins with {}", plain(begins)),
            moments => history_table(moments).to_string(),
        })
    }

    /// Follows up on new items: commits proposals, and resumes work that waited for the server.
    pub(super) async fn follow_up(&mut self) -> Result<(), ChatEnd> {
        if self.is_waiting && self.mail_trouble.is_none() {
            self.go_on().await?;
        }
        for group in std::mem::take(&mut self.proposed) {
            match in_time(self.client.take_up_proposals(&group)).await {
                Some(Ok(())) => {}
                Some(Err(error)) => drop(self.told(&error)?),
                None => self.is_waiting = true,
            }
        }
        if let Some(Err(error)) = in_time(self.client.resume_leaving()).await {
            self.told(&error)?;
        }
        Ok(())
    }

    /// Registers the device, and resumes work that a crash or a silent server has interrupted.
    pub(super) async fn go_on(&mut self) -> Result<(), ChatEnd> {
        self.is_waiting = false;
        if self.refused.is_some() {
            return Ok(());
        }
        if !self.is_registered {
            match in_time(self.client.register()).await {
                Some(Ok(_)) => self.is_registered = true,
                // The mailbox says so.
                None | Some(Err(RegisterError::ServerUnreachable(_))) => {
                    self.is_waiting = true;
                    return Ok(());
                }
                Some(Err(error @ RegisterError::IdentityBound(_))) => {
                    self.ask_to_be_linked(error);
                    return Ok(());
                }
                Some(Err(error @ RegisterError::Rotation(_))) => return Err(error.into()),
                Some(Err(error)) => return Err(cannot_take_part(&error)),
            }
            self.is_refresh_due = true;
        }
        for resumed in self.client.resume_outbox().await? {
            self.went_out(&resumed);
        }
        for resumed in self.client.resume_invitations().await? {
            let text = self.invited(&resumed.target, resumed.outcome)?;
            self.screen.say(&text);
        }
        for resumed in self.client.resume_updates().await? {
            match resumed.outcome {
                Ok(()) => {}
                Err(UpdateError::Unfinished(_)) => self.is_waiting = true,
                Err(error) => self.screen.say(&sentence(&error)),
            }
        }
        Ok(())
    }

    /// Shows the outcome of a message that waited in the outbox, where it is no full success.
    fn went_out(&mut self, resumed: &ResumedMessage) {
        let name = self.name(&resumed.group);
        match &resumed.outcome {
            Ok(sent) if sent.not_kept.is_empty() => {}
            Ok(sent) => self
                .screen
                .say(&not_reached(&sent.not_kept, &format!("a message to {name} that had waited"))),
            Err(error @ SendError::Refused(_)) => {
                self.screen.say(&format!("a message to {name} was not sent: {}", sentence(error)));
            }
            Err(error) => self.is_waiting |= matches!(error, SendError::Unfinished(_)),
        }
    }

    /// The sentence for an error. Where the disk is the cause, it is the end.
    pub(super) fn told(
        &self,
        error: &(dyn std::error::Error + 'static),
    ) -> Result<String, ChatEnd> {
        let text = sentence(error);
        match self.client.events() {
            Ok(_) => Ok(text),
            Err(_) => {
                Err(ChatEnd::Broken(format!("{text}; look at the disk, and start again").into()))
            }
        }
    }

    /// Whether the server refuses the device that it knew before.
    pub(super) fn is_disowned(&self, error: &ApiError) -> bool {
        self.is_registered && is_unregistered(error)
    }

    /// Says that the device is not registered any more. Registering it comes next.
    pub(super) fn disown(&mut self) {
        (self.is_registered, self.is_waiting) = (false, true);
        self.screen.say("the server does not know this device any more: it was removed");
    }

    fn waits(&mut self, what: &str) -> String {
        self.is_waiting = true;
        format!("{what} is not finished; it goes on when the server answers")
    }
}

/// Why the device cannot take part at all.
fn cannot_take_part(error: &RegisterError) -> ChatEnd {
    let advice = match error {
        RegisterError::KeyRetired(_) => KEY_RETIRED.to_owned(),
        _ => "look at --server".to_owned(),
    };
    ChatEnd::Broken(format!("{}\n{advice}", sentence(error)).into())
}

/// Whether the server answers that no device is registered with this key.
pub(super) fn is_unregistered(error: &ApiError) -> bool {
    let is_unknown = |problem: &Problem| {
        problem.code == Code::Unauthenticated && problem.detail.starts_with("unregistered key")
    };
    matches!(error, ApiError::Refused(problem) if is_unknown(problem))
}

/// Some people as they were typed.
fn listed(people: &[String]) -> String {
    plain(&people.join(", "))
}

/// Lists the members whose mailboxes had no room for a message, one line each.
pub(super) fn not_reached(not_kept: &[PoolId], what: &str) -> String {
    let line = |device: &PoolId| {
        let who = person(&device.to_string());
        format!("{who} did not get {what}: their mailbox is full for this group")
    };
    not_kept.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The message for a request that the server did not answer in time.
pub(super) const NO_ANSWER: &str = "the server does not answer";

/// The outcome, unless it takes too long. The work is safe to be broken off, as by a
/// crash.
pub(super) async fn in_time<T>(work: impl Future<Output = T>) -> Option<T> {
    timeout(COMMAND_WAIT, work).await.ok()
}
