//! The index beneath a log: runs that are sealed and merged behind what is appended and read.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs,
    path::Path,
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use keypool_ledger::{
    EventLog, JournalWriter, JournalWriterOptions, Key, LogHealth, MemoryIndex, MemoryLog,
    NoMemoryIndex, ReadError, Record, SledLog, SledLogOptions, Snapshot, SnapshotStore,
    log::{append_at_head, find_command, find_package},
};
use tempfile::TempDir;

use super::{
    properties::same,
    support::{
        SMALL, all, batch, command, copy, fill, in_the_end, open, open_sled, package, segments,
        stream, uploaded,
    },
};

/// The names the histories of a long log have.
const NAMES: [&str; 4] = ["ann", "anna", "bob", "cat"];

/// Appends to both logs, to one history after the other, some batches of several events among them.
fn lengthen(logs: &[&dyn EventLog], from: u64, to: u64) {
    let mut n = from;
    while n < to {
        let name = NAMES[usize::try_from(n % 4).unwrap()];
        let events: Vec<_> = (n..n + 1 + n % 3).map(|n| uploaded(n, 30)).collect();
        for log in logs {
            let expected = log.stream_head(&stream(name)).unwrap().version;
            let answers = append_at_head(&log, &[batch(name, expected, events.clone())]);
            assert!(answers.iter().all(Result::is_ok));
        }
        n += events.len() as u64;
    }
}

/// The numbers of the runs that a closed log has, and of those that it has pieces of.
fn runs(log: &TempDir) -> (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>) {
    let database = open_sled(log.path());
    let of = |kind: &[u8]| {
        let keys = database.scan_prefix(kind).keys().map(|key| key.unwrap()[1..9].to_vec());
        keys.collect()
    };
    (of(b"m"), of(b"c"))
}

#[test]
fn a_log_of_many_runs_reads_as_one_in_memory() {
    let (memory, dir) = (MemoryLog::default(), TempDir::new().unwrap());
    let log = open(dir.path());
    let mut n = 1;
    for to in [700, 1400, 2000] {
        lengthen(&[&memory, &log], n, to);
        n = all(&memory).len() as u64 + 1;
        same(&memory, &log);
    }
    drop(log);
    same(&memory, &open(dir.path()));
    let (known, _) = runs(&dir);
    assert!((2..40).contains(&known.len()), "250 were sealed, and merged: {}", known.len());

    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    let log = open(dir.path());
    same(&memory, &log);
    lengthen(&[&memory, &log], n, n + 50);
    same(&memory, &log);
}

#[test]
fn memory_never_denies_what_the_log_has_and_knows_what_came_late() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    lengthen(&[&log], 1, 900);
    let log = {
        drop(log);
        open(dir.path())
    };
    for record in all(&log) {
        let key = Key::Command(record.envelope.command);
        assert!(log.may_have(key, 0) && log.may_have(key, record.seq - 1), "{}", record.seq);
        assert!(log.find(key, record.seq, 9).unwrap().is_empty());
        let package = record.envelope.event.keypackage_ref().unwrap();
        assert!(log.may_have(Key::Package(package), 0));
    }
    let head = log.head().unwrap().seq;
    assert!(!log.may_have(Key::Command(all(&log).pop().unwrap().envelope.command), head));
    let strangers = (0..1000).map(|n| Key::Command(command(1_000_000 + n)));
    let maybe = strangers.filter(|key| log.may_have(*key, 0)).count();
    assert!(maybe < 500, "a filter denies most of what it does not have: {maybe}");
    log.stream_head(&stream("bob")).unwrap();
    assert!(log.has_head(&stream("bob")) && !log.has_head(&stream("nobody")));
}

#[test]
fn memory_knows_the_positions_of_what_came_last() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    fill(&log, 5);
    for n in 1..=5 {
        let named = package(n);
        for key in [Key::Command(command(n)), Key::Package(&named)] {
            assert!((0..n).all(|after| log.may_have(key, after)), "{n}");
            assert!((n..8).all(|after| !log.may_have(key, after)), "{n}");
        }
    }
    // A log that is shared answers the same; without such an index nothing is denied and nothing is at hand.
    let (shared, unknown) = (Arc::new(log), Key::Command(command(6)));
    assert!(MemoryIndex::may_have(&shared, Key::Command(command(5)), 4));
    assert!(!MemoryIndex::may_have(&shared, unknown, 0));
    assert!(MemoryIndex::has_head(&shared, &stream("ann")));
    assert!(!MemoryIndex::has_head(&shared, &stream("bob")));
    assert!(NoMemoryIndex.may_have(unknown, 0) && !NoMemoryIndex.has_head(&stream("ann")));
}

