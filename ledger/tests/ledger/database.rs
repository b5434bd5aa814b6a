//! The database beneath a log may be lost, damaged, old or another's: the journal makes it good.

use std::{fs, path::Path, slice, thread};

use keypool_ledger::{
    EventLog, LogHealth, OpenError, ReadError, Record, SledLog, SledLogOptions,
    log::{append_at_head, find_command, find_package, read_record},
};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use super::support::{
    SMALL, all, batch, command, copy, fill, in_the_end, open, open_sled, package, refusal, stream,
    try_append, uploaded,
};

/// Checks that a log serves exactly these records, by every way of reading, and can go on.
fn serves(dir: &Path, expected: &[Record]) {
    let log = open(dir);
    assert_eq!(all(&log), expected);
    for record in expected {
        let n = record.envelope.version;
        assert_eq!(find_command(&log, command(n), 0).unwrap(), slice::from_ref(record));
        assert_eq!(find_package(&log, &package(n)).unwrap().as_ref(), Some(record));
        assert_eq!(read_record(&log, record.seq).unwrap().as_ref(), Some(record));
    }
    assert_eq!(log.read_stream(&stream("ann"), 0, 999).unwrap(), expected);
    assert_eq!(try_append(&log, 40).unwrap(), expected.len() as u64 + 1);
}

/// A closed log and its records.
fn filled(n_events: u64) -> (TempDir, Vec<Record>) {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    fill(&log, n_events);
    let records = all(&log);
    (dir, records)
}

#[test]
fn a_lost_database_is_built_anew() {
    let (dir, records) = filled(30);
    fs::remove_dir_all(dir.path().join("sled")).unwrap();

    serves(dir.path(), &records);
}

#[test]
fn a_database_of_garbage_is_built_anew() {
    for garbage in [vec![], vec![0; 70_000], vec![0xa5; 70_000]] {
        for file in ["db", "conf"] {
            let (dir, records) = filled(30);
            fs::write(dir.path().join("sled").join(file), &garbage).unwrap();

            serves(dir.path(), &records);
        }
    }
}

#[test]
fn a_damaged_database_is_built_anew_or_read_rightly() {
    let (dir, records) = filled(30);
    let files: Vec<_> = fs::read_dir(dir.path().join("sled")).unwrap().flatten().collect();
    for file in files.iter().filter(|file| file.path().is_file()) {
        let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
        for n in 0..6 {
            let copied = TempDir::new().unwrap();
            copy(dir.path(), copied.path());
            let path = copied.path().join("sled").join(file.file_name());
            let mut bytes = fs::read(&path).unwrap();
            if n < 4 {
                bytes[(len - 1).min(n * 1171)] ^= 0x10;
            } else {
                bytes.truncate(len * (n - 3) / 4);
            }
            fs::write(&path, bytes).unwrap();

            let reads = |log: &dyn EventLog| log.read(1, 99).ok();
            let first = reads(&open(copied.path()));
            // A page that turns out damaged only when it is read is made good at the next open.
            assert!(first.is_none_or(|read| read == records), "{path:?}");
            serves(copied.path(), &records);
        }
    }
}

#[test]
fn a_database_that_failed_a_reader_is_built_anew() {
    let (dir, records) = filled(5);
    let distrusted = dir.path().join("sled.distrusted");
    fs::write(&distrusted, []).unwrap();

    serves(dir.path(), &records);
    assert!(!distrusted.exists());
    assert!(dir.path().join("sled.damaged").exists(), "the old one is kept beside it");
}

#[test]
fn a_database_that_failed_a_reader_and_is_gone_is_built_anew() {
    let (dir, records) = filled(5);
    fs::write(dir.path().join("sled.distrusted"), []).unwrap();
    fs::remove_dir_all(dir.path().join("sled")).unwrap();

    serves(dir.path(), &records);
}

#[test]
fn a_database_that_has_lost_the_number_of_its_layout_serves_what_it_holds() {
    let (dir, records) = filled(30);
    open_sled(dir.path()).remove(b"l").unwrap();

    serves(dir.path(), &records);
}

#[test]
fn a_database_of_fingerprints_with_another_length_is_built_anew() {
    let (dir, mut records) = filled(30);
    for fingerprint_bits in [16, 128] {
        let log = SledLog::open(dir.path(), SledLogOptions { fingerprint_bits, ..SMALL }).unwrap();
        for record in &records {
            let found = find_command(&log, record.envelope.command, 0).unwrap();
            assert_eq!(found, slice::from_ref(record));
        }
        assert!(!dir.path().join("sled.damaged").exists(), "nothing of it was damaged");
        try_append(&log, 40).unwrap();
        records = all(&log);
    }
    drop(records);
}

/// Alters every value of the index in a closed log.
fn alter_the_index(dir: &Path) {
    let database = open_sled(dir);
    for (key, mut value) in database.scan_prefix(b"c").map(Result::unwrap) {
        *value.last_mut().unwrap() ^= 1;
        database.insert(key, value).unwrap();
    }
}

