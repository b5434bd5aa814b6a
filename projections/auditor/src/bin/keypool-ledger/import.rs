//! `import`: a new data directory from an export.

use std::{io, ops::ControlFlow, path::Path};

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
    let mut journal = FrameWriter::create(directory)?;
    let mut expected = 1;
    try_read(file, &mut |raw, envelope| {
        if raw.seq != expected {
            let what =
                format!("record {expected} is missing in the export; no log can begin with it");
            return Err(ToolError::usage(what));
        }
        expected += 1;
        journal.append(Record {
            seq: raw.seq,
            envelope,
            envelope_bytes: raw.envelope_bytes.to_vec(),
            payload: raw.payload.to_vec(),
        })
    })?;
    let n_records = journal.finish()?;
    out.say(
        || format!("{n_records} records restored to {}", directory.display()),
        || json!({ "records": n_records, "directory": directory }),
    )?;
    Ok(FINE)
}

/// Writes a new journal, many records to a frame.
pub(crate) struct FrameWriter {
    directory: String,
    writer: JournalWriter,
    frame: Vec<Record>,
    bytes: usize,
    n_records: u64,
}

impl FrameWriter {
    /// Makes the journal of a new data directory.
    pub(crate) fn create(directory: &Path) -> Result<Self, ToolError> {
        let writer = JournalWriter::create(directory, JournalWriterOptions::default())
            .map_err(|err| ToolError::usage(err.to_string()))?;
        let directory = directory.display().to_string();
        Ok(Self { directory, writer, frame: Vec::new(), bytes: 0, n_records: 0 })
    }

    /// Appends the next record.
    pub(crate) fn append(&mut self, record: Record) -> Result<(), ToolError> {
        self.n_records = self.n_records.saturating_add(1);
        self.bytes = self.bytes.saturating_add(record.payload.len());
        self.frame.push(record);
        if FRAME_RECORDS <= self.frame.len() || FRAME_BYTES <= self.bytes {
            self.write()?;
        }
        Ok(())
    }

    /// Forces the rest to the disk, and returns how many records there are.
    pub(crate) fn finish(mut self) -> Result<u64, ToolError> {
        self.write()?;
        Ok(self.n_records)
    }

    fn write(&mut self) -> Result<(), ToolError> {
        let failed =
            |err: AppendError| ToolError::File(self.directory.clone(), io::Error::other(err));
        self.writer.append(&self.frame).map_err(failed)?;
        self.frame.clear();
        self.bytes = 0;
        Ok(())
    }
}
