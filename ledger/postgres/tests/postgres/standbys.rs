//! Standbys that are gone: nothing counts, and nothing is shown, before one of them has it.

use std::{thread, time::Duration};

use keypool_ledger::{PublishOutcome, Replication, ReplicationError, StreamStatus};
use keypool_postgres::PostgresReplication;

use super::{
    cluster::Cluster,
    support::{eventually, frame, read_all, written},
};

/// Writes a frame that no standby has. It stands on the primary, where everybody can see it.
fn write_on_the_primary_alone(cluster: &mut Cluster, stream: &PostgresReplication, after: u64) {
    cluster.kill(1);
    let waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let outcome = thread::scope(|scope| {
        let publishing = scope.spawn(|| stream.publish(after, &frame(after + 1, 10)));
        eventually(|| cluster.try_sql(0, waiting).filter(|pid| !pid.is_empty()));
        // An operator loses patience.
        cluster.sql(
            0,
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
        );
        publishing.join().unwrap()
    });
    assert!(matches!(outcome, PublishOutcome::NoAnswer(_)), "{outcome:?}");
    let schema = "keypool_alone";
    let rows = eventually(|| {
        let rows = cluster.try_sql(0, &format!("SELECT max(sequence) FROM {schema}.frames"))?;
        (rows != after.to_string()).then_some(rows)
    });
    assert_eq!(rows, (after + 1).to_string(), "the primary has it");
}

/// Asks for frames behind a frame again and again, and gets none; nor does it get the end of the stream.
fn shows_nothing_behind(stream: &PostgresReplication, after: u64) {
    for _ in 0..4 {
        match stream.frames(after, 1 << 20, Duration::from_millis(300)) {
            Err(ReplicationError::Unreachable(_)) => {}
            Ok(found) if found.is_empty() => {}
            found => panic!("it is shown: {found:?}"),
        }
        let last = stream.last();
        assert!(matches!(last, Err(ReplicationError::Unreachable(_))), "{last:?}");
    }
}

#[test]
fn without_a_standby_nothing_is_written_or_shown_and_with_it_everything() {
    let Some(mut cluster) = Cluster::start(2) else { return };
    let [stream, other] = [(); 2].map(|()| cluster.connect("gone"));
    written(&stream, 0, 10);
    cluster.kill(1);
    // Another server may be the primary by now, and know more.
    let last = other.last();
    assert!(matches!(last, Err(ReplicationError::Unreachable(_))), "{last:?}");
    let outcome = stream.publish(1, &frame(2, 10));
    assert!(matches!(outcome, PublishOutcome::NoAnswer(_)), "{outcome:?}");
    // The first one holds its place, as long as it waits: nothing else is written.
    for stream in [&other, &stream] {
        let outcome = stream.publish(1, b"other");
        assert!(matches!(outcome, PublishOutcome::NotSent(_)), "{outcome:?}");
    }
    shows_nothing_behind(&other, 1);
    cluster.run(1);
    let found = eventually(|| {
        other.frames(1, 1 << 20, Duration::from_secs(1)).ok().filter(|found| !found.is_empty())
    });
    assert_eq!((found[0].sequence, &found[0].bytes), (2, &frame(2, 10)), "it was only late");
    eventually(|| stream.last().ok());
    written(&stream, 2, 10);
    assert_eq!(read_all(&stream, 0, 1 << 20), 3);
}

#[test]
fn a_server_is_not_left_with_a_connection_for_each_attempt() {
    let Some(mut cluster) = Cluster::start(2) else { return };
    let stream = cluster.connect("many");
    written(&stream, 0, 10);
    cluster.kill(1);
    let outcome = stream.publish(1, &frame(2, 10));
    assert!(matches!(outcome, PublishOutcome::NoAnswer(_)), "{outcome:?}");
    for _ in 0..12 {
        assert!(stream.frames(0, 1 << 20, Duration::from_millis(700)).is_err());
    }
    let asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'keypool-server'";
    let count: usize = cluster.sql(0, asked).parse().unwrap();
    assert!(count <= 3, "{count} connections");
}

