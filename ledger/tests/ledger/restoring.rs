//! Reading a log beside its server, and writing one anew from the records of another.

use std::{fs, ops::ControlFlow};

use keypool_ledger::{JournalReader, JournalWriter, JournalWriterOptions, OpenError, ReadLock};
use tempfile::TempDir;

use super::support::{all, fill, open, read_journal, segments, try_append};

#[test]
fn a_log_opens_on_records_that_were_restored_and_goes_on() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let log = open(from.path());
    fill(&log, 30);
    let records = all(&log);
    let options = JournalWriterOptions { segment_bytes: 4096, key: None };
    let mut writer = JournalWriter::create(to.path(), options).unwrap();
    writer.append(&[]).unwrap();
    records.chunks(7).for_each(|frame| writer.append(frame).unwrap());
    drop(writer);

    assert_eq!(read_journal(to.path()).unwrap(), records);
    let restored = open(to.path());
    assert_eq!(all(&restored), records);
    assert_eq!(try_append(&restored, 40).unwrap(), 31);
    assert!(1 < segments(to.path()).len(), "several segments are restored");
}

#[test]
fn nothing_is_restored_over_a_journal_that_is_there() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    let refused = JournalWriter::create(dir.path(), JournalWriterOptions::default());
    assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{refused:?}");
}

#[test]
fn the_same_records_with_the_same_key_give_the_same_files() {
    let from = TempDir::new().unwrap();
    let log = open(from.path());
    fill(&log, 10);
    let written = |key| {
        let dir = TempDir::new().unwrap();
        let options = JournalWriterOptions { segment_bytes: 4096, key };
        let mut writer = JournalWriter::create(dir.path(), options).unwrap();
        writer.append(&all(&log)).unwrap();
        fs::read(&segments(dir.path())[0]).unwrap()
    };
    assert!(written(Some([1; 32])) == written(Some([1; 32])));
    assert!(written(None) != written(None), "a journal in use has a key of its own");
}

#[test]
fn what_is_shown_undecoded_stands_where_it_says() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    fill(&log, 20);
    let mut journal = JournalReader::open(&dir.path().join("journal")).unwrap();
    let mut shown = 0;
    journal
        .visit(&mut |raw| {
            shown += 1;
            assert_eq!(raw.seq, shown);
            let bytes = fs::read(raw.file).unwrap();
            let at = usize::try_from(raw.offset).unwrap();
            // A length of four bytes stands before the envelope.
            let stored = &bytes[at + 4..at + 4 + raw.envelope_bytes.len()];
            assert_eq!(stored, raw.envelope_bytes);
            if shown == 15 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(shown, 15, "it breaks off where it is told to");
}

#[test]
fn a_cut_end_is_doubtful_and_a_whole_one_is_not() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    fill(&log, 3);
    drop(log);
    let doubt = || {
        let mut journal = JournalReader::open(&dir.path().join("journal")).unwrap();
        journal.visit(&mut |_| ControlFlow::Continue(())).unwrap();
        journal.doubt()
    };
    assert_eq!(doubt(), None);
    let segment = segments(dir.path()).pop().unwrap();
    let bytes = fs::read(&segment).unwrap();
    fs::write(&segment, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(doubt(), Some("the last segment is shorter than it was made"));
    fs::write(&segment, bytes).unwrap();
    fs::remove_file(dir.path().join("journal/acknowledged")).unwrap();
    assert_eq!(doubt(), Some("the file is missing"));
}

#[test]
fn a_directory_is_read_only_while_nobody_has_it_open() {
    let dir = TempDir::new().unwrap();
    ReadLock::take(dir.path()).expect("a copy needs no lock file");
    let log = open(dir.path());
    let refused = ReadLock::take(dir.path());
    let holder = Some(std::process::id());
    assert!(matches!(&refused, Err(OpenError::Locked { holder: by, .. }) if *by == holder));
    drop(log);
    let (one, two) = (ReadLock::take(dir.path()).unwrap(), ReadLock::take(dir.path()).unwrap());
    let opened = keypool_ledger::SledLog::open(dir.path(), super::support::SMALL);
    assert!(matches!(opened, Err(OpenError::Locked { .. })), "nor opened while it is read");
    drop((one, two));
    open(dir.path());
}
