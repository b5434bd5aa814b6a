//! `import`: a new data directory from an export.

use std::{ops::ControlFlow, path::Path};

use keypool_auditor::source::{Source, SourceKind};
use keypool_ledger::{AppendError, JournalWriter, JournalWriterOptions, Record};
use serde_json::json;

use crate::{
    FINE,
    input::try_read,
    output::{Out, ToolError},
};

/// How many records go into one frame of a journal.
const FRAME_RECORDS: usize = 256;
/// How many payload bytes go into one frame of a journal.
const FRAME_BYTES: usize = 4 << 20;

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
