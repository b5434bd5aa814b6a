//! The events that are due: computed from the log's records and the published states, in the log's order.
//!
//! An event is due while its cause still holds: a device is called for a record that waits in its mailbox
//! now, not for one that was acknowledged meanwhile. So a receiver that was down for a day gets one event for
//! each device, and a record may be taken again after a crash. Nothing here is kept on the disk.
//!
//! Devices of a suspended user are not called. The end of the suspension calls them for
//! all that waits.

use std::collections::{BTreeMap, HashMap, VecDeque};

use keypool_api::{WebhookEvent, WebhookKind};
use keypool_ledger::{
    Event, EventEnvelope, EventLog, GroupId, PoolId, ReadError, Record, StreamId,
};
use keypool_projections::{Level, MailboxState};

use crate::pools::{Pools, Presence};

/// How many events one request holds.
pub(super) const BATCH_EVENTS_MAX: usize = 100;
/// How many records are read at a time: one may hold 2 MiB.
const PAGE: usize = 64;

/// The events that are due and were not delivered.
#[derive(Debug, Default)]
pub(super) struct DueEvents {
    /// The position of the last record that was taken in.
    taken: u64,
    /// The end of the log at the start: records up to it may be taken in again after a crash. Set with the first.
    start: Option<u64>,
    due: VecDeque<DueEvent>,
    /// Devices that listened when something came into their mailboxes: they are called if they go away without
    /// it.
    unread: BTreeMap<PoolId, UnreadMail>,
    /// The kinds that were told of pools since their last upload.
    levels: HashMap<PoolId, WebhookKind>,
}

/// An event, and the position up to which nothing is settled before its delivery.
#[derive(Debug)]
struct DueEvent {
    cause: u64,
    event: WebhookEvent,
}

/// Records in the mailbox of a device that listened when they came.
#[derive(Clone, Copy, Debug)]
struct UnreadMail {
    first: u64,
    at_ms: u64,
    /// Whether the device was away at the last look.
    is_left: bool,
}

impl DueEvents {
    /// Makes an due_events of a log whose events up to a position were delivered.
    pub(super) fn after(position: u64) -> Self {
        Self { taken: position, ..Self::default() }
    }

    /// The position up to which every event was delivered: a start may go on behind it.
    pub(super) fn settled(&self) -> u64 {
        let due = self.due.iter().map(|due| due.cause);
        let first = due.chain(self.unread.values().map(|unread| unread.first)).min();
        first.map_or(self.taken, |first| first.saturating_sub(1).min(self.taken))
    }

    /// The first events that are due, at most as many as one request holds.
    pub(super) fn batch(&self) -> Vec<WebhookEvent> {
        self.due.iter().take(BATCH_EVENTS_MAX).map(|due| due.event.clone()).collect()
    }

    /// Removes the first events, which were delivered.
    pub(super) fn delivered(&mut self, count: usize) {
        self.due.drain(..count.min(self.due.len()));
    }

