//! `keypool chat`: groups, invitations and messages in a terminal; the worked example of an app.
//!
//! One loop waits for a line, for the mailbox, for events of the pool, and for the time of the
//! next refresh. Nothing runs beside it but the terminal's threads, and the mailbox is being asked while
//! something else is done.

mod backoff;
mod command;
mod commands;
mod inbox;
mod invitations;
mod invitees;
mod key_changes;
mod keys;
mod link;
mod mailbox;
mod names;
mod pool_watcher;
mod screen;
mod trust;
mod upkeep;

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    time::Duration,
};

use clap::Args;
use keypool_client::{
    AuditFinding, ClientOptions, Drift, GroupId, MlsClient, RegisterError, ServerDelivery,
};
use tokio::time::{interval, sleep, timeout};

use self::{
    key_changes::KeyChanges,
    link::{LINK_POLL, LinkedDevice},
    mailbox::MailboxPoller,
    pool_watcher::PoolWatcher,
    screen::{Input, Screen},
};
use crate::{PoolSize, Whose};

/// How long the first line waits for the first answer of the mailbox.
const FIRST_MAIL_WAIT: Duration = Duration::from_secs(5);

/// How the chat is run.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChatOptions {
    /// The pool is refreshed after this many messages, sent or received
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    refresh_messages: u32,
    /// The pool is refreshed after this many seconds, whichever comes first
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    refresh_s: u64,
    #[command(flatten)]
    size: PoolSize,
}

/// Why the chat ends.
enum ChatEnd {
    /// It was asked to.
    Asked,
    /// It cannot go on, and why.
    Broken(Box<dyn Error>),
}

/// The device, its terminal, and the state of the chat.
struct Chat<'a> {
    client: &'a MlsClient<ServerDelivery>,
    screen: Screen,
    /// The group that is spoken to.
    current: Option<GroupId>,
    /// The group that was spoken to when the prompt was drawn: the line being typed is for it.
    prompted: Option<GroupId>,
    /// How many messages of other groups have come since they were looked at.
    unread: BTreeMap<GroupId, u64>,
    /// The groups in which something was proposed.
    proposed: BTreeSet<GroupId>,
    is_registered: bool,
    /// Why the device is not registered, while it waits for a voucher.
    refused: Option<RegisterError>,
    /// The device that this one has vouched for, until it is in the user's groups.
    linked: Option<LinkedDevice>,
    /// Something waits for the server: it is gone on with once the server answers.
    is_waiting: bool,
    /// Messages since the last refresh.
    messages: u32,
    is_refresh_due: bool,
    /// The errors of the mailbox and of the refresh that were shown since they last worked.
    mail_trouble: Option<String>,
    refresh_trouble: Option<String>,
    /// The differences between device and server that were shown last.
    shown_drift: Drift,
    /// The findings of the audit that were shown.
    findings: Vec<AuditFinding>,
    /// The devices of this user that no key of the user has introduced, as far as they were shown.
    unintroduced: BTreeSet<String>,
    /// The safety numbers that were shown, by user.
    shown_numbers: BTreeMap<String, String>,
    /// The changes of verified users' devices that were shown.
    key_changes: KeyChanges,
    options: ChatOptions,
}

/// Opens the device and talks until the end.
pub(crate) async fn run(whose: &Whose, options: &ChatOptions) -> Result<(), Box<dyn Error>> {
    let (owner, home) = whose.device()?;
    let opened = ClientOptions {
        pool: options.size.config(),
        device_key: whose.device_key()?,
        ..ClientOptions::default()
    };
    let client = MlsClient::open_at_server(home, &owner, &whose.server, opened)?;
    client.set_registration_token(whose.token.clone());
    let mut chat = Chat::new(&client, Screen::open()?, options.clone());
    let sealed = match whose.passphrase_file {
        Some(_) => "sealed with your passphrase",
        None => "sealed with a key file there (--passphrase-file is safer)",
    };
    chat.screen.say(&format!(
        "you are {owner} at {}; your keys are in {}, {sealed}\n/help lists the commands, /quit ends",
        whose.server,
        home.display()
    ));
    let ended = Box::pin(chat.talk()).await;
    chat.screen.close();
    match ended {
        Ok(()) | Err(ChatEnd::Asked) => Ok(()),
        Err(ChatEnd::Broken(error)) => Err(error),
    }
}

