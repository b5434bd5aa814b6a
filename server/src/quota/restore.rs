//! Restores the counts from the end of the log at a start, and goes on with the records of other servers.
//!
//! A reservation's event does not say whether the inviter is a stranger; that follows from the owner's
//! policy until then. Only an introduction leaves no trace: the bearer of a token counts as a stranger here.

use std::{collections::HashMap, sync::Arc, time::Duration};

use keypool_ledger::{
    CommandId, Event, EventLog, PoolId, ReadError, Record, ReservationId, Timestamp,
};
use keypool_projections::{
    Contacts, Limits,
    quota::{Ask, Quota, Quotas, Rate, Relation},
};

use super::Counter;
use crate::{
    keypackage_store::kib,
    pools::{FollowedLog, PoolView, Pools},
};

/// How many records are read at a time.
const PAGE: usize = 4096;
/// How many records are read at most. Older ones are not counted any more.
const RECORDS_MAX: u64 = 2_000_000;

/// The state of reading the end of the log.
#[derive(Default)]
struct RestoreState {
    /// The holder of each open reservation.
    holders: HashMap<ReservationId, PoolId>,
    /// The moment since which a reservation counts against the rates of pools.
    asked_since: Timestamp,
    /// Reservations since then, in the order of the log.
    asked: Vec<Asked>,
    /// The last command that has changed each pool's policy.
    policies: HashMap<PoolId, CommandId>,
    /// The device that posted last.
    sender: Option<PoolId>,
    /// Changes of contacts: the position, and whether the user is a contact since.
    said: HashMap<(PoolId, String), Vec<(u64, bool)>>,
}

struct Asked {
    seq: u64,
    at: Timestamp,
    ask: Ask,
    user: String,
    pool: PoolId,
}

impl Counter {
    /// Counts the records at the end of the log, as far back as anything counts.
    pub(crate) fn restore<L: EventLog + 'static>(&self, pools: &Pools<L>) -> Result<(), ReadError> {
        let reading = self.read(pools)?;
        self.count_asked(&reading, |pool| pools.pool(pool));
        self.sweep(pools.now());
        Ok(())
    }

    /// Counts records that other servers have written since the start.
    pub(crate) fn count_followed(&self, log: &dyn FollowedLog, records: &[&Record]) {
        let (limits, now) = (log.limits(), log.now());
        let mut reading = RestoreState::default();
        for record in records {
            if let Event::Renewed { reservation, .. }
            | Event::Released { reservation, .. }
            | Event::Spent { reservation: Some(reservation), .. } = &record.envelope.event
                && !reading.holders.contains_key(reservation)
                && let Some(holder) = log.holder_of(*reservation)
            {
                reading.holders.insert(*reservation, holder);
            }
            self.count_record((record, record.envelope.at.min(now)), &mut reading, &limits);
            reading.take_in(record);
        }
        self.count_asked(&reading, |pool| log.pool(pool));
    }

    /// Counts the reservations that were read against the pools that they are of.
    fn count_asked(&self, reading: &RestoreState, pool: impl Fn(&PoolId) -> Option<Arc<PoolView>>) {
        for asked in &reading.asked {
            let view = pool(&asked.pool);
            let contacts = view.as_ref().map(|view| view.state.contacts());
            let ask = Ask { relation: reading.relation(asked, contacts, self), ..asked.ask };
            if let Some(mut targets) = self.targets.of(ask.pool) {
                targets.count(&ask, &self.quotas, asked.at);
            }
        }
    }

    /// Reads the end of the log, and counts all but the reservations that count against a pool.
    fn read<L: EventLog + 'static>(&self, pools: &Pools<L>) -> Result<RestoreState, ReadError> {
        let (log, limits, now) = (pools.log(), pools.limits(), pools.now());
        let asked_window = asked_window(&self.quotas);
        let mut reading =
            RestoreState { asked_since: now.before(asked_window), ..RestoreState::default() };
        let head = log.head()?.seq;
        let window = self.quotas.window().max(asked_window);
        let mut from = first_since(log, head, now.before(window))?;
        if RECORDS_MAX < head.saturating_sub(from) {
            tracing::warn!(records = RECORDS_MAX, "older reservations and uploads are not counted");
            from = head - RECORDS_MAX;
        }
        loop {
            let page = log.read(from, PAGE)?;
            let Some(last) = page.last() else { return Ok(reading) };
            from = last.seq.saturating_add(1);
            for record in &page {
                // A record from after now is of a time that was set back: it counts as of now.
                let at = record.envelope.at.min(now);
                self.count_record((record, at), &mut reading, &limits);
                reading.take_in(record);
            }
        }
    }

    /// Counts a record that needs no more than the reservations known so far.
    fn count_record(
        &self,
        (record, at): (&Record, Timestamp),
        reading: &mut RestoreState,
        limits: &Limits,
    ) {
        self.count_delivery(record, reading);
        let Some(pool) = record.envelope.stream.pool() else { return };
        match &record.envelope.event {
            Event::Reserved { reservation, holder, deadline, .. } => {
                reading.holders.insert(*reservation, holder.clone());
                let latest = limits.lapses_at(at.after(limits.reservation_ttl));
                let until = limits.lapses_at(*deadline).min(latest);
                let claim = (*reservation, Relation::Contact, until);
                let ask = Ask::new(&self.keys, holder, pool, claim);
                if let Some(mut inviters) = self.inviters.of(ask.inviter) {
                    inviters.count_held(&ask, &self.quotas, at);
                }
                if reading.asked_since <= at {
                    let (user, pool) = (holder.user().to_owned(), pool.clone());
                    reading.asked.push(Asked { seq: record.seq, at, ask, user, pool });
                }
            }
            Event::Renewed { reservation, deadline, .. } => {
                if let Some(holder) = reading.holders.get(reservation) {
                    self.extend(holder, *reservation, limits.lapses_at(*deadline));
                }
            }
            Event::Released { reservation, .. }
            | Event::Spent { reservation: Some(reservation), .. } => {
                if let Some(holder) = reading.holders.remove(reservation) {
                    self.end(&holder, *reservation);
                }
            }
            Event::Uploaded(_) => self.count_device(Quota::Uploads, pool, 1, at),
            event if is_of_policy(event) => {
                let command = record.envelope.command;
                if reading.policies.insert(pool.clone(), command) != Some(command) {
                    self.count_device(Quota::Policy, pool, 1, at);
                }
            }
            _ => {}
        }
    }
}

