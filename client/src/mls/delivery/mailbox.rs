//! The device's mailbox at the server, applied: each item once, in order, through crashes.
//!
//! The change of an item to its group, its event for the app, and the position in the mailbox are
//! one write. It is acknowledged afterwards, together with the items of each group that were not kept. Only an
//! overrun of
//! the whole mailbox, which logs from before the budgets of groups can hold, is acknowledged by the app.

use std::collections::BTreeSet;

use keypool_api::{
    AcknowledgeRequest, AnswerItem, AnswerOutcome, Base64, Code, FailedWelcome, MailboxItem,
    MailboxKind, MailboxReply, NotKept,
};
use keypool_ledger::{GroupId, InvitationAnswer, KeyPackageRef, PoolId, Timestamp, WelcomeFault};

use super::{
    events::{MailboxEvent, MailboxEventKind, name},
    progress::{MailboxProgress, progress, put_progress},
};
use crate::{
    Change, DeliveryService, ExchangeError, GroupError, JoinError, Joined, KeyFate,
    LeafContradiction, LocalStore, MessageError, MlsConnection, MlsMembership, Received, Staged,
    StorageError, SyncError,
    mls::{
        invite::{answer_on, cancel_removed_on, resume_waiting_on},
        membership::{count_attempt, decrypt_on, delete_on, is_in, join_on},
        peers::{Judged, LeafCheck, note_refused_invitation},
    },
    storage::fresh_command,
};

/// How many groups one acknowledgement names.
const GROUPS_NAMED_MAX: usize = 1024;
/// How many items are fetched at a time.
const PAGE: u16 = 100;

/// The mailbox, and the state that its items change. Applied by one caller at a time.
pub(crate) struct Mailbox<'a, D> {
    pub(crate) store: &'a LocalStore,
    pub(crate) membership: &'a MlsMembership,
    pub(crate) connection: &'a MlsConnection<D>,
    pub(crate) now: Timestamp,
}