#[test]
fn the_ends_of_several_histories_that_were_looked_up_stay_in_memory() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    fill(&log, 5);
    for name in ["bob", "cat"] {
        assert!(!log.has_head(&stream(name)));
        assert_eq!(log.stream_head(&stream(name)).unwrap().version, 0);
    }
    assert!(["ann", "bob", "cat"].iter().all(|name| log.has_head(&stream(name))));
}

#[test]
fn a_history_is_read_in_pieces_of_any_length() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    fill(&log, 100);
    let records = all(&log);
    for after in [0, 1, 30, 31, 32, 70] {
        let behind = &records[after..];
        for limit in (0..=behind.len()).chain([1000]) {
            let read = log.read_stream(&stream("ann"), after as u64, limit).unwrap();
            assert!(read == behind[..limit.min(behind.len())], "{limit} after {after}");
        }
    }
}

/// A closed log of some records in a directory, with so many of them in each frame.
fn framed(dir: &Path, records: &[Record], in_a_frame: usize) {
    let options = JournalWriterOptions { segment_bytes: 4096, key: Some([7; 32]) };
    let mut writer = JournalWriter::create(dir, options).unwrap();
    records.chunks(in_a_frame).for_each(|frame| writer.append(frame).unwrap());
}

#[test]
fn an_index_of_other_places_in_a_whole_journal_is_made_anew() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let log = open(&path("from"));
    fill(&log, 60);
    let records = all(&log);
    drop(log);
    framed(&path("data"), &records, 1);
    framed(&path("other"), &records, 3);
    assert!(all(&open(&path("data"))) == records);
    fs::remove_dir_all(path("data/journal")).unwrap();
    fs::rename(path("other/journal"), path("data/journal")).unwrap();

    let log = open(&path("data"));

    for record in &records {
        let found = || match find_package(&log, &package(record.envelope.version)) {
            Err(ReadError::Damaged { seq, .. }) => panic!("record {seq} is whole"),
            found => found,
        };
        assert_eq!(in_the_end(found).as_ref(), Some(record));
    }
}

#[test]
fn a_history_with_a_record_that_the_index_has_lost_is_never_read_short() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let log = open(&path("from"));
    fill(&log, 60);
    append_at_head(&log, &[batch("bob", 0, vec![uploaded(1000, 40)])]).pop().unwrap().unwrap();
    let (mut records, other) = (all(&log), all(&log)[60].clone());
    drop(log);
    records.truncate(60);
    framed(&path("data"), &records, 1);
    let lost = records[29].clone();
    records[29] = Record { seq: 30, ..other };
    framed(&path("other"), &records, 1);
    drop(open(&path("other")));
    records[29] = lost;
    fs::rename(path("other/sled"), path("data/sled")).unwrap();

    let log = open(&path("data"));

    let read = || match log.read_stream(&stream("ann"), 0, 99) {
        Err(ReadError::Damaged { seq, .. }) => panic!("record {seq} is whole"),
        read => read,
    };
    assert!(in_the_end(read) == records);
}

#[test]
fn records_become_a_run_when_they_are_as_many_as_one_takes() {
    let dir = TempDir::new().unwrap();
    for (n_events, n_runs) in [(7, 0), (1, 1), (7, 1), (1, 2)] {
        fill(&open(dir.path()), n_events);
        drop(open(dir.path()));
        assert_eq!(runs(&dir).0.len(), n_runs);
    }
}

#[test]
fn eight_runs_of_one_level_become_one_of_the_next() {
    let dir = TempDir::new().unwrap();
    // An index that is built anew makes a run of each eight records. 63 is 77 in base eight.
    fill(&open(dir.path()), 63 * SMALL.seal_records);
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    drop(open(dir.path()));
    assert_eq!(runs(&dir).0.len(), 7 + 7);
}