#[test]
fn a_disk_that_refuses_another_index_keeps_no_log_from_taking_events() {
    let (dir, records) = filled(30);
    alter_the_index(dir.path());
    let log = open(dir.path());
    // The log probes the disk with this file: the write waits for a reader, and fails when that is gone.
    let probe = dir.path().join("probe.new");
    mknodat(CWD, &probe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();

    find_command(&log, command(3), 0).unwrap_err();
    drop(fs::File::open(&probe).unwrap());

    let found = in_the_end(|| find_command(&log, command(3), 0));
    assert_eq!(found, slice::from_ref(&records[2]), "it is tried again");
    assert_eq!(log.health(), LogHealth::Writable);
    assert_eq!(try_append(&log, 40).unwrap(), 31);
}

#[test]
fn an_altered_value_is_never_served() {
    let (dir, records) = filled(30);
    alter_the_index(dir.path());

    let log = open(dir.path());
    let read = find_command(&log, command(3), 0);
    assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
    assert_eq!(log.read(1, 99).unwrap(), records, "no index is needed to read in order");
    let read = in_the_end(|| find_command(&log, command(3), 0));
    assert_eq!(read, slice::from_ref(&records[2]), "another index is built while the log is open");
    assert_eq!(try_append(&log, 40).unwrap(), 31);
    let records = all(&log);
    drop(log);
    serves(dir.path(), &records);
}

#[test]
fn an_unfinished_snapshot_is_removed() {
    let (dir, records) = filled(5);
    let unfinished = dir.path().join("sled/snap.0000000000000123.generating");
    fs::write(&unfinished, [1; 50]).unwrap();

    serves(dir.path(), &records);
    assert!(!unfinished.exists());
    assert!(!dir.path().join("sled.damaged").exists(), "the rest was used");
}

#[test]
fn an_older_database_is_caught_up() {
    let (dir, _) = filled(10);
    let older = TempDir::new().unwrap();
    copy(&dir.path().join("sled"), older.path());
    fill(&open(dir.path()), 20);
    let records = all(&open(dir.path()));
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    copy(older.path(), &dir.path().join("sled"));

    serves(dir.path(), &records);
}

#[test]
fn an_older_journal_is_refused() {
    let (dir, _) = filled(10);
    let older = TempDir::new().unwrap();
    copy(&dir.path().join("journal"), older.path());
    fill(&open(dir.path()), 20);
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    copy(older.path(), &dir.path().join("journal"));

    let err = refusal(dir.path());

    assert!(matches!(err, OpenError::LedgerTruncated { expected: 30, found: 10 }));
    assert_eq!(
        err.to_string(),
        "the ledger ends at record 10, but record 30 was acknowledged; \
         nothing was changed, restore a newer copy of its directory"
    );
}

#[test]
fn a_database_of_another_history_is_built_anew() {
    let other = TempDir::new().unwrap();
    // The other log is shorter than this one, and then longer.
    for n_events in [20, 40] {
        let (dir, records) = filled(30);
        let log = open(other.path());
        for n in log.head().unwrap().seq..n_events {
            let call = [batch("bob", n, vec![uploaded(n + 1, 7)])];
            append_at_head(&log, &call).pop().unwrap().unwrap();
        }
        drop(log);
        fs::remove_dir_all(dir.path().join("sled")).unwrap();
        copy(&other.path().join("sled"), &dir.path().join("sled"));

        serves(dir.path(), &records);
        assert_eq!(open(dir.path()).read_stream(&stream("bob"), 0, 9).unwrap(), []);
    }
}

#[test]
fn a_database_of_a_copy_that_has_parted_from_the_log_is_built_anew() {
    let (dir, parted) = (filled(10).0, TempDir::new().unwrap());
    copy(dir.path(), parted.path());
    fill(&open(dir.path()), 20);
    let records = all(&open(dir.path()));
    let log = open(parted.path());
    for n in 10..30 {
        append_at_head(&log, &[batch("ann", n, vec![uploaded(n + 100, 40)])])
            .pop()
            .unwrap()
            .unwrap();
    }
    drop(log);
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    copy(&parted.path().join("sled"), &dir.path().join("sled"));

    serves(dir.path(), &records);
}

#[test]
fn a_log_waits_for_a_database_that_is_still_being_closed() {
    let (dir, records) = filled(5);
    let closing = open_sled(dir.path());
    // An open removes this file just before it asks for the database's lock.
    let unfinished = dir.path().join("sled/snap.0000000000000123.generating");
    fs::write(&unfinished, [1; 50]).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| serves(dir.path(), &records));
        in_the_end(|| if unfinished.exists() { Err("it does not open yet") } else { Ok(()) });
        drop(closing);
    });
    assert!(!dir.path().join("sled.damaged").exists(), "the same database was used");
}

#[test]
fn the_database_keeps_no_files_that_it_never_forces_to_the_disk() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    for n in 0..6 {
        let events = (0..64).map(|m| uploaded(64 * n + m, 16_384)).collect();
        append_at_head(&log, &[batch("ann", 64 * n, events)]).pop().unwrap().unwrap();
    }
    try_append(&log, 1_000_000).unwrap();
    drop(log);

    assert_eq!(fs::read_dir(dir.path().join("sled/blobs")).unwrap().count(), 0);
}
