//! The mailboxes of a group's members: which of them keep an event, as a batch of commands sees them.

use std::{collections::BTreeMap, sync::Arc};

use keypool_ledger::{Event, EventLog, GroupId, PoolId, StreamId};
use keypool_projections::{Deliveries, GroupState, KeepDecision, MailboxState, States};

use super::batch::CommandBatch;

/// How many members without room for a message are named.
const NOT_KEPT_NAMED: usize = 100;

/// Events for one history, with the bytes of each, and the version they follow.
pub(super) type Writes = BTreeMap<StreamId, (u64, Vec<(Event, Vec<u8>)>)>;

/// The decision of a group's mailboxes on one event.
#[derive(Default)]
pub(super) struct Keeping {
    /// Whether any of them keeps it.
    pub(super) is_kept: bool,
    /// Whether the owner of one has blocked the sender, who is not told.
    pub(super) is_blocked: bool,
    /// Those that have no room, by device, as far as they are named.
    pub(super) not_kept: Vec<PoolId>,
}

impl<L: EventLog> CommandBatch<'_, L> {
    /// Decides for every mailbox whether it keeps an event, adds the closings of those that do not, and names
    /// them in the event.
    pub(super) fn kept(
        &self,
        writes: &mut Writes,
        (group, state): (&GroupId, &GroupState),
        mut event: Event,
        bytes: usize,
    ) -> (Event, Keeping) {
        let mut keeping = Keeping::default();
        let (sender, posted) = match &event {
            Event::Posted { sender, .. } => (sender, true),
            Event::Committed { committer, .. } => (committer, false),
            _ => return (event, keeping),
        };
        let (now, limits) = (self.look.now, &self.shared.delivery_limits);
        for recipient in state.recipients(&event) {
            let (decision, version) = self.with_mailbox(recipient, |mailbox| {
                let sender = (sender, posted);
                let decision = mailbox.decide_keep(group, sender, bytes as u64, now, limits);
                (decision, mailbox.version())
            });
            keeping.note(recipient, &decision);
            if !decision.closing.is_empty() {
                let closing = without_bytes(decision.closing);
                writes.insert(StreamId::Mailbox(recipient.clone()), (version, closing));
            }
        }
        if let Event::Posted { not_kept, .. } | Event::Committed { not_kept, .. } = &mut event {
            not_kept.clone_from(&keeping.not_kept);
        }
        (event, keeping)
    }

    pub(super) fn mailbox_state(&self, device: &PoolId) -> MailboxState {
        self.with_mailbox(device, MailboxState::clone)
    }

    pub(super) fn with_mailbox<T>(
        &self,
        device: &PoolId,
        look: impl FnOnce(&MailboxState) -> T,
    ) -> T {
        match self.deliveries.mailboxes.get(device) {
            Some(working) => look(working),
            None => look(&self.shared.at_hand(device).unwrap_or_default()),
        }
    }

    /// Lets the commands after this one see an event that is not written yet: it counts in the budgets.
    pub(super) fn evolve_deliveries(&mut self, stream: &StreamId, event: &Event, bytes: usize) {
        if matches!(stream, StreamId::Pool(_) | StreamId::Server) {
            return;
        }
        let shared = self.shared;
        let Deliveries { groups, mailboxes } = &mut self.deliveries;
        let mut working = Deliveries {
            groups: Working { states: groups, published: |group: &_| shared.at_hand(group) },
            mailboxes: Working { states: mailboxes, published: |name: &_| shared.at_hand(name) },
        };
        working.take(stream, event, (u64::MAX, self.look.now, bytes as u64));
    }
}

/// The states that a batch of commands changes, over the published ones.
struct Working<'a, S, F> {
    states: &'a mut S,
    published: F,
}

impl<K, T: Clone, S: States<K, T>, F: Fn(&K) -> Option<Arc<T>>> States<K, T> for Working<'_, S, F> {
    fn get_mut(&mut self, name: &K) -> Option<&mut T> {
        if self.states.get_mut(name).is_none() {
            let published = (self.published)(name)?;
            *self.states.get_or_new(name) = Arc::unwrap_or_clone(published);
        }
        self.states.get_mut(name)
    }

    fn get_or_new(&mut self, name: &K) -> &mut T {
        self.get_mut(name);
        self.states.get_or_new(name)
    }
}

impl Keeping {
    fn note(&mut self, recipient: &PoolId, decision: &KeepDecision) {
        self.is_kept |= decision.kept;
        self.is_blocked |= decision.blocked;
        if !decision.kept && !decision.blocked && self.not_kept.len() < NOT_KEPT_NAMED {
            self.not_kept.push(recipient.clone());
        }
    }
}

/// Events that have no bytes of their own.
pub(super) fn without_bytes(events: Vec<Event>) -> Vec<(Event, Vec<u8>)> {
    events.into_iter().map(|event| (event, Vec::new())).collect()
}
