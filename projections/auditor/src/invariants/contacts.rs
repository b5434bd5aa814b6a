//! The contacts of a pool's owner, as far as the server must remember them.

use std::collections::{HashMap, HashSet};

use keypool_ledger::{Event, PoolId};

/// How many contacts a server remembers of a pool.
const REMEMBERED_MAX: usize = 1024;

/// The contacts of each pool's owner.
#[derive(Debug, Default)]
pub(super) struct AuditedContacts(HashMap<PoolId, OfPool>);

#[derive(Debug, Default)]
struct OfPool {
    users: HashSet<String>,
    /// Whether there were too many once: then the server has forgotten some of them.
    is_incomplete: bool,
}

impl AuditedContacts {
    pub(super) fn see(&mut self, event: &Event, pool: &PoolId) {
        match event {
            Event::ContactAdded { user, .. } => {
                let contacts = self.0.entry(pool.clone()).or_default();
                contacts.users.insert(user.clone());
                contacts.is_incomplete |= REMEMBERED_MAX < contacts.users.len();
            }
            Event::ContactRemoved { user } => {
                if let Some(contacts) = self.0.get_mut(pool) {
                    contacts.users.remove(user);
                }
            }
            // A later device of the name knows nobody.
            Event::DeviceRemoved { .. } => drop(self.0.remove(pool)),
            _ => {}
        }
    }

    /// Whether the server must know a user as a contact of a pool's owner.
    pub(super) fn must_know(&self, pool: &PoolId, user: &str) -> bool {
        let contacts = self.0.get(pool).filter(|contacts| !contacts.is_incomplete);
        contacts.is_some_and(|contacts| contacts.users.contains(user))
    }
}
