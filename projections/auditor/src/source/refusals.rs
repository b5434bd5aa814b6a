//! The record of refusals that a server keeps beside its log.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use keypool_api::{REFUSALS_DIR, RefusalLine, read_refusals};

use super::{Source, SourceError, SourceKind};

/// The refusals of a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DayOfRefusals {
    /// The lines that can be read, in the order in which they were written.
    pub lines: Vec<RefusalLine>,
    /// How many lines are damaged.
    pub unreadable: u64,
}

impl Source {
    /// Reads the refusals of a day in UTC, `YYYY-MM-DD`. Returns `None` if the source has none: a server keeps
    /// them for 7 days at most, and an export has no record of them.
    ///
    /// # Errors
    ///
    /// Returns a [`SourceError`] if the file is there and cannot be read, or the server does not answer.
    pub fn refusals_of(&self, day: &str) -> Result<Option<DayOfRefusals>, SourceError> {
        let bytes = match (&self.server, self.kind, self.path.parent()) {
            (Some(server), ..) => server.refusals(day)?,
            (None, SourceKind::Data | SourceKind::Journal, Some(data)) => {
                read(&data.join(REFUSALS_DIR).join(format!("{day}.jsonl")))?
            }
            _ => None,
        };
        Ok(bytes.map(|bytes| {
            let (lines, unreadable) = read_refusals(&bytes);
            DayOfRefusals { lines, unreadable }
        }))
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, SourceError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(source) => Err(SourceError::Io { path: PathBuf::from(path), source }),
    }
}
