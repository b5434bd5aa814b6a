//! Writing records that exist already into a new journal: a log that is restored from an export.

use std::{fs::File, path::Path, sync::Arc};

use super::{
    AcknowledgedFile, Journal, Segments,
    files::create_segment,
    frame::{JournalKey, SegmentHeader},
    new_key,
    spare::Spare,
};
use crate::{
    Hash, Record,
    log::{
        AppendError,
        local::directory::{LockedDirectory, OpenError, create_private},
    },
};

/// How a [`JournalWriter`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalWriterOptions {
    /// The length of a segment, in bytes.
    pub segment_bytes: u64,
    /// The key of the journal's hashes: random if `None`, as every journal in use must have it. A
    /// fixture names one, so that the same records give the same bytes.
    pub key: Option<[u8; 32]>,
}

impl Default for JournalWriterOptions {
    fn default() -> Self {
        Self { segment_bytes: 8 << 20, key: None }
    }
}

/// A new journal in a new data directory, which takes records as they are.
///
/// It checks neither chains nor versions: an export is restored as it is. Opening a
/// [`crate::SledLog`] on the directory afterwards makes the database that finds things in it.
#[derive(Debug)]
pub struct JournalWriter {
    journal: Journal,
    _directory: LockedDirectory,
}

impl JournalWriter {
    /// Makes the directory, with an empty journal in it.
    ///
    /// # Errors
    ///
    /// Returns an [`OpenError`] if there is a journal already, or the disk refuses.
    pub fn create(dir: &Path, options: JournalWriterOptions) -> Result<Self, OpenError> {
        let directory = LockedDirectory::open(dir)?;
        let journal_dir = dir.join("journal");
        if journal_dir.exists() {
            let what = "there is a journal already; choose another directory";
            return Err(OpenError::damaged(&journal_dir, 0, what));
        }
        create_private(&journal_dir)?;
        let key: JournalKey = options.key.unwrap_or_else(new_key);
        let file_len = super::segment_len(options.segment_bytes, 0);
        let header = SegmentHeader { key, first_seq: 1, prev: Hash::ZERO, file_len, pruned: None };
        let segment = create_segment(&journal_dir, header).map_err(OpenError::io(&journal_dir))?;
        let none = super::acknowledged::Acknowledged::read(&journal_dir)?;
        let acknowledged = AcknowledgedFile::open(&journal_dir, &none)?;
        let opened = File::open(&journal_dir).map_err(OpenError::io(&journal_dir))?;
        let journal = Journal {
            segments: Arc::new(Segments::new(&journal_dir, key, vec![1])),
            checked_from: 1,
            spare: Spare::begin(&journal_dir, file_len),
            directory: opened,
            dir: journal_dir,
            segment_bytes: options.segment_bytes,
            key,
            segment,
            acknowledged,
            last_seq: 0,
            hash: Hash::ZERO,
            poisoned: None,
            refusing: false,
            health: Arc::default(),
        };
        Ok(Self { journal, _directory: directory })
    }

    /// Writes records as one frame. They are durable when it returns.
    ///
    /// # Errors
    ///
    /// Returns [`AppendError::NotWritten`] or [`AppendError::Unknown`] as an append to a log does.
    pub fn append(&mut self, records: &[Record]) -> Result<(), AppendError> {
        if records.is_empty() {
            return Ok(());
        }
        self.journal.append(&[records]).map(drop).map_err(|err| AppendError::from(&err))
    }
}
