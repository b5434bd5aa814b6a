//! Every log keeps the promises of `EventLog`, and a faulty one fails as it was told to.

use std::sync::Arc;

use keypool_ledger::{
    AppendError, Conflict, EventLog, Fault, Faulty, LogHead, MemoryLog, NamedLog, NoSnapshots,
    ReadError, Snapshot, SnapshotStore,
    log::{append_at_head, conformance, find_command, knows_init_key, read_record},
};

use super::support::{SledLogs, batch, command, facts, stream, uploaded};

#[test]
fn the_memory_log_keeps_the_contract() {
    conformance::check(MemoryLog::default);
    conformance::check(|| Faulty::new(MemoryLog::default()));
}

#[test]
fn the_sled_log_keeps_the_contract() {
    let logs = SledLogs::default();
    conformance::check(|| logs.make());
    conformance::check(|| Faulty::new(logs.make()));
}

#[test]
fn every_store_of_snapshots_keeps_the_contract() {
    conformance::check_snapshots(&MemoryLog::default());
    conformance::check_snapshots(&Faulty::new(MemoryLog::default()));
    conformance::check_snapshots(&NoSnapshots);
    let logs = SledLogs::default();
    let log = logs.make();
    conformance::check_snapshots(&log);
    assert_eq!(log.head().unwrap(), LogHead { seq: 0 }, "snapshots are beside the events");
}

#[test]
fn a_planned_fault_happens_once_and_is_what_it_says() {
    check_faults(MemoryLog::default);
    let logs = SledLogs::default();
    check_faults(|| logs.make());
}

fn check_faults<L: EventLog>(make_log: impl Fn() -> L) {
    for (fault, applied) in [
        (Fault::NotWritten, false),
        (Fault::Failed, false),
        (Fault::UnknownApplied, true),
        (Fault::UnknownNotApplied, false),
        (Fault::InDoubtApplied, true),
        (Fault::InDoubtNotApplied, false),
    ] {
        let log = Faulty::new(make_log());
        log.fail_append(2, fault);
        let append = |n, expected| {
            append_at_head(&log, &[batch("ann", expected, vec![uploaded(n, 4)])]).pop().unwrap()
        };
        append(1, 0).unwrap();
        let answer = append(2, 1);
        match fault {
            Fault::NotWritten => assert!(matches!(answer, Err(AppendError::NotWritten(_)))),
            Fault::Failed => assert!(matches!(answer, Err(AppendError::Failed(_)))),
            Fault::UnknownApplied | Fault::UnknownNotApplied => {
                assert!(matches!(answer, Err(AppendError::Unknown(_))));
            }
            Fault::InDoubtApplied | Fault::InDoubtNotApplied => {
                assert!(matches!(answer, Err(AppendError::InDoubt(_))));
            }
        }
        let found = find_command(&log, command(2), 0).unwrap();
        assert_eq!(found.len(), usize::from(applied), "{fault:?}: find tells the truth");
        append(3, 1 + u64::from(applied)).unwrap();
        assert_eq!(log.n_appends(), 3);
    }
}

#[test]
fn a_conflict_is_told_also_when_an_answer_is_lost() {
    let log = Faulty::new(MemoryLog::default());
    log.fail_append(1, Fault::UnknownApplied);
    let upload = |n| batch("ann", 0, vec![uploaded(n, 4)]);

    let answers = append_at_head(&log, &[upload(1), upload(2)]);

    assert!(matches!(answers[0], Err(AppendError::Unknown(_))));
    assert!(matches!(answers[1], Err(AppendError::Conflict(Conflict::Stream { found: 1, .. }))));
}

#[test]
fn a_rival_comes_just_before_the_append() {
    let log = Faulty::new(MemoryLog::default());
    log.before_append(1, |log: &MemoryLog| {
        append_at_head(log, &[batch("ann", 0, vec![uploaded(7, 4)])]).pop().unwrap().unwrap();
    });
    let append = |seq, expected| {
        let call = vec![batch("ann", expected, vec![uploaded(1, 4)])];
        log.append(LogHead { seq }, call).pop().unwrap()
    };

    assert!(matches!(append(0, 0), Err(AppendError::Conflict(Conflict::Log { head: 1, .. }))));
    assert!(matches!(append(1, 0), Err(AppendError::Conflict(Conflict::Stream { found: 1, .. }))));
    append(1, 1).unwrap();
    assert_eq!(log.inner().read(1, 9).unwrap()[0].envelope.command, command(7));
}

