//! The users that a pool's owner lets reserve, and those that the owner knows: contacts, and strangers.
//!
//! A contact is a user whose invitation the owner has joined. The server cannot see that: the holder of
//! a reservation can spend the package and invite nobody. So it is the owner who says so, and names the
//! reservation that was spent; who made it is the server's to know.

use std::collections::{BTreeMap, BTreeSet};

use keypool_ledger::{Event, PoolId, ReservePolicy, Timestamp};

use super::{Package, PoolState, ReservationStatus};
use crate::{
    command::{Answer, Limits, PolicyChange, PolicyStatus, Rejection},
    packing::{Packer, Unpacker},
};

/// How many contacts a pool remembers, and how many that were removed: the ones that came last.
const REMEMBERED_MAX: usize = 1024;
/// How many users a pool blocks.
pub(crate) const BLOCKED_MAX: usize = 1024;

/// The users that the owner of a pool lets reserve, and those that the owner knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contacts {
    reserve: ReservePolicy,
    /// Users, each with its place in the order of additions.
    users: BTreeMap<String, u64>,
    /// Users that were contacts, likewise.
    removed: BTreeMap<String, u64>,
    /// Users that are blocked.
    blocked: BTreeSet<String>,
    /// How many packages strangers may take together in an hour; `None` for the server's own limit.
    strangers_per_hour: Option<u32>,
    changes: u64,
}

impl Contacts {
    /// The users who may reserve.
    #[must_use]
    pub const fn reserve(&self) -> ReservePolicy {
        self.reserve
    }

    /// The users whose invitations the owner has joined, by name.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// Whether the owner has joined an invitation of a user.
    #[must_use]
    pub fn is_contact(&self, user: &str) -> bool {
        self.users.contains_key(user)
    }

    /// Whether the owner has said that a user is no contact any more.
    #[must_use]
    pub fn is_removed(&self, user: &str) -> bool {
        self.removed.contains_key(user)
    }

    /// The users that are blocked, by name.
    pub fn blocked(&self) -> impl Iterator<Item = &str> {
        self.blocked.iter().map(String::as_str)
    }

    /// Whether the owner has blocked a user.
    #[must_use]
    pub fn is_blocked(&self, user: &str) -> bool {
        self.blocked.contains(user)
    }

    /// How many packages strangers may take together in an hour; `None` for the server's own limit.
    #[must_use]
    pub const fn strangers_per_hour(&self) -> Option<u32> {
        self.strangers_per_hour
    }

    /// The answer to a command about the policy.
    pub(crate) fn answer(&self) -> Answer {
        Answer::PolicySet(PolicyStatus {
            reserve: self.reserve,
            contacts: self.users().map(str::to_owned).collect(),
            blocked: self.blocked().map(str::to_owned).collect(),
            strangers_per_hour: self.strangers_per_hour,
        })
    }

    pub(super) fn evolve(&mut self, event: &Event) {
        self.changes = self.changes.saturating_add(1);
        match event {
            Event::PolicySet { reserve } => self.reserve = *reserve,
            Event::ContactAdded { user, .. } => {
                self.removed.remove(user);
                remember(&mut self.users, user, self.changes);
            }
            Event::ContactRemoved { user } => {
                self.users.remove(user);
                remember(&mut self.removed, user, self.changes);
            }
            Event::UserBlocked { user } => drop(self.blocked.insert(user.clone())),
            Event::UserUnblocked { user } => drop(self.blocked.remove(user)),
            Event::StrangersLimitSet { per_hour } => self.strangers_per_hour = *per_hour,
            // Not about whom the owner knows: never here.
            _ => {}
        }
    }

