//! Small events, logs over a stream, and waits for events.

use std::{path::Path, sync::Arc, thread, time::Duration};

use keypool_ledger::{
    Batch, Clock, CommandId, Event, EventLog, Hash, KeyPackageRef, NewEvent, PackageFacts, Record,
    ReplicatedLog, ReplicatedLogOptions, SledLog, SledLogOptions, StreamId, StreamJoinError,
    StreamWrite, SystemClock, Timestamp,
};
use keypool_nats::NatsReplication;
use uuid::Uuid;

/// How long a wait may take that only a fault ends.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// Small files.
const SMALL: SledLogOptions = SledLogOptions {
    segment_bytes: 1 << 20,
    cache_bytes: 1 << 20,
    check_bytes: u64::MAX,
    seal_records: 1024,
    fingerprint_bits: 128,
    ballast_bytes: 0,
};

/// The moment, in milliseconds.
pub(crate) fn now() -> u64 {
    SystemClock.now().as_millis()
}

/// Asks until there is an answer.
pub(crate) fn eventually<T>(ask: impl Fn() -> Option<T>) -> T {
    let deadline = now() + u64::try_from(DEADLINE.as_millis()).unwrap();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(now() < deadline, "there is no answer in a minute");
        thread::yield_now();
    }
}

pub(crate) fn open(dir: &Path) -> SledLog {
    SledLog::open(dir, SMALL).unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

/// Joins a stream with the journal in a directory.
pub(crate) fn join(dir: &Path, stream: NatsReplication) -> Result<ReplicatedLog, StreamJoinError> {
    let options = ReplicatedLogOptions { append_patience: DEADLINE, ..Default::default() };
    ReplicatedLog::open(Arc::new(open(dir)), Arc::new(stream), options, &|_, _| true)
}

pub(crate) fn pool(name: &str) -> StreamId {
    StreamId::Pool(name.parse().unwrap())
}

pub(crate) fn command(n: u64) -> CommandId {
    CommandId(Uuid::from_u128(n.into()))
}

/// An upload of package `n` by command `n`, with a payload of a length.
pub(crate) fn uploaded(n: u64, payload_len: usize) -> NewEvent {
    let facts = PackageFacts {
        keypackage_ref: KeyPackageRef::new(Hash::of(&n.to_be_bytes()).as_bytes()).unwrap(),
        not_before: Timestamp::default(),
        not_after: Timestamp::from_secs(1_000_000),
        ciphersuite: 1,
        credential: Hash::of(b"credential"),
        init_key: Hash::of(&n.to_le_bytes()),
        last_resort: false,
        capabilities: None,
    };
    let payload = n.to_be_bytes().into_iter().cycle().take(payload_len).collect();
    let event = Event::Uploaded(facts);
    NewEvent { at: Timestamp::default(), command: command(n), request: Hash::ZERO, event, payload }
}

pub(crate) fn batch(name: &str, expected: u64, events: Vec<NewEvent>) -> Batch {
    Batch { writes: vec![StreamWrite { stream: pool(name), expected, events }] }
}

pub(crate) fn all(log: &impl EventLog) -> Vec<Record> {
    log.read(1, usize::MAX).unwrap()
}

/// Appends one event of command `n` to Ann's pool, which nobody else writes to.
pub(crate) fn append(log: &ReplicatedLog, n: u64, payload_len: usize) {
    let decided_at = log.head().unwrap();
    let version = log.stream_head(&pool("ann")).unwrap().version;
    let batches = vec![batch("ann", version, vec![uploaded(n, payload_len)])];
    log.append(decided_at, batches).pop().unwrap().unwrap();
}

/// Waits until a log has a number of records.
pub(crate) fn wait_for(log: &ReplicatedLog, records: u64) {
    eventually(|| Some(()).filter(|()| records <= log.head().unwrap().seq));
}
