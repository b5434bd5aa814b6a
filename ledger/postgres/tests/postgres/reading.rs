//! The stream itself: compare-and-set, reading by bytes and from any place, and outcomes without an answer.

use std::{sync::Arc, thread, time::Duration};

use keypool_ledger::{
    PublishOutcome, Replication, ReplicationError,
    log::conformance::{HeldLines, engines::check_frames},
};
use keypool_postgres::{PostgresReplication, PostgresSettings};
use rustix::process::Signal;

use super::{
    cluster::Cluster,
    support::{DEADLINE, eventually, frame, read_all, written},
};

const WAIT: Duration = Duration::from_secs(20);

#[test]
fn frames_are_numbered_in_turn_and_come_by_bytes_from_any_place() {
    let Some(cluster) = Cluster::start(1) else { return };
    check_frames(|name| Arc::new(cluster.connect(name)));
}

#[test]
fn one_of_many_servers_gets_a_number() {
    let Some(cluster) = Cluster::start(1) else { return };
    let streams = [(); 4].map(|()| cluster.connect("race"));
    for after in 0..30 {
        let won = thread::scope(|scope| {
            let publish =
                |stream| scope.spawn(move || PostgresReplication::publish(stream, after, b"frame"));
            let publishing: Vec<_> = streams.iter().map(publish).collect();
            let outcomes = publishing.into_iter().map(|publishing| publishing.join().unwrap());
            outcomes.filter(|outcome| matches!(outcome, PublishOutcome::Written)).count()
        });
        assert_eq!(won, 1, "behind frame {after}");
    }
}

#[test]
fn a_reader_that_waits_is_told_of_another_servers_frame() {
    let Some(cluster) = Cluster::start(2) else { return };
    let [reader, writer] = [(); 2].map(|()| cluster.connect("told"));
    thread::scope(|scope| {
        let reading = scope.spawn(|| reader.frames(0, 1, DEADLINE).unwrap());
        written(&writer, 0, 10);
        assert_eq!(reading.join().unwrap()[0].sequence, 1);
    });
}

#[test]
fn a_commit_whose_answer_is_lost_is_left_open_and_stands_once() {
    let Some(cluster) = Cluster::start(1) else { return };
    let lines = HeldLines::to([cluster.port(0)]);
    let settings = PostgresSettings::new(&Cluster::address_of(&lines.ports), "lost").unwrap();
    let stream =
        PostgresReplication::connect(&settings.with_standbys(0).with_patience(DEADLINE)).unwrap();
    written(&stream, 0, 10);
    // The question has left before its line is held up in both directions, or has not.
    let outcome = thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            for after in 1.. {
                match stream.publish(after, &frame(after + 1, 10)) {
                    PublishOutcome::Written => {}
                    outcome => return (after, outcome),
                }
            }
            unreachable!()
        });
        let direct = cluster.connect("lost");
        eventually(|| direct.last().ok().filter(|last| 20 < *last));
        lines.hold();
        publishing.join().unwrap()
    });
    let (after, PublishOutcome::NoAnswer(_)) = outcome else { panic!("{outcome:?}") };
    // Over a line that was made just before, the question may leave and find no answer either.
    let again = stream.publish(after, &frame(after + 1, 10));
    assert!(matches!(again, PublishOutcome::NotSent(_) | PublishOutcome::NoAnswer(_)), "{again:?}");
    lines.release();
    let last = eventually(|| stream.last().ok());
    assert!(last == after || last == after + 1, "{last} after {after}");
    eventually(|| match stream.publish(after, &frame(after + 1, 10)) {
        PublishOutcome::Written | PublishOutcome::Refused => Some(()),
        _ => None,
    });
    assert_eq!(read_all(&stream, 0, 1 << 20), after + 1, "once");
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
    // The connection may be lost only while the frame goes out, which leaves its outcome open once more.
    let outcome = eventually(|| match stream.publish(1, &frame(2, 10)) {
        PublishOutcome::NoAnswer(_) => None,
        outcome => Some(outcome),
    });
    assert!(matches!(outcome, PublishOutcome::NotSent(_)), "{outcome:?}");
    for error in
        [stream.last().unwrap_err(), stream.frames(0, 1, Duration::from_millis(50)).unwrap_err()]
    {
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
fn a_backend_that_is_ended_is_replaced() {
    let Some(cluster) = Cluster::start(1) else { return };
    let stream = cluster.connect("ended");
    for after in 0..5 {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'keypool-server'";
        assert_eq!(cluster.sql(0, end), "1", "there is one connection");
        eventually(|| {
            matches!(stream.publish(after, &frame(after + 1, 10)), PublishOutcome::Written)
                .then_some(())
        });
    }
    assert_eq!(read_all(&stream, 0, 1 << 20), 5);
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
