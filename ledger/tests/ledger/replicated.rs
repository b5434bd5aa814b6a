//! A log over a replicated stream: each append that it acknowledged stands in the stream once, however the engine
//! answers, and a stream that contradicts a server's copy is not followed.

mod counted;
mod end;
mod outcomes;
mod unkept;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use keypool_ledger::{
    AppendError, Clock, Conflict, EventLog, JournalReader, LogHead, PublishError, Record,
    ReplicaHealth, ReplicaProgress, ReplicatedLog, ReplicatedLogOptions, SledLog, StreamComparison,
    StreamFrame, StreamJoinError, SystemClock, compare_journal,
    log::{
        append_at_head,
        conformance::{
            MemoryStream, MemoryStreamConnection, StreamFaults,
            engines::{check_contract, check_frames, check_refilling, check_two_servers},
        },
        find_command,
    },
    publish_journal,
};
use tempfile::TempDir;

use super::support::{all, batch, command, fill, in_the_end, open, stream, try_append, uploaded};

/// Short waits: the stream in memory answers at once, or never.
const OPTIONS: ReplicatedLogOptions = ReplicatedLogOptions {
    append_patience: Duration::from_mins(1),
    frame_wait: Duration::from_millis(20),
    open_patience: Duration::from_mins(1),
};
/// Patience of appends that are to give up.
const IMPATIENT: ReplicatedLogOptions =
    ReplicatedLogOptions { append_patience: Duration::from_millis(50), ..OPTIONS };

/// A server: its connection, its log, and its directory.
struct Node {
    connection: Arc<MemoryStreamConnection>,
    log: ReplicatedLog,
    /// Told the position of the last record whenever the log has grown.
    growing: Receiver<u64>,
    dir: TempDir,
}

fn join(
    dir: &Path,
    connection: &Arc<MemoryStreamConnection>,
) -> Result<ReplicatedLog, StreamJoinError> {
    join_with(dir, connection, OPTIONS)
}

fn join_with(
    dir: &Path,
    connection: &Arc<MemoryStreamConnection>,
    options: ReplicatedLogOptions,
) -> Result<ReplicatedLog, StreamJoinError> {
    let replication = Arc::clone(connection);
    ReplicatedLog::open(Arc::new(open(dir)), replication, options, &|_, _| true)
}

impl Node {
    fn new(engine: &Arc<MemoryStream>, faults: StreamFaults) -> Self {
        Self::with(engine, faults, OPTIONS)
    }

    fn with(
        engine: &Arc<MemoryStream>,
        faults: StreamFaults,
        options: ReplicatedLogOptions,
    ) -> Self {
        let (connection, dir) = (engine.connect(faults), TempDir::new().unwrap());
        let log = join_with(dir.path(), &connection, options).unwrap();
        let (grown, growing) = channel();
        log.on_growth(move |position| {
            let _ = grown.send(position);
        });
        Self { connection, log, growing, dir }
    }

    /// Appends one event of command `n` to Ann's pool, at the head.
    fn append(&self, n: u64) -> Result<Vec<Record>, AppendError> {
        let version = self.log.stream_head(&stream("ann")).unwrap().version;
        let batches = [batch("ann", version, vec![uploaded(n, 40)])];
        let answer = append_at_head(&self.log, &batches).pop().unwrap();
        answer.map(|appended| appended.records)
    }

    /// Waits until the log has a number of records.
    fn wait_for(&self, records: u64) {
        while self.log.head().unwrap().seq < records {
            self.growing.recv_timeout(Duration::from_mins(1)).unwrap();
        }
    }

    /// Waits until the stream is not followed any more, and returns the reason.
    fn contradiction(&self) -> String {
        in_the_end(|| match self.log.health() {
            ReplicaHealth::Contradicted { why } => Ok(why),
            health => Err(format!("{health:?}")),
        })
    }
}

#[test]
fn the_replicated_log_keeps_the_contract() {
    for faults in
        [StreamFaults::Never, StreamFaults::WrittenAndRefused, StreamFaults::WrittenUnanswered]
    {
        let dir = TempDir::new().unwrap();
        check_contract(|name| {
            let connection = MemoryStream::with_seed(1).connect(faults);
            join(&dir.path().join(name), &connection).unwrap()
        });
    }
}

