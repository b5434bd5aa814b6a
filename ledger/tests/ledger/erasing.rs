//! Payloads that are overwritten in the directory of a log that nobody has open.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    path::Path,
};

use keypool_ledger::{OpenError, erase_payloads};
use tempfile::TempDir;

use super::support::{SMALL, all, fill, open, read_journal, segments, try_append};

/// A log of some segments with a long payload in the middle and at the end, and records behind them in another
/// segment. Returns the positions of the two.
fn log_with_payloads(dir: &Path) -> BTreeSet<u64> {
    let log = open(dir);
    fill(&log, 40);
    let first = try_append(&log, 900).unwrap();
    fill(&log, 40);
    let second = try_append(&log, 901).unwrap();
    let due: BTreeSet<u64> = [first, second].into();
    log.prune(&due, &|| false).unwrap();
    fill(&log, 2);
    due
}

/// Whether a file of the directory has the payload of a position, of a length.
fn holds(dir: &Path, position: u64, len: usize) -> bool {
    let files = fs::read_dir(dir.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| fs::read(path).unwrap()).any(|bytes| has(&bytes, position, len))
}

/// Whether some bytes have the payload of a position, of a length.
fn has(bytes: &[u8], position: u64, len: usize) -> bool {
    let payload: Vec<u8> = position.to_be_bytes().into_iter().cycle().take(len).collect();
    bytes.windows(len).any(|part| part == payload)
}

#[test]
fn payloads_are_gone_from_the_files_and_everything_else_is_there() {
    let dir = TempDir::new().unwrap();
    let due = log_with_payloads(dir.path());
    let before = read_journal(dir.path()).unwrap();
    assert!(due.iter().zip([900, 901]).all(|(seq, len)| holds(dir.path(), *seq, len)));
    // Open files are read after they have lost their names.
    let as_they_were: Vec<File> =
        segments(dir.path()).iter().map(|path| File::open(path).unwrap()).collect();
    let has_payload = |mut file: &File| {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        due.iter().zip([900, 901]).any(|(seq, len)| has(&bytes, *seq, len))
    };

    let report = erase_payloads(dir.path(), SMALL, &due).unwrap();

    assert_eq!((report.segments, report.payload_bytes), (2, 1801));
    assert!(!due.iter().zip([900, 901]).any(|(seq, len)| holds(dir.path(), *seq, len)));
    assert!(!as_they_were.iter().any(has_payload), "the old files are overwritten");
    assert!(!dir.path().join("sled").exists());
    let log = open(dir.path());
    for (old, new) in before.iter().zip(all(&log)) {
        let payload = if due.contains(&old.seq) { &[] } else { old.payload.as_slice() };
        assert_eq!((&old.envelope_bytes, payload), (&new.envelope_bytes, new.payload.as_slice()));
    }
    fill(&log, 3);
    drop(log);
    assert_eq!(erase_payloads(dir.path(), SMALL, &due).unwrap().segments, 0, "it is done");
}

#[test]
fn a_call_that_broke_off_is_made_good_by_the_next() {
    let dir = TempDir::new().unwrap();
    let due = log_with_payloads(dir.path());
    let [live, other] = [0, 1].map(|n| segments(dir.path())[n].clone());
    // One link to a segment that is still in use, and one to a file from before that is not any more.
    let (linked, left) = (live.with_extension("erased"), other.with_extension("erased"));
    fs::hard_link(&live, &linked).unwrap();
    fs::write(&left, "a segment as it was").unwrap();
    let before = fs::read(&live).unwrap();

    erase_payloads(dir.path(), SMALL, &BTreeSet::new()).unwrap();

    assert!(!linked.exists() && !left.exists());
    assert_eq!(fs::read(&live).unwrap(), before, "a segment in use is not overwritten");
    assert_eq!(erase_payloads(dir.path(), SMALL, &due).unwrap().segments, 2);
}

#[test]
fn the_last_record_and_an_open_log_are_refused() {
    let dir = TempDir::new().unwrap();
    let mut due = log_with_payloads(dir.path());
    let log = open(dir.path());
    let refused = erase_payloads(dir.path(), SMALL, &due).unwrap_err();
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
    due.insert(try_append(&log, 902).unwrap());
    drop(log);
    let refused = erase_payloads(dir.path(), SMALL, &due).unwrap_err();
    assert!(refused.to_string().contains("journal"), "{refused}");
    assert_eq!(read_journal(dir.path()).unwrap().last().unwrap().payload.len(), 902);
}
