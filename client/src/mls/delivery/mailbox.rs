//! The device's mailbox at the server, taken in: each item once, in order, whatever crashes between.
//!
//! What an item does to its group, what the app is told of it, and how far the mailbox has been read are
//! one write. It is acknowledged afterwards; that something was not kept is acknowledged by the app alone.

use keypool_ledger::{GroupId, KeyPackageRef, Timestamp};
use keypool_projections::wire::{AcknowledgeRequest, Base64, Code, MailboxItem, MailboxKind};
use serde::{Deserialize, Serialize};

use crate::{
    Change, DeliveryService, GroupError, InviteError, JoinError, Joined, LocalStore, MessageError,
    MlsConnection, MlsMembership, Received, Staged, StorageError, SyncError, UpdateError,
    mls::{
        invite::Inviter,
        membership::{count_attempt, decrypt_on, join_on},
        update::Updater,
    },
    storage::fresh_command,
};

/// The name of the record that says how far the mailbox has been read.
const MAILBOX_RECORD: &str = "mailbox";
/// What the names of stored happenings begin with.
const HAPPENING_PREFIX: &str = "happening/";
/// The name of the record that says up to which position happenings were given to the app.
const TOLD_RECORD: &str = "told";
/// How many items are fetched at a time.
const PAGE: u16 = 100;

/// Something that came by the mailbox. It is kept until the app confirms it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// Its place in the server's log: later ones have higher positions.
    pub position: u64,
    /// When it was posted, as the server says.
    pub at: Timestamp,
    /// What it is.
    pub what: What,
    /// Whether the app was given it before and has not confirmed it, because it crashed, say: it may
    /// have been shown already.
    #[serde(skip)]
    pub repeated: bool,
}

/// What came by the mailbox.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// The device has joined a group.
    Joined {
        /// The group.
        group: GroupId,
        /// The name of the member who sent the Welcome.
        inviter: String,
        /// Whether that was by the package of last resort, because the pool was empty.
        #[serde(default)]
        last_resort: bool,
    },
    /// A member said something.
    Message {
        /// The group.
        group: GroupId,
        /// The name of the member.
        sender: String,
        /// What was said.
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
    },
    /// It could not be opened, and never will be.
    Unreadable {
        /// The group, as the server says.
        group: GroupId,
        /// Why.
        why: String,
    },
}

impl std::fmt::Debug for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Joined { group, inviter, last_resort } => f
                .debug_struct("Joined")
                .field("group", group)
                .field("inviter", inviter)
                .field("last_resort", last_resort)
                .finish(),
            Self::Message { group, sender, bytes: _ } => f
                .debug_struct("Message")
                .field("group", group)
                .field("sender", sender)
                .finish_non_exhaustive(),
            Self::Changed(change) => f.debug_tuple("Changed").field(change).finish(),
            Self::Proposed { group, sender } => {
                f.debug_struct("Proposed").field("group", group).field("sender", sender).finish()
            }
            Self::Unreadable { group, why } => {
                f.debug_struct("Unreadable").field("group", group).field("why", why).finish()
            }
        }
    }
}

/// How far the mailbox has been read.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Progress {
    taken_in: u64,
    acknowledged: u64,
}

/// The mailbox, and what its items change. Taken in by one at a time.
pub(crate) struct Mailbox<'a, D> {
    pub(crate) store: &'a LocalStore,
    pub(crate) membership: &'a MlsMembership,
    pub(crate) connection: &'a MlsConnection<D>,
    pub(crate) now: Timestamp,
}