#[test]
fn a_planned_read_fault_happens_once() {
    let log = Faulty::new(MemoryLog::default());
    log.fail_read(2);

    assert!(log.head().is_ok());
    assert!(matches!(log.stream_head(&stream("ann")), Err(ReadError::Unavailable(_))));
    assert!(log.stream_head(&stream("ann")).is_ok());
    assert_eq!(log.n_reads(), 3);
}

#[test]
fn a_log_without_a_head_answers_each_batch_of_an_append_at_the_head() {
    let log = Faulty::new(MemoryLog::default());
    log.fail_read(1);
    let batches = [batch("ann", 0, vec![uploaded(1, 4)]), batch("bob", 0, vec![uploaded(2, 4)])];
    let answers = append_at_head(&log, &batches);
    assert_eq!(answers.len(), 2);
    assert!(answers.iter().all(|answer| matches!(answer, Err(AppendError::NotWritten(_)))));
    assert_eq!(log.n_appends(), 0);
    assert!(append_at_head(&log, &batches).iter().all(Result::is_ok));
}

#[test]
fn a_record_is_read_by_its_position_and_found_by_its_init_key() {
    let log = MemoryLog::default();
    append_at_head(&log, &[batch("ann", 0, vec![uploaded(1, 4), uploaded(2, 4)])]);
    let at = |position| read_record(&log, position).unwrap().map(|record| record.seq);
    assert_eq!([0, 1, 2, 3].map(at), [None, Some(1), Some(2), None]);
    let knows =
        |name: &str, n| knows_init_key(&log, &name.parse().unwrap(), &facts(n).init_key).unwrap();
    assert!(knows("ann", 1) && knows("ann", 2));
    assert!(!knows("ann", 3) && !knows("bob", 1));
}

#[test]
fn a_store_that_keeps_nothing_takes_every_snapshot_and_has_none() {
    let snapshot = Snapshot { name: b"pool/a".to_vec(), bytes: b"1".to_vec() };
    NoSnapshots.put(vec![snapshot]).unwrap();
    assert_eq!(NoSnapshots.get(b"pool/a").unwrap(), None);
    assert_eq!(NoSnapshots.list(b"", None, 9).unwrap(), []);
}

/// Checks that a store keeps the snapshots it is given: a store that may lose them is none of these.
fn keeps_snapshots(store: &impl SnapshotStore) {
    let snapshot = |name: &str, bytes: &[u8]| Snapshot { name: name.into(), bytes: bytes.into() };
    let [a, b, other] = [snapshot("pool/a", b"1"), snapshot("pool/b", b"2"), snapshot("x", b"3")];
    store.put(vec![b.clone(), other.clone(), a.clone()]).unwrap();
    assert_eq!(store.get(b"pool/a").unwrap(), Some(b"1".to_vec()));
    assert_eq!(store.list(b"", None, 9).unwrap(), [a.clone(), b.clone(), other.clone()]);
    assert_eq!(store.list(b"pool/", None, 9).unwrap(), [a.clone(), b.clone()]);
    assert_eq!(store.list(b"pool/", None, 1).unwrap(), [a]);
    assert_eq!(store.list(b"pool/", Some(b"pool/a"), 9).unwrap(), [b]);
    store.put(vec![snapshot("pool/a", b""), snapshot("pool/b", b"")]).unwrap();
    assert_eq!(store.get(b"pool/a").unwrap(), None);
    assert_eq!(store.list(b"", None, 9).unwrap(), [other]);
}

#[test]
fn snapshots_are_kept_and_listed_in_order() {
    keeps_snapshots(&MemoryLog::default());
    keeps_snapshots(&Arc::new(MemoryLog::default()));
    keeps_snapshots(&Faulty::new(MemoryLog::default()));
    keeps_snapshots(&SledLogs::default().make());
    keeps_snapshots(&NamedLog::open(MemoryLog::default(), true).unwrap());
}
