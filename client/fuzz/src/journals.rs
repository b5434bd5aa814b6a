//! The scan of a journal whose files were changed.

use std::fs;

use keypool_ledger::{JournalReader, Record};

use super::{
    base_journal::{
        BaseJournal, JournalChanges, base_journals, change_journal, temporary_dir, write_files,
    },
    input::InputReader,
};

/// Reads a journal of which an input has changed, cut, removed or forged files. Unless it was forged, each record is
/// one that was written, in its place, and a loss is not silent. With a first byte of `0xff` the rest of the input
/// is the only segment.
pub fn journal(bytes: &[u8]) {
    if let Some(rest) = bytes.strip_prefix(&[0xff]) {
        let dir = temporary_dir();
        fs::write(dir.path().join("00000000000000000001.seg"), rest).unwrap();
        let Ok(reader) = JournalReader::open(dir.path()) else { return };
        let records = reader.flatten().count();
        assert!(records <= rest.len(), "a record has at least one byte");
        return;
    }
    let mut input = InputReader::new(bytes);
    let base = &base_journals()[input.number(1)];
    let (files, changes) = change_journal(&mut input, base);
    let dir = write_files(&files);
    let Ok(mut reader) = JournalReader::open(&dir.path().join("journal")) else { return };
    let (mut records, mut failed) = (Vec::new(), false);
    for record in reader.by_ref() {
        match record {
            Ok(record) => records.push(record),
            Err(_) => failed = true,
        }
    }
    let is_in_doubt = failed || reader.torn_tail().is_some() || reader.doubt().is_some();
    if !changes.forged {
        check(base, &records, (changes, is_in_doubt));
    }
}

/// Checks that the records are the beginning of those that were written, and that those which are not read are missed.
pub(crate) fn check(
    base: &BaseJournal,
    records: &[Record],
    (changes, is_in_doubt): (JournalChanges, bool),
) {
    assert_eq!(base.records.get(..records.len()), Some(records), "no record differs");
    let is_whole = records.len() == base.records.len();
    // Two faults at once, one of them in the note, may hide each other.
    let is_told = is_in_doubt || changes.note;
    assert!(is_whole || is_told, "records are missing, and the reader says nothing: {changes:?}");
    assert!(is_whole || changes.segments || changes.note, "the journal was whole");
}
