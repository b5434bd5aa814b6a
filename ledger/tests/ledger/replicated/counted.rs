//! How often a log publishes and asks, counted at its engine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::channel,
    },
    thread,
    time::Duration,
};

use keypool_ledger::{
    AppendError, Clock, EventLog, FRAME_BYTES_MAX, LogHead, PublishOutcome, ReplicaHealth,
    ReplicatedLog, ReplicatedLogOptions, Replication, ReplicationError, StreamFrame, StreamStatus,
    SystemClock, log::append_at_head,
};
use tempfile::TempDir;

use super::{IMPATIENT, MemoryStream, MemoryStreamConnection, Node, OPTIONS, StreamFaults};
use crate::ledger::support::{all, batch, in_the_end, open, uploaded};

/// A connection that counts.
struct Counting {
    connection: Arc<MemoryStreamConnection>,
    published: AtomicU64,
    asked: AtomicU64,
    /// Questions that were answered with frames.
    delivered: AtomicU64,
}

impl Counting {
    fn over(connection: Arc<MemoryStreamConnection>) -> Arc<Self> {
        let none = || AtomicU64::new(0);
        Arc::new(Self { connection, published: none(), asked: none(), delivered: none() })
    }
}

impl Replication for Counting {
    fn publish(&self, after: u64, frame: &[u8]) -> PublishOutcome {
        self.published.fetch_add(1, Ordering::SeqCst);
        self.connection.publish(after, frame)
    }

    fn frames(
        &self,
        after: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<StreamFrame>, ReplicationError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let frames = self.connection.frames(after, bytes_max, wait)?;
        self.delivered.fetch_add(u64::from(!frames.is_empty()), Ordering::SeqCst);
        Ok(frames)
    }

    fn last(&self) -> Result<u64, ReplicationError> {
        self.connection.last()
    }

    fn status(&self, wait: Duration) -> Result<StreamStatus, ReplicationError> {
        self.connection.status(wait)
    }
}

fn joined(
    dir: &TempDir,
    connection: Arc<MemoryStreamConnection>,
    options: ReplicatedLogOptions,
) -> (ReplicatedLog, Arc<Counting>) {
    let counting = Counting::over(connection);
    let (local, replication) = (Arc::new(open(dir.path())), Arc::clone(&counting));
    (ReplicatedLog::open(local, replication, options, &|_, _| true).unwrap(), counting)
}

#[test]
fn an_append_without_an_answer_waits_for_its_frame_and_is_published_once() {
    let dir = TempDir::new().unwrap();
    let options = ReplicatedLogOptions { frame_wait: Duration::from_mins(10), ..OPTIONS };
    let (log, counting) =
        joined(&dir, MemoryStream::with_seed(1).connect(StreamFaults::WrittenUnanswered), options);
    let (tell, told) = channel();
    thread::spawn(move || {
        let answer = append_at_head(&log, &[batch("ann", 0, vec![uploaded(1, 40)])]).pop();
        tell.send(answer.unwrap().map(|_| ())).unwrap();
    });
    // The frame ends the wait, long before its time is over.
    told.recv_timeout(Duration::from_mins(1)).unwrap().unwrap();
    assert_eq!(counting.published.load(Ordering::SeqCst), 1);
}

#[test]
fn a_server_rests_between_questions_that_have_no_answer() {
    let dir = TempDir::new().unwrap();
    let (log, counting) =
        joined(&dir, MemoryStream::with_seed(1).connect(StreamFaults::Never), OPTIONS);
    counting.connection.cut(true);
    let asked = || counting.asked.load(Ordering::SeqCst);
    let (before, begun) = (asked(), SystemClock.monotonic());
    in_the_end(|| if before + 6 <= asked() { Ok(()) } else { Err("it was not asked six times") });
    let passed = SystemClock.monotonic().saturating_sub(begun);
    assert!(Duration::from_millis(600) <= passed, "{passed:?}");
    drop(log);
}

#[test]
fn a_server_asks_at_once_for_the_next_frame_while_frames_come() {
    let engine = MemoryStream::with_seed(1);
    let [a, b] = [Node::new(&engine, StreamFaults::Never), Node::new(&engine, StreamFaults::Never)];
    let (tell, told) = channel();
    thread::spawn(move || {
        for n in 1..=400 {
            a.append(n).unwrap();
            b.wait_for(n);
        }
        tell.send(()).unwrap();
    });
    // With a rest after each frame it takes longer.
    told.recv_timeout(Duration::from_mins(1)).unwrap();
}

