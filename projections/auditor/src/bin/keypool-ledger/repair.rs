//! `repair`: damaged segments of a data directory from a backup.

use std::path::Path;

use keypool_ledger::{RepairedSegment, repair_journal};
use serde_json::json;

use crate::{
    FINE,
    output::{Out, ToolError},
};

/// Puts damaged segments of a data directory back from a backup of it.
pub(crate) fn repair(directory: &Path, backup: &Path, out: &mut Out) -> Result<u8, ToolError> {
    let report = repair_journal(directory, backup)?;
    for RepairedSegment { file, first_seq, last_seq, fault } in &report.repaired {
        out.say(
            || {
                format!(
                    "{}: {fault}\n  put back from {}: records {first_seq} to {last_seq}",
                    file.display(),
                    backup.display()
                )
            },
            || json!({ "file": file, "fault": fault, "first_seq": first_seq, "last_seq": last_seq }),
        )?;
    }
    let (repaired, records) = (report.repaired.len(), report.last_seq);
    out.say(
        || match repaired {
            0 => format!("{records} records: whole, and nothing was changed"),
            n => format!("{records} records: whole, segments put back: {n}"),
        },
        || json!({ "records": records, "repaired": repaired }),
    )?;
    Ok(FINE)
}
