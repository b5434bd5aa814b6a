//! Backups that become data directories, and segments that are put back from them, by the real program.

use std::{fmt::Write as _, fs, path::Path};

use insta::assert_snapshot;
use tempfile::TempDir;

use crate::{fixtures::fixtures, tool::tool_in};

/// Makes a data directory or a backup of a journal among the fixtures.
pub(crate) fn directory(dir: &Path, name: &str, journal: &str) {
    let to = dir.join(name).join("journal");
    fs::create_dir_all(&to).unwrap();
    for entry in fs::read_dir(fixtures().join(journal)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Runs command lines in a folder, and returns them with their output and exit codes.
fn transcript(dir: &Path, lines: &[&str]) -> String {
    let mut said = String::new();
    for line in lines {
        let args: Vec<&str> = line.split(' ').collect();
        let (out, code) = tool_in(dir, &args);
        let _ = writeln!(said, "$ keypool-ledger {line}\n{out}[{code}]");
    }
    said
}

#[test]
fn a_backup_becomes_a_data_directory_with_the_identity_of_its_ledger() {
    let dir = TempDir::new().unwrap();
    let backup = dir.path().join("backup");
    directory(dir.path(), "backup", "journal-clean");
    directory(dir.path(), "damaged", "journal-flipped-bit");
    fs::write(dir.path().join("damaged/checkpoint.key"), "a key").unwrap();
    let mut said = transcript(dir.path(), &["restore backup data"]);
    for file in ["checkpoint.key", "checkpoint", "webhook", "ledger-before-1/checkpoint.key"] {
        let file = backup.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "as it was").unwrap();
    }
    fs::create_dir(backup.join("sled")).unwrap();
    said.push_str(&transcript(
        dir.path(),
        &[
            "restore backup data",
            "restore backup data",
            "restore backup backup/data",
            "restore damaged other",
            "restore nothing other",
            "verify data",
        ],
    ));
    assert_snapshot!(said);
    for file in ["checkpoint.key", "checkpoint", "webhook", "ledger-before-1/checkpoint.key"] {
        assert_eq!(fs::read_to_string(dir.path().join("data").join(file)).unwrap(), "as it was");
    }
    assert!(!dir.path().join("data/sled").exists(), "the index is made anew");
    assert!(!dir.path().join("other").exists());
}

#[test]
fn a_damaged_segment_is_named_and_put_back() {
    let dir = TempDir::new().unwrap();
    directory(dir.path(), "backup", "journal-clean");
    directory(dir.path(), "old", "journal-of-yesterday");
    directory(dir.path(), "flipped", "journal-flipped-bit");
    directory(dir.path(), "missing", "journal-without-a-segment");
    directory(dir.path(), "yesterday", "journal-of-yesterday");
    assert_snapshot!(transcript(
        dir.path(),
        &[
            "repair flipped --from missing",
            "repair flipped --from backup",
            "repair flipped --from backup",
            "repair missing --from old",
            "repair yesterday --from backup",
            "repair nothing --from backup",
            "verify flipped",
            "verify missing",
        ],
    ));
}
