//! Servers that write one log at once and note each outcome, which is then held against the stream.

use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    thread,
    time::Duration,
};

use uuid::Uuid;

use crate::{
    AppendError, Appended, Batch, Clock, CommandId, Event, EventLog, Hash, KeyPackageRef, NewEvent,
    PackageFacts, Record, ReplicatedLog, StreamId, StreamWrite, SystemClock, Timestamp,
};

/// How long a wait may take that only a fault ends.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// How many histories all servers write to.
const POOLS: u64 = 24;

/// The outcome of a batch, as its writer was told.
#[derive(Debug)]
pub enum WriterOutcome {
    /// It stands in the log, as these records.
    Written(Vec<Record>),
    /// It is not in the log, and never will be.
    NotWritten,
    /// It may be in the log, now or later.
    InDoubt,
}

/// An append that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct WriterAcknowledgement {
    /// The number of the server that appended.
    pub server: usize,
    /// When the answer came, in milliseconds.
    pub at: u64,
}

/// Writes batches of one to three events, each with a fresh command, until the end; tells of each
/// acknowledgement, and returns all outcomes.
///
/// # Panics
///
/// Panics if the log cannot be read or has failed.
pub fn write_until(
    log: &ReplicatedLog,
    server: usize,
    ending: &AtomicBool,
    acknowledged: &Sender<WriterAcknowledgement>,
) -> Vec<(CommandId, WriterOutcome)> {
    let mut told = Vec::new();
    for n in 0.. {
        if ending.load(Ordering::Acquire) {
            return told;
        }
        let decided_at = log.head().unwrap();
        let id = |index: u64| (server as u64 + 1) * 1_000_000_000 + n * 10 + index;
        let call = |index: u64| {
            let name = format!("p{}", (n + index * 7) % POOLS);
            let version = log.stream_head(&pool(&name)).unwrap().version;
            (command(id(index)), batch(&name, version, vec![uploaded(id(index), 100)]))
        };
        let (ids, batches): (Vec<_>, Vec<_>) = (0..=n % 3).map(call).unzip();
        let answers = log.append(decided_at, batches);
        assert_eq!(answers.len(), ids.len());
        if answers.iter().any(Result::is_ok) {
            let _ = acknowledged.send(WriterAcknowledgement { server, at: now() });
        }
        told.extend(ids.into_iter().zip(answers).map(|(id, answer)| (id, outcome(answer))));
    }
    told
}

fn outcome(answer: Result<Appended, AppendError>) -> WriterOutcome {
    match answer {
        Ok(appended) => WriterOutcome::Written(appended.records),
        Err(AppendError::Conflict(_) | AppendError::NotWritten(_)) => WriterOutcome::NotWritten,
        Err(AppendError::InDoubt(_)) => WriterOutcome::InDoubt,
        Err(error) => panic!("the log gave up: {error:?}"),
    }
}

/// How many outcomes there were of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutcomeCounts {
    /// Batches that were acknowledged.
    pub written: u64,
    /// Batches that were refused.
    pub not_written: u64,
    /// Batches without an answer.
    pub in_doubt: u64,
}

/// Holds the outcomes against the records of the stream.
///
/// # Panics
///
/// Panics if a record is missing, is there twice, or is there although it was refused.
#[must_use]
pub fn check_outcomes(told: &[(CommandId, WriterOutcome)], stored: &[Record]) -> OutcomeCounts {
    let mut by_command: BTreeMap<CommandId, Vec<&Record>> = BTreeMap::new();
    for record in stored {
        by_command.entry(record.envelope.command).or_default().push(record);
    }
    let mut outcomes = OutcomeCounts::default();
    for (id, told) in told {
        let found = by_command.remove(id).unwrap_or_default();
        match told {
            WriterOutcome::Written(records) => {
                outcomes.written += 1;
                assert_eq!(found, records.iter().collect::<Vec<_>>(), "acknowledged, not there");
            }
            WriterOutcome::NotWritten => {
                outcomes.not_written += 1;
                assert_eq!(found, Vec::<&Record>::new(), "refused, and there");
            }
            WriterOutcome::InDoubt => {
                outcomes.in_doubt += 1;
                assert!(found.len() <= 1, "written twice");
            }
        }
    }
    assert!(by_command.is_empty(), "nobody else has written");
    outcomes
}