impl<'a> Chat<'a> {
    fn new(client: &'a MlsClient<ServerDelivery>, screen: Screen, options: ChatOptions) -> Self {
        Self {
            client,
            screen,
            current: None,
            prompted: None,
            unread: BTreeMap::new(),
            proposed: BTreeSet::new(),
            is_registered: false,
            refused: None,
            linked: None,
            is_waiting: true,
            messages: 0,
            is_refresh_due: true,
            mail_trouble: None,
            refresh_trouble: None,
            shown_drift: Drift::default(),
            findings: Vec::new(),
            unintroduced: BTreeSet::new(),
            shown_numbers: BTreeMap::new(),
            key_changes: KeyChanges::default(),
            options,
        }
    }

    /// Handles lines, mailbox items, pool events and refreshes as they come, until standard input ends.
    async fn talk(&mut self) -> Result<(), ChatEnd> {
        let mut mail = MailboxPoller::new(self.client);
        let mut pool_watcher = PoolWatcher::new(self.client, mail.back());
        self.current = self.groups()?.into_iter().next();
        self.tell_changes()?;
        self.go_on().await?;
        // A line that is typed first may be about a group that the device was brought into while it was away.
        if let Ok(outcome) = timeout(FIRST_MAIL_WAIT, mail.next()).await {
            self.receive(outcome)?;
            mail.alongside(Box::pin(self.follow_up())).await?;
        }
        let period = Duration::from_secs(self.options.refresh_s);
        let mut refresh = Box::pin(sleep(period));
        let mut link_poll = interval(LINK_POLL);
        loop {
            if self.is_refresh_due {
                mail.alongside(Box::pin(self.refresh_if_needed())).await?;
                refresh.set(sleep(period));
            }
            if self.key_changes.are_due {
                self.tell_keys()?;
            }
            self.ask()?;
            tokio::select! {
                input = self.screen.input() => match input {
                    Input::Line(line) => mail.alongside(Box::pin(self.obey(&line))).await?,
                    Input::Interrupted => self.screen.say("/quit ends the chat"),
                    Input::Ended => break,
                    Input::Failed(why) => return Err(ChatEnd::Broken(why.into())),
                },
                outcome = mail.next() => {
                    self.receive(outcome)?;
                    mail.alongside(Box::pin(self.follow_up())).await?;
                }
                () = pool_watcher.next(), if self.is_registered => self.is_refresh_due = true,
                () = &mut refresh => self.is_refresh_due = true,
                _ = link_poll.tick(), if self.linked.is_some() => {
                    mail.alongside(Box::pin(self.follow_link())).await?;
                }
            }
        }
        // What it was doing is broken off, so that the mailbox can be asked once more.
        drop((mail, pool_watcher));
        self.part().await
    }

    /// Ends the chat at the end of standard input, after showing the items that have come meanwhile.
    async fn part(&mut self) -> Result<(), ChatEnd> {
        if let Some(refused) = &self.refused {
            return Err(self.not_linked(refused));
        }
        let outcome = self.client.sync(0).await;
        let is_known = self.mail_trouble.is_some() && outcome.is_err();
        if is_known { Ok(()) } else { self.receive(outcome) }
    }

    /// The groups, those that are being left aside.
    fn groups(&self) -> Result<Vec<GroupId>, ChatEnd> {
        Ok(self.client.groups()?)
    }

    /// The name of the group.
    fn name(&self, group: &GroupId) -> String {
        names::name_among(group, &self.groups().unwrap_or_default())
    }

    /// Asks for a line, unless one is asked for already.
    fn ask(&mut self) -> Result<(), ChatEnd> {
        if !self.screen.is_prompting() {
            self.prompted.clone_from(&self.current);
            let prompt = self.prompt()?;
            self.screen.prompt(&prompt);
        }
        Ok(())
    }

    /// Draws the prompt with the group that the device was brought into while it spoke to none: the line being
    /// typed is for that group from now on.
    fn redraw_first(&mut self) -> Result<(), ChatEnd> {
        if self.prompted.is_none() {
            let prompt = self.prompt()?;
            self.screen.redraw(&[&prompt]);
            self.prompted.clone_from(&self.current);
        }
        Ok(())
    }

    /// The current group, and where there is something to be read.
    fn prompt(&mut self) -> Result<String, ChatEnd> {
        let all = self.groups()?;
        self.unread.retain(|group, _| all.contains(group));
        let unread = self.unread.iter();
        let unread: Vec<String> = unread
            .map(|(group, count)| format!("{} {count}", names::name_among(group, &all)))
            .collect();
        let current = self.current.as_ref().filter(|current| all.contains(current));
        let current = current.map_or("(no group)".to_owned(), |it| names::name_among(it, &all));
        let unread =
            if unread.is_empty() { unread.concat() } else { format!(" ({})", unread.join(", ")) };
        Ok(format!("{current}{unread}> "))
    }
}

impl<E: Error + 'static> From<E> for ChatEnd {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}