#[test]
fn a_hole_is_asked_for_six_times_with_rests_before_it_counts() {
    let engine = MemoryStream::with_seed(1);
    let (a, dir) = (Node::new(&engine, StreamFaults::Never), TempDir::new().unwrap());
    let (log, counting) = joined(&dir, engine.connect(StreamFaults::Never), OPTIONS);
    counting.connection.cut(true);
    for n in 1..=3 {
        a.append(n).unwrap();
    }
    engine.tamper(|frames| drop(frames.remove(0)));
    let begun = SystemClock.monotonic();
    counting.connection.cut(false);
    let why = in_the_end(|| match log.health() {
        ReplicaHealth::Contradicted { why } => Ok(why),
        health => Err(format!("{health:?}")),
    });
    let passed = SystemClock.monotonic().saturating_sub(begun);
    assert!(why.contains("has frame 2 where frame 1 should be"), "{why}");
    assert_eq!(counting.delivered.load(Ordering::SeqCst), 6);
    assert!(Duration::from_millis(900) <= passed, "{passed:?}");
}

#[test]
fn a_server_that_joins_is_given_many_frames_with_one_question() {
    let engine = MemoryStream::with_seed(1);
    let (a, dir) = (Node::new(&engine, StreamFaults::Never), TempDir::new().unwrap());
    for n in 1..=3 {
        a.append(n).unwrap();
    }
    let (log, counting) = joined(&dir, engine.connect(StreamFaults::Never), OPTIONS);
    assert_eq!(all(&log).len(), 3);
    assert_eq!(counting.delivered.load(Ordering::SeqCst), 1);
}

#[test]
fn batches_without_events_are_taken_and_publish_nothing() {
    let engine = MemoryStream::with_seed(1);
    let node = Node::with(&engine, StreamFaults::Never, IMPATIENT);
    let empty = || batch("ann", 0, Vec::new());
    let answers = node.log.append(LogHead::default(), vec![empty(), empty()]);
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|it| it.records.is_empty())));
    assert_eq!(engine.frames().len(), 0);

    node.connection.cut(true);
    let calls = vec![empty(), batch("bob", 0, vec![uploaded(1, 40)]), empty()];
    let answers = node.log.append(LogHead::default(), calls);
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert!(matches!(answers[1], Err(AppendError::NotWritten(_))), "{answers:?}");
}

#[test]
fn behind_a_frame_that_was_not_written_no_other_is_published() {
    let dir = TempDir::new().unwrap();
    let options = ReplicatedLogOptions { append_patience: Duration::ZERO, ..OPTIONS };
    let (log, counting) =
        joined(&dir, MemoryStream::with_seed(1).connect(StreamFaults::Swallowed), options);
    let large = |n: u64| batch(&format!("p{n}"), 0, vec![uploaded(n, FRAME_BYTES_MAX)]);
    let answers = log.append(LogHead::default(), vec![large(1), large(2), large(3)]);
    assert!(answers.iter().all(|answer| matches!(answer, Err(AppendError::InDoubt(_)))));
    assert_eq!(counting.published.load(Ordering::SeqCst), 1);
}

#[test]
fn batches_share_a_frame_as_long_as_their_records_have_room_in_it() {
    let engine = MemoryStream::with_seed(1);
    let node = Node::new(&engine, StreamFaults::Never);
    let append = |version, payload_lens: [usize; 2]| {
        let batches = ["ann", "bob"].into_iter().zip(payload_lens).map(|(name, payload_len)| {
            batch(name, version, vec![uploaded(version + 1, payload_len)])
        });
        let answers = append_at_head(&node.log, &batches.collect::<Vec<_>>());
        assert!(answers.iter().all(Result::is_ok));
        engine.frames().len()
    };
    assert_eq!(append(0, [1000, 1000]), 1);
    // Before the records stand the format, the hash of the frame before and the first position.
    let besides = (engine.frames()[0].len() - (1 + 32 + 8)) / 2 - 1000;
    let half = FRAME_BYTES_MAX / 2 - besides;
    assert_eq!(append(1, [half, half]), 2, "one more");
    assert_eq!(append(2, [half, half + 1]), 4, "two more");
}

#[test]
fn the_longest_frame_is_twice_as_long_as_the_records_of_several_batches_may_be() {
    let engine = MemoryStream::with_seed(1);
    let node = Node::new(&engine, StreamFaults::Never);
    let payload_len = 1000;
    let append = |n, payload_len| {
        let call = batch("ann", n - 1, vec![uploaded(n, payload_len)]);
        append_at_head(&node.log, &[call]).pop().unwrap()
    };
    append(1, payload_len).unwrap();
    let longest = 2 * FRAME_BYTES_MAX - (engine.frames()[0].len() - payload_len);
    append(2, longest).unwrap();
    assert_eq!(engine.frames()[1].len(), 2 * FRAME_BYTES_MAX);
    assert!(matches!(append(3, longest + 1), Err(AppendError::NotWritten(_))));
}
