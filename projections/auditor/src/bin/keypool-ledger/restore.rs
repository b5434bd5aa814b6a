//! `restore`: a data directory from a backup.

use std::path::Path;

use keypool_ledger::restore_backup;
use serde_json::json;

use crate::{
    FINE,
    output::{Out, ToolError},
};

/// The key of the ledger in a data directory.
const KEY: &str = "checkpoint.key";
/// The files of a server's data directory that are restored beside the journal.
const FILES: [&str; 3] = [KEY, "checkpoint", "webhook"];

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
    let ended = (1_u32..).map(|number| format!("ledger-before-{number}"));
    for folder in ended.take_while(|folder| backup.join(folder).is_dir()) {
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
