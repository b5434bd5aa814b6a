//! Messages on their way out: sealed and kept in one write, then posted, then forgotten.

use keypool_api::{Base64, MessageReply, MessageRequest};
use keypool_ledger::{CommandId, GroupId, Hash, PoolId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    events::MailboxEventKind,
    server::{command_of, refusal},
};
use crate::{
    DeliveryError, GroupError, LocalStore, MlsConnection, MlsMembership, SendError, ServerDelivery,
    Staged, StorageError,
};

/// How many bytes a message may have. Sealed and written in base64, it fits into the 2 MiB that a server takes
/// by default; a proxy before it may take less, as nginx does unless it is told otherwise.
pub const MESSAGE_BYTES_MAX: usize = 1_500_000;

/// The prefix of the names of the records of messages on their way.
const RECORD_PREFIX: &str = "outbox/";

/// A message of the outbox that was resumed, and its outcome.
#[derive(Debug)]
pub struct ResumedMessage {
    /// The group.
    pub group: GroupId,
    /// Its place in the server's log, once it is posted. After [`SendError::Unfinished`] it is still in
    /// the outbox; after every other outcome it is not.
    pub outcome: Result<Sent, SendError>,
}

/// A message that the server has passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its place in the server's log; 0 if no mailbox keeps it, and the server has stored nothing.
    pub position: u64,
    /// The members whose mailboxes had no room for it, the first hundred by name: they are told, and do not
    /// get it. Members that an earlier message of the outbox did not reach are in
    /// [`MailboxEventKind::NotReached`].
    pub not_kept: Vec<PoolId>,
}

/// The prefix of the names of the records of messages that are not sealed yet.
const DRAFT_PREFIX: &str = "draft/";

/// A message that is not sealed yet, since the server has not said where this home stood.
#[derive(Serialize, Deserialize)]
struct UnsealedMessage {
    group: GroupId,
    message: Vec<u8>,
}

/// A sealed message on its way.
#[derive(Serialize, Deserialize)]
struct Letter {
    group: GroupId,
    sealed: Vec<u8>,
    /// The id of the request that posts it, the same each time.
    command: CommandId,
}

/// The outbox. Used by one at a time.
pub(crate) struct Outbox<'a> {
    pub(crate) store: &'a LocalStore,
    pub(crate) membership: &'a MlsMembership,
    pub(crate) connection: &'a MlsConnection<ServerDelivery>,
    pub(crate) now: Timestamp,
}

