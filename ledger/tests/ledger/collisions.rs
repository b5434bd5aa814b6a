//! Two names with one fingerprint: neither is ever taken for the other, and none is forgotten.

use std::{path::Path, slice};

use keypool_ledger::{
    AppendError, Batch, Conflict, Event, EventLog, GroupId, Hash, JournalWriter,
    JournalWriterOptions, Key, MemoryLog, NewEvent, OpenError, Record, ReservationId, SledLog,
    SledLogOptions, Timestamp,
    log::{append_at_head, find_command, find_package, find_reservation, knows_init_key},
};
use tempfile::TempDir;
use uuid::Uuid;

use super::support::{
    SMALL, all, batch, command, facts, fill, open, open_sled, package, read_journal, stream,
    uploaded,
};

/// A log in which nearly all names have the fingerprint of others.
const COLLIDING: SledLogOptions = SledLogOptions { fingerprint_bits: 4, ..SMALL };

/// Two user names whose histories had the same fingerprint of 72 bits when it was made without a secret.
const PAIR: [&str; 2] = ["9819e2045bb1ae1c8c", "3e5eb1a5b5fa550cec"];

fn pair() -> [String; 2] {
    PAIR.map(|end| format!("{}{end}", "x".repeat(40)))
}

fn append(logs: &[&dyn EventLog], batch: &Batch) {
    for log in logs {
        append_at_head(*log, slice::from_ref(batch)).pop().unwrap().unwrap();
    }
}

#[test]
fn a_device_is_not_forgotten_for_another_whose_name_was_ground_to_collide() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    for (n, name) in (1000..).zip(pair()) {
        append(&[&log], &batch(&name, 0, vec![uploaded(n, 4)]));
    }
    fill(&log, 200);
    drop(log);
    let log = open(dir.path());
    for name in pair() {
        assert_eq!(log.stream_head(&stream(&name)).unwrap().version, 1, "{name}");
        let again =
            append_at_head(&log, &[batch(&name, 0, vec![uploaded(2000, 4)])]).pop().unwrap();
        assert!(
            matches!(again, Err(AppendError::Conflict(Conflict::Stream { found: 1, .. }))),
            "{again:?}"
        );
    }
}

fn name_of(n: u64) -> String {
    format!("user{}", n % 97)
}

fn reserved(n: u64) -> NewEvent {
    let event = Event::Reserved {
        keypackage_ref: package(n),
        reservation: ReservationId(Uuid::from_u128(u128::from(n) << 64)),
        generation: 1,
        holder: "carol".parse().unwrap(),
        group: GroupId::new(b"group").unwrap(),
        deadline: Timestamp::from_secs(60),
    };
    NewEvent { event, payload: Vec::new(), ..uploaded(n + 100_000, 0) }
}

/// Checks that every look-up in a log gives what the reference gives, of names that are there and of
/// names that are not.
fn looks_up_as(memory: &MemoryLog, log: &SledLog) {
    let records = all(memory);
    assert_eq!(all(log), records);
    for n in 1..records.len() as u64 + 50 {
        let name = stream(&format!("user{n}"));
        let head = memory.stream_head(&name).unwrap();
        assert_eq!(log.stream_head(&name).unwrap(), head, "{name}");
        for after in [0, 1, head.version / 2, head.version.saturating_sub(1)] {
            let read = |log: &dyn EventLog, limit| log.read_stream(&name, after, limit).unwrap();
            assert_eq!(read(log, 3), read(memory, 3), "{name} after {after}");
            assert_eq!(read(log, 999), read(memory, 999), "{name} after {after}");
        }
        for command in [command(n), command(n + 100_000)] {
            assert_eq!(
                find_command(log, command, 0).unwrap(),
                find_command(memory, command, 0).unwrap()
            );
        }
        let wanted = package(n);
        assert_eq!(find_package(log, &wanted).unwrap(), find_package(memory, &wanted).unwrap());
        assert_eq!(
            log.find(Key::Package(&wanted), 0, usize::MAX).unwrap(),
            memory.find(Key::Package(&wanted), 0, usize::MAX).unwrap()
        );
        let wanted = ReservationId(Uuid::from_u128(u128::from(n) << 64));
        let found = find_reservation(memory, wanted, 0).unwrap();
        assert_eq!(find_reservation(log, wanted, 0).unwrap(), found);
        let (key, at) = (facts(n).init_key, n / 2);
        for pool in [name_of(n), name_of(at)].map(|name| name.parse().unwrap()) {
            let known = knows_init_key(memory, &pool, &key).unwrap();
            assert_eq!(knows_init_key(log, &pool, &key).unwrap(), known);
        }
    }
}

#[test]
fn every_look_up_finds_its_own_among_names_that_collide() {
    let (memory, dir) = (MemoryLog::default(), TempDir::new().unwrap());
    let log = SledLog::open(dir.path(), COLLIDING).unwrap();
    for n in 1..=240 {
        let name = if n % 3 == 0 { "user1".to_owned() } else { name_of(n) };
        let at = memory.stream_head(&stream(&name)).unwrap().version;
        assert_eq!(log.stream_head(&stream(&name)).unwrap().version, at, "{name}");
        append(&[&memory, &log], &batch(&name, at, vec![uploaded(n, 4), reserved(n)]));
    }
    looks_up_as(&memory, &log);
    drop(log);

    looks_up_as(&memory, &SledLog::open(dir.path(), COLLIDING).unwrap());
    looks_up_as(&memory, &SledLog::open(dir.path(), SMALL).unwrap());
    looks_up_as(&memory, &SledLog::open(dir.path(), COLLIDING).unwrap());
}

