//! A standby that takes over, and the old primary that comes back.

use std::time::Duration;

use keypool_ledger::{EventLog, PublishOutcome, ReplicaHealth, Replication};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{
    cluster::Cluster,
    support::{all, append, eventually, frame, join, read_all, wait_for, written},
};

#[test]
fn a_standby_takes_over_and_nothing_is_lost() {
    let Some(mut cluster) = Cluster::start(3) else { return };
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let [a, b] = dirs.each_ref().map(|dir| join(dir.path(), cluster.connect("over")).unwrap());
    (1..=20).for_each(|n| append(&a, n, 100));
    cluster.kill(0);
    let next = cluster.most_advanced(&[1, 2]);
    cluster.promote(next);
    cluster.follow(3 - next, next);
    wait_for(&b, 20);
    (21..=40).for_each(|n| append(&b, n, 100));
    wait_for(&a, 40);
    cluster.rebuild(0, next);
    cluster.kill(3 - next);
    (41..=60).for_each(|n| append(&a, n, 100));
    wait_for(&b, 60);
    assert_eq!((all(&a).len(), all(&a)), (60, all(&b)));
    for log in [&a, &b] {
        eventually(|| (log.health() == ReplicaHealth::Following).then_some(()));
        assert_eq!(log.head().unwrap().seq, 60);
    }
}

#[test]
fn an_old_primary_that_comes_back_is_never_followed() {
    let Some(mut cluster) = Cluster::start(3) else { return };
    let stream = cluster.connect("back");
    (0..5).for_each(|after| written(&stream, after, 10));
    // The old primary hangs, and the others go on without it.
    cluster.wait_for_standbys(0, 2);
    cluster.signal(0, Signal::STOP);
    let outcome = stream.publish(5, b"the old primary's");
    assert!(matches!(outcome, PublishOutcome::NoAnswer(_)), "{outcome:?}");
    cluster.promote(1);
    cluster.follow(2, 1);
    cluster.wait_for_standbys(1, 1);
    cluster.signal(0, Signal::CONT);
    // It writes the frame that was on its way, or refuses it: it alone has it.
    let last = eventually(|| stream.last().ok());
    assert_eq!(last, 5);
    (5..9).for_each(|after| {
        eventually(|| match stream.publish(after, &frame(after + 1, 10)) {
            PublishOutcome::Written => Some(()),
            outcome => panic!("{outcome:?}"),
        });
    });
    assert_eq!(read_all(&stream, 0, 1 << 20), 9);
    // Crashed and started again, it believes in its office, and is the first of all addresses.
    cluster.kill(0);
    cluster.run(0);
    assert_eq!(cluster.sql(0, "SELECT pg_is_in_recovery()"), "f");
    let fresh = cluster.connect("back");
    assert_eq!(fresh.last().unwrap(), 9);
    assert_eq!(read_all(&fresh, 0, 1 << 20), 9);
    written(&fresh, 9, 10);
    let alone = cluster.only(0, "back").with_patience(Duration::from_secs(4));
    let why = keypool_postgres::PostgresReplication::connect(&alone).unwrap_err();
    let why = format!("{why}: {}", std::error::Error::source(&why).unwrap());
    assert!(why.contains("its synchronous standbys do not confirm"), "{why}");
}