impl<D: DeliveryService> Mailbox<'_, D> {
    /// Takes in what waits, and acknowledges it.
    pub(crate) async fn take_in_all(&self) -> Result<(), SyncError> {
        let items = self.fetch(0).await?;
        self.take_in_from(items).await
    }

    /// What waits after what has been taken in.
    pub(crate) async fn fetch(&self, wait_s: u64) -> Result<Vec<MailboxItem>, SyncError> {
        let after = progress(&self.store.stage()?)?.taken_in;
        match self.connection.api().mailbox(after, PAGE, wait_s).await {
            Ok(reply) => Ok(reply.items),
            Err(error) if error.code() == Some(Code::MailboxOverrun) => {
                Err(SyncError::Overrun(error))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes in what was fetched and what waits after it, and acknowledges it.
    ///
    /// A Commit of one's own that may have been accepted is seen to first: what others have sent after
    /// it could not be opened.
    pub(crate) async fn take_in_from(&self, mut items: Vec<MailboxItem>) -> Result<(), SyncError> {
        if !items.is_empty() {
            self.settle().await?;
        }
        while !items.is_empty() {
            for item in items {
                self.take_in(item)?;
            }
            items = self.fetch(0).await?;
        }
        let Progress { taken_in, acknowledged } = progress(&self.store.stage()?)?;
        if acknowledged < taken_in { self.acknowledge(false).await } else { Ok(()) }
    }

    /// Acknowledges all that has been taken in, and an overrun if the app has been told of it.
    pub(crate) async fn acknowledge(&self, overrun: bool) -> Result<(), SyncError> {
        let through = progress(&self.store.stage()?)?.taken_in;
        let request = AcknowledgeRequest { through, overrun };
        self.connection.api().acknowledge(&request, fresh_command()).await?;
        let staged = self.store.stage()?;
        let progress = Progress { acknowledged: through, ..progress(&staged)? };
        staged.put_app_record(MAILBOX_RECORD, &progress)?;
        Ok(staged.commit()?)
    }

    async fn settle(&self) -> Result<(), SyncError> {
        let Self { store, membership, connection, now } = *self;
        let settled = Inviter { store, membership, connection, now }.settle().await;
        settled.map_err(|error| match error {
            InviteError::Storage(error) => SyncError::Storage(error),
            error => SyncError::CommitUnfinished(error.into()),
        })?;
        let settled = Updater { store, membership, connection, now }.settle().await;
        settled.map_err(|error| match error {
            UpdateError::Storage(error) => SyncError::Storage(error),
            error => SyncError::CommitUnfinished(error.into()),
        })
    }

    /// What an item does, what is told of it, and that it has been taken in, as one write.
    fn take_in(&self, item: MailboxItem) -> Result<(), StorageError> {
        let (position, group) = (item.position, item.group_id.clone());
        let staged = self.store.stage()?;
        if position <= progress(&staged)?.taken_in {
            return Ok(());
        }
        let at = Timestamp::from_millis(item.at_ms);
        let (staged, what) = match open(&staged, item, self.now) {
            Ok(what) => (staged, what),
            Err(Trouble::Storage(error)) => return Err(error),
            Err(Trouble::Unreadable(why, tried)) => {
                // Nothing of what it began to do is kept.
                drop(staged);
                let staged = self.store.stage()?;
                tried.map(|package| count_attempt(&staged, &package)).transpose()?;
                (staged, Some(What::Unreadable { group, why }))
            }
        };
        if let Some(what) = what {
            staged.put_app_record(
                &name(position),
                &Happening { position, at, what, repeated: false },
            )?;
        }
        let progress = Progress { taken_in: position, ..progress(&staged)? };
        staged.put_app_record(MAILBOX_RECORD, &progress)?;
        staged.commit()
    }
}

/// The happenings that the app has not confirmed, in order.
pub(crate) fn happenings(store: &LocalStore) -> Result<Vec<Happening>, StorageError> {
    let staged = store.stage()?;
    let told: u64 = staged.app_record(TOLD_RECORD)?.unwrap_or_default();
    let mut found = Vec::new();
    for name in staged.app_record_names(HAPPENING_PREFIX)? {
        let happening: Option<Happening> = staged.app_record(&name)?;
        found.extend(happening.map(|it| Happening { repeated: it.position <= told, ..it }));
    }
    Ok(found)
}

/// The same, to be given to the app: after a crash they are known to be repeated.
pub(crate) fn tell(store: &LocalStore) -> Result<Vec<Happening>, StorageError> {
    let found = happenings(store)?;
    if let Some(last) = found.last().filter(|last| !last.repeated) {
        let staged = store.stage()?;
        staged.put_app_record(TOLD_RECORD, &last.position)?;
        staged.commit()?;
    }
    Ok(found)
}

/// Forgets the happenings up to a position.
pub(crate) fn confirm(store: &LocalStore, through: u64) -> Result<(), StorageError> {
    let staged = store.stage()?;
    let last = name(through);
    for name in staged.app_record_names(HAPPENING_PREFIX)? {
        if name <= last {
            staged.remove_app_record(&name);
        }
    }
    staged.commit()
}

/// Why an item was not taken in.
enum Trouble {
    Storage(StorageError),
    /// Why, and the package that a Welcome was tried with.
    Unreadable(String, Option<KeyPackageRef>),
}

/// Does what an item asks for. `None` if there is nothing to tell.
fn open(staged: &Staged<'_>, item: MailboxItem, now: Timestamp) -> Result<Option<What>, Trouble> {
    let Base64(bytes) = item.bytes;
    match item.kind {
        MailboxKind::Welcome => {
            let Joined { group, inviter, last_resort, .. } = join_on(staged, &bytes, now)?;
            Ok(Some(What::Joined { group, inviter, last_resort }))
        }
        MailboxKind::Commit | MailboxKind::Message => match decrypt_on(staged, &bytes) {
            Ok(received) => Ok(told_of(received)),
            Err(MessageError::Outdated { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        },
    }
}

/// What the app is told of a message that was opened.
fn told_of(received: Received) -> Option<What> {
    match received {
        Received::Application { group, sender, bytes } => {
            Some(What::Message { group, sender, bytes })
        }
        Received::Changed(change) => Some(What::Changed(change)),
        Received::Proposed { group, sender } => Some(What::Proposed { group, sender }),
        Received::Own { .. } => None,
    }
}

impl From<JoinError> for Trouble {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Storage(error) => Self::Storage(error),
            JoinError::Rejected { ref keypackage_ref, .. } => {
                Self::Unreadable(said(&error), Some(keypackage_ref.clone()))
            }
            error => Self::Unreadable(said(&error), None),
        }
    }
}

impl From<MessageError> for Trouble {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::Group(GroupError::Storage(error)) => Self::Storage(error),
            error => Self::Unreadable(said(&error), None),
        }
    }
}

/// An error and its causes, as one sentence.
fn said(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn progress(staged: &Staged<'_>) -> Result<Progress, StorageError> {
    Ok(staged.app_record(MAILBOX_RECORD)?.unwrap_or_default())
}

/// The name of a happening's record. Names are in the order of the positions.
fn name(position: u64) -> String {
    format!("{HAPPENING_PREFIX}{position:020}")
}
