//! Logs whose files were changed: they are opened, repaired from a backup, and restored from.

use std::{fs, path::Path};

use keypool_ledger::{
    EventLog, JournalReader, SledLog, SledLogOptions, repair_journal, restore_backup,
};

use super::{
    base_journal::{BaseJournal, JournalChanges, base_journals, change_journal, write_files},
    input::InputReader,
    journals::check,
};

/// Opens, repairs or restores a log of which an input has changed files. A log that opens has its records; a repair
/// or a restore gives a log that opens with all of them, or is refused. Changed by others than the disk, the log may
/// hold other records, and must not end the process.
pub fn log(bytes: &[u8]) {
    let mut input = InputReader::new(bytes);
    let action = input.number(2);
    let base = &base_journals()[input.number(1)];
    let (files, changes) = change_journal(&mut input, base);
    let dir = write_files(&files);
    match action {
        0 => open(dir.path(), base, changes),
        1 => repair(dir.path(), base, changes),
        _ => restore(dir.path(), base, changes),
    }
}

fn options() -> SledLogOptions {
    SledLogOptions { segment_bytes: 4096, cache_bytes: 1 << 20, ..SledLogOptions::default() }
}

fn open(dir: &Path, base: &BaseJournal, changes: JournalChanges) {
    let Ok(log) = SledLog::open(dir, options()) else { return };
    let head = log.head().expect("the head of an open log can be read").seq;
    let records = log.read(1, usize::MAX).unwrap_or_default();
    if changes.forged {
        return;
    }
    assert_eq!(head, records.len() as u64, "an open log can be read to its end");
    check(base, &records, (changes, changes.note));
}

fn repair(dir: &Path, base: &BaseJournal, changes: JournalChanges) {
    let backup = write_files(&base.files);
    let Ok(report) = repair_journal(dir, backup.path()) else { return };
    if changes.forged {
        return;
    }
    let log = SledLog::open(dir, options()).expect("a repaired log opens");
    let records = log.read(1, usize::MAX).expect("a repaired log can be read");
    assert_eq!(report.last_seq, records.len() as u64);
    check(base, &records, (changes, changes.note));
}

fn restore(dir: &Path, base: &BaseJournal, changes: JournalChanges) {
    let to = dir.with_extension("restored");
    let restored = restore_backup(dir, &to, &["checkpoint"]);
    let records = restored.is_ok().then(|| {
        let reader = JournalReader::open(&to.join("journal")).expect("a restored log can be read");
        reader.collect::<Result<Vec<_>, _>>().expect("a restored log is whole")
    });
    let exists = to.exists();
    for made in [to.clone(), to.with_extension("restored.unfinished")] {
        let _ = fs::remove_dir_all(made);
    }
    match records {
        None => assert!(!exists, "a restore that is refused leaves nothing"),
        Some(_) if changes.forged => {}
        Some(records) => check(base, &records, (changes, changes.note)),
    }
}