impl Counter {
    /// Counts a record of a group.
    fn count_delivery(&self, record: &Record, reading: &mut RestoreState) {
        let (at, kib) = (record.envelope.at, kib(record.payload.len() as u64));
        match &record.envelope.event {
            Event::GroupMade { creator } => self.count_device(Quota::Groups, creator, 1, at),
            Event::Committed { committer: sender, .. } | Event::Posted { sender, .. } => {
                self.count_device(Quota::Posts, sender, 1, at);
                self.count_device(Quota::PostBytes, sender, kib, at);
                reading.sender = Some(sender.clone());
            }
            // A Welcome follows the Commit of its device.
            Event::Welcomed { .. } => {
                if let Some(sender) = &reading.sender {
                    self.count_device(Quota::PostBytes, sender, kib, at);
                }
            }
            _ => {}
        }
    }
}

const fn is_of_policy(event: &Event) -> bool {
    matches!(
        event,
        Event::PolicySet { .. }
            | Event::ContactAdded { .. }
            | Event::ContactRemoved { .. }
            | Event::UserBlocked { .. }
            | Event::UserUnblocked { .. }
            | Event::StrangersLimitSet { .. }
            | Event::LeafKeyPinned { .. }
            | Event::CredentialDeclared { .. }
            | Event::RecoveryKeySet { .. }
    )
}

impl RestoreState {
    /// Remembers changes of contacts.
    fn take_in(&mut self, record: &Record) {
        let seq = record.seq;
        let Some(pool) = record.envelope.stream.pool() else { return };
        match &record.envelope.event {
            Event::ContactAdded { user, .. } => self.note(pool, user, (seq, true)),
            Event::ContactRemoved { user } => self.note(pool, user, (seq, false)),
            _ => {}
        }
    }

    fn note(&mut self, pool: &PoolId, user: &str, said: (u64, bool)) {
        self.said.entry((pool.clone(), user.to_owned())).or_default().push(said);
    }

    /// The relation of an inviter to the pool's owner when the reservation was made.
    fn relation(&self, asked: &Asked, contacts: Option<&Contacts>, counter: &Counter) -> Relation {
        let (user, pool) = (&asked.user, &asked.pool);
        if user == pool.user() {
            return Relation::Contact;
        }
        let said = self.said.get(&(pool.clone(), user.clone()));
        let (before, after): (Vec<_>, Vec<_>) =
            said.into_iter().flatten().partition(|(seq, _)| *seq < asked.seq);
        let was = before.last().map(|(_, is_contact)| *is_contact);
        // Who becomes a contact was none, and who is one no more was one.
        let was = was.or_else(|| after.first().map(|(_, is_contact)| !is_contact));
        let was = was.unwrap_or_else(|| contacts.is_some_and(|contacts| contacts.is_contact(user)));
        if was {
            return Relation::Contact;
        }
        counter.stranger(contacts.and_then(Contacts::strangers_per_hour))
    }
}

/// How long a reservation counts against the rates of a pool at most, those that owners set included.
fn asked_window(quotas: &Quotas) -> Duration {
    let rates = [quotas.pair, quotas.contact_pair, quotas.strangers, Rate::hourly(1)];
    rates.map(|rate| rate.window()).into_iter().max().unwrap_or_default()
}

/// The first record that is not older than a moment, or one near it: in the whole log time may step back
/// by as much as the clock did.
fn first_since(log: &impl EventLog, head: u64, since: Timestamp) -> Result<u64, ReadError> {
    let (mut old, mut new) = (0, head.saturating_add(1));
    while old + 1 < new {
        let middle = old + (new - old) / 2;
        let record = log.read(middle, 1)?.pop();
        if record.is_some_and(|record| record.envelope.at < since) {
            old = middle;
        } else {
            new = middle;
        }
    }
    Ok(new)
}
