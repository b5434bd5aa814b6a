//! A local log that is fed with records which another log has sealed.

use keypool_ledger::{
    AppendError, Conflict, EventLog, MemoryLog, Record, SledLog, StreamHead,
    log::{append_at_head, seal},
};
use tempfile::TempDir;

use super::support::{all, batch, open, stream, try_append, uploaded};

/// Three records of Ann and two of Bob, sealed by another log.
fn sealed() -> Vec<Record> {
    let log = MemoryLog::default();
    let batches = [
        batch("ann", 0, vec![uploaded(1, 40), uploaded(2, 0)]),
        batch("bob", 0, vec![uploaded(3, 40), uploaded(4, 40)]),
        batch("ann", 2, vec![uploaded(5, 40)]),
    ];
    assert!(append_at_head(&log, &batches).iter().all(Result::is_ok));
    all(&log)
}

/// Feeds a log with one record fewer than there are, and then with another one in the place of the last.
fn fed_with(last: impl FnOnce(Record) -> Record) -> (TempDir, SledLog, AppendError) {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    let mut records = sealed();
    let altered = last(records.pop().unwrap());
    log.append_sealed(records.clone()).unwrap();
    let refused = log.append_sealed(vec![altered]).unwrap_err();
    assert_eq!(all(&log), records, "nothing of it is written");
    (dir, log, refused)
}

#[test]
fn a_fed_log_goes_on_with_events_of_its_own() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    log.append_sealed(sealed()).unwrap();
    log.append_sealed(Vec::new()).unwrap();
    assert_eq!(all(&log), sealed());
    assert_eq!(log.stream_head(&stream("ann")).unwrap(), sealed()[4].stream_head());
    assert_eq!(try_append(&log, 40).unwrap(), 6);
    drop(log);
    let log = open(dir.path());
    assert_eq!(all(&log)[..5], sealed());
    assert_eq!(log.head().unwrap().seq, 6);
}

#[test]
fn a_sealed_record_whose_payload_was_pruned_is_taken() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    let mut records = sealed();
    records[2].payload.clear();
    log.append_sealed(records.clone()).unwrap();
    assert_eq!(all(&log), records);
}

#[test]
fn a_sealed_record_stands_at_the_next_position_or_nowhere() {
    for position in [1, 4, 6] {
        let (_dir, _, refused) = fed_with(|record| Record { seq: position, ..record });
        let AppendError::Conflict(conflict) = refused else { panic!("{refused:?}") };
        assert_eq!(conflict, Conflict::Log { decided_at: position - 1, head: 4 });
    }
    let (_dir, log, _) = fed_with(|record| Record { seq: 9, ..record });
    log.append_sealed(sealed()[..2].to_vec()).unwrap_err();
    log.append_sealed(sealed()[4..].to_vec()).unwrap();
}

#[test]
fn a_sealed_record_has_the_next_version_of_its_history() {
    for version in [0, 1, 3] {
        let at = StreamHead { version, ..sealed()[1].stream_head() };
        let (_dir, _, refused) =
            fed_with(|record| seal(record.seq, &stream("ann"), at, uploaded(5, 40)).unwrap());
        let AppendError::Conflict(conflict) = refused else { panic!("{refused:?}") };
        let (stream, expected) = (stream("ann"), version);
        assert_eq!(conflict, Conflict::Stream { stream, expected, found: 2 });
    }
}

#[test]
fn a_sealed_record_carries_the_hash_of_the_one_before_it() {
    let at = StreamHead { hash: sealed()[0].stream_head().hash, ..sealed()[1].stream_head() };
    let (_dir, _, refused) =
        fed_with(|record| seal(record.seq, &stream("ann"), at, uploaded(5, 40)).unwrap());
    let AppendError::Conflict(conflict) = refused else { panic!("{refused:?}") };
    assert_eq!(conflict, Conflict::Chain { stream: stream("ann"), version: 3 });
}

#[test]
fn a_sealed_record_is_what_its_bytes_say() {
    let other = sealed().swap_remove(3);
    let altered: [fn(Record, &Record) -> Record; 3] = [
        |record, other| Record { envelope_bytes: other.envelope_bytes.clone(), ..record },
        |record, other| Record { envelope: other.envelope.clone(), ..record },
        |record, other| Record { payload: other.payload.clone(), ..record },
    ];
    for alter in altered {
        let (_dir, log, refused) = fed_with(|record| alter(record, &other));
        assert!(matches!(refused, AppendError::NotWritten(_)), "{refused:?}");
        log.append_sealed(sealed()[4..].to_vec()).unwrap();
    }
}

#[test]
fn sealed_records_are_taken_all_or_none() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    let mut records = sealed();
    records.swap(3, 4);
    log.append_sealed(records).unwrap_err();
    assert_eq!(all(&log), []);
    log.append_sealed(sealed()).unwrap();
}
