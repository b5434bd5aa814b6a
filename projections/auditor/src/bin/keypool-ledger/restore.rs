//! `restore`: a data directory from a backup.

use std::path::Path;

use keypool_ledger::restore_backup;
use serde_json::json;

use crate::{
    FINE,
    output::{Out, ToolError},
};

/// The key of the ledger in a data directory.
pub(crate) const KEY: &str = "checkpoint.key";
/// The files of a server's data directory that are restored beside the journal.
const FILES: [&str; 3] = [KEY, "checkpoint", "webhook"];

/// The folders of the ledgers that have ended in a data directory, the oldest first.
pub(crate) fn ended_ledgers(directory: &Path) -> impl Iterator<Item = String> {
    let ended = (1_u32..).map(ended_ledger);
    ended.take_while(move |folder| directory.join(folder).is_dir())
}

/// The folder of the ledger that ended as the first, the second and so on.
pub(crate) fn ended_ledger(number: u32) -> String {
    format!("ledger-before-{number}")
}

/// Makes a data directory from a backup.
pub(crate) fn restore(backup: &Path, directory: &Path, out: &mut Out) -> Result<u8, ToolError> {
    if !backup.join(KEY).is_file() {
        return Err(ToolError::usage(format!(
            "{} has no {KEY}, without which no server starts on it; put the key of this ledger there",
            backup.display()
        )));
    }
    let mut files = FILES.map(str::to_owned).to_vec();
    // The ledgers that have ended in this log prove their ends.
    for folder in ended_ledgers(backup) {
        files.extend([KEY, "checkpoint"].map(|file| format!("{folder}/{file}")));
    }
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let made = restore_backup(backup, directory, &files)?;
    out.say(
        || format!("{} records restored to {}", made.last_seq, directory.display()),
        || json!({ "records": made.last_seq, "directory": directory }),
    )?;
    Ok(FINE)
}
