//! Erasure: which payloads of a log name a user who is to be forgotten.
//!
//! In a log that hides names, envelopes name users by ids; the names stand in payloads of their own, and in the
//! bytes of packages, of declared credentials, and of messages that a member can read. All of these may go, and
//! chains, tree hashes and proofs hold without them.

use std::collections::{BTreeSet, HashSet};

use keypool_ledger::{Event, EventEnvelope, StreamId, SubjectId};

use crate::retention::{WaitingPositions, is_delivered};

/// Reads a log's records in order, as they stand there, and collects the payloads that go with some users.
#[derive(Debug)]
pub struct UserErasure {
    users: HashSet<SubjectId>,
    /// Those that have no event yet which says that they are erased.
    unsaid: HashSet<SubjectId>,
    /// The payloads that nobody else needs.
    own: BTreeSet<u64>,
    /// The Commits, Welcomes and messages that name one of the users.
    delivered: BTreeSet<u64>,
    waiting: WaitingPositions,
}

/// The payloads that go with erased users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErasurePlan {
    /// The positions of the records.
    pub due: BTreeSet<u64>,
    /// How many Commits, Welcomes and messages that name one of the users wait for other devices: they stay
    /// until these have come for them.
    pub waiting: u64,
    /// The users whose history of names does not say yet that they are erased.
    pub unsaid: HashSet<SubjectId>,
}

impl UserErasure {
    /// Begins, for some users.
    #[must_use]
    pub fn of(users: HashSet<SubjectId>) -> Self {
        Self {
            unsaid: users.clone(),
            users,
            own: BTreeSet::new(),
            delivered: BTreeSet::new(),
            waiting: WaitingPositions::default(),
        }
    }

    /// Takes the next record: its position, its event, and whether its payload is there.
    pub fn see(&mut self, seq: u64, envelope: &EventEnvelope, has_payload: bool) {
        self.waiting.see(seq, envelope);
        let EventEnvelope { stream, event, .. } = envelope;
        if let (StreamId::Names(id), Event::UserErased {}) = (stream, event) {
            self.unsaid.remove(id);
        }
        if !has_payload {
            return;
        }
        let owner = match stream {
            StreamId::Names(id) => Some(*id),
            StreamId::Pool(pool) | StreamId::Mailbox(pool) => pool.pseudonym().map(|(id, _)| id),
            StreamId::Group(_) | StreamId::Server => None,
        };
        if owner.is_some_and(|owner| self.users.contains(&owner)) {
            self.own.insert(seq);
        } else if is_delivered(event) && event.subjects().iter().any(|id| self.users.contains(id)) {
            self.delivered.insert(seq);
        }
    }

    /// The payloads that go, once all records were taken.
    #[must_use]
    pub fn plan(self) -> ErasurePlan {
        let waiting = self.waiting.all();
        let (kept, gone): (BTreeSet<u64>, BTreeSet<u64>) =
            self.delivered.into_iter().partition(|seq| waiting.contains(seq));
        let due = self.own.into_iter().chain(gone).collect();
        ErasurePlan { due, waiting: kept.len() as u64, unsaid: self.unsaid }
    }
}