/// The moment, in milliseconds.
#[must_use]
pub fn now() -> u64 {
    SystemClock.now().as_millis()
}

/// Asks until there is an answer.
///
/// # Panics
///
/// Panics after [`DEADLINE`].
pub fn eventually<T>(ask: impl Fn() -> Option<T>) -> T {
    let deadline = now() + u64::try_from(DEADLINE.as_millis()).unwrap();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(now() < deadline, "there is no answer in a minute");
        thread::yield_now();
    }
}

/// The stream of a pool.
///
/// # Panics
///
/// Panics if there is no such name.
#[must_use]
pub fn pool(name: &str) -> StreamId {
    StreamId::Pool(name.parse().unwrap())
}

/// The command with a number.
#[must_use]
pub fn command(n: u64) -> CommandId {
    CommandId(Uuid::from_u128(n.into()))
}

/// An upload of package `n` by command `n`, with a payload of a length in bytes.
///
/// # Panics
///
/// Never: the reference of a package has a right length.
#[must_use]
pub fn uploaded(n: u64, payload_len: usize) -> NewEvent {
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

/// A batch of events for one pool.
///
/// # Panics
///
/// Panics if there is no such name.
#[must_use]
pub fn batch(name: &str, expected: u64, events: Vec<NewEvent>) -> Batch {
    Batch { writes: vec![StreamWrite { stream: pool(name), expected, events }] }
}

/// All records of a log.
///
/// # Panics
///
/// Panics if it cannot be read.
pub fn all(log: &impl EventLog) -> Vec<Record> {
    log.read(1, usize::MAX).unwrap()
}

/// Appends one event of command `n` to Ann's pool, which nobody else writes to.
///
/// # Panics
///
/// Panics unless it is written.
pub fn append(log: &ReplicatedLog, n: u64, payload_len: usize) {
    let decided_at = log.head().unwrap();
    let version = log.stream_head(&pool("ann")).unwrap().version;
    let batches = vec![batch("ann", version, vec![uploaded(n, payload_len)])];
    log.append(decided_at, batches).pop().unwrap().unwrap();
}

/// Waits until a log has a number of records.
///
/// # Panics
///
/// Panics after [`DEADLINE`].
pub fn wait_for(log: &ReplicatedLog, records: u64) {
    eventually(|| Some(()).filter(|()| records <= log.head().unwrap().seq));
}

/// How long each measurement takes.
const MEASURED: Duration = Duration::from_secs(3);

/// Appends calls of `group` batches to as many pools for a while, and returns batches a second, and the mean
/// and the longest time of a call in milliseconds.
///
/// # Panics
///
/// Panics if an append fails.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
pub fn measure_appends(log: &impl EventLog, group: u64, numbers: &mut u64) -> (f64, f64, u64) {
    let (begin, time) = (now(), u64::try_from(MEASURED.as_millis()).unwrap());
    let (mut calls, mut longest) = (0, 0);
    while now() - begin < time {
        let called = now();
        let decided_at = log.head().unwrap();
        let next = |n: u64| -> Batch {
            *numbers += 1;
            let name = format!("p{n}");
            let version = log.stream_head(&pool(&name)).unwrap().version;
            batch(&name, version, vec![uploaded(*numbers, 100)])
        };
        let batches = (0..group).map(next).collect();
        assert!(log.append(decided_at, batches).iter().all(Result::is_ok));
        calls += 1;
        longest = longest.max(now() - called);
    }
    let millis = (now() - begin) as f64;
    ((calls * group) as f64 * 1000.0 / millis, millis / calls as f64, longest)
}
