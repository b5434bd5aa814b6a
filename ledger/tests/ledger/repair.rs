//! Damaged segments that are put back from a backup.

use std::{
    fs,
    path::{Path, PathBuf},
};

use keypool_ledger::{OpenError, RepairError, RepairReport, repair_journal};
use tempfile::TempDir;

use super::support::{all, copy, fill, open, read_journal, refusal, segments, try_append};

/// A log that went on after a backup, and is closed now.
struct Kept {
    dir: TempDir,
}

impl Kept {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let kept = Self { dir };
        let log = open(&kept.data());
        fill(&log, 100);
        log.backup(&kept.backup(), &[], &|| true).unwrap();
        fill(&log, 60);
        drop(log);
        assert!(6 < segments(&kept.data()).len() && 4 < segments(&kept.backup()).len());
        kept
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn backup(&self) -> PathBuf {
        self.dir.path().join("backup")
    }

    fn repair(&self) -> Result<RepairReport, RepairError> {
        repair_journal(&self.data(), &self.backup())
    }
}

/// Every file of a journal with its bytes.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(dir.join("journal")).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn flip(file: &Path, place: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[place] ^= 8;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_damaged_segment_is_put_back_and_nothing_else_is_touched() {
    let kept = Kept::new();
    let (records, whole) = (read_journal(&kept.data()).unwrap(), files(&kept.data()));
    let damaged = &segments(&kept.data())[..4];
    for file in damaged {
        let used = fs::read(file).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
        for place in (0..=used).step_by(61) {
            flip(file, place);
            let report = kept.repair().unwrap_or_else(|error| panic!("{place}: {error:?}"));
            let [repaired] = &report.repaired[..] else { panic!("{place}: {report:?}") };
            assert_eq!((&repaired.file, report.last_seq), (file, 160));
            let name = file.file_stem().unwrap().to_str().unwrap();
            assert_eq!(repaired.first_seq, name.parse::<u64>().unwrap());
            assert!(repaired.fault.starts_with("damaged at byte "), "{}", repaired.fault);
            assert!(files(&kept.data()) == whole, "byte {place} of {}", file.display());
        }
    }
    assert_eq!(kept.repair().unwrap(), RepairReport { repaired: Vec::new(), last_seq: 160 });
    let log = open(&kept.data());
    assert_eq!(all(&log), records);
    assert_eq!(try_append(&log, 40).unwrap(), 161);
}

#[test]
fn missing_cut_and_emptied_segments_are_put_back_at_once() {
    let kept = Kept::new();
    let whole = files(&kept.data());
    let damaged = segments(&kept.data());
    let empty = |file: &Path| {
        let mut bytes = fs::read(file).unwrap();
        let half = bytes.len() / 2;
        bytes[half..].fill(0);
        fs::write(file, bytes).unwrap();
    };
    fs::remove_file(&damaged[0]).unwrap();
    fs::remove_file(&damaged[1]).unwrap();
    fs::write(&damaged[2], fs::read(&damaged[2]).unwrap().split_at(900).0).unwrap();
    empty(&damaged[3]);
    let report = kept.repair().unwrap();
    let repaired: Vec<_> = report.repaired.iter().map(|segment| segment.file.clone()).collect();
    assert_eq!(repaired, damaged[..4]);
    assert_eq!(report.repaired[0].fault, "missing");
    assert!(files(&kept.data()) == whole);
    // One segment is missing between whole ones, and the end of one was never written, to a frame.
    fs::remove_file(&damaged[1]).unwrap();
    let mut bytes = fs::read(&damaged[3]).unwrap();
    let second = 120 + 56 + 32 + usize::from(u16::from_be_bytes([bytes[130], bytes[131]]));
    bytes[second..].fill(0);
    fs::write(&damaged[3], bytes).unwrap();
    let report = kept.repair().unwrap();
    let [missing, ended] = &report.repaired[..] else { panic!("{report:?}") };
    assert_eq!((&missing.file, &ended.file), (&damaged[1], &damaged[3]));
    assert!(ended.fault.contains("it ends at record "), "{}", ended.fault);
    assert!(files(&kept.data()) == whole);
    // A file that an interrupted repair has left is no obstacle, and goes with the next start.
    flip(&damaged[1], 300);
    fs::write(damaged[1].with_extension("repair.new"), b"half").unwrap();
    kept.repair().unwrap();
    assert!(files(&kept.data()) == whole);
}