    pub(super) fn pack(&self, out: &mut Packer) {
        out.flag(self.reserve == ReservePolicy::Contacts);
        out.number(self.changes);
        for users in [&self.users, &self.removed] {
            out.number(users.len() as u64);
            for (user, place) in users {
                out.bytes(user.as_bytes());
                out.number(*place);
            }
        }
        out.number(self.blocked.len() as u64);
        self.blocked.iter().for_each(|user| out.bytes(user.as_bytes()));
        out.flag(self.strangers_per_hour.is_some());
        out.number(self.strangers_per_hour.unwrap_or_default().into());
    }

    pub(super) fn unpack(rest: &mut Unpacker<'_>) -> Option<Self> {
        let reserve = if rest.flag()? { ReservePolicy::Contacts } else { ReservePolicy::Open };
        let mut contacts = Self { reserve, changes: rest.number()?, ..Self::default() };
        for users in [&mut contacts.users, &mut contacts.removed] {
            for _ in 0..rest.number()? {
                users.insert(rest.text()?, rest.number()?);
            }
        }
        for _ in 0..rest.number()? {
            contacts.blocked.insert(rest.text()?);
        }
        let is_limited = rest.flag()?;
        let per_hour = u32::try_from(rest.number()?).ok()?;
        contacts.strangers_per_hour = is_limited.then_some(per_hour);
        Some(contacts)
    }
}

/// Adds a user, in place of the one that came first if there are too many.
fn remember(users: &mut BTreeMap<String, u64>, user: &str, place: u64) {
    users.insert(user.to_owned(), place);
    if REMEMBERED_MAX < users.len() {
        let first = users.iter().min_by_key(|(_, place)| **place).map(|(user, _)| user.clone());
        first.and_then(|first| users.remove(&first));
    }
}

impl PoolState {
    /// The events that lead from the policy to the one that is asked for: none for a change that is so
    /// already, or that another part of the same request takes back.
    pub(crate) fn decide_policy(&self, change: &PolicyChange) -> Result<Vec<Event>, Rejection> {
        let mut events = self.settings_changed(change);
        events.extend(self.contacts_changed(change)?);
        events.extend(self.blocks_changed(change)?);
        Ok(events)
    }

    fn settings_changed(&self, change: &PolicyChange) -> Vec<Event> {
        let reserve = change.reserve.filter(|reserve| *reserve != self.contacts.reserve);
        let limit = change.strangers_per_hour.map(|limit| Some(limit).filter(|limit| 0 < *limit));
        let limit = limit.filter(|limit| *limit != self.contacts.strangers_per_hour);
        let reserve = reserve.map(|reserve| Event::PolicySet { reserve });
        let limit = limit.map(|per_hour| Event::StrangersLimitSet { per_hour });
        reserve.into_iter().chain(limit).collect()
    }

    fn contacts_changed(&self, change: &PolicyChange) -> Result<Vec<Event>, Rejection> {
        let (mut events, mut named) = (Vec::new(), BTreeSet::new());
        for reservation in change.joined.iter().copied() {
            let spent = self.reservation(reservation).filter(|made| is_spent(made.status));
            let user = spent.ok_or(Rejection::ReservationMismatch(reservation))?.holder.user();
            let is_kept = !change.removed.iter().any(|removed| removed == user);
            if is_kept && !self.contacts.is_contact(user) && named.insert(user) {
                events.push(Event::ContactAdded { user: user.to_owned(), reservation });
            }
        }
        let removed = change.removed.iter().collect::<BTreeSet<_>>().into_iter();
        let removed = removed.filter(|user| self.contacts.is_contact(user)).cloned();
        events.extend(removed.map(|user| Event::ContactRemoved { user }));
        Ok(events)
    }