#[test]
fn a_name_without_history_is_not_taken_for_another_and_can_begin_one() {
    let dir = TempDir::new().unwrap();
    let log = SledLog::open(dir.path(), COLLIDING).unwrap();
    fill(&log, 100);
    for n in 0..100 {
        let name = format!("new{n}");
        assert_eq!(log.read_stream(&stream(&name), 0, 9).unwrap(), []);
        append(&[&log], &batch(&name, 0, vec![uploaded(1000 + n, 4)]));
    }
    drop(log);
    let log = SledLog::open(dir.path(), COLLIDING).unwrap();
    for n in 0..100 {
        let again = append_at_head(&log, &[batch(&format!("new{n}"), 0, vec![uploaded(1, 4)])]);
        assert!(
            matches!(again[0], Err(AppendError::Conflict(Conflict::Stream { found: 1, .. }))),
            "{again:?}"
        );
    }
}

#[test]
fn no_two_logs_have_the_same_fingerprints() {
    let secrets: Vec<_> = (0..2)
        .map(|_| {
            let dir = TempDir::new().unwrap();
            drop(open(dir.path()));
            open_sled(dir.path()).get(b"k").unwrap().unwrap()
        })
        .collect();
    assert_ne!(secrets[0], secrets[1]);
}

#[test]
fn a_lost_secret_has_the_index_built_anew() {
    let dir = TempDir::new().unwrap();
    fill(&open(dir.path()), 100);
    let database = open_sled(dir.path());
    let before = database.remove(b"k").unwrap();
    drop(database);

    let log = open(dir.path());

    assert_eq!(log.stream_head(&stream("ann")).unwrap().version, 100);
    drop(log);
    let after = open_sled(dir.path()).get(b"k").unwrap();
    assert!(after.is_some() && after != before);
}

/// A log as earlier versions left it: two records of one history have the same version.
fn contradictory(dir: &Path) -> Vec<Record> {
    let from = TempDir::new().unwrap();
    let log = open(from.path());
    fill(&log, 30);
    let mut records = all(&log);
    let mut second = records[0].clone();
    second.seq = 31;
    records.push(second);
    let options = JournalWriterOptions { segment_bytes: 4096, key: None };
    JournalWriter::create(dir, options).unwrap().append(&records).unwrap();
    records
}

#[test]
fn a_log_that_contradicts_itself_is_named_before_its_index_is_touched() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("data");
    let records = contradictory(&dir);
    // The index of an earlier version.
    let index = open_sled(&dir);
    index.insert(b"l", &[3]).unwrap();
    drop(index);

    for _ in 0..2 {
        let refused = SledLog::open(&dir, SMALL).unwrap_err();
        let OpenError::Contradiction { version: 1, seq: 31, .. } = &refused else {
            panic!("{refused}")
        };
        assert_eq!(
            refused.to_string(),
            "history pool/ann/main contradicts itself: record 31 of the ledger is a second one with \
             version 1; nothing was changed. Restore a copy of the directory from before that record, \
             or keep this one with the version of keypool that wrote it until there is one"
        );
    }
    assert!(!dir.join("sled.damaged").exists(), "the index is where it was");
    assert_eq!(open_sled(&dir).get(b"l").unwrap().unwrap(), [3]);
    assert_eq!(read_journal(&dir).unwrap(), records);
}

#[test]
fn an_index_of_an_earlier_version_is_built_anew_and_the_old_one_removed() {
    let dir = TempDir::new().unwrap();
    fill(&open(dir.path()), 100);
    let database = open_sled(dir.path());
    database.insert(b"l", &[3]).unwrap();
    drop(database);

    let log = open(dir.path());

    assert_eq!(log.stream_head(&stream("ann")).unwrap().version, 100);
    assert!(!dir.path().join("sled.damaged").exists());
}

/// Stores a value in a closed log's database as the log itself would have.
fn put(database: &sled::Db, key: &[u8], value: &[u8]) {
    let len = u32::try_from(key.len()).unwrap().to_be_bytes();
    let check = Hash::of(&[&len, key, value].concat());
    let stored = [&check.as_bytes()[..8], value].concat();
    database.insert(key, stored).unwrap();
}

#[test]
fn an_index_that_forgot_the_end_of_a_history_appends_no_second_version() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    fill(&log, 100);
    // What is sealed of another history makes the end of this one be looked up.
    for n in 0..40 {
        append(&[&log], &batch("bob", n, vec![uploaded(1000 + n, 4)]));
    }
    drop(log);
    let database = open_sled(dir.path());
    let mut altered = 0;
    for (key, value) in database.scan_prefix(b"c").map(Result::unwrap) {
        // 31 bytes for an entry: the kind, sixteen bytes of hash, and the place of a record.
        let mut entries = value[8..].to_vec();
        let first = entries.chunks(31).map(|entry| entry[17..].to_vec()).min().unwrap();
        for end in entries.chunks_mut(31).filter(|entry| entry[0] == b'h') {
            altered += usize::from(end[17..] != first);
            end[17..].copy_from_slice(&first);
        }
        put(&database, &key, &entries);
    }
    drop(database);
    assert!(0 < altered, "an end is where it was not");

    let log = open(dir.path());
    let answer = append_at_head(&log, &[batch("ann", 1, vec![uploaded(500, 4)])]).pop().unwrap();
    assert!(matches!(answer, Err(AppendError::NotWritten(_))), "{answer:?}");
    drop(log);

    let log = open(dir.path());
    assert_eq!(log.stream_head(&stream("ann")).unwrap().version, 100);
}
