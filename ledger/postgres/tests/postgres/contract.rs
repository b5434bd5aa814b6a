//! The promises of every log, over a primary and a standby; and two servers that write one log.

use std::cell::Cell;

use keypool_ledger::{
    AppendError, Conflict, EventLog, JournalReader, Replication,
    log::{conformance, find_command},
    publish_journal,
};
use tempfile::TempDir;

use super::{
    cluster::Cluster,
    support::{all, append, batch, command, join, uploaded, wait_for},
};

#[test]
fn a_log_on_two_servers_keeps_the_contract() {
    let Some(cluster) = Cluster::start(2) else { return };
    let (dirs, count) = (TempDir::new().unwrap(), Cell::new(0));
    conformance::check(|| {
        count.set(count.get() + 1);
        let name = format!("contract-{}", count.get());
        join(&dirs.path().join(&name), cluster.connect(&name)).unwrap()
    });
}

#[test]
fn two_servers_write_one_log_and_a_third_one_follows() {
    let Some(cluster) = Cluster::start(2) else { return };
    let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let [a, b] = dirs.each_ref().map(|dir| join(dir.path(), cluster.connect("two")).unwrap());
    for n in 1..=20 {
        let (writer, other) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        append(writer, n, 100);
        wait_for(other, n);
    }
    let stale = a.head().unwrap();
    append(&b, 21, 100);
    let answer = a.append(stale, vec![batch("bob", 0, vec![uploaded(22, 9)])]).pop().unwrap();
    let Err(AppendError::Conflict(Conflict::Log { decided_at: 20, head: 21 })) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(find_command(&a, command(22), 0).unwrap(), []);
    assert_eq!(all(&a), all(&b));
    let fresh = TempDir::new().unwrap();
    let c = join(fresh.path(), cluster.connect("two")).unwrap();
    assert_eq!(all(&c), all(&a));
    assert_eq!(all(&c).len(), 21);
}

#[test]
fn a_server_goes_on_where_it_was_and_a_journal_fills_an_empty_stream() {
    let Some(cluster) = Cluster::start(2) else { return };
    let [first, second] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let log = join(first.path(), cluster.connect("on")).unwrap();
    (1..=30).for_each(|n| append(&log, n, 2_000));
    drop(log);
    let other = join(second.path(), cluster.connect("on")).unwrap();
    (31..=60).for_each(|n| append(&other, n, 2_000));
    let log = join(first.path(), cluster.connect("on")).unwrap();
    assert_eq!(all(&log), all(&other));
    assert_eq!(all(&log).len(), 60);
    drop((log, other));
    let stream = cluster.connect("other");
    let records = || JournalReader::open(&first.path().join("journal")).unwrap();
    for _ in 0..2 {
        assert_eq!(publish_journal(records(), &stream, &|_| {}).unwrap(), 60);
        assert_eq!(stream.last().unwrap(), 1, "once");
    }
    let log = join(second.path(), stream).unwrap();
    append(&log, 61, 10);
    assert_eq!(all(&log).len(), 61);
}