    fn blocks_changed(&self, change: &PolicyChange) -> Result<Vec<Event>, Rejection> {
        let unblocked: BTreeSet<&String> = change.unblocked.iter().collect();
        let blocked = change.blocked.iter().filter(|user| !unblocked.contains(user));
        let blocked: BTreeSet<&String> =
            blocked.filter(|user| !self.contacts.is_blocked(user)).collect();
        let unblocked = unblocked.into_iter().filter(|user| self.contacts.is_blocked(user));
        let unblocked: Vec<&String> = unblocked.collect();
        if BLOCKED_MAX + unblocked.len() < self.contacts.blocked.len() + blocked.len() {
            return Err(Rejection::TooManyBlocked);
        }
        let unblocked = unblocked.into_iter().cloned().map(|user| Event::UserUnblocked { user });
        let blocked = blocked.into_iter().cloned().map(|user| Event::UserBlocked { user });
        Ok(unblocked.chain(blocked).collect())
    }

    /// The ciphersuites of which this inviter is handed no package that was never handed out, because
    /// those that are left are kept for the owner's contacts.
    pub(crate) fn held_for_contacts(
        &self,
        holder: &PoolId,
        introduced: bool,
        now: Timestamp,
        limits: &Limits,
    ) -> Result<Vec<u16>, Rejection> {
        if self.contacts.is_blocked(holder.user()) {
            return Err(Rejection::Blocked);
        }
        if introduced || self.contacts.is_contact(holder.user()) {
            return Ok(Vec::new());
        }
        if self.contacts.reserve == ReservePolicy::Contacts {
            return Err(Rejection::ContactsOnly);
        }
        if limits.strangers_floor == 0 {
            return Ok(Vec::new());
        }
        let mut fresh: Vec<(u16, usize)> = Vec::new();
        for package in self.offerable(now, limits).filter(|package| is_fresh(package)) {
            let suite = package.facts.ciphersuite;
            match fresh.iter_mut().find(|(known, _)| *known == suite) {
                Some((_, count)) => *count += 1,
                None => fresh.push((suite, 1)),
            }
        }
        fresh.retain(|(_, count)| *count <= limits.strangers_floor);
        Ok(fresh.into_iter().map(|(suite, _)| suite).collect())
    }
}

/// Whether a package is among those that are kept for contacts.
pub(crate) fn is_held_for_contacts(package: &Package, suites: &[u16]) -> bool {
    is_fresh(package) && suites.contains(&package.facts.ciphersuite)
}

const fn is_fresh(package: &Package) -> bool {
    package.generation == 0 && !package.facts.last_resort
}

const fn is_spent(status: ReservationStatus) -> bool {
    matches!(status, ReservationStatus::Spent { .. })
}

#[cfg(test)]
mod tests {
    use keypool_ledger::ReservationId;

    use super::*;

    fn added(user: &str) -> Event {
        let reservation = ReservationId(uuid::Uuid::from_u128(7));
        Event::ContactAdded { user: user.to_owned(), reservation }
    }

    #[test]
    fn a_circle_comes_back_as_it_was_packed() {
        let mut contacts = Contacts::default();
        contacts.evolve(&Event::PolicySet { reserve: ReservePolicy::Contacts });
        for user in ["alice", "bob", "mallory"] {
            contacts.evolve(&added(user));
        }
        contacts.evolve(&Event::ContactRemoved { user: "mallory".to_owned() });
        contacts.evolve(&Event::UserBlocked { user: "mallory".to_owned() });
        contacts.evolve(&Event::StrangersLimitSet { per_hour: Some(600) });
        let mut out = Packer::default();
        contacts.pack(&mut out);
        let bytes = out.into_bytes();
        assert_eq!(Contacts::unpack(&mut Unpacker::new(&bytes)), Some(contacts.clone()));
        assert!(contacts.is_contact("bob") && contacts.is_removed("mallory"));
        assert!(!contacts.is_contact("mallory"));
    }

    #[test]
    fn the_contacts_that_came_first_make_room() {
        let mut contacts = Contacts::default();
        for number in 0..REMEMBERED_MAX + 2 {
            contacts.evolve(&added(&format!("u{number}")));
        }
        assert_eq!(contacts.users().count(), REMEMBERED_MAX);
        assert!(
            !contacts.is_contact("u0") && !contacts.is_contact("u1") && contacts.is_contact("u2")
        );
    }
}