#[test]
fn a_stream_in_memory_keeps_the_promises_of_an_engine() {
    let streams = Mutex::new(BTreeMap::new());
    let connect = |name: &str| {
        let mut streams = streams.lock().unwrap();
        let stream = streams.entry(name.to_owned()).or_insert_with(|| MemoryStream::with_seed(1));
        stream.connect(StreamFaults::Never)
    };
    let dir = TempDir::new().unwrap();
    let joined = |copy: &str, name: &str| join(&dir.path().join(copy), &connect(name)).unwrap();
    check_frames(|name| connect(name));
    check_two_servers(|copy| joined(copy, "two"));
    check_refilling(joined, |name| connect(name), dir.path());
}

#[test]
fn two_servers_write_one_log() {
    let engine = MemoryStream::with_seed(1);
    let [a, b] = [Node::new(&engine, StreamFaults::Never), Node::new(&engine, StreamFaults::Never)];
    a.append(1).unwrap();
    b.wait_for(1);
    b.append(2).unwrap();
    a.wait_for(2);
    a.append(3).unwrap();
    b.wait_for(3);
    assert_eq!(all(&a.log), all(&b.log));
    assert_eq!(all(&a.log).len(), 3);
    assert_eq!(engine.frames().len(), 3, "one frame for each append");
    assert_eq!(a.log.progress(), ReplicaProgress { taken_in: 3, last: 3 });
}

#[test]
fn a_replicated_log_is_shown_by_its_copy() {
    let node = Node::new(&MemoryStream::with_seed(1), StreamFaults::Never);
    let expected = format!("ReplicatedLog {{ local: {:?}, .. }}", node.log.local());
    assert_eq!(format!("{:?}", node.log), expected);
}

#[test]
fn a_server_that_is_behind_is_refused_and_then_knows_what_came_first() {
    let engine = MemoryStream::with_seed(1);
    let [a, b] = [Node::new(&engine, StreamFaults::Never), Node::new(&engine, StreamFaults::Never)];
    b.connection.cut(true);
    a.append(1).unwrap();
    a.append(2).unwrap();
    assert_eq!(b.log.head().unwrap(), LogHead { seq: 0 });
    let decided_at = b.log.head().unwrap();
    b.connection.cut(false);
    let answers = b.log.append(decided_at, vec![batch("ann", 0, vec![uploaded(3, 40)])]);
    let [Err(AppendError::Conflict(Conflict::Log { decided_at: 0, head }))] = answers[..] else {
        panic!("{answers:?}")
    };
    assert!(head >= 1, "the record that came first is known");
    b.wait_for(2);
    assert_eq!(all(&a.log), all(&b.log));
    assert_eq!(find_command(&b.log, command(3), 0).unwrap(), []);
    b.append(3).unwrap();
}

#[test]
fn an_answer_counts_only_if_the_stream_says_the_same() {
    let engine = MemoryStream::with_seed(1);
    let node = Node::new(&engine, StreamFaults::WrittenAndRefused);
    let records = node.append(1).unwrap();
    assert_eq!(all(&node.log), records, "it was refused, and it stands there");
    assert_eq!(engine.frames().len(), 1, "once");
}

#[test]
fn an_append_without_an_answer_is_in_doubt_and_a_later_look_tells() {
    let engine = MemoryStream::with_seed(1);
    let node = Node::with(&engine, StreamFaults::Swallowed, IMPATIENT);
    let error = node.append(1).unwrap_err();
    assert!(matches!(error, AppendError::InDoubt(_)), "{error:?}");
    assert_eq!(find_command(&node.log, command(1), 0).unwrap(), []);
    let other = Node::new(&engine, StreamFaults::Never);
    other.append(2).unwrap();
    node.wait_for(1);
    assert_eq!(all(&node.log), all(&other.log));
    assert_eq!(find_command(&node.log, command(1), 0).unwrap(), [], "another event came first");
}

#[test]
fn an_append_that_never_left_was_not_written_and_reads_go_on() {
    let engine = MemoryStream::with_seed(1);
    let node = Node::with(&engine, StreamFaults::Never, IMPATIENT);
    let other = Node::new(&engine, StreamFaults::Never);
    other.append(1).unwrap();
    node.wait_for(1);
    node.connection.cut(true);
    let error = node.append(2).unwrap_err();
    assert!(matches!(error, AppendError::NotWritten(_)), "{error:?}");
    assert_eq!(all(&node.log).len(), 1);
    node.connection.cut(false);
    other.append(3).unwrap();
    node.wait_for(2);
    assert_eq!(all(&node.log), all(&other.log));
}

