//! `export`, `prune` and `import`: a log as one file, with or without what nobody needs, and back.

use std::{collections::HashSet, ops::ControlFlow, path::Path, time::Duration};

use keypool_auditor::{
    export::{ExportWriter, Manifest},
    retention::Retention,
    source::{Source, SourceKind},
};
use keypool_ledger::{AppendError, JournalWriter, JournalWriterOptions, RawRecord, Record};
use serde_json::json;

use crate::{
    FINE,
    output::{Out, ToolError},
    reading::{read, try_read},
};

/// How many records go into one frame of a journal.
const FRAME_RECORDS: usize = 256;
/// How many payload bytes go into one frame of a journal.
const FRAME_BYTES: usize = 4 << 20;

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

/// Writes the log into one file, without the bytes of packages that ended long ago.
pub(crate) fn prune(
    path: &Path,
    file: &Path,
    keep_days: u32,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let (mut retention, mut before) = (Retention::default(), 0_u64);
    read(path, &mut |raw, envelope| {
        before = before.saturating_add(raw.payload.len() as u64);
        retention.see(raw.seq, &envelope, !raw.payload.is_empty());
        ControlFlow::Continue(())
    })?;
    let without = retention.prunable(Duration::from_hours(24 * u64::from(keep_days)));
    let manifest = write(path, file, &without)?;
    let (records, root, gone) = (manifest.records, &manifest.root, without.len());
    let bytes = before.saturating_sub(manifest.payload_bytes);
    out.say(
        || {
            format!(
                "{records} records written to {}, without the bytes of {gone} packages that were spent \
                 or had expired ({bytes} of {before} bytes of payloads)\nhead {records}:{root}",
                file.display()
            )
        },
        || json!({ "manifest": manifest, "pruned": gone, "pruned_bytes": bytes }),
    )?;
    Ok(FINE)
}

/// Writes an export without the payloads of some records.
fn write(path: &Path, file: &Path, without: &HashSet<u64>) -> Result<Manifest, ToolError> {
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

/// Makes a new data directory from an export.
pub(crate) fn import(file: &Path, directory: &Path, out: &mut Out) -> Result<u8, ToolError> {
    let source = Source::open(file)?;
    if source.kind() != SourceKind::Export {
        let what = "is no export; a directory is copied as it is";
        return Err(ToolError::usage(format!("{} {what}", file.display())));
    }
    // All of it is checked before anything is written.
    source.read(&mut |_, _| ControlFlow::Continue(()))?;
    let mut writer = JournalWriter::create(directory, JournalWriterOptions::default())
        .map_err(|err| ToolError::usage(err.to_string()))?;
    let failed = |err: AppendError| {
        ToolError::File(directory.display().to_string(), std::io::Error::other(err))
    };
    let (mut frame, mut bytes, mut n_records, mut expected) = (Vec::new(), 0, 0_u64, 1);
    try_read(file, &mut |raw, envelope| {
        if raw.seq != expected {
            let what =
                format!("record {expected} is missing in the export; no log can begin with it");
            return Err(ToolError::usage(what));
        }
        expected += 1;
        n_records += 1;
        bytes += raw.payload.len();
        frame.push(Record {
            seq: raw.seq,
            envelope,
            envelope_bytes: raw.envelope_bytes.to_vec(),
            payload: raw.payload.to_vec(),
        });
        if FRAME_RECORDS <= frame.len() || FRAME_BYTES <= bytes {
            writer.append(&frame).map_err(failed)?;
            frame.clear();
            bytes = 0;
        }
        Ok(())
    })?;
    writer.append(&frame).map_err(failed)?;
    out.say(
        || format!("{n_records} records restored to {}", directory.display()),
        || json!({ "records": n_records, "directory": directory }),
    )?;
    Ok(FINE)
}
