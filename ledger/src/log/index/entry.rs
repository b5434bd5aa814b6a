//! An entry of the index: under which key a record is found, and where it stands.

use crate::{CommandId, Event, Hash, KeyPackageRef, PoolId, Record, ReservationId, StreamId};

/// How many bytes an entry has.
pub(in crate::log) const ENTRY_LEN: usize = 24;
/// How many bytes of a key's hash are kept, its kind before them.
pub(super) const FINGERPRINT_LEN: usize = 10;
/// How many events of a history are found under one key.
pub(in crate::log) const BLOCK: u64 = 32;

/// What stands for a key: its kind and the beginning of its hash. Two keys have the same one time in
/// 2^72, which is why whoever reads a record looks whether it is the one that was sought.
pub(in crate::log) type Fingerprint = [u8; FINGERPRINT_LEN];

/// What records are found by.
#[derive(Clone, Copy, Debug)]
pub(in crate::log) enum Sought<'a> {
    /// All events of a history, [`BLOCK`] versions at a time.
    History(&'a StreamId, u64),
    /// The last event of a history.
    Head(&'a StreamId),
    /// What a command caused.
    Command(CommandId),
    /// What was recorded about a package.
    Package(&'a KeyPackageRef),
    /// What made a reservation.
    Reservation(ReservationId),
    /// What brought a package with an `init_key` into a pool.
    InitKey(&'a PoolId, &'a Hash),
}

/// The kind that the fingerprints of [`Sought::Head`] begin with: of these only the last counts.
const HEAD_KIND: u8 = b'h';

impl Sought<'_> {
    pub(in crate::log) fn fingerprint(self) -> Fingerprint {
        let mut hasher = blake3::Hasher::new();
        let kind = match self {
            Self::History(stream, version) => {
                hasher.update(&(version / BLOCK).to_be_bytes());
                update_stream(&mut hasher, stream);
                b's'
            }
            Self::Head(stream) => {
                update_stream(&mut hasher, stream);
                HEAD_KIND
            }
            Self::Command(command) => {
                hasher.update(command.0.as_bytes());
                b'c'
            }
            Self::Package(keypackage_ref) => {
                hasher.update(keypackage_ref.as_bytes());
                b'p'
            }
            Self::Reservation(reservation) => {
                hasher.update(reservation.0.as_bytes());
                b'v'
            }
            Self::InitKey(pool, init_key) => {
                hasher.update(init_key.as_bytes());
                update_pool(&mut hasher, pool);
                b'i'
            }
        };
        let hash = hasher.finalize();
        let mut fingerprint = [kind; FINGERPRINT_LEN];
        let (_, to) = fingerprint.split_at_mut(1);
        let (from, _) = hash.as_bytes().split_at(FINGERPRINT_LEN - 1);
        to.copy_from_slice(from);
        fingerprint
    }
}

/// A name that no two histories have.
fn update_stream(hasher: &mut blake3::Hasher, stream: &StreamId) {
    match stream {
        StreamId::Pool(pool) => update_pool(hasher.update(b"p"), pool),
        StreamId::Group(group) => {
            hasher.update(b"g").update(group.as_bytes());
        }
        StreamId::Mailbox(device) => update_pool(hasher.update(b"m"), device),
        StreamId::Server => drop(hasher.update(b"s")),
    }
}

fn update_pool(hasher: &mut blake3::Hasher, pool: &PoolId) {
    // No name has a slash.
    hasher.update(pool.user().as_bytes()).update(b"/").update(pool.device().as_bytes());
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::log) struct Place {
    /// Its position in the log; below 2^48.
    pub(in crate::log) seq: u64,
    /// Where in its segment's file its bytes begin.
    pub(in crate::log) offset: u32,
    /// The beginning of its envelope's hash, to know it again.
    pub(in crate::log) check: [u8; 4],
}

impl Place {
    pub(in crate::log) fn new(seq: u64, offset: u32, envelope: &Hash) -> Self {
        let check = envelope.as_bytes().first_chunk().copied().unwrap_or_default();
        Self { seq, offset, check }
    }
}

/// A fingerprint and a place, as bytes whose order is first that of the fingerprints and then that of
/// the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::log) struct Entry(pub(super) [u8; ENTRY_LEN]);

impl Entry {
    pub(in crate::log) fn new(fingerprint: Fingerprint, place: Place) -> Self {
        let [f0, f1, f2, f3, f4, f5, f6, f7, f8, f9] = fingerprint;
        let [_, _, s0, s1, s2, s3, s4, s5] = place.seq.to_be_bytes();
        let [o0, o1, o2, o3] = place.offset.to_be_bytes();
        let [c0, c1, c2, c3] = place.check;
        Self([
            f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, s0, s1, s2, s3, s4, s5, o0, o1, o2, o3, c0, c1,
            c2, c3,
        ])
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.0.first_chunk().copied().unwrap_or_default()
    }

    pub(in crate::log) fn place(&self) -> Place {
        let [.., s0, s1, s2, s3, s4, s5, o0, o1, o2, o3, c0, c1, c2, c3] = self.0;
        Place {
            seq: u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5]),
            offset: u32::from_be_bytes([o0, o1, o2, o3]),
            check: [c0, c1, c2, c3],
        }
    }

    /// Whether it counts only while no later one has its fingerprint.
    pub(super) fn is_head(&self) -> bool {
        self.0.first() == Some(&HEAD_KIND)
    }
}

/// What a record is found by, but for its history's head.
pub(super) fn keys_of(record: &Record) -> impl Iterator<Item = Fingerprint> {
    let envelope = &record.envelope;
    let history = Sought::History(&envelope.stream, envelope.version).fingerprint();
    let command = Sought::Command(envelope.command).fingerprint();
    let package = envelope.event.keypackage_ref();
    let package = package.map(|keypackage_ref| Sought::Package(keypackage_ref).fingerprint());
    let other = match &envelope.event {
        Event::Reserved { reservation, .. } => {
            Some(Sought::Reservation(*reservation).fingerprint())
        }
        Event::Uploaded(facts) => {
            let pool = envelope.stream.pool();
            pool.map(|pool| Sought::InitKey(pool, &facts.init_key).fingerprint())
        }
        _ => None,
    };
    [history, command].into_iter().chain(package).chain(other)
}
