//! Retention: which payloads may leave a log because nobody asks for their bytes any more.
//!
//! An envelope carries the digest of its payload and not the payload, so chains and tree hashes hold
//! without it. Payloads of three kinds may go after a time: those of packages that were spent or have
//! expired, those of withdrawn packages whose lifetime is over, and those of Commits, Welcomes and messages
//! that wait in no mailbox. Everything else stays: a withdrawn package may have an open reservation, which
//! may still be spent.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use keypool_ledger::{Event, EventEnvelope, KeyPackageRef, PackageFacts, Timestamp};

use crate::{Deliveries, MailboxState};

/// The least time for which the payloads of withdrawn packages and of the delivery stay: a restart counts
/// the limits of senders from the payloads of a day.
pub const RETENTION_MIN: Duration = Duration::from_hours(24);

/// The end of a package, as far as its bytes are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackageEnd {
    /// The moment from which nobody asks for the bytes.
    at: Timestamp,
    /// The least time for which they stay after it.
    keep_min: Duration,
}

/// The facts of a package that decide on its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackageLifetime {
    /// When its lifetime ends.
    pub not_after: Timestamp,
    /// Whether it is a last-resort package.
    pub last_resort: bool,
}

impl From<&PackageFacts> for PackageLifetime {
    fn from(facts: &PackageFacts) -> Self {
        Self { not_after: facts.not_after, last_resort: facts.last_resort }
    }
}

impl PackageEnd {
    /// The end of a package by an event of it; `None` if its bytes may still be asked for after it.
    #[must_use]
    pub fn by(event: &Event, at: Timestamp, lifetime: PackageLifetime) -> Option<Self> {
        match event {
            Event::Expired { .. } => Some(Self { at, keep_min: Duration::ZERO }),
            // A last resort is never used up.
            Event::Spent { .. } if !lifetime.last_resort => {
                Some(Self { at, keep_min: Duration::ZERO })
            }
            Event::Revoked { .. } => {
                Some(Self { at: at.max(lifetime.not_after), keep_min: RETENTION_MIN })
            }
            _ => None,
        }
    }

    /// Whether the bytes may go at a moment, if they stay for a time after the end.
    #[must_use]
    pub fn allows(&self, now: Timestamp, keep: Duration) -> bool {
        keep.max(self.keep_min) <= now.since(self.at)
    }
}

/// The mailboxes of a log as far as its events were read: which positions wait for a device.
#[derive(Debug, Default)]
pub struct WaitingPositions(Deliveries);

impl WaitingPositions {
    /// Takes the next record: its position and its event.
    pub fn see(&mut self, seq: u64, envelope: &EventEnvelope) {
        // Sizes only count where a mailbox decides on something new.
        self.0.evolve(seq, envelope, 0);
    }

    /// The positions of the Commits, Welcomes, messages and answers that wait for a device.
    #[must_use]
    pub fn all(&self) -> HashSet<u64> {
        let mailboxes = self.0.mailboxes.values();
        let waiting = mailboxes.flat_map(|mailbox: &MailboxState| mailbox.after(0));
        waiting.map(|item| item.position).collect()
    }
}

/// Whether an event is one of the delivery whose bytes members are given.
#[must_use]
pub const fn is_delivered(event: &Event) -> bool {
    matches!(event, Event::Committed { .. } | Event::Welcomed { .. } | Event::Posted { .. })
}

/// Whether the bytes of a Commit, a Welcome or a message that waits in no mailbox may go at a moment, if they
/// stay for a time after it was posted.
#[must_use]
pub fn allows_delivered(posted: Timestamp, now: Timestamp, keep: Duration) -> bool {
    keep.max(RETENTION_MIN) <= now.since(posted)
}

/// The first bytes of a package's reference: as a hash they are as good as all of it, in less memory.
type LiveKey = [u8; 16];

/// A package as far as its end is decided by it.
#[derive(Clone, Copy, Debug)]
struct LivePackage {
    /// The position of its bytes.
    seq: u64,
    lifetime: PackageLifetime,
}

/// Reads a log's events in order and collects the payloads that may go.
#[derive(Debug, Default)]
pub struct Retention {
    /// The packages whose bytes may still be asked for. A large server has millions of them.
    live: HashMap<LiveKey, LivePackage>,
    /// The ends of packages, and where their bytes stand.
    ended: Vec<(PackageEnd, u64)>,
    /// When each Commit, Welcome and message with bytes was posted, by its position.
    posted: BTreeMap<u64, Timestamp>,
    waiting: WaitingPositions,
    now: Timestamp,
}

impl Retention {
    /// Takes the next record: its position, its event, and whether its payload is there.
    pub fn see(&mut self, seq: u64, envelope: &EventEnvelope, has_payload: bool) {
        let EventEnvelope { event, at, .. } = envelope;
        self.now = self.now.max(*at);
        self.waiting.see(seq, envelope);
        match event {
            Event::Uploaded(facts) if has_payload => {
                let package = LivePackage { seq, lifetime: facts.into() };
                self.live.insert(live_key(&facts.keypackage_ref), package);
            }
            event if has_payload && is_delivered(event) => {
                self.posted.insert(seq, *at);
            }
            _ => self.end_package(event, *at),
        }
    }

    fn end_package(&mut self, event: &Event, at: Timestamp) {
        let Some(of) = event.keypackage_ref() else { return };
        let Some(LivePackage { seq, lifetime }) = self.live.get(&live_key(of)).copied() else {
            return;
        };
        if let Some(end) = PackageEnd::by(event, at, lifetime) {
            self.ended.push((end, seq));
            // A withdrawn package may still be spent, which ends it sooner.
            if !matches!(event, Event::Revoked { .. }) {
                self.live.remove(&live_key(of));
            }
        }
    }

    /// The records whose payloads may go: those that ended at least this long before the log's last event,
    /// by the rules of this module.
    #[must_use]
    pub fn prunable(&self, keep: Duration) -> HashSet<u64> {
        let ended = self.ended.iter().filter(|(end, _)| end.allows(self.now, keep));
        let waiting = self.waiting.all();
        let posted = self
            .posted
            .iter()
            .filter(|(seq, at)| allows_delivered(**at, self.now, keep) && !waiting.contains(seq));
        ended.map(|(_, seq)| *seq).chain(posted.map(|(seq, _)| *seq)).collect()
    }
}

fn live_key(of: &KeyPackageRef) -> LiveKey {
    of.as_bytes().first_chunk().copied().unwrap_or_default()
}