#[test]
fn a_segment_that_cannot_be_read_is_put_back_and_the_reason_is_told() {
    let kept = Kept::new();
    let whole = files(&kept.data());
    let segment = &segments(&kept.data())[1];
    fs::remove_file(segment).unwrap();
    std::os::unix::fs::symlink(segment, segment).unwrap();

    let report = kept.repair().unwrap();

    let [repaired] = &report.repaired[..] else { panic!("{report:?}") };
    let expected = format!("{} cannot be read or written: ", segment.display());
    assert!(repaired.fault.starts_with(&expected), "{}", repaired.fault);
    assert!(files(&kept.data()) == whole);
}

#[test]
fn a_segment_of_zeros_behind_its_header_is_put_back() {
    let kept = Kept::new();
    let whole = files(&kept.data());
    let segment = &segments(&kept.data())[1];
    let mut bytes = fs::read(segment).unwrap();
    bytes[120..].fill(0);
    fs::write(segment, bytes).unwrap();

    let report = kept.repair().unwrap();

    let [repaired] = &report.repaired[..] else { panic!("{report:?}") };
    assert!(repaired.fault.contains("no record stands in it"), "{}", repaired.fault);
    assert!(files(&kept.data()) == whole);
}

#[test]
fn what_does_not_fit_is_not_put_there() {
    let kept = Kept::new();
    let data = kept.data();
    let damaged = segments(&data);
    let unchanged = |refused: &dyn Fn() -> RepairError| {
        let before = files(&data);
        let error = refused();
        assert!(files(&data) == before, "{error}");
        error
    };
    let repair = |backup: &Path| repair_journal(&data, backup).unwrap_err();

    // The backup was made before the segment was closed.
    let after = damaged.len() - 2;
    flip(&damaged[after], 500);
    let error = unchanged(&|| repair(&kept.backup()));
    assert!(matches!(error, RepairError::Unfit { .. }), "{error}");
    flip(&damaged[after], 500);
    // The last segment is in no backup.
    flip(damaged.last().unwrap(), 130);
    let error = unchanged(&|| repair(&kept.backup()));
    assert!(matches!(error, RepairError::Beyond(OpenError::Damaged { .. })), "{error}");
    flip(damaged.last().unwrap(), 130);
    // The backup is of another log, or damaged there too.
    flip(&damaged[1], 700);
    let other = Kept::new();
    let error = unchanged(&|| repair(&other.backup()));
    assert!(matches!(error, RepairError::OtherLog { .. }), "{error}");
    flip(&segments(&kept.backup())[1], 710);
    let error = unchanged(&|| repair(&kept.backup()));
    let RepairError::Unfit { file, why } = &error else { panic!("{error}") };
    assert_eq!((file, why.contains("is damaged at byte")), (&segments(&kept.backup())[1], true));
    flip(&segments(&kept.backup())[1], 710);
    // The backup has another segment under that name.
    let swapped = TempDir::new().unwrap();
    copy(&kept.backup(), swapped.path());
    fs::copy(&segments(&kept.backup())[2], &segments(swapped.path())[1]).unwrap();
    let error = unchanged(&|| repair(swapped.path()));
    assert!(matches!(error, RepairError::Unfit { .. }), "{error}");

    let log = open(&kept.backup());
    let error = unchanged(&|| repair(&kept.backup()));
    assert!(matches!(error, RepairError::Open(OpenError::Locked { .. })), "{error}");
    drop(log);
    assert!(matches!(refusal(&data), OpenError::Damaged { .. }));
    repair_journal(&data, &kept.backup()).unwrap();
    // An open log makes its next segment in the background, so files may come.
    let log = open(&data);
    let error = repair(&kept.backup());
    assert!(matches!(error, RepairError::Open(OpenError::Locked { .. })), "{error}");
    drop(log);
    let nothing = TempDir::new().unwrap();
    let error = repair_journal(nothing.path(), &kept.backup()).unwrap_err();
    assert!(matches!(error, RepairError::Open(OpenError::Io { .. })), "{error}");
    assert_eq!(fs::read_dir(nothing.path()).unwrap().count(), 0, "nothing was made there");
}

#[test]
fn a_log_that_parted_from_its_backup_is_not_mixed_with_it() {
    let kept = Kept::new();
    // The same journal goes on in two copies.
    let other = TempDir::new().unwrap();
    copy(&kept.backup(), other.path());
    let log = open(other.path());
    for _ in 0..60 {
        try_append(&log, 47).unwrap();
    }
    drop(log);
    let parted = segments(&kept.backup()).len() - 1;
    let damaged = &segments(&kept.data())[parted];
    flip(damaged, 1000);
    let before = files(&kept.data());
    let error = repair_journal(&kept.data(), other.path()).unwrap_err();
    assert!(matches!(error, RepairError::Unfit { .. }), "{error}");
    assert!(files(&kept.data()) == before);
}