impl<D: DeliveryService> Mailbox<'_, D> {
    /// Fetches the items after those that were applied.
    pub(crate) async fn fetch(&self, wait_s: u64) -> Result<MailboxReply, SyncError> {
        let after = progress(&self.store.stage()?)?.taken_in;
        match self.connection.api().mailbox(after, PAGE, wait_s).await {
            Ok(reply) => Ok(reply),
            Err(error) if error.code() == Some(Code::MailboxOverrun) => {
                Err(SyncError::Overrun(error))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Applies the fetched items and those that wait after them, and acknowledges them.
    pub(crate) async fn take_in_from(&self, mut reply: MailboxReply) -> Result<(), SyncError> {
        while !reply.items.is_empty() {
            for item in reply.items {
                self.take_in(item).await?;
            }
            reply = self.fetch(0).await?;
        }
        self.note_not_kept(reply.not_kept)?;
        self.note_available(reply.available)?;
        if !progress(&self.store.stage()?)?.is_acknowledged() {
            self.acknowledge(false).await?;
        }
        Ok(self.leave_over().await?)
    }

    /// Records the items that the mailbox had no room for: for the app, and for the acknowledgement to the
    /// server.
    fn note_not_kept(&self, not_kept: Vec<NotKept>) -> Result<(), StorageError> {
        if not_kept.is_empty() {
            return Ok(());
        }
        let staged = self.store.stage()?;
        let mut progress = progress(&staged)?;
        for NotKept { group_id: group, sender } in not_kept {
            let of = sender.as_ref().map(ToString::to_string).unwrap_or_default();
            let name = format!("{} {group} {of}", name(progress.taken_in));
            if !progress.told.contains(&group) {
                progress.told.push(group.clone());
            }
            let (position, at) = (progress.taken_in, self.now);
            let what = MailboxEventKind::NotKept { group, sender };
            staged.put_app_record(
                &name,
                &MailboxEvent { position, at, kind: what, repeated: false },
            )?;
        }
        put_progress(&staged, &progress)?;
        staged.commit()
    }

    /// Records that awaited devices have packages again: for their invitations, which go on, and for the
    /// acknowledgement to the server.
    fn note_available(&self, available: Vec<PoolId>) -> Result<(), StorageError> {
        if available.is_empty() {
            return Ok(());
        }
        let staged = self.store.stage()?;
        let mut progress = progress(&staged)?;
        for device in available {
            resume_waiting_on(&staged, &device)?;
            if !progress.available.contains(&device) {
                progress.available.push(device);
            }
        }
        put_progress(&staged, &progress)?;
        staged.commit()
    }

    /// Ends the delivery of the groups that are over for this device. A group that cannot be left now is
    /// left the next time.
    pub(crate) async fn leave_over(&self) -> Result<(), StorageError> {
        let left = progress(&self.store.stage()?)?.left;
        for group in left {
            match self.connection.api().leave_group(&group, fresh_command()).await {
                Ok(_) => self.note(|progress| progress.left.retain(|left| *left != group))?,
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(%group, error, "the delivery of a group goes on; leaving it again later");
                }
            }
        }
        Ok(())
    }

    /// Deletes a group, and notes that it is over: see [`Mailbox::leave_over`].
    pub(crate) fn decline(&self, group: &GroupId) -> Result<(), StorageError> {
        let staged = self.store.stage()?;
        delete_on(&staged, group)?;
        let mut progress = progress(&staged)?;
        progress.leave_unless(group, false);
        put_progress(&staged, &progress)?;
        staged.commit()
    }

    fn note(&self, change: impl FnOnce(&mut MailboxProgress)) -> Result<(), StorageError> {
        let staged = self.store.stage()?;
        let mut progress = progress(&staged)?;
        change(&mut progress);
        put_progress(&staged, &progress)?;
        staged.commit()
    }

    /// Acknowledges all that has been taken in, and an overrun if the app has been told of it.
    pub(crate) async fn acknowledge(&self, overrun: bool) -> Result<(), ExchangeError> {
        let progress = progress(&self.store.stage()?)?;
        let through = progress.taken_in;
        let failed = progress.failed.into_iter();
        let failed = failed.map(|(group_id, reason)| FailedWelcome { group_id, reason });
        let request = AcknowledgeRequest {
            through,
            overrun,
            accepted: first(progress.accepted),
            told: first(progress.told),
            failed: first(failed),
            available: first(progress.available),
        };
        self.connection.api().acknowledge(&request, fresh_command()).await?;
        let AcknowledgeRequest { accepted, told, failed, available, .. } = request;
        Ok(self.note(|progress| {
            progress.acknowledged = through;
            progress.accepted.retain(|group| !accepted.contains(group));
            progress.told.retain(|group| !told.contains(group));
            progress.failed.retain(|(group, _)| !failed.iter().any(|it| it.group_id == *group));
            progress.available.retain(|device| !available.contains(device));
        })?)
    }

    /// Applies an item, records its event, and advances the position, in one write.
    ///
    /// Users whose leaves do not fit the known keys are looked up, and the item is opened
    /// again.
    async fn take_in(&self, item: MailboxItem) -> Result<(), SyncError> {
        let needed = match self.apply(&item, true)? {
            Judged::Done(()) => return Ok(()),
            Judged::KeysNeeded(users) => users,
        };
        self.connection.fetch_peers(&needed, self.now).await?;
        self.apply(&item, false)?;
        Ok(())
    }

    fn apply(&self, item: &MailboxItem, may_ask: bool) -> Result<Judged<()>, StorageError> {
        let (position, group, kind) = (item.position, item.group_id.clone(), item.kind);
        let staged = self.store.stage()?;
        let before = progress(&staged)?;
        if position <= before.taken_in {
            return Ok(Judged::Done(()));
        }
        let (at, claimed) = (Timestamp::from_millis(item.at_ms), item.removed.clone());
        let check = self.membership.check(may_ask, self.now);
        let (staged, what, fault) = match open(&staged, item, self.now, &check) {
            Ok(Judged::Done(what)) => (staged, what, None),
            Ok(Judged::KeysNeeded(users)) => return Ok(Judged::KeysNeeded(users)),
            Err(ItemError::Storage(error)) => return Err(error),
            Err(ItemError::Impostor { inviter, why }) => {
                drop(staged);
                let (staged, group) = (self.store.stage()?, group.clone());
                note_refused_invitation(&staged, &inviter, why.clone(), check.now)?;
                let what = MailboxEventKind::InvitationRefused { group, inviter, why };
                (staged, Some(what), Some(WelcomeFault::Untrusted))
            }
            Err(ItemError::Unreadable { why, tried, fault }) => {
                // Nothing of what it began to do is kept.
                drop(staged);
                let staged = self.store.stage()?;
                tried.map(|package| count_attempt(&staged, &package)).transpose()?;
                let what = MailboxEventKind::Unreadable { group: group.clone(), why };
                (staged, Some(what), Some(fault))
            }
        };
        let mut after = MailboxProgress { taken_in: position, ..before };
        if let Some(fault) = fault.filter(|_| kind == MailboxKind::Welcome) {
            after.fail_unless(&group, fault, is_in(&staged, &group)?);
        }
        match &what {
            Some(MailboxEventKind::Joined { group, .. }) => after.join(group),
            Some(MailboxEventKind::Changed(change)) => {
                if change.removed_self {
                    after.leave_unless(&group, claimed.contains(self.store.owner()));
                }
                let removed = change.removed.iter().filter_map(|name| name.parse().ok());
                let removed: Vec<PoolId> = removed.collect();
                cancel_removed_on((&staged, check.identity), &change.group, &removed, self.now)?;
            }
            Some(MailboxEventKind::InvitationAnswered { group, device, answer }) => {
                answer_on(&staged, (group, device), *answer, self.now)?;
            }
            _ => {}
        }
        let otherwise = what.as_ref().and_then(|what| removed_otherwise(what, claimed));
        let other = what.as_ref().and_then(|what| other_sender(what, item.sender.as_ref()));
        let of_kind = |kind| format!("{} {kind}", name(position));
        let names = [name(position), of_kind("removed"), of_kind("sender")];
        for (name, what) in names.iter().zip([what, otherwise, other]) {
            let Some(what) = what else { continue };
            staged.put_app_record(
                name,
                &MailboxEvent { position, at, kind: what, repeated: false },
            )?;
        }
        put_progress(&staged, &after)?;
        staged.commit()?;
        Ok(Judged::Done(()))
    }
}

/// The sender that the server named, where the message has another one.
fn other_sender(what: &MailboxEventKind, named: Option<&PoolId>) -> Option<MailboxEventKind> {
    let (group, sender) = match what {
        MailboxEventKind::Message { group, sender, .. }
        | MailboxEventKind::Proposed { group, sender, .. } => (group, sender),
        MailboxEventKind::Changed(change) => (&change.group, &change.sender),
        _ => return None,
    };
    let named = named.filter(|named| sender.parse::<PoolId>().is_ok_and(|it| it != **named))?;
    tracing::warn!(%group, sender, %named, "the server named another sender");
    let (group, sender, named) = (group.clone(), sender.clone(), named.clone());
    Some(MailboxEventKind::OtherSender { group, sender, named })
}

/// The removals that the server was told of, where a Commit makes others.
fn removed_otherwise(what: &MailboxEventKind, claimed: Vec<PoolId>) -> Option<MailboxEventKind> {
    let MailboxEventKind::Changed(change) = what else { return None };
    let names: BTreeSet<String> = claimed.iter().map(ToString::to_string).collect();
    let removed: BTreeSet<String> = change.removed.iter().cloned().collect();
    if names == removed {
        return None;
    }
    let Change { group, sender, removed, .. } = change.clone();
    tracing::warn!(%group, sender, ?claimed, ?removed, "the server was told of other removals");
    Some(MailboxEventKind::RemovedOtherwise { group, sender, claimed, removed })
}

/// Why an item was not taken in.
enum ItemError {
    Storage(StorageError),
    /// The name that the inviter of a Welcome gives, and how its leaf contradicts the directory.
    Impostor {
        inviter: String,
        why: LeafContradiction,
    },
    Unreadable {
        why: String,
        /// The package that a Welcome was tried with.
        tried: Option<KeyPackageRef>,
        /// The reason for the inviter, where it is a Welcome.
        fault: WelcomeFault,
    },
}

/// Opens an item. `None` if it makes no event.
fn open(
    staged: &Staged<'_>,
    item: &MailboxItem,
    now: Timestamp,
    check: &LeafCheck<'_>,
) -> Result<Judged<Option<MailboxEventKind>>, ItemError> {
    let Base64(bytes) = &item.bytes;
    match item.kind {
        MailboxKind::Welcome => {
            let joined = match join_on(staged, bytes, now, check)? {
                Judged::Done(joined) => joined,
                Judged::KeysNeeded(users) => return Ok(Judged::KeysNeeded(users)),
            };
            let Joined { group, inviter, last_resort, trust, untrusted, .. } = joined;
            let what = MailboxEventKind::Joined { group, inviter, last_resort, trust, untrusted };
            Ok(Judged::Done(Some(what)))
        }
        MailboxKind::Commit | MailboxKind::Message => match decrypt_on(staged, bytes, check) {
            Ok(Judged::Done(received)) => Ok(Judged::Done(told_of(received))),
            Ok(Judged::KeysNeeded(users)) => Ok(Judged::KeysNeeded(users)),
            Err(MessageError::Outdated { .. }) => Ok(Judged::Done(None)),
            Err(error) => Err(error.into()),
        },
        MailboxKind::Answer => Ok(Judged::Done(answered(item))),
    }
}

/// The event of an answer to an invitation; `None` for an item that names no device or no answer.
fn answered(item: &MailboxItem) -> Option<MailboxEventKind> {
    let AnswerItem { outcome, reason } = item.answer?;
    let answer = match outcome {
        AnswerOutcome::Joined => InvitationAnswer::Joined,
        AnswerOutcome::Failed => InvitationAnswer::Failed { reason: reason? },
        AnswerOutcome::Declined => InvitationAnswer::Declined,
        AnswerOutcome::Expired => InvitationAnswer::Expired,
    };
    let (group, device) = (item.group_id.clone(), item.sender.clone()?);
    Some(MailboxEventKind::InvitationAnswered { group, device, answer })
}

/// The reason for the inviter why a Welcome is given up.
const fn fault_of(error: &JoinError) -> WelcomeFault {
    match error {
        JoinError::MissingPrivateKey { fate: KeyFate::Expired, .. } => WelcomeFault::Expired,
        JoinError::MissingPrivateKey { .. } | JoinError::Replayed { .. } => WelcomeFault::KeysGone,
        JoinError::Impostor { .. } => WelcomeFault::Untrusted,
        _ => WelcomeFault::Unreadable,
    }
}

/// As many as one acknowledgement names.
fn first<T>(named: impl IntoIterator<Item = T>) -> Vec<T> {
    named.into_iter().take(GROUPS_NAMED_MAX).collect()
}

/// The event of a message that was opened.
fn told_of(received: Received) -> Option<MailboxEventKind> {
    match received {
        Received::Application { group, sender, trust, bytes } => {
            Some(MailboxEventKind::Message { group, sender, trust, bytes })
        }
        Received::Changed(change) => Some(MailboxEventKind::Changed(change)),
        Received::Proposed { group, sender, to_leave } => {
            Some(MailboxEventKind::Proposed { group, sender, to_leave })
        }
        Received::Own { .. } => None,
    }
}

impl From<JoinError> for ItemError {
    fn from(error: JoinError) -> Self {
        let tried = match &error {
            JoinError::Rejected { keypackage_ref, .. } => Some(keypackage_ref.clone()),
            _ => None,
        };
        match error {
            JoinError::Storage(error) => Self::Storage(error),
            JoinError::Impostor { inviter, why, .. } => Self::Impostor { inviter, why },
            error => Self::Unreadable { why: said(&error), tried, fault: fault_of(&error) },
        }
    }
}

impl From<MessageError> for ItemError {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::Group(GroupError::Storage(error)) => Self::Storage(error),
            error => {
                let (why, fault) = (said(&error), WelcomeFault::Unreadable);
                Self::Unreadable { why, tried: None, fault }
            }
        }
    }
}

/// An error and its causes, as one sentence.
fn said(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
