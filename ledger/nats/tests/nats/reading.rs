//! The stream itself: compare-and-set, reading by bytes and from any place, and outcomes without a connection.

use std::time::Duration;

use keypool_ledger::{PublishOutcome, Replication, ReplicationError};
use rustix::process::Signal;

use super::{cluster::Cluster, support::eventually};

const WAIT: Duration = Duration::from_secs(20);

fn frame(n: u64, len: usize) -> Vec<u8> {
    n.to_be_bytes().into_iter().cycle().take(len).collect()
}

fn written(stream: &impl Replication, after: u64, len: usize) {
    let outcome = stream.publish(after, &frame(after + 1, len));
    assert!(matches!(outcome, PublishOutcome::Written), "{after}: {outcome:?}");
}

/// Reads from a place on until nothing comes, and checks that each frame is the next one.
fn read_all(stream: &impl Replication, after: u64, bytes_max: usize) -> u64 {
    let mut last = after;
    loop {
        let wait = if last < stream.last().unwrap() { WAIT } else { Duration::from_millis(50) };
        let frames = stream.frames(last, bytes_max, wait).unwrap();
        if frames.is_empty() {
            return last;
        }
        for found in frames {
            assert_eq!(found.sequence, last + 1);
            assert_eq!(found.bytes, frame(found.sequence, found.bytes.len()));
            last = found.sequence;
        }
    }
}

#[test]
fn a_frame_gets_the_number_behind_the_last_one_or_is_refused() {
    let Some(cluster) = Cluster::start(1) else { return };
    let stream = cluster.connect("cas");
    assert_eq!(stream.last().unwrap(), 0);
    let refused = |after| matches!(stream.publish(after, b"other"), PublishOutcome::Refused);
    assert!(refused(1), "the stream is empty");
    written(&stream, 0, 10);
    assert!(refused(0) && refused(2), "the stream ends at 1");
    written(&stream, 1, 10);
    assert!(refused(0) && refused(1));
    assert_eq!(stream.last().unwrap(), 2);
    assert_eq!(read_all(&stream, 0, 1 << 20), 2);
}

#[test]
fn frames_come_by_bytes_one_by_one_and_from_any_place() {
    let Some(cluster) = Cluster::start(1) else { return };
    let stream = cluster.connect("places");
    assert_eq!(stream.frames(0, 1, Duration::from_millis(50)).unwrap(), [], "it is empty");
    (0..12).for_each(|after| written(&stream, after, 3 << 20));
    (12..400).for_each(|after| written(&stream, after, 300));
    assert_eq!(read_all(&stream, 0, 16 << 20), 400);
    assert_eq!(read_all(&stream, 398, 16 << 20), 400);
    let mut largest = 0;
    let mut last = 0;
    while last < 12 {
        let frames = stream.frames(last, 8 << 20, WAIT).unwrap();
        largest = largest.max(frames.iter().map(|frame| frame.bytes.len()).sum());
        last = frames.last().unwrap().sequence;
    }
    assert!(largest < 12 << 20, "a question for 8 MiB ends at the next frame: {largest}");
    for after in [7, 399, 0, 200, 201, 202, 5] {
        let frames = stream.frames(after, 1, WAIT).unwrap();
        assert_eq!(frames.iter().map(|frame| frame.sequence).collect::<Vec<_>>(), [after + 1]);
    }
    assert_eq!(stream.frames(400, 1, Duration::from_millis(50)).unwrap(), []);
    written(&stream, 400, 10);
    assert_eq!(stream.frames(400, 1, WAIT).unwrap()[0].sequence, 401);
}

#[test]
fn a_frame_that_is_too_large_is_not_sent() {
    let Some(cluster) = Cluster::start(1) else { return };
    let stream = cluster.connect("large");
    written(&stream, 0, 8_000_000);
    let outcome = stream.publish(1, &frame(2, 9 << 20));
    assert!(matches!(outcome, PublishOutcome::NotSent(_)), "{outcome:?}");
    written(&stream, 1, 10);
    assert_eq!(read_all(&stream, 0, 1 << 20), 2);
}

#[test]
fn nothing_is_sent_without_a_connection_and_a_silent_server_leaves_it_open() {
    let Some(mut cluster) = Cluster::start(1) else { return };
    let stream = cluster.connect("gone");
    written(&stream, 0, 10);
    cluster.signal(0, Signal::STOP);
    let outcome = stream.publish(1, &frame(2, 10));
    assert!(matches!(outcome, PublishOutcome::NoAnswer(_)), "{outcome:?}");
    cluster.kill(0);
    let outcome = eventually(|| match stream.publish(1, &frame(2, 10)) {
        PublishOutcome::NoAnswer(_) => None,
        outcome => Some(outcome),
    });
    assert!(matches!(outcome, PublishOutcome::NotSent(_)), "{outcome:?}");
    for error in [
        stream.last().unwrap_err(),
        stream.frames(0, 1, Duration::from_millis(50)).unwrap_err(),
        stream.status(Duration::from_millis(50)).unwrap_err(),
    ] {
        assert!(matches!(error, ReplicationError::Unreachable(_)), "{error:?}");
    }
    cluster.run(0);
    let last = eventually(|| stream.last().ok());
    assert_eq!(eventually(|| stream.frames(0, 1 << 20, WAIT).ok())[0].sequence, 1);
    eventually(|| {
        matches!(stream.publish(last, &frame(last + 1, 10)), PublishOutcome::Written).then_some(())
    });
    assert_eq!(read_all(&stream, 0, 1 << 20), last + 1);
}

#[test]
fn a_thread_of_another_runtime_may_ask() {
    let Some(cluster) = Cluster::start(1) else { return };
    let stream = cluster.connect("threads");
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async move {
        let asked = tokio::task::spawn_blocking(move || {
            written(&stream, 0, 10);
            let last = stream.last().unwrap();
            (stream, last)
        });
        let (stream, last) = asked.await.unwrap();
        assert_eq!(last, 1);
        drop(stream);
    });
}
