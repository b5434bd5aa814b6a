//! Suspended users: the log has nothing of theirs, and hands their packages to nobody, until they are reinstated.

use std::collections::BTreeMap;

use keypool_ledger::{Event, StreamId};

use super::{AuditedEvent, broken};
use crate::verify::Finding;

/// The suspended users, and the positions of the events that say so.
#[derive(Debug, Default)]
pub(super) struct AuditedSuspensions(BTreeMap<String, u64>);

impl AuditedSuspensions {
    /// Takes the next event, and returns the finding that it is of a suspended user or hands out a package of one.
    pub(super) fn see(&mut self, seen: AuditedEvent<'_>) -> Option<Finding> {
        let envelope = seen.envelope;
        match (&envelope.stream, &envelope.event) {
            (StreamId::Server, Event::UserSuspended { user, .. }) => {
                self.0.insert(user.clone(), seen.seq);
                None
            }
            (StreamId::Server, Event::UserReinstated { user }) => {
                self.0.remove(user);
                None
            }
            (StreamId::Pool(pool), Event::Reserved { holder, .. }) => self
                .finding(seen, holder.user(), "has reserved a package")
                .or_else(|| self.finding(seen, pool.user(), "has had a package handed out")),
            (StreamId::Pool(pool), event) if is_owners(event) => {
                self.finding(seen, pool.user(), event.name())
            }
            (
                StreamId::Group(_),
                Event::Committed { committer: by, .. }
                | Event::Posted { sender: by, .. }
                | Event::GroupMade { creator: by },
            ) => self.finding(seen, by.user(), envelope.event.name()),
            _ => None,
        }
    }

    fn finding(&self, seen: AuditedEvent<'_>, user: &str, did: &str) -> Option<Finding> {
        let since = self.0.get(user)?;
        let what = format!(
            "{user} was suspended at {since}, but at {}: {did}; a suspended user changes nothing, and nobody is \
             handed their packages.",
            seen.seq
        );
        Some(broken("suspension", &[*since, seen.seq], what))
    }
}

/// Whether an event of a pool is one that only its owner asks for, or the app of the owner's users.
const fn is_owners(event: &Event) -> bool {
    matches!(
        event,
        Event::Uploaded(_)
            | Event::Registered { .. }
            | Event::KeyRotated { .. }
            | Event::DeviceRemoved { by_operator: false }
            | Event::LeafKeyPinned { .. }
            | Event::CredentialDeclared { .. }
            | Event::RecoveryKeySet { .. }
            | Event::PolicySet { .. }
            | Event::UserBlocked { .. }
            | Event::UserUnblocked { .. }
            | Event::ContactAdded { .. }
            | Event::ContactRemoved { .. }
            | Event::StrangersLimitSet { .. }
    )
}
