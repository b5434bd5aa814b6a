//! Damaged segments of a journal, and those of another copy of it that can take their places.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
};

use super::{
    JournalReader,
    acknowledged::Acknowledged,
    copy::copy_file,
    id_in,
    scan::{Scan, list_segments, segment_path},
};
use crate::log::local::directory::{OpenError, sync_directory};

/// A segment that is damaged or missing, with the records that the other copy of it has.
#[derive(Debug)]
pub(in crate::log::local) struct SegmentFault {
    /// The segment's file.
    pub(in crate::log::local) file: PathBuf,
    /// Its first and its last record.
    pub(in crate::log::local) records: (u64, u64),
    /// The fault.
    pub(in crate::log::local) fault: OpenError,
}

/// The faults of a journal, and the segments that it has once they are mended.
#[derive(Debug)]
pub(in crate::log::local) struct Replacements {
    dir: PathBuf,
    pub(in crate::log::local) faults: Vec<SegmentFault>,
    /// All segments, those of the other copy in the places of damaged ones.
    mended: Vec<(u64, PathBuf)>,
}

/// Why a journal cannot be mended from another copy.
#[derive(Debug)]
pub(in crate::log::local) enum Unmendable {
    /// The other copy is of another journal.
    OtherJournal,
    /// The other copy has no segment for a place, or one that does not fit there.
    Unfit(PathBuf, String),
    /// The journal or the other copy cannot be read.
    Open(OpenError),
}

impl From<OpenError> for Unmendable {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl Replacements {
    /// Finds the closed segments of a journal that are damaged or missing, and those in another copy that
    /// hold the same records. Nothing is changed.
    pub(in crate::log::local) fn find(dir: &Path, other: &Path) -> Result<Self, Unmendable> {
        let ids = id_in(dir).zip(id_in(other));
        if ids.is_some_and(|(here, there)| here != there) {
            return Err(Unmendable::OtherJournal);
        }
        let here = list_segments(dir)?;
        let missing = || OpenError::damaged(&segment_path(dir, 1), 0, "the journal has no segment");
        let last = here.last().ok_or_else(missing)?;
        let mut found = Self { dir: dir.to_owned(), faults: Vec::new(), mended: Vec::new() };
        let mut next_seq = 1;
        while next_seq < last.0 {
            let behind = here.iter().find(|(first_seq, _)| next_seq < *first_seq).unwrap_or(last).0;
            next_seq = found.find_at(next_seq, behind, other)?;
        }
        found.mended.push(last.clone());
        Ok(found)
    }

    /// Finds the segment that begins with a record and ends before another, and returns its next record.
    fn find_at(&mut self, first_seq: u64, behind: u64, other: &Path) -> Result<u64, Unmendable> {
        let file = segment_path(&self.dir, first_seq);
        let fault = match last_of(&file, first_seq) {
            Ok(last_seq) => {
                let next_seq = last_seq.saturating_add(1);
                match next_seq.cmp(&behind) {
                    Ordering::Equal => {
                        self.mended.push((first_seq, file));
                        return Ok(behind);
                    }
                    // The segment behind it is missing, not its own end.
                    Ordering::Less if segment_path(other, next_seq).exists() => {
                        self.mended.push((first_seq, file));
                        return Ok(next_seq);
                    }
                    _ => {}
                }
                let what = format!("it ends at record {last_seq}, and record {behind} is the next");
                OpenError::damaged(&file, 0, what)
            }
            Err(fault) => fault,
        };
        let candidate = segment_path(other, first_seq);
        let unfit = |why: String| Unmendable::Unfit(candidate.clone(), why);
        let last_seq = last_of(&candidate, first_seq).map_err(|error| unfit(in_words(&error)))?;
        if behind <= last_seq {
            return Err(unfit(format!("it goes on to record {last_seq}, over record {behind}")));
        }
        self.faults.push(SegmentFault { file, records: (first_seq, last_seq), fault });
        self.mended.push((first_seq, candidate));
        Ok(last_seq.saturating_add(1))
    }

    /// The records of the journal as it will be.
    pub(in crate::log::local) fn reader(&self) -> Result<JournalReader, OpenError> {
        let acknowledged = Acknowledged::read(&self.dir)?;
        Ok(JournalReader::over(Scan::over(&self.dir, self.mended.clone(), acknowledged)))
    }

    /// Puts the segments of the other copy in the places of the damaged ones, each at once.
    pub(in crate::log::local) fn put(&self) -> Result<(), OpenError> {
        for SegmentFault { file, records: (first_seq, _), .. } in &self.faults {
            let is_it = |(start, _): &&(u64, PathBuf)| start == first_seq;
            let Some((_, candidate)) = self.mended.iter().find(is_it) else { continue };
            let new = file.with_extension("repair.new");
            // An interrupted repair may have left one; the copy does not overwrite it.
            drop(fs::remove_file(&new));
            copy_file(candidate, &new, None)?;
            fs::rename(&new, file).map_err(OpenError::io(file))?;
            sync_directory(&self.dir).map_err(OpenError::io(&self.dir))?;
        }
        Ok(())
    }
}

/// Checks every byte of a closed segment by itself, and returns its last record.
fn last_of(file: &Path, first_seq: u64) -> Result<u64, OpenError> {
    // One record at least was acknowledged: a closed segment has a frame.
    let acknowledged = Acknowledged { witness: first_seq, ..Acknowledged::default() };
    let dir = file.parent().unwrap_or(file);
    let mut scan = Scan::over(dir, vec![(first_seq, file.to_owned())], acknowledged);
    let damaged = |offset: u64, what| OpenError::Damaged { file: file.to_owned(), offset, what };
    loop {
        match scan.next_frame() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(OpenError::LedgerTruncated { .. }) => {
                return Err(damaged(0, "no record stands in it".to_owned()));
            }
            Err(error) => return Err(error),
        }
    }
    let end = scan.end();
    if let Some(torn) = end.torn {
        let what = format!("no whole frame, where record {} is expected", end.last_seq + 1);
        return Err(damaged(torn.offset, what));
    }
    let offset = end.segment.map_or(0, |(_, _, offset, _)| offset);
    if end.shortened {
        return Err(damaged(offset, "the file is shorter than it was made".to_owned()));
    }
    Ok(end.last_seq)
}

/// An error with its causes.
fn in_words(error: &OpenError) -> String {
    crate::log::local::health::error_chain(error)
}