#[test]
fn a_frame_whose_wait_was_cancelled_is_shown_once_a_standby_has_it() {
    let Some(mut cluster) = Cluster::start(2) else { return };
    let [stream, other] = [(); 2].map(|()| cluster.connect("alone"));
    written(&stream, 0, 10);
    write_on_the_primary_alone(&mut cluster, &stream, 1);
    shows_nothing_behind(&other, 1);
    shows_nothing_behind(&stream, 1);
    cluster.run(1);
    let last = |stream: &PostgresReplication| eventually(|| stream.last().ok());
    assert_eq!((last(&stream), last(&other)), (2, 2));
    assert_eq!(read_all(&other, 0, 1 << 20), 2);
}

#[test]
fn a_frame_of_the_primary_alone_is_never_shown_when_a_standby_takes_over() {
    let Some(mut cluster) = Cluster::start(2) else { return };
    let [stream, other] = [(); 2].map(|()| cluster.connect("alone"));
    written(&stream, 0, 10);
    write_on_the_primary_alone(&mut cluster, &stream, 1);
    shows_nothing_behind(&other, 1);
    // The primary crashes and comes back with its frame, and so does the standby, as the new primary.
    cluster.kill(0);
    cluster.run(0);
    shows_nothing_behind(&other, 1);
    cluster.kill(0);
    cluster.run(1);
    cluster.promote(1);
    cluster.rebuild(0, 1);
    let last = eventually(|| other.last().ok());
    assert_eq!(last, 1, "nobody was told of the frame");
    written(&other, 1, 10);
    assert_eq!(read_all(&other, 0, 1 << 20), 2);
}

#[test]
fn without_demanded_standbys_in_the_settings_nothing_counts_until_they_are_set_again() {
    let Some(cluster) = Cluster::start(2) else { return };
    let stream = cluster.connect("unset");
    written(&stream, 0, 10);
    cluster.sql(0, "ALTER SYSTEM SET synchronous_standby_names = ''");
    cluster.sql(0, "SELECT pg_reload_conf()");
    let asked = "SHOW synchronous_standby_names";
    eventually(|| cluster.try_sql(0, asked).filter(String::is_empty));
    let outcome = stream.publish(1, &frame(2, 10));
    assert!(matches!(outcome, PublishOutcome::NoAnswer(_)), "{outcome:?}");
    let why = eventually(|| match stream.frames(1, 1 << 20, Duration::from_millis(50)) {
        Err(ReplicationError::Unreachable(why)) => {
            Some(why.to_string()).filter(|why| why.contains("synchronous standbys"))
        }
        Ok(found) if found.is_empty() => None,
        found => panic!("it is shown: {found:?}"),
    });
    assert!(why.contains("waits for 0 synchronous standbys, and 1 must confirm"), "{why}");
    cluster.sql(0, "ALTER SYSTEM RESET synchronous_standby_names");
    cluster.sql(0, "SELECT pg_reload_conf()");
    assert_eq!(eventually(|| stream.last().ok()), 2);
    assert_eq!(read_all(&stream, 0, 1 << 20), 2);
}

#[test]
fn the_status_names_the_primary_the_copies_and_lost_rows() {
    let Some(mut cluster) = Cluster::start(2) else { return };
    let stream = cluster.connect("status");
    (0..3).for_each(|after| written(&stream, after, 10));
    cluster.wait_for_standbys(0, 1);
    let wait = Duration::from_secs(10);
    let known = stream.status(wait).unwrap();
    let leader = Some(format!("127.0.0.1:{}", cluster.port(0)));
    let whole = StreamStatus { last: 3, lost: 0, leader, current_replicas: 2, replicas: 2 };
    assert_eq!(known, whole);
    cluster.sql(
        0,
        "ALTER TABLE keypool_status.frames DISABLE TRIGGER keep; \
         DELETE FROM keypool_status.frames WHERE sequence <> 2",
    );
    assert_eq!(stream.status(wait).unwrap(), StreamStatus { lost: 2, ..whole.clone() });
    cluster.kill(1);
    // A primary that no standby confirms leads nothing.
    let alone = eventually(|| stream.status(wait).ok().filter(|status| status.leader.is_none()));
    assert_eq!(alone.last, 3);
}
