//! Engines that break one promise, and the answers of a log over each of them.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use keypool_ledger::{
    AppendError, EventLog, JournalReader, Key, MemoryIndex, PublishOutcome, ReplicaHealth,
    ReplicatedLog, ReplicatedLogOptions, Replication, ReplicationError, StreamFrame,
    StreamJoinError, StreamStatus, log::append_at_head, publish_journal,
};
use rustix::process::Resource;
use tempfile::TempDir;

use super::{MemoryStream, MemoryStreamConnection, Node, OPTIONS, StreamFaults};
use crate::ledger::{
    machine::{dir_of_a_child, in_a_child, limit},
    support::{all, batch, command, fill, open, stream, uploaded},
};

/// A connection that breaks one promise.
struct Unkept {
    connection: Arc<MemoryStreamConnection>,
    engine: Arc<MemoryStream>,
    promise: Promise,
}

/// The promise that is broken.
enum Promise {
    /// Every frame is delivered; here, none behind the first one is.
    Delivery,
    /// A frame is there for everybody once it is acknowledged; here, the first question for it has no answer.
    Promptness(AtomicBool),
    /// A frame is somebody's append; here, an unanswered append leaves three bytes behind.
    Frames,
}

impl Replication for Unkept {
    fn publish(&self, after: u64, frame: &[u8]) -> PublishOutcome {
        if let Promise::Frames = self.promise {
            let junk = StreamFrame { sequence: after + 1, bytes: vec![1, 2, 3] };
            self.engine.tamper(|frames| frames.push(junk));
            return PublishOutcome::NoAnswer("no answer".into());
        }
        self.connection.publish(after, frame)
    }

    fn frames(
        &self,
        after: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<StreamFrame>, ReplicationError> {
        let mut frames = self.connection.frames(after, bytes_max, wait)?;
        match &self.promise {
            Promise::Delivery => frames.retain(|frame| frame.sequence == 1),
            Promise::Promptness(is_kept) if !is_kept.swap(true, Ordering::SeqCst) => frames.clear(),
            Promise::Promptness(_) | Promise::Frames => {}
        }
        Ok(frames)
    }

    fn last(&self) -> Result<u64, ReplicationError> {
        self.connection.last()
    }

    fn status(&self, wait: Duration) -> Result<StreamStatus, ReplicationError> {
        self.connection.status(wait)
    }
}

fn breaking(promise: Promise, engine: &Arc<MemoryStream>) -> Unkept {
    Unkept { connection: engine.connect(StreamFaults::Never), engine: Arc::clone(engine), promise }
}

fn join(
    dir: &Path,
    engine: &Arc<MemoryStream>,
    promise: Promise,
    options: ReplicatedLogOptions,
) -> Result<ReplicatedLog, StreamJoinError> {
    let replication = Arc::new(breaking(promise, engine));
    ReplicatedLog::open(Arc::new(open(dir)), replication, options, &|_, _| true)
}

/// A stream of three frames.
fn three_frames() -> (Arc<MemoryStream>, Node) {
    let engine = MemoryStream::with_seed(1);
    let node = Node::new(&engine, StreamFaults::Never);
    (1..=3).for_each(|n| drop(node.append(n).unwrap()));
    (engine, node)
}

#[test]
fn an_open_ends_when_frames_do_not_come_and_says_how_far_it_was() {
    let (engine, _node) = three_frames();
    let dir = TempDir::new().unwrap();
    let impatient = ReplicatedLogOptions { open_patience: Duration::ZERO, ..OPTIONS };
    let error = join(dir.path(), &engine, Promise::Delivery, impatient).unwrap_err();
    assert!(matches!(error, StreamJoinError::Stuck { sequence: 1, last: 3, why: None }), "{error}");
}

#[test]
fn patience_counts_from_the_last_frame_that_came() {
    let (engine, node) = three_frames();
    let dir = TempDir::new().unwrap();
    let impatient = ReplicatedLogOptions { open_patience: Duration::ZERO, ..OPTIONS };
    let log = super::join_with(dir.path(), &engine.connect(StreamFaults::Never), impatient);
    assert_eq!(all(&log.unwrap()), all(&node.log), "all frames came with the first question");
}

#[test]
fn a_published_frame_that_does_not_come_back_at_once_is_asked_for_again() {
    let (engine, dir) = (MemoryStream::with_seed(1), TempDir::new().unwrap());
    fill(&open(dir.path()), 3);
    let records = JournalReader::open(&dir.path().join("journal")).unwrap();
    let slow = breaking(Promise::Promptness(AtomicBool::new(false)), &engine);
    assert_eq!(publish_journal(records, &slow, &|_| {}).unwrap(), 3);
    assert_eq!(engine.frames().len(), 1, "it was published once");
}

#[test]
fn an_append_whose_place_has_a_broken_frame_is_in_doubt() {
    let engine = MemoryStream::with_seed(1);
    let dir = TempDir::new().unwrap();
    let log = join(dir.path(), &engine, Promise::Frames, OPTIONS).unwrap();
    let batches = [batch("ann", 0, vec![uploaded(1, 40)])];
    let error = append_at_head(&log, &batches).pop().unwrap().unwrap_err();
    assert!(matches!(error, AppendError::InDoubt(_)), "{error:?}");
    assert!(matches!(log.health(), ReplicaHealth::Contradicted { .. }), "{:?}", log.health());
}

#[test]
fn an_append_that_the_disk_of_the_copy_does_not_take_has_failed() {
    in_a_child("ledger::replicated::unkept::child_whose_disk_takes_no_frame");
}

#[test]
#[ignore = "a part of an_append_that_the_disk_of_the_copy_does_not_take_has_failed, which starts it"]
fn child_whose_disk_takes_no_frame() {
    let Some(dir) = dir_of_a_child() else { return };
    let engine = MemoryStream::with_seed(1);
    let log = super::join(&dir, &engine.connect(StreamFaults::Never)).unwrap();
    let append =
        |n: u64| append_at_head(&log, &[batch("ann", n - 1, vec![uploaded(n, 40)])]).pop().unwrap();
    append(1).unwrap();
    limit(Resource::Fsize, Some(200));
    let error = append(2).unwrap_err();
    limit(Resource::Fsize, None);
    assert!(matches!(error, AppendError::Failed(_)), "{error:?}");
    assert_eq!(engine.frames().len(), 2, "the stream has it");
    let why = match log.health() {
        ReplicaHealth::Contradicted { why } => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why, "this server's journal does not take the stream's records");
}

#[test]
fn the_index_in_memory_is_that_of_the_copy() {
    let (_engine, node) = three_frames();
    assert!(node.log.may_have(Key::Command(command(3)), 2));
    assert!(!node.log.may_have(Key::Command(command(3)), 3), "it is not behind its own place");
    assert!(node.log.has_head(&stream("ann")));
    assert!(!node.log.has_head(&stream("nobody")));
    assert_eq!(node.log.head().unwrap().seq, 3);
}
