//! `export`: a log as one file.

use std::{collections::HashSet, path::Path};

use keypool_auditor::{
    export::{ExportWriter, Manifest},
    source::Source,
};
use keypool_ledger::RawRecord;
use serde_json::json;

use crate::{
    FINE,
    input::try_read,
    output::{Out, ToolError},
};

/// Writes the log into one file.
pub(crate) fn export(path: &Path, file: &Path, out: &mut Out) -> Result<u8, ToolError> {
    let manifest = write(path, file, &HashSet::new())?;
    let (records, root) = (manifest.records, &manifest.root);
    out.say(
        || format!("{records} records written to {}\nhead {records}:{root}", file.display()),
        || json!(manifest),
    )?;
    Ok(FINE)
}

/// Writes an export without the payloads of some records.
pub(crate) fn write(
    path: &Path,
    file: &Path,
    without: &HashSet<u64>,
) -> Result<Manifest, ToolError> {
    // A source that cannot be opened leaves no empty file behind.
    Source::open(path)?;
    let mut writer = ExportWriter::create(file).map_err(ToolError::file(file))?;
    let written = try_read(path, &mut |raw, envelope| {
        let payload = if without.contains(&raw.seq) { &[] } else { raw.payload };
        writer.add(&RawRecord { payload, ..raw }, &envelope).map_err(ToolError::file(file))
    });
    if let Err(error) = written {
        // Half an export is none.
        let _ = std::fs::remove_file(file);
        return Err(error);
    }
    let (manifest, buffer) = writer.finish().map_err(ToolError::file(file))?;
    buffer.get_ref().sync_all().map_err(ToolError::file(file))?;
    Ok(manifest)
}
