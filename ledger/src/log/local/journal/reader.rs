//! Reading the records of a journal without opening the log: for the auditor, and to fill the engine.

use std::{collections::VecDeque, fmt, ops::ControlFlow, path::Path};

use super::scan::{Scan, TornTail};
use crate::{
    Record,
    codec::{self, DecodeError},
    log::local::directory::OpenError,
};

/// A record as it stands in a file: its bytes, not decoded, and their place.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a> {
    /// The position in the log, from 1.
    pub seq: u64,
    /// The stored bytes of the envelope, which the chain hashes.
    pub envelope_bytes: &'a [u8],
    /// The bytes that go with it; empty for most, and for a pruned payload.
    pub payload: &'a [u8],
    /// The file it stands in.
    pub file: &'a Path,
    /// Its offset in the file, in bytes.
    pub offset: u64,
}

impl RawRecord<'_> {
    /// Explains that this version cannot decode the record.
    ///
    /// The hash of its frame has been checked, so its bytes are those that were written: a schema or an
    /// event that this version does not know comes from a newer one.
    pub(in crate::log::local) fn unreadable(&self, error: &DecodeError) -> OpenError {
        let seq = self.seq;
        let what = match error {
            DecodeError::Newer(_) => error.to_string(),
            DecodeError::Malformed(cause) => {
                format!("this version cannot read its event ({cause})")
            }
            _ => {
                let offset = usize::try_from(self.offset).unwrap_or(usize::MAX);
                return OpenError::damaged(self.file, offset, format!("record {seq}: {error}"));
            }
        };
        OpenError::Newer { file: self.file.to_owned(), what: format!("record {seq}: {what}") }
    }
}

/// The records of a journal's directory, in order.
///
/// It changes nothing and takes no lock; read a copy of a directory, not one that is being written.
/// All hashes of the journal are checked on the way, but not the chains of the histories.
pub struct JournalReader {
    scan: Scan,
    /// The records of the frame read last that come next.
    frame: VecDeque<Record>,
    failed: bool,
}

impl JournalReader {
    /// Reads a journal's directory (the folder `journal` in a log's) from its first record on.
    ///
    /// # Errors
    ///
    /// Returns an [`OpenError`] if the directory cannot be read or its first segment is missing.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::from(dir, 1)
    }

    /// Reads from the segment on that holds record `from`.
    pub(in crate::log) fn from(dir: &Path, from: u64) -> Result<Self, OpenError> {
        Ok(Self::over(Scan::open(dir, from, 0)?))
    }

    /// Reads the records of a scan.
    pub(super) fn over(scan: Scan) -> Self {
        Self { scan, frame: VecDeque::new(), failed: false }
    }

    /// The frame that was being written when the machine stopped, if the journal ends in one.
    ///
    /// Known when all records have been read. It is none of them.
    #[must_use]
    pub fn torn_tail(&self) -> Option<&TornTail> {
        self.scan.torn()
    }

    /// The reason to doubt the journal's end although all its frames are whole: a note
    /// of an acknowledged record that is missing or damaged, a last segment that is too short.
    ///
    /// Known when all records have been read.
    #[must_use]
    pub fn doubt(&self) -> Option<&'static str> {
        self.scan.doubt()
    }

    /// Shows the records that were not read yet as they stand in the files, until `visit` breaks off.
    ///
    /// Nothing is decoded and nothing copied; no more than one segment is in memory.
    ///
    /// # Errors
    ///
    /// Returns an [`OpenError`] at the first place where the journal differs from the bytes that were written.
    pub fn visit(
        &mut self,
        visit: &mut dyn FnMut(RawRecord<'_>) -> ControlFlow<()>,
    ) -> Result<(), OpenError> {
        while let Some(frame) = self.scan.next_frame()? {
            let (file, begin) = self.scan.place_of(&frame);
            for (seq, record) in (frame.first_seq..).zip(self.scan.records(&frame)) {
                let raw = RawRecord {
                    seq,
                    envelope_bytes: record.envelope,
                    payload: record.payload,
                    file,
                    offset: begin.saturating_add(record.offset) as u64,
                };
                if visit(raw).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn read_frame(&mut self) -> Result<(), OpenError> {
        while self.frame.is_empty() {
            let Some(frame) = self.scan.next_frame()? else { return Ok(()) };
            for (seq, record) in (frame.first_seq..).zip(self.scan.records(&frame)) {
                let (envelope_bytes, payload) = (record.envelope, record.payload);
                let (file, begin) = self.scan.place_of(&frame);
                let offset = begin.saturating_add(record.offset) as u64;
                let raw = RawRecord { seq, envelope_bytes, payload, file, offset };
                let envelope = codec::decode(envelope_bytes).map_err(|err| raw.unreadable(&err))?;
                let (envelope_bytes, payload) = (envelope_bytes.to_vec(), payload.to_vec());
                self.frame.push_back(Record { seq, envelope, envelope_bytes, payload });
            }
        }
        Ok(())
    }
}

impl Iterator for JournalReader {
    type Item = Result<Record, OpenError>;

    /// The next record. After an error there is none.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if let Err(err) = self.read_frame() {
            self.failed = true;
            return Some(Err(err));
        }
        self.frame.pop_front().map(Ok)
    }
}

impl fmt::Debug for JournalReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalReader").finish_non_exhaustive()
    }
}
