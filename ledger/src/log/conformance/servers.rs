//! Servers that write one log at once and note each outcome, which is then held against the stream.

use std::{
    collections::BTreeMap,
    fs, mem,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use uuid::Uuid;

use crate::{
    AppendError, Appended, Batch, Clock, CommandId, Event, EventLog, Hash, KeyPackageRef, NewEvent,
    PackageFacts, Record, ReplicaHealth, ReplicatedLog, StreamId, StreamWrite, SystemClock,
    Timestamp,
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
struct WriterAcknowledgement {
    /// The number of the server that appended.
    server: usize,
    /// When the answer came, in milliseconds.
    at: u64,
}

/// Writes batches of one to three events, each with a fresh command, until the end; tells of each
/// acknowledgement, and returns all outcomes.
fn write_until(
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

/// The acknowledgements of servers that write, as they come.
#[derive(Debug)]
pub struct Acknowledgements {
    told: Receiver<WriterAcknowledgement>,
    servers: usize,
    /// When the last one came, in milliseconds.
    last: u64,
    /// The longest time without one, in milliseconds.
    longest: u64,
}

impl Acknowledgements {
    fn hear(&mut self, acknowledged: WriterAcknowledgement) {
        self.longest = self.longest.max(acknowledged.at.saturating_sub(self.last));
        self.last = self.last.max(acknowledged.at);
    }

    /// Waits until `count` more came, and at least one of them from each server.
    ///
    /// # Panics
    ///
    /// Panics if none comes for [`DEADLINE`].
    pub fn wait_for_all(&mut self, count: usize) {
        let (mut heard, mut of_each) = (0, vec![0_usize; self.servers]);
        while heard < count || of_each.contains(&0) {
            let acknowledged = self.told.recv_timeout(DEADLINE).unwrap();
            heard += 1;
            of_each[acknowledged.server] += 1;
            self.hear(acknowledged);
        }
    }

    /// Hears them for a while.
    pub fn pass(&mut self, time: Duration) {
        let end = now() + u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        while let Some(left) = end.checked_sub(now()).filter(|left| 0 < *left) {
            if let Ok(heard) = self.told.recv_timeout(Duration::from_millis(left)) {
                self.hear(heard);
            }
        }
    }

    /// The longest time without one since the last call, in milliseconds.
    pub fn take_longest(&mut self) -> u64 {
        mem::take(&mut self.longest)
    }
}

/// Ends the writers also when the test fails.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Has servers write until `suffer` returns, and returns the outcomes of all.
///
/// # Panics
///
/// Panics if a log cannot be read or has failed, or if `suffer` does.
pub fn write_through(
    logs: &[ReplicatedLog],
    suffer: impl FnOnce(Acknowledgements),
) -> Vec<(CommandId, WriterOutcome)> {
    let (ending, (telling, told)) = (AtomicBool::new(false), channel());
    thread::scope(|scope| {
        let start = |(server, log)| {
            let (ending, telling) = (&ending, telling.clone());
            scope.spawn(move || write_until(log, server, ending, &telling))
        };
        let writers: Vec<_> = logs.iter().enumerate().map(start).collect();
        let end = EndOnDrop(&ending);
        suffer(Acknowledgements { told, servers: logs.len(), last: now(), longest: 0 });
        drop(end);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    })
}

/// Waits until servers have all records of the stream, and checks that they follow it with equal copies, in which each
/// outcome is true.
///
/// # Panics
///
/// Panics if one is behind, follows no more or differs, or if an outcome was not true.
#[must_use]
pub fn check_servers(
    logs: &[ReplicatedLog],
    stored: &[Record],
    told: &[(CommandId, WriterOutcome)],
) -> OutcomeCounts {
    for log in logs {
        wait_for(log, stored.len() as u64);
        assert_eq!(all(log), stored, "all copies are the same");
        assert_eq!(log.health(), ReplicaHealth::Following);
        assert_eq!(log.head().unwrap().seq, stored.len() as u64);
    }
    let outcomes = check_outcomes(told, stored);
    assert!(0 < outcomes.written);
    outcomes
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
fn check_outcomes(told: &[(CommandId, WriterOutcome)], stored: &[Record]) -> OutcomeCounts {
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

/// How often all sizes of calls are measured.
const MEASURED_ROUNDS: usize = 3;

/// Measures appends of calls of several sizes, in turn to the log on a local disk and to the replicated one, and tells
/// a line of each.
///
/// # Panics
///
/// Panics if an append fails.
pub fn measure_beside(local: &impl EventLog, replicated: &ReplicatedLog, tell: impl Fn(String)) {
    let mut numbers = 0;
    for round in 1..=MEASURED_ROUNDS {
        for group in [1, 16, 64, 256] {
            let (alone, call, longest) = measure_appends(local, group, &mut numbers);
            let (shared, shared_call, shared_longest) =
                measure_appends(replicated, group, &mut numbers);
            let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
            tell(format!(
                "round {round}, {group} batches a call: local {alone:.0}/s ({call:.2} ms a call, {longest} at most), \
                 replicated {shared:.0}/s ({shared_call:.2} ms, {shared_longest} at most), ratio {:.2}, load {}",
                shared / alone,
                load.split(' ').next().unwrap_or_default()
            ));
        }
    }
}

/// Appends calls of `group` batches to as many pools for a while, and returns batches a second, and the mean
/// and the longest time of a call in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn measure_appends(log: &impl EventLog, group: u64, numbers: &mut u64) -> (f64, f64, u64) {
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