#[test]
fn an_append_after_one_without_an_answer_tries_once() {
    let patience = Duration::from_secs(1);
    let options = ReplicatedLogOptions { append_patience: patience, ..OPTIONS };
    let node = Node::with(&MemoryStream::with_seed(1), StreamFaults::Never, options);
    let refused_after = |n| {
        let begun = SystemClock.monotonic();
        let error = node.append(n).unwrap_err();
        assert!(matches!(error, AppendError::NotWritten(_)), "{error:?}");
        SystemClock.monotonic().saturating_sub(begun)
    };
    node.connection.cut(true);
    assert!(patience <= refused_after(1));
    assert!(refused_after(2) < patience);
    node.connection.cut(false);
    node.append(3).unwrap();
    node.connection.cut(true);
    assert!(patience <= refused_after(4), "the engine had answered again");
}

#[test]
fn a_server_goes_on_where_it_was_and_a_new_one_begins_at_the_first_frame() {
    let engine = MemoryStream::with_seed(1);
    let node = Node::new(&engine, StreamFaults::Never);
    (1..=5).for_each(|n| drop(node.append(n).unwrap()));
    let Node { log, dir, connection, .. } = node;
    drop(log);
    let other = Node::new(&engine, StreamFaults::Never);
    (6..=12).for_each(|n| drop(other.append(n).unwrap()));
    let log = join(dir.path(), &connection).unwrap();
    assert_eq!(all(&log), all(&other.log));
    assert_eq!(all(&log).len(), 12);
}

#[test]
fn many_batches_of_one_call_are_few_frames_and_no_batch_is_divided() {
    let engine = MemoryStream::with_seed(1);
    let node = Node::new(&engine, StreamFaults::Never);
    let large = |n: u64| batch(&format!("p{n}"), 0, vec![uploaded(n, 1_500_000)]);
    let mut calls: Vec<_> = (1..=6).map(large).collect();
    calls.insert(3, batch("p1", 0, vec![uploaded(99, 40)]));
    calls.push(batch("huge", 0, (20..25).map(|n| uploaded(n, 1_500_000)).collect()));
    let answers = node.log.append(LogHead::default(), calls);
    let is_written: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(is_written, [true, true, true, false, true, true, true, true]);
    assert_eq!(
        engine.frames().len(),
        4,
        "two, two, two, and the batch that is larger than a frame"
    );
    let other = Node::new(&engine, StreamFaults::Never);
    assert_eq!(all(&other.log), all(&node.log));
    assert_eq!(all(&node.log).len(), 11);
    let too_long = vec![batch("long", 0, (30..36).map(|n| uploaded(n, 1_500_000)).collect())];
    let error = node.log.append(LogHead { seq: 11 }, too_long).pop().unwrap().unwrap_err();
    assert!(matches!(error, AppendError::NotWritten(_)), "{error:?}");
    assert_eq!(engine.frames().len(), 4);
}

#[test]
fn a_stream_that_has_lost_frames_is_not_followed_and_reads_go_on() {
    let engine = MemoryStream::with_seed(1);
    let node = Node::new(&engine, StreamFaults::Never);
    (1..=3).for_each(|n| drop(node.append(n).unwrap()));
    let stored = all(&node.log);
    engine.tamper(|frames| drop(frames.pop()));
    assert!(node.contradiction().contains("has lost frames"), "{}", node.contradiction());
    let error = node.append(4).unwrap_err();
    assert!(matches!(error, AppendError::NotWritten(_)), "{error:?}");
    assert_eq!(all(&node.log), stored, "nothing is overwritten");
    assert_eq!(engine.frames().len(), 2, "and nothing is added");
    drop(node.log);
    let error = join(node.dir.path(), &node.connection).unwrap_err();
    assert!(matches!(error, StreamJoinError::Behind { stream: 2, records: 3 }), "{error}");
}

