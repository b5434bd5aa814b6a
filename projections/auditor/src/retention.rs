//! Which payloads may go: the bytes of packages that were spent, or have expired, some time ago.
//!
//! An envelope carries the digest of its payload and not the payload, so chains and tree hashes hold
//! without it. Everything else stays: packages that may still be used, withdrawn ones, because an open
//! reservation of such a one may still be spent, and the payloads of the delivery.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use keypool_ledger::{Event, EventEnvelope, KeyPackageRef, Timestamp};

/// Whether nobody will ask for a package's bytes any more after this event.
#[must_use]
pub fn ends(event: &Event, last_resort: bool) -> bool {
    match event {
        Event::Expired { .. } => true,
        // A last resort is never used up.
        Event::Spent { .. } => !last_resort,
        _ => false,
    }
}

/// Reads a log's events in order, to say which payloads may go.
#[derive(Debug, Default)]
pub struct Retention {
    /// The place of the bytes of each package that may still be asked for; whether it is a last resort.
    live: HashMap<KeyPackageRef, (u64, bool)>,
    /// When a package ended, and where its bytes stand.
    ended: Vec<(Timestamp, u64)>,
    now: Timestamp,
}

impl Retention {
    /// Takes the next record: its place, its event, and whether its payload is there.
    pub fn see(&mut self, seq: u64, envelope: &EventEnvelope, has_payload: bool) {
        let EventEnvelope { event, at, .. } = envelope;
        self.now = self.now.max(*at);
        if let (Event::Uploaded(facts), true) = (event, has_payload) {
            self.live.insert(facts.keypackage_ref.clone(), (seq, facts.last_resort));
            return;
        }
        let Some(of) = event.keypackage_ref() else { return };
        let found = self.live.get(of).filter(|(_, last_resort)| ends(event, *last_resort));
        if let Some((upload, _)) = found {
            self.ended.push((*at, *upload));
            self.live.remove(of);
        }
    }

    /// The records whose payloads may go: those of packages that ended at least this long before the
    /// log's last event.
    #[must_use]
    pub fn prunable(&self, keep: Duration) -> HashSet<u64> {
        let old = |ended: &&(Timestamp, u64)| keep <= self.now.since(ended.0);
        self.ended.iter().filter(old).map(|(_, upload)| *upload).collect()
    }
}
