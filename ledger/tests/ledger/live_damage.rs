//! Journals that are damaged beneath an open log.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
};

use keypool_ledger::{EventLog, Key, ReadError, Record, SledLog, log::find_package};
use tempfile::TempDir;

use super::support::{all, fill, open, package, read_journal, segments, try_append};

/// The bytes of a segment before its first frame.
const HEADER_LEN: usize = 120;

fn overwrite(file: &Path, place: usize, bytes: &[u8]) {
    let file = File::options().write(true).open(file).unwrap();
    file.write_all_at(bytes, place as u64).unwrap();
}

/// An open log with a number of frames, which was opened again.
fn filled(n_events: u64) -> (TempDir, SledLog) {
    let dir = TempDir::new().unwrap();
    fill(&open(dir.path()), n_events);
    let log = open(dir.path());
    (dir, log)
}

/// The place of some bytes in a file.
fn place_of(file: &Path, bytes: &[u8]) -> usize {
    let within = fs::read(file).unwrap();
    within.windows(bytes.len()).position(|window| window == bytes).unwrap()
}

/// Finds a record by its package.
fn find(log: &SledLog, record: &Record) -> Result<Option<Record>, ReadError> {
    find_package(log, &package(record.envelope.version))
}

/// Checks that a record is told to be damaged.
fn is_damaged(log: &SledLog, record: &Record) {
    let refused = find(log, record).unwrap_err();
    assert!(matches!(refused, ReadError::Damaged { seq, .. } if seq == record.seq), "{refused:?}");
}

#[test]
fn a_frame_that_is_numbered_wrongly_beneath_an_open_log_ends_the_reading_behind_it() {
    let (dir, log) = filled(40);
    let path = segments(dir.path()).remove(0);
    let body_len = fs::read(&path).unwrap()[HEADER_LEN + 8..HEADER_LEN + 12].try_into().unwrap();
    let second = HEADER_LEN + 56 + usize::try_from(u32::from_be_bytes(body_len)).unwrap() + 32;
    overwrite(&path, second + 16, &9_u64.to_be_bytes());

    assert_eq!(log.read(1, 1).unwrap().len(), 1);
    for seq in [2, 3] {
        let refused = log.read(seq, 1).unwrap_err();
        assert!(matches!(refused, ReadError::Damaged { seq: 2, .. }), "{refused:?}");
    }
}

#[test]
fn a_record_whose_payload_has_changed_is_damaged() {
    let (dir, log) = filled(40);
    let record = &all(&log)[0];
    let path = &segments(dir.path())[0];
    let place = place_of(path, &record.payload);
    overwrite(path, place + 9, &[0xee]);
    is_damaged(&log, record);
    overwrite(path, place + 9, &record.payload[9..10]);
    assert_eq!(find(&log, record).unwrap().as_ref(), Some(record));
}

#[test]
fn a_record_that_is_cut_off_is_damaged() {
    for payload_len in [40, 3000] {
        let dir = TempDir::new().unwrap();
        let log = open(dir.path());
        try_append(&log, payload_len).unwrap();
        let record = &all(&log)[0];
        let path = &segments(dir.path())[0];
        let payload = place_of(path, &record.payload);
        let file = File::options().write(true).open(path).unwrap();
        for len in [payload + payload_len - 1, payload, payload - 2, payload - 90] {
            file.set_len(len as u64).unwrap();
            is_damaged(&log, record);
        }
    }
}

#[test]
fn a_directory_in_the_place_of_a_segment_cannot_be_read() {
    let (dir, log) = filled(40);
    let records = read_journal(dir.path()).unwrap();
    let path = &segments(dir.path())[0];
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
    let refused = find(&log, &records[0]).unwrap_err();
    assert!(matches!(refused, ReadError::Unavailable(_)), "{refused:?}");
}

#[test]
fn a_look_behind_the_last_record_of_a_package_reads_nothing() {
    let (dir, log) = filled(40);
    let record = &all(&log)[0];
    let path = &segments(dir.path())[0];
    overwrite(path, place_of(path, &record.payload), &[0xee]);
    let named = package(1);
    assert!(log.find(Key::Package(&named), 0, 1).is_err());
    for after in [1, 2, 40] {
        assert_eq!(log.find(Key::Package(&named), after, 1).unwrap(), []);
    }
}