#[test]
fn of_the_ends_of_a_history_a_merged_run_keeps_the_last() {
    let dir = TempDir::new().unwrap();
    fill(&open(dir.path()), 8 * SMALL.seal_records);
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    drop(open(dir.path()));
    let database = open_sled(dir.path());
    let runs: Vec<_> = database.scan_prefix(b"m").map(Result::unwrap).collect();
    let [(_, extent)] = &runs[..] else { panic!("{runs:?}") };
    let entries = u64::from_be_bytes(extent[8 + 4 * 8..][..8].try_into().unwrap());
    // Each record is found by its version, its command, its package and its init key.
    assert_eq!(entries, 4 * 8 * SMALL.seal_records + 1);
}

#[test]
fn what_is_read_while_runs_are_merged_is_right() {
    let (memory, dir) = (MemoryLog::default(), TempDir::new().unwrap());
    let log = open(dir.path());
    lengthen(&[&memory, &log], 1, 600);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    for record in memory.read(1, 600).unwrap() {
                        let envelope = &record.envelope;
                        assert_eq!(find_command(&log, envelope.command, 0).unwrap()[0], record);
                        let read = log.read_stream(&envelope.stream, envelope.version - 1, 1);
                        assert_eq!(read.unwrap()[0], record);
                    }
                }
            });
        }
        lengthen(&[&log], all(&memory).len() as u64 + 1, 3000);
        ended.store(true, Ordering::Relaxed);
    });
}

#[test]
fn pieces_of_a_run_that_was_never_finished_are_removed() {
    let dir = TempDir::new().unwrap();
    fill(&open(dir.path()), 100);
    let (known, pieces) = runs(&dir);
    assert_eq!(known, pieces, "nothing is left behind");
    let database = open_sled(dir.path());
    for kind in [b'c', b'f', b'b'] {
        let mut key = vec![kind];
        key.extend(9999_u64.to_be_bytes());
        key.extend(0_u32.to_be_bytes());
        database.insert(key, b"half a run").unwrap();
    }
    drop(database);

    let records = all(&open(dir.path()));

    assert_eq!(records.len(), 100);
    assert_eq!(runs(&dir), (known, pieces));
    assert!(!dir.path().join("sled.damaged").exists());
}

#[test]
fn a_missing_run_is_made_anew() {
    let dir = TempDir::new().unwrap();
    fill(&open(dir.path()), 100);
    for kind in [b"m", b"f", b"b"] {
        let copied = TempDir::new().unwrap();
        copy(dir.path(), copied.path());
        let database = open_sled(copied.path());
        let first = database.scan_prefix(kind).keys().next().unwrap().unwrap();
        database.remove(first).unwrap();
        drop(database);

        let log = open(copied.path());

        for record in all(&log) {
            let n = record.envelope.version;
            assert_eq!(find_command(&log, command(n), 0).unwrap(), slice::from_ref(&record));
            assert_eq!(find_package(&log, &package(n)).unwrap(), Some(record));
        }
        assert!(copied.path().join("sled.damaged").exists());
    }
}

/// Alters the entries in each piece of an index, whose checks are right.
fn alter_entries(log: &Path, alter: impl Fn(&mut Vec<[u8; 31]>)) {
    let database = open_sled(log);
    for (key, value) in database.scan_prefix(b"c").map(Result::unwrap) {
        let mut entries = value[8..].as_chunks().0.to_vec();
        alter(&mut entries);
        let entries = entries.concat();
        let len = u32::try_from(key.len()).unwrap().to_be_bytes();
        let check = blake3::Hasher::new().update(&len).update(&key).update(&entries).finalize();
        database.insert(key, [&check.as_bytes()[..8], &entries].concat()).unwrap();
    }
}

/// Checks that a log with a damaged index finds each record in the end, and never another one or none.
fn finds_all_in_the_end(dir: &Path) {
    let log = SledLog::open(dir, LONG_SEGMENTS).unwrap();
    for record in all(&log) {
        let found = in_the_end(|| find_command(&log, record.envelope.command, 0));
        assert_eq!(found, slice::from_ref(&record));
    }
    assert!(dir.join("sled.damaged").exists());
}

const LONG_SEGMENTS: SledLogOptions = SledLogOptions { segment_bytes: 1 << 20, ..SMALL };

#[test]
fn a_piece_of_a_run_that_lacks_its_first_entry_is_never_served() {
    let dir = TempDir::new().unwrap();
    fill(&SledLog::open(dir.path(), LONG_SEGMENTS).unwrap(), 100);
    alter_entries(dir.path(), |entries| {
        entries.remove(0);
    });
    finds_all_in_the_end(dir.path());
}