impl Outbox<'_> {
    /// Seals a message and posts it, after those of its group that were left. Nothing is done where
    /// nobody hears it.
    pub(crate) async fn send(
        &self,
        group: &GroupId,
        message: &[u8],
    ) -> Result<Option<Sent>, SendError> {
        if !self.is_heard(group, message)? {
            return Ok(None);
        }
        let own = self.seal(group, message)?;
        self.post_through(group, &own).await
    }

    /// Whether a message can be sent, and somebody hears it.
    fn is_heard(&self, group: &GroupId, message: &[u8]) -> Result<bool, SendError> {
        let (bytes, bytes_max) = (message.len(), MESSAGE_BYTES_MAX);
        if bytes_max < bytes {
            return Err(SendError::TooLarge { bytes, bytes_max });
        }
        Ok(self.membership.members(group)?.len() >= 2)
    }

    /// Keeps a message to be sealed later. Returns whether it is kept: nothing is where nobody hears it.
    pub(crate) fn keep_draft(&self, group: &GroupId, message: &[u8]) -> Result<bool, SendError> {
        if !self.is_heard(group, message)? {
            return Ok(false);
        }
        let staged = self.store.stage()?;
        let draft = UnsealedMessage { group: group.clone(), message: message.to_vec() };
        let name = next_name(&staged, DRAFT_PREFIX)?;
        staged.put_app_record(&name, &draft)?;
        staged.commit()?;
        Ok(true)
    }

    /// The groups of the messages that are not sealed yet, in order.
    pub(crate) fn drafts(&self) -> Result<Vec<GroupId>, StorageError> {
        let staged = self.store.stage()?;
        let mut groups = Vec::new();
        for name in staged.app_record_names(DRAFT_PREFIX)? {
            groups.extend(staged.app_record::<UnsealedMessage>(&name)?.map(|draft| draft.group));
        }
        Ok(groups)
    }

    /// Seals the messages that are not sealed yet, each in the write that puts it into the outbox. Returns those that
    /// cannot be sealed, which are forgotten.
    pub(crate) fn seal_drafts(&self) -> Result<Vec<ResumedMessage>, StorageError> {
        let names = self.store.stage()?.app_record_names(DRAFT_PREFIX)?;
        let mut refused = Vec::new();
        for name in names {
            let staged = self.store.stage()?;
            let Some(UnsealedMessage { group, message }) = staged.app_record(&name)? else {
                continue;
            };
            match self.membership.encrypt_on(&staged, &group, &message) {
                Ok(sealed) => drop(put(&staged, &group, sealed)?),
                Err(GroupError::Storage(error)) => return Err(error),
                Err(error) => refused.push(ResumedMessage { group, outcome: Err(error.into()) }),
            }
            staged.remove_app_record(&name);
            staged.commit()?;
        }
        Ok(refused)
    }

    /// Seals a message and keeps it in the outbox, in one write. Returns the name of its record.
    fn seal(&self, group: &GroupId, message: &[u8]) -> Result<String, SendError> {
        let staged = self.store.stage()?;
        let sealed = self.membership.encrypt_on(&staged, group, message)?;
        let own = put(&staged, group, sealed)?;
        staged.commit()?;
        Ok(own)
    }

    /// Proposes that this device be removed from a group, after the messages in the group's outbox.
    pub(crate) async fn leave(&self, group: &GroupId) -> Result<(), SendError> {
        match self.propose_to_leave(group)? {
            Some(own) => self.post_through(group, &own).await.map(drop),
            None => Ok(()),
        }
    }

    /// Keeps the proposal that this device be removed in the outbox, in one write. Returns the name of its
    /// record; `None` if there is nothing to propose.
    fn propose_to_leave(&self, group: &GroupId) -> Result<Option<String>, SendError> {
        let staged = self.store.stage()?;
        let proposal = self.membership.leave_on(&staged, group)?;
        let own = proposal.map(|proposal| put(&staged, group, proposal)).transpose()?;
        staged.commit()?;
        Ok(own)
    }

    /// Posts the messages in a group's outbox, up to the one with that name, which is the last.
    async fn post_through(&self, group: &GroupId, own: &str) -> Result<Option<Sent>, SendError> {
        for name in self.names()? {
            let Some(letter) = self.letter(&name)?.filter(|letter| letter.group == *group) else {
                continue;
            };
            match self.post(&letter).await {
                Ok(sent) if name == own => {
                    self.forget(&name)?;
                    return Ok(Some(sent));
                }
                Ok(sent) => self.forget_and_note(&name, &letter, sent)?,
                Err(SendError::Refused(source)) if name != own => {
                    return Err(SendError::Unfinished(source));
                }
                Err(error) => return self.forgotten(&name, error),
            }
        }
        Ok(None)
    }

    /// Posts the remaining messages, in order. A group of which one cannot be posted now is skipped.
    pub(crate) async fn resume(&self) -> Result<Vec<ResumedMessage>, StorageError> {
        let mut resumed: Vec<ResumedMessage> = Vec::new();
        for name in self.names()? {
            let Some(letter) = self.letter(&name)? else { continue };
            let waits = |earlier: &ResumedMessage| {
                let unfinished = matches!(earlier.outcome, Err(SendError::Unfinished(_)));
                earlier.group == letter.group && unfinished
            };
            if resumed.iter().any(waits) {
                continue;
            }
            let outcome = match self.post(&letter).await {
                Ok(sent) => {
                    self.forget(&name)?;
                    Ok(sent)
                }
                Err(error) => self.forgotten(&name, error),
            };
            resumed.push(ResumedMessage { group: letter.group, outcome });
        }
        Ok(resumed)
    }

    /// Posts a message. It stays in the outbox until it is forgotten.
    async fn post(&self, letter: &Letter) -> Result<Sent, SendError> {
        let request = MessageRequest { message: Base64(letter.sealed.clone()) };
        match self.connection.api().post_message(&letter.group, &request, letter.command).await {
            Ok(MessageReply { position, not_kept }) => Ok(Sent { position, not_kept }),
            Err(error) => Err(match refusal(error) {
                DeliveryError::Unanswered(source) => SendError::Unfinished(source),
                DeliveryError::Refused(source) => SendError::Refused(source),
                error @ (DeliveryError::EpochTaken
                | DeliveryError::PackageLost(_)
                | DeliveryError::InviteeRefused(_)) => SendError::Refused(error.into()),
            }),
        }
    }

    /// Forgets a message that was refused, and passes the error on.
    fn forgotten<T>(&self, name: &str, error: SendError) -> Result<T, SendError> {
        if matches!(error, SendError::Refused(_)) {
            self.forget(name)?;
        }
        Err(error)
    }

    /// Forgets a message that was posted on the way to another one, and records the members it did not reach.
    fn forget_and_note(&self, name: &str, letter: &Letter, sent: Sent) -> Result<(), StorageError> {
        let staged = self.store.stage()?;
        staged.remove_app_record(name);
        self.connection.note_posted_on(&staged)?;
        if !sent.not_kept.is_empty() {
            let (group, members) = (letter.group.clone(), sent.not_kept);
            let what = MailboxEventKind::NotReached { group, members, commit: false };
            self.connection.note_on(&staged, what, Hash::of(&letter.sealed), self.now)?;
        }
        staged.commit()
    }

    fn names(&self) -> Result<Vec<String>, StorageError> {
        self.store.stage()?.app_record_names(RECORD_PREFIX)
    }

    fn letter(&self, name: &str) -> Result<Option<Letter>, StorageError> {
        self.store.stage()?.app_record(name)
    }

    fn forget(&self, name: &str) -> Result<(), StorageError> {
        let staged = self.store.stage()?;
        staged.remove_app_record(name);
        self.connection.note_posted_on(&staged)?;
        staged.commit()
    }
}

/// Whether something waits in the outbox.
pub(super) fn is_waiting(staged: &Staged<'_>) -> Result<bool, StorageError> {
    Ok(!staged.app_record_names(RECORD_PREFIX)?.is_empty())
}

/// Keeps something sealed for the members of a group, as part of the operation that sealed it. Returns the
/// name of its record.
fn put(staged: &Staged<'_>, group: &GroupId, sealed: Vec<u8>) -> Result<String, StorageError> {
    let name = next_name(staged, RECORD_PREFIX)?;
    let command = command_of(&sealed);
    staged.put_app_record(&name, &Letter { group: group.clone(), sealed, command })?;
    Ok(name)
}

/// The name of the record after the last one with a prefix.
fn next_name(staged: &Staged<'_>, prefix: &str) -> Result<String, StorageError> {
    let last = staged.app_record_names(prefix)?.pop();
    let number = last.and_then(|last| last.strip_prefix(prefix)?.parse::<u64>().ok());
    Ok(format!("{prefix}{:020}", number.map_or(0, |number| number + 1)))
}

impl From<GroupError> for SendError {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::Storage(error) => Self::Storage(error),
            error => Self::Group(error),
        }
    }
}
