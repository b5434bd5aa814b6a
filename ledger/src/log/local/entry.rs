//! An entry of the index: under which key a record is found, and where it stands.

use crate::{Event, Hash, Key, PoolId, Record, StreamId, codec, event::name_in};

/// How many bytes a fingerprint has: the kind of the key, then its keyed hash.
pub(super) const FINGERPRINT_LEN: usize = 1 + HASH_LEN;
/// How many bytes an entry has: a fingerprint, and a location of 14.
pub(super) const ENTRY_LEN: usize = FINGERPRINT_LEN + 14;
/// How many bytes of a key's hash are kept.
const HASH_LEN: usize = 16;
/// How many events of a history are found under one key.
pub(super) const BLOCK: u64 = 32;

/// Kind and hash of a key. Two keys may have the same fingerprint, so a look-up compares the whole name
/// in each record that it is led to, and goes on where that is another one.
pub(super) type Fingerprint = [u8; FINGERPRINT_LEN];

/// Secret of one index, which makes its fingerprints: nobody outside can find two names that collide.
#[derive(Clone, Copy)]
pub(super) struct Fingerprints {
    secret: [u8; 32],
    bits: u32,
}

impl Fingerprints {
    /// How many bits of a hash are kept.
    pub(super) const BITS: u32 = u128::BITS;

    /// Makes fingerprints with a secret, of so many bits.
    pub(super) const fn new(secret: [u8; 32], bits: u32) -> Self {
        Self { secret, bits }
    }

    /// Computes the fingerprint of a key.
    pub(super) fn of(&self, key: IndexKey<'_>) -> Fingerprint {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        let kind = key.update(&mut hasher);
        let hash: [u8; HASH_LEN] =
            hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default();
        let dropped = u128::MAX.checked_shr(self.bits).unwrap_or_default();
        let hash = (u128::from_be_bytes(hash) & !dropped).to_be_bytes();
        let mut fingerprint = [kind; FINGERPRINT_LEN];
        if let Some(kept) = fingerprint.last_chunk_mut() {
            *kept = hash;
        }
        fingerprint
    }
}

/// A key that records are found by.
#[derive(Clone, Copy, Debug)]
pub(super) enum IndexKey<'a> {
    /// All events of a history, [`BLOCK`] versions at a time.
    History(&'a StreamId, u64),
    /// The last event of a history.
    Head(&'a StreamId),
    /// The records that a key may find; of a package all that name it.
    Key(Key<'a>),
}

/// The kind that the fingerprints of [`IndexKey::Head`] begin with: of these only the last counts.
const HEAD_KIND: u8 = b'h';

impl IndexKey<'_> {
    /// Hashes the name and returns the kind.
    fn update(self, hasher: &mut blake3::Hasher) -> u8 {
        match self {
            Self::History(stream, version) => {
                hasher.update(&(version / BLOCK).to_be_bytes());
                update_stream(hasher, stream);
                b's'
            }
            Self::Head(stream) => {
                update_stream(hasher, stream);
                HEAD_KIND
            }
            Self::Key(Key::Command(command)) => {
                hasher.update(command.0.as_bytes());
                b'c'
            }
            Self::Key(Key::Package(keypackage_ref)) => {
                hasher.update(keypackage_ref.as_bytes());
                b'p'
            }
            Self::Key(Key::Reservation(reservation)) => {
                hasher.update(reservation.0.as_bytes());
                b'v'
            }
            Self::Key(Key::InitKey(pool, init_key)) => {
                hasher.update(init_key.as_bytes());
                update_pool(hasher, pool);
                b'i'
            }
            Self::Key(Key::UserName(name)) => {
                hasher.update(name.as_bytes());
                b'u'
            }
        }
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
        StreamId::Server => {
            hasher.update(b"s");
        }
        StreamId::Names(id) => {
            hasher.update(b"n").update(id.as_bytes());
        }
    }
}

fn update_pool(hasher: &mut blake3::Hasher, pool: &PoolId) {
    // No name has a slash.
    hasher.update(pool.user().as_bytes()).update(b"/").update(pool.device().as_bytes());
}

/// The location of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordLocation {
    /// Its position in the log; below 2^48.
    pub(super) seq: u64,
    /// The offset of its bytes in its segment's file.
    pub(super) offset: u32,
    /// The beginning of its envelope's hash, to know it again.
    pub(super) check: [u8; 4],
}

impl RecordLocation {
    pub(super) fn new(seq: u64, offset: u32, envelope: &Hash) -> Self {
        let check = envelope.as_bytes().first_chunk().copied().unwrap_or_default();
        Self { seq, offset, check }
    }

    /// Whether an envelope may be that of the record.
    pub(super) fn is_of(&self, envelope_bytes: &[u8]) -> bool {
        codec::chain_hash(envelope_bytes).as_bytes().starts_with(&self.check)
    }
}

/// A fingerprint and a location, as bytes whose order is first that of the fingerprints and then that of
/// the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IndexEntry(pub(super) [u8; ENTRY_LEN]);

impl IndexEntry {
    pub(super) fn new(fingerprint: Fingerprint, location: RecordLocation) -> Self {
        let [_, _, seq @ ..] = location.seq.to_be_bytes();
        let parts: [&[u8]; 4] =
            [&fingerprint, &seq, &location.offset.to_be_bytes(), &location.check];
        let mut bytes = [0; ENTRY_LEN];
        for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        Self(bytes)
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.0.first_chunk().copied().unwrap_or_default()
    }

    pub(super) fn location(&self) -> RecordLocation {
        let [.., s0, s1, s2, s3, s4, s5, o0, o1, o2, o3, c0, c1, c2, c3] = self.0;
        RecordLocation {
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

/// Keys that find a record, but for its history's head.
pub(super) fn keys_of(
    fingerprints: &Fingerprints,
    record: &Record,
) -> impl Iterator<Item = Fingerprint> + use<> {
    let envelope = &record.envelope;
    let history = IndexKey::History(&envelope.stream, envelope.version);
    let command = Key::Command(envelope.command);
    let package = envelope.event.keypackage_ref().map(Key::Package);
    let other = match &envelope.event {
        Event::Reserved { reservation, .. } => Some(Key::Reservation(*reservation)),
        Event::Uploaded(facts) => {
            envelope.stream.pool().map(|pool| Key::InitKey(pool, &facts.init_key))
        }
        Event::UserNamed {} => name_in(&record.payload).map(Key::UserName),
        _ => None,
    };
    let keys = [Some(command), package, other].map(|key| key.map(IndexKey::Key));
    let [command, package, other] = keys;
    let found_by = [Some(history), command, package, other];
    let fingerprints = found_by.map(|key| key.map(|key| fingerprints.of(key)));
    fingerprints.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_keeps_the_first_bits_of_the_hash_and_none_behind_them() {
        let of = |bits| Fingerprints::new([7; 32], bits).of(IndexKey::Head(&StreamId::Server));
        let whole = of(Fingerprints::BITS);
        assert_eq!(whole.first(), Some(&HEAD_KIND));
        assert_eq!(of(12)[..2], whole[..2]);
        assert_eq!(of(12)[2], whole[2] & 0xf0);
        assert_eq!(of(12)[3..], [0; 14]);
        assert_eq!(of(0)[1..], [0; 16]);
    }
}
