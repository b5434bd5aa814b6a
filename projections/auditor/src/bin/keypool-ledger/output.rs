//! The output of the tool, for people or for programs, and its errors.

use std::{
    error::Error,
    io::{self, BufWriter, StdoutLock, Write},
    path::Path,
};

use keypool_auditor::source::SourceError;
use keypool_ledger::{BackupError, OpenError, RepairError};
pub(crate) use keypool_projections::explanation::words::{escaped, one_line, short, time};
use serde_json::Value;

use crate::{DAMAGED, FINE, UNREADABLE, USAGE};

/// Why a command came to no end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// The request names nothing that is there, or is not said well.
    #[error("{0}")]
    Usage(String),
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// No data directory was made from a backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A data directory was not repaired.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// Something else cannot be read or written.
    #[error("{0} cannot be read or written")]
    File(String, #[source] io::Error),
    /// Nobody reads the output any more.
    #[error("nobody reads the output")]
    Closed,
}

impl ToolError {
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::Usage(what.into())
    }

    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let name = path.display().to_string();
        |source| Self::File(name, source)
    }

    /// The number to end with.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Backup(BackupError::Destination { .. } | BackupError::Busy { .. })
            | Self::Repair(RepairError::OtherLog { .. }) => USAGE,
            Self::Source(SourceError::Damaged { .. } | SourceError::Truncated { .. })
            | Self::Repair(RepairError::Unfit { .. } | RepairError::Beyond(_)) => DAMAGED,
            Self::Backup(BackupError::Log(error)) | Self::Repair(RepairError::Open(error))
                if is_damage(error) =>
            {
                DAMAGED
            }
            Self::Source(_) | Self::Backup(_) | Self::Repair(_) | Self::File(..) => UNREADABLE,
            Self::Closed => FINE,
        }
    }

    /// Prints the error and its causes, one on a line.
    pub(crate) fn complain(&self) {
        tell(&format!("error: {self}"));
        let mut cause = self.source();
        while let Some(error) = cause {
            tell(&format!("  because: {error}"));
            cause = error.source();
        }
    }
}

/// Whether a log differs from the bytes that were written.
const fn is_damage(error: &OpenError) -> bool {
    matches!(error, OpenError::Damaged { .. } | OpenError::LedgerTruncated { .. })
}

/// Standard output: lines for people, or one object a line for programs.
pub(crate) struct Out {
    json: bool,
    out: BufWriter<StdoutLock<'static>>,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, out: BufWriter::new(io::stdout().lock()) }
    }

    /// Writes a line for people, or an object for programs.
    pub(crate) fn say(
        &mut self,
        line: impl FnOnce() -> String,
        object: impl FnOnce() -> Value,
    ) -> Result<(), ToolError> {
        if self.json { self.object(&object()) } else { self.raw(&line()) }
    }

    /// Writes a line for people only.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), ToolError> {
        if self.json { Ok(()) } else { self.raw(line) }
    }

    /// Writes a text that is the same for everybody: a file's content.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), ToolError> {
        self.out.write_all(text.as_bytes()).map_err(closed)
    }

    /// Writes an object on one line.
    fn object(&mut self, object: &Value) -> Result<(), ToolError> {
        let text = object.to_string();
        let line = escaped(&text, |c| format!("\\u{:04x}", u32::from(c)));
        writeln!(self.out, "{line}").map_err(closed)
    }

    fn raw(&mut self, lines: &str) -> Result<(), ToolError> {
        lines
            .split('\n')
            .try_for_each(|line| writeln!(self.out, "{}", one_line(line)).map_err(closed))
    }

    pub(crate) fn flush(&mut self) -> Result<(), ToolError> {
        self.out.flush().map_err(closed)
    }
}

fn closed(error: io::Error) -> ToolError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return ToolError::Closed;
    }
    ToolError::File("standard output".to_owned(), error)
}

/// Tells something beside the output, on the error stream.
pub(crate) fn tell(lines: &str) {
    let mut err = io::stderr().lock();
    for line in lines.split('\n') {
        // If even the error stream is gone there is nobody left to tell.
        let _ = writeln!(err, "{}", one_line(line));
    }
}