#[test]
fn an_entry_that_leads_to_another_record_is_never_served() {
    let dir = TempDir::new().unwrap();
    fill(&SledLog::open(dir.path(), LONG_SEGMENTS).unwrap(), 100);
    alter_entries(dir.path(), |entries| {
        let offsets: Vec<[u8; 4]> =
            entries.iter().map(|entry| entry[23..27].try_into().unwrap()).collect();
        for (entry, offset) in entries.iter_mut().zip(offsets.iter().cycle().skip(1)) {
            entry[23..27].copy_from_slice(offset);
        }
    });
    finds_all_in_the_end(dir.path());
}

/// As a log of millions of events is opened: only its end is looked at.
const HURRIED: SledLogOptions = SledLogOptions { check_bytes: 4096, ..SMALL };

#[test]
fn an_old_segment_that_is_damaged_stops_the_log() {
    let dir = TempDir::new().unwrap();
    fill(&open(dir.path()), 100);
    let path = &segments(dir.path())[1];
    let mut bytes = fs::read(path).unwrap();
    bytes[200] ^= 1;
    fs::write(path, bytes).unwrap();

    let log = SledLog::open(dir.path(), HURRIED).unwrap();

    // The thread that finds it works behind: until it has, events are taken.
    let n = Cell::new(100);
    let error = in_the_end(|| {
        let events = vec![uploaded(n.get() + 1, 40)];
        match append_at_head(&log, &[batch("ann", n.get(), events)]).pop().unwrap() {
            Ok(_) => Err(format!("record {} was taken", n.replace(n.get() + 1) + 1)),
            Err(error) => Ok(error),
        }
    });
    let cause = std::error::Error::source(&error).unwrap();
    let why = cause.source().unwrap().to_string();
    assert!(why.contains(path.file_name().unwrap().to_str().unwrap()), "{why}");
    assert_eq!(log.read(n.get(), 1).unwrap().len(), 1, "what was acknowledged is readable");
    assert!(matches!(log.health(), LogHealth::Failed { .. }), "{:?}", log.health());
    drop(log);
    let refused = SledLog::open(dir.path(), SMALL).unwrap_err().to_string();
    assert!(refused.contains("hash"), "{refused}");
}

/// The damaged index is built anew from a journal that has been damaged since the open.
#[test]
fn a_rebuild_that_finds_the_journal_damaged_stops_the_log() {
    let dir = TempDir::new().unwrap();
    fill(&open(dir.path()), 100);
    let database = open_sled(dir.path());
    for (key, mut value) in database.scan_prefix(b"c").map(Result::unwrap) {
        value[0] ^= 1;
        database.insert(key, value).unwrap();
    }
    drop(database);
    let log = open(dir.path());
    let path = &segments(dir.path())[1];
    let mut bytes = fs::read(path).unwrap();
    bytes[200] ^= 1;
    fs::write(path, bytes).unwrap();

    assert!(find_command(&log, command(1), 0).is_err(), "the index is found damaged");

    let why = in_the_end(|| match log.health() {
        LogHealth::Failed { why } => Ok(why),
        health => Err(format!("{health:?}")),
    });
    assert!(why.contains(path.file_name().unwrap().to_str().unwrap()), "{why}");
    assert_eq!(log.read(100, 1).unwrap().len(), 1, "what is whole is readable");
}

#[test]
fn the_end_of_the_journal_is_checked_whatever_its_length() {
    let dir = TempDir::new().unwrap();
    fill(&open(dir.path()), 100);
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[200] ^= 1;
    fs::write(&path, bytes).unwrap();

    assert!(SledLog::open(dir.path(), HURRIED).is_err());
}

#[test]
fn snapshots_outlive_the_log_and_are_lost_with_the_database() {
    let dir = TempDir::new().unwrap();
    let kept = Snapshot { name: b"one".to_vec(), bytes: vec![7; 10_000] };
    open(dir.path()).put(vec![kept.clone()]).unwrap();
    assert_eq!(open(dir.path()).list(b"o", None, 9).unwrap(), [kept]);

    fs::remove_dir_all(dir.path().join("sled")).unwrap();

    assert_eq!(open(dir.path()).get(b"one").unwrap(), None);
}