#[test]
fn a_stream_with_a_hole_is_not_followed() {
    let engine = MemoryStream::with_seed(1);
    let node = Node::new(&engine, StreamFaults::Never);
    (1..=4).for_each(|n| drop(node.append(n).unwrap()));
    engine.tamper(|frames| drop(frames.remove(1)));
    let (dir, connection) = (TempDir::new().unwrap(), engine.connect(StreamFaults::Never));
    let error = join(dir.path(), &connection).unwrap_err();
    let StreamJoinError::Contradiction(why) = error else { panic!("{error}") };
    assert_eq!(
        why.to_string(),
        "the stream has frame 3 where frame 2 should be: the engine has lost frames"
    );
}

/// Has a new server join a stream of three frames of which the second was altered.
fn altered(alter: impl FnOnce(&mut Vec<u8>)) -> String {
    let engine = MemoryStream::with_seed(1);
    let node = Node::new(&engine, StreamFaults::Never);
    (1..=3).for_each(|n| drop(node.append(n).unwrap()));
    engine.tamper(|frames| alter(&mut frames[1].bytes));
    let error =
        join(TempDir::new().unwrap().path(), &engine.connect(StreamFaults::Never)).unwrap_err();
    let StreamJoinError::Contradiction(why) = error else { panic!("{error}") };
    let causes = std::iter::successors(Some(&*why as &dyn std::error::Error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn no_byte_of_a_frame_changes_unnoticed() {
    let engine = MemoryStream::with_seed(1);
    let node = Node::new(&engine, StreamFaults::Never);
    (1..=3).for_each(|n| drop(node.append(n).unwrap()));
    let len = engine.frames()[1].len();
    for at in (0..len).step_by(7).chain([len - 1]) {
        altered(|bytes| bytes[at] ^= 1);
    }
    altered(|bytes| bytes.truncate(len / 2));
    let missing = altered(|bytes| bytes[33] = 3);
    assert!(missing.contains("begins behind record 2: records are missing"), "{missing}");
    altered(Vec::clear);
    assert!(altered(|bytes| bytes[0] = 3).contains("unknown format 3; update keypool-server"));
}

#[test]
fn another_stream_is_not_followed() {
    let node = Node::new(&MemoryStream::with_seed(1), StreamFaults::Never);
    (1..=3).for_each(|n| drop(node.append(n).unwrap()));
    drop(node.log);
    let engine = MemoryStream::with_seed(2);
    let error = join(node.dir.path(), &engine.connect(StreamFaults::Never)).unwrap_err();
    assert!(matches!(error, StreamJoinError::EmptyStream { records: 3 }), "{error}");
    let other = Node::new(&engine, StreamFaults::Never);
    (11..=14).for_each(|n| drop(other.append(n).unwrap()));
    let error = join(node.dir.path(), &engine.connect(StreamFaults::Never)).unwrap_err();
    let StreamJoinError::Contradiction(why) = error else { panic!("{error}") };
    assert_eq!(
        why.to_string(),
        "frame 3 of the stream holds other records than this server's journal"
    );
}

/// A server of its own with 30 records, published in part into a stream before that was interrupted.
fn published(engine: &Arc<MemoryStream>) -> (TempDir, Result<u64, PublishError>) {
    let dir = TempDir::new().unwrap();
    fill(&open(dir.path()), 30);
    let records = || JournalReader::open(&dir.path().join("journal")).unwrap();
    let connection = engine.connect(StreamFaults::Never);
    let result = publish_journal(records(), &*connection, &|_| {});
    (dir, result)
}

#[test]
fn a_journal_becomes_a_replicated_one_and_the_server_goes_on_with_it() {
    let engine = MemoryStream::with_seed(1);
    let (dir, result) = published(&engine);
    assert_eq!(result.unwrap(), 30);
    let log = join(dir.path(), &engine.connect(StreamFaults::Never)).unwrap();
    let node = Node::new(&engine, StreamFaults::Never);
    assert_eq!(all(&log), all(&node.log));
    let connection = engine.connect(StreamFaults::Never);
    let records = JournalReader::open(&dir.path().join("journal")).unwrap();
    assert_eq!(publish_journal(records, &*connection, &|_| {}).unwrap(), 30, "again is no harm");
    assert_eq!(engine.frames().len(), 1);
    node.append(99).unwrap();
    let records = JournalReader::open(&dir.path().join("journal"));
    let refused = publish_journal(records.unwrap().take(30), &*connection, &|_| {}).unwrap_err();
    assert!(matches!(refused, PublishError::OtherStream { sequence: 2 }), "{refused}");
}

#[test]
fn a_journal_is_published_in_as_few_frames_as_have_room() {
    let (engine, dir) = (MemoryStream::with_seed(1), TempDir::new().unwrap());
    let log = open(dir.path());
    (1..=6).for_each(|n| assert_eq!(try_append(&log, 1_500_000).unwrap(), n));
    let records = JournalReader::open(&dir.path().join("journal")).unwrap();
    let connection = engine.connect(StreamFaults::Never);
    assert_eq!(publish_journal(records, &*connection, &|_| {}).unwrap(), 6);
    assert_eq!(engine.frames().len(), 3, "two records have room in a frame, and three have not");
}

#[test]
fn a_stream_is_compared_with_a_journal_record_by_record() {
    let stream = MemoryStream::with_seed(1);
    let (dir, result) = published(&stream);
    assert_eq!(result.unwrap(), 30);
    let connection = stream.connect(StreamFaults::Never);
    let compare = |dir: &Path| {
        let records = JournalReader::open(&dir.join("journal")).unwrap();
        compare_journal(records, &*connection)
    };
    let whole = StreamComparison { same: 30, differs: None, journal: 30, stream: 30 };
    assert_eq!(compare(dir.path()).unwrap(), whole);
    let node = Node::new(&stream, StreamFaults::Never);
    node.append(99).unwrap();
    assert_eq!(compare(dir.path()).unwrap(), StreamComparison { stream: 31, ..whole });
    let longer = TempDir::new().unwrap();
    fill(&open(longer.path()), 32);
    let other = StreamComparison { same: 30, differs: Some(31), journal: 32, stream: 31 };
    assert_eq!(compare(longer.path()).unwrap(), other);
    stream.tamper(|frames| frames[1].bytes[20] ^= 1);
    let error = compare(dir.path()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "frame 2 of the stream is broken: it does not follow the frame before it"
    );
}

#[test]
fn a_journal_is_not_published_over_another_one() {
    let engine = MemoryStream::with_seed(1);
    let node = Node::new(&engine, StreamFaults::Never);
    node.append(99).unwrap();
    let (_dir, result) = published(&engine);
    let refused = result.unwrap_err();
    assert!(matches!(refused, PublishError::OtherStream { sequence: 1 }), "{refused}");
}

#[test]
fn frames_are_written_as_they_always_were() {
    let engine = MemoryStream::with_seed(1);
    let node = Node::new(&engine, StreamFaults::Never);
    let calls = |n: u64| {
        vec![
            batch("ann", n, vec![uploaded(2 * n + 1, 40)]),
            batch("bob/phone", n, vec![uploaded(2 * n + 2, 0)]),
        ]
    };
    for n in 0..2 {
        let head = node.log.head().unwrap();
        assert!(node.log.append(head, calls(n)).iter().all(Result::is_ok));
    }
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/frames");
    for (n, bytes) in (1..).zip(engine.frames()) {
        let stored = fs::read(fixtures.join(format!("{n}.bin"))).unwrap();
        assert_eq!(stored, bytes, "frame {n}");
    }
    let old = MemoryStream::with_seed(1);
    old.tamper(|frames| {
        frames.extend((1..=2).map(|sequence| {
            let bytes = fs::read(fixtures.join(format!("{sequence}.bin"))).unwrap();
            StreamFrame { sequence, bytes }
        }));
    });
    assert_eq!(all(&Node::new(&old, StreamFaults::Never).log), all(&node.log));
}

/// The log of a server that runs alone is the same bytes as that of one that has followed it.
#[test]
fn a_replica_is_an_ordinary_journal() {
    let engine = MemoryStream::with_seed(1);
    let node = Node::new(&engine, StreamFaults::Never);
    (1..=3).for_each(|n| drop(node.append(n).unwrap()));
    let (stored, Node { log, dir, .. }) = (all(&node.log), node);
    drop(log);
    let alone: SledLog = open(dir.path());
    assert_eq!(all(&alone), stored);
    fill(&alone, 1);
}
