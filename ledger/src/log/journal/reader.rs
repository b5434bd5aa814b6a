//! Reading the records of a journal without opening the log: for the auditor, and to fill the engine.

use std::{collections::VecDeque, fmt, path::Path};

use super::scan::{Scan, TornTail};
use crate::{Record, codec, log::directory::OpenError};

/// The records of a journal's directory, in order.
///
/// It changes nothing and takes no lock; read a copy of a directory, not one that is being written.
/// All hashes of the journal are checked on the way, but not the chains of the histories.
pub struct JournalReader {
    scan: Scan,
    /// The records of the frame read last that come next.
    frame: VecDeque<Record>,
    from: u64,
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

    /// Reads from record `from` on.
    pub(in crate::log) fn from(dir: &Path, from: u64) -> Result<Self, OpenError> {
        let scan = Scan::open(dir, from, 0)?;
        Ok(Self { scan, frame: VecDeque::new(), from, failed: false })
    }

    /// The frame that was being written when the machine stopped, if the journal ends in one.
    ///
    /// It is known when all records have been read, and is none of them.
    #[must_use]
    pub fn torn_tail(&self) -> Option<&TornTail> {
        self.scan.torn()
    }

    fn read_frame(&mut self) -> Result<(), OpenError> {
        while self.frame.is_empty() {
            let Some(frame) = self.scan.next_frame()? else { return Ok(()) };
            for (seq, (envelope_bytes, payload)) in
                (frame.first_seq..).zip(self.scan.records(&frame))
            {
                if seq < self.from {
                    continue;
                }
                let envelope = codec::decode(envelope_bytes).map_err(|err| {
                    let (path, offset) = self.scan.place_of(&frame);
                    OpenError::damaged(path, offset, format!("record {seq}: {err}"))
                })?;
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
        f.debug_struct("JournalReader").field("from", &self.from).finish_non_exhaustive()
    }
}
