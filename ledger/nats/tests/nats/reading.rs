//! The stream itself: compare-and-set, reading by bytes and from any place, and outcomes without a connection.

use std::{sync::Arc, time::Duration};

use keypool_ledger::{
    PublishOutcome, Replication, ReplicationError, log::conformance::engines::check_frames,
};
use rustix::process::Signal;

use super::{
    cluster::Cluster,
    support::{eventually, frame, read_all, written},
};

const WAIT: Duration = Duration::from_secs(20);

#[test]
fn frames_are_numbered_in_turn_and_come_by_bytes_from_any_place() {
    let Some(cluster) = Cluster::start(1) else { return };
    check_frames(|name| Arc::new(cluster.connect(name)));
}

#[test]
fn a_reader_that_passes_over_frames_keeps_its_consumer() {
    let Some(cluster) = Cluster::start(1) else { return };
    let stream = cluster.connect("passed");
    written(&stream, 0, 10);
    assert_eq!(read_all(&stream, 0, 1 << 20), 1);
    // Two of three frames are read otherwise, as a server does with those that it appended itself.
    for last in (4..=40).step_by(3) {
        for after in last - 3..last {
            written(&stream, after, 10);
        }
        let frames = eventually(|| stream.frames(last - 1, 1 << 20, WAIT).ok());
        let numbers: Vec<_> = frames.iter().map(|frame| frame.sequence).collect();
        assert_eq!(numbers, [last]);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let consumers = runtime.block_on(async {
        let client = async_nats::connect(cluster.addresses()).await.unwrap();
        let context = async_nats::jetstream::new(client);
        context
            .get_stream("KP-passed")
            .await
            .unwrap()
            .get_info()
            .await
            .unwrap()
            .state
            .consumer_count
    });
    // A reader that began anew would have made thirteen; a slow machine may lose one and make another.
    assert!((1..5).contains(&consumers), "{consumers} consumers");
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
