//! The snapshots that a server reads when it starts.

use std::sync::Arc;

use keypool_ledger::{
    Batch, CommandId, Event, EventLog, GroupId, Hash, LogHead, ManualClock, MemoryLog, NewEvent,
    PoolId, ReadError, Snapshot, SnapshotStore, StreamId, StreamWrite, Timestamp,
};
use keypool_projections::{DeliveryLimits, Limits, PoolState, packing::Packer};
use keypool_server::pools::{Pools, Progress};
use uuid::Uuid;

use super::{edits::edit, input::InputReader};

/// How many snapshots an input has at most.
const SNAPSHOTS_MAX: usize = 8;
/// How many bytes a snapshot of an input has at most.
const SNAPSHOT_BYTES_MAX: usize = 1024;
/// The number of the form of the watermark.
const WATERMARK_FORM: u8 = 5;

/// The snapshots of an input, in the order of their names.
struct InputSnapshots(Vec<Snapshot>);

impl SnapshotStore for InputSnapshots {
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.0.iter().find(|kept| kept.name == name).map(|kept| kept.bytes.clone()))
    }

    fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Snapshot>, ReadError> {
        let is_behind = |kept: &&Snapshot| {
            kept.name.starts_with(prefix) && after.is_none_or(|after| after < kept.name.as_slice())
        };
        Ok(self.0.iter().filter(is_behind).take(limit).cloned().collect())
    }

    fn put(&self, _snapshots: Vec<Snapshot>) -> Result<(), ReadError> {
        Ok(())
    }
}

/// Starts pools on a log with the snapshots of an input beside it. They start, or say why not; and each pool that the
/// log knows can be read.
pub fn snapshots(bytes: &[u8]) {
    let mut input = InputReader::new(bytes);
    let log = Arc::new(MemoryLog::default());
    fill(&log);
    let mut kept = vec![watermark(&mut input)];
    for _ in 0..input.number(SNAPSHOTS_MAX) {
        kept.push(snapshot(&mut input));
    }
    kept.sort_by(|one, other| one.name.cmp(&other.name));
    kept.dedup_by(|one, other| one.name == other.name);
    let clock = Arc::new(ManualClock::default());
    let (limits, progress) = (Limits::STANDARD, Progress::default());
    let store = Arc::new(InputSnapshots(kept));
    let opened = Pools::open_with(
        Arc::clone(&log),
        store,
        clock,
        limits,
        DeliveryLimits::STANDARD,
        &progress,
    );
    let Ok(pools) = opened else { return };
    for pool in ["alice/main", "bob/main", "carol/phone"] {
        let pool: PoolId = pool.parse().unwrap();
        let version = log.stream_head(&StreamId::Pool(pool.clone())).unwrap().version;
        if let Some(view) = pools.pool(&pool) {
            assert!(view.head.version <= version, "a pool is not ahead of its history");
        }
    }
    pools.close();
}

/// A log with two pools, a group and two mailboxes.
fn fill(log: &Arc<MemoryLog>) {
    let (alice, bob): (PoolId, PoolId) =
        ("alice/main".parse().unwrap(), "bob/main".parse().unwrap());
    let group = GroupId::new(b"g").unwrap();
    let registered = |key: u8, credential: &str| Event::Registered {
        signature_key: keypool_ledger::SignatureKey::new(&[key; 32]).unwrap(),
        credential: credential.to_owned(),
        voucher: None,
        statement: None,
        frontend: None,
    };
    let write = |stream: StreamId, event: Event| StreamWrite {
        stream,
        expected: 0,
        events: vec![NewEvent {
            at: Timestamp::from_secs(1),
            command: CommandId(Uuid::nil()),
            request: Hash::ZERO,
            event,
            payload: Vec::new(),
        }],
    };
    let made = Event::GroupMade { creator: alice.clone() };
    let writes = vec![
        write(StreamId::Pool(alice), registered(1, "alice/main")),
        write(StreamId::Pool(bob), registered(2, "bob/main")),
        write(StreamId::Group(group), made),
    ];
    let appended = log.append(LogHead::default(), vec![Batch { writes }]);
    assert!(appended.iter().all(Result::is_ok), "the log takes the events");
}

fn watermark(input: &mut InputReader<'_>) -> Snapshot {
    let mut out = Packer::default();
    out.byte(if input.number(15) == 15 { input.any() } else { WATERMARK_FORM });
    out.number(input.number(4) as u64);
    out.number(input.any::<u64>());
    Snapshot { name: b"reach".to_vec(), bytes: out.into_bytes().into_vec() }
}

/// A snapshot of a pool, a summary, a group or a mailbox.
fn snapshot(input: &mut InputReader<'_>) -> Snapshot {
    let pool = input.pick(&["alice/main", "bob/main", "carol/phone", "", "~x/y"]);
    let (mut name, mut out) = (Vec::new(), Packer::default());
    match input.number(3) {
        0 => {
            name.extend(b"p/");
            out.byte(PoolState::PACKED_FORM);
        }
        1 => name.extend(b"b/"),
        2 => {
            name.extend(b"g/");
            out.number(input.number(4) as u64);
        }
        _ => {
            name.extend(b"m/");
            out.number(input.number(4) as u64);
        }
    }
    name.extend(if name == b"g/" { "g" } else { pool }.as_bytes());
    let mut bytes = out.into_bytes().into_vec();
    bytes.extend(input.bytes(SNAPSHOT_BYTES_MAX));
    edit(input, &mut bytes);
    Snapshot { name, bytes }
}