    /// Takes in the log's records, and leaves out the events of suspended users, until a request is full or there are no more.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read; records taken in before stay.
    pub(super) fn fill<L: EventLog + 'static>(
        &mut self,
        pools: &Pools<L>,
    ) -> Result<(), ReadError> {
        self.leave_out_suspended(pools);
        // A state that is published includes every record up to here.
        let published = pools.published();
        let start = *self.start.get_or_insert(published);
        while self.due.len() < BATCH_EVENTS_MAX && self.taken < published {
            let records = pools.log().read(self.taken.saturating_add(1), PAGE)?;
            let known = records.iter().take_while(|record| record.seq <= published);
            let before = self.taken;
            for record in known {
                self.take(record, pools);
                if record.seq == start {
                    // Their events may be known to the backend: the next message calls in any case.
                    pools.uncall_all();
                }
                if BATCH_EVENTS_MAX <= self.due.len() {
                    break;
                }
            }
            if self.taken == before {
                break;
            }
        }
        Ok(())
    }

    /// Takes in one record: adds the events that it causes.
    fn take<L: EventLog + 'static>(&mut self, record: &Record, pools: &Pools<L>) {
        let EventEnvelope { stream, event, .. } = &record.envelope;
        self.taken = record.seq;
        match (stream, event) {
            (StreamId::Group(group), Event::Welcomed { to, .. }) => {
                for device in to {
                    self.invite(record, group, device, pools);
                }
            }
            (StreamId::Group(group), Event::Posted { .. }) => self.call(record, group, &[], pools),
            (StreamId::Group(group), Event::Committed { removed, .. }) => {
                self.call(record, group, removed, pools);
            }
            (StreamId::Mailbox(device), Event::Acknowledged { .. }) => {
                pools.uncall(device);
                if pools.mailbox(device).is_empty() {
                    self.unread.remove(device);
                }
            }
            (StreamId::Pool(device), _) => self.compare_level(record, device, pools),
            (StreamId::Server, Event::UserReinstated { user }) => self.resume(record, user, pools),
            _ => {}
        }
    }

    /// Removes the events of users who were suspended since: they were not delivered yet.
    fn leave_out_suspended<L: EventLog + 'static>(&mut self, pools: &Pools<L>) {
        self.due.retain(|due| !pools.is_suspended(&due.event.user));
    }

    /// Calls the devices of a user who is not suspended any more, for all that waits for them. A call of before counts
    /// for nothing: the device was refused.
    fn resume<L: EventLog + 'static>(&mut self, record: &Record, user: &str, pools: &Pools<L>) {
        if pools.is_suspended(user) {
            return;
        }
        for device in pools.registered_devices(user) {
            self.levels.remove(&device);
            self.tell_level(record, &device, pools);
            if pools.mailbox(&device).is_empty() {
                continue;
            }
            pools.uncall(&device);
            match pools.call(&device) {
                Presence::Listening => self.note_unread(&device, record),
                // Its id names this record: the backend may know that of the last record that waits.
                Presence::Called | Presence::Away => {
                    self.push(record, &device, (WebhookKind::Mailbox, None));
                }
            }
        }
    }

    /// Adds an invitation for a device in whose mailbox the Welcome waits.
    fn invite<L: EventLog + 'static>(
        &mut self,
        record: &Record,
        group: &GroupId,
        device: &PoolId,
        pools: &Pools<L>,
    ) {
        if pools.is_suspended(device.user()) || !holds(&pools.mailbox(device), record.seq) {
            return;
        }
        self.push(record, device, (WebhookKind::Invitation, Some(group)));
        // The invitation calls a device that is away. One that is repeated calls for nothing after it.
        if self.is_resuming() && last_waiting(&pools.mailbox(device)) != Some(record.seq) {
            return;
        }
        if pools.call(device) == Presence::Listening {
            self.note_unread(device, record);
        }
    }

    /// Whether the record may have been taken in before a crash.
    fn is_resuming(&self) -> bool {
        self.start.is_none_or(|start| self.taken <= start)
    }

    /// Adds a call for each member that is away and in whose mailbox the record waits. Removed devices are
    /// called if anything waits: they may have been members at records that are taken in only now.
    fn call<L: EventLog + 'static>(
        &mut self,
        record: &Record,
        group: &GroupId,
        removed: &[PoolId],
        pools: &Pools<L>,
    ) {
        let state = pools.group(group);
        for device in state.members().chain(removed) {
            // The mailbox of a device that sleeps for long is packed: it is not looked at for nothing.
            if pools.presence(device) == Presence::Called || pools.is_suspended(device.user()) {
                continue;
            }
            let mailbox = pools.mailbox(device);
            if !removed.contains(device) && !holds(&mailbox, record.seq) {
                continue;
            }
            let Some(last) = last_waiting(&mailbox) else { continue };
            match pools.call(device) {
                Presence::Listening => self.note_unread(device, record),
                Presence::Called => {}
                Presence::Away => {
                    let place = (record.seq, record.envelope.at.as_millis());
                    self.push_call(record.seq, last, (device, place));
                }
            }
        }
    }

    /// Calls the devices that were away at two looks, and left without their mail.
    pub(super) fn look_at_unread<L: EventLog + 'static>(&mut self, pools: &Pools<L>) {
        for (device, unread) in std::mem::take(&mut self.unread) {
            if pools.is_suspended(device.user()) || pools.mailbox(&device).is_empty() {
                continue;
            }
            match (pools.presence(&device), unread.is_left) {
                (Presence::Listening, _) => {
                    self.unread.insert(device, UnreadMail { is_left: false, ..unread });
                }
                (Presence::Called, _) => {}
                // It may be about to acknowledge.
                (Presence::Away, false) => {
                    self.unread.insert(device, UnreadMail { is_left: true, ..unread });
                }
                (Presence::Away, true) => self.call_back(&device, unread, pools),
            }
        }
    }

    fn call_back<L: EventLog + 'static>(
        &mut self,
        device: &PoolId,
        unread: UnreadMail,
        pools: &Pools<L>,
    ) {
        match pools.call(device) {
            Presence::Listening => drop(self.unread.insert(device.clone(), unread)),
            Presence::Called => {}
            Presence::Away => {
                let last = last_waiting(&pools.mailbox(device)).unwrap_or(self.taken);
                self.push_call(unread.first, last, (device, (self.taken, unread.at_ms)));
            }
        }
    }

    /// Compares the level of a device's pool with the one that was told, after a record that may have changed it.
    fn compare_level<L: EventLog + 'static>(
        &mut self,
        record: &Record,
        device: &PoolId,
        pools: &Pools<L>,
    ) {
        match &record.envelope.event {
            Event::Uploaded(_) => {
                self.levels.remove(device);
                return;
            }
            Event::DeviceRemoved { .. } => {
                self.levels.remove(device);
                pools.uncall(device);
                return;
            }
            Event::Reserved { .. } | Event::Expired { .. } | Event::Revoked { .. } => {}
            _ => return,
        }
        self.tell_level(record, device, pools);
    }

    /// Adds an event if the level of a device's pool is low or empty, and was not told since its last upload.
    fn tell_level<L: EventLog + 'static>(
        &mut self,
        record: &Record,
        device: &PoolId,
        pools: &Pools<L>,
    ) {
        if pools.is_suspended(device.user()) {
            return;
        }
        let kind = match pools.level(device) {
            Some(Level::Low | Level::Critical) => WebhookKind::Low,
            Some(Level::Empty) => WebhookKind::Empty,
            Some(Level::Healthy) | None => return,
        };
        let told = self.levels.get(device);
        if told.is_none() || (told, kind) == (Some(&WebhookKind::Low), WebhookKind::Empty) {
            self.push(record, device, (kind, None));
            self.levels.insert(device.clone(), kind);
        }
    }

    fn note_unread(&mut self, device: &PoolId, record: &Record) {
        let at_ms = record.envelope.at.as_millis();
        let unread = self.unread.entry(device.clone());
        unread.or_insert(UnreadMail { first: record.seq, at_ms, is_left: false }).at_ms = at_ms;
    }

    /// Adds a call. Its id names the last record that waits: a backend that knows it has called for each of them.
    fn push_call(&mut self, cause: u64, last: u64, (device, place): (&PoolId, (u64, u64))) {
        let mut event = event((WebhookKind::Mailbox, None), device, place);
        event.id = id_of(last, WebhookKind::Mailbox, device);
        self.due.push_back(DueEvent { cause, event });
    }

    fn push(&mut self, record: &Record, device: &PoolId, kind: (WebhookKind, Option<&GroupId>)) {
        let event = event(kind, device, (record.seq, record.envelope.at.as_millis()));
        self.due.push_back(DueEvent { cause: record.seq, event });
    }
}

/// Whether a record waits in a mailbox.
fn holds(mailbox: &MailboxState, position: u64) -> bool {
    let next = mailbox.after(position.saturating_sub(1)).next();
    next.is_some_and(|waiting| waiting.position == position)
}

/// The position of the last record that waits in a mailbox.
fn last_waiting(mailbox: &MailboxState) -> Option<u64> {
    mailbox.after(0).last().map(|waiting| waiting.position)
}

/// Makes an event. Its id follows from its content, so that it is the same after a crash.
fn event(
    (kind, group): (WebhookKind, Option<&GroupId>),
    device: &PoolId,
    (position, at_ms): (u64, u64),
) -> WebhookEvent {
    WebhookEvent {
        id: id_of(position, kind, device),
        kind,
        user: device.user().to_owned(),
        device: device.device().to_owned(),
        position,
        at_ms,
        group_id: group.cloned(),
    }
}

fn id_of(position: u64, kind: WebhookKind, device: &PoolId) -> String {
    format!("{position}-{}-{device}", kind.word())
}

#[cfg(test)]
mod tests;
