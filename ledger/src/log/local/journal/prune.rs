//! Payloads that leave the journal: closed segments are written again without them.
//!
//! The new file takes the old one's name when it is on the disk, so a crash leaves one of the two. It carries
//! the hash of the last frame as it was first written, so that the next segment follows it as before, and the
//! offsets of its records, so that an index of the old file finds them.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use super::{
    Journal, Segments,
    acknowledged::Acknowledged,
    frame::{PRUNED_HEADER_LEN, PrunedPart, SegmentHeader, encode_offsets},
    scan::{Scan, segment_path},
};
use crate::{
    Hash,
    log::local::directory::{OpenError, sync_directory},
};

/// The bytes that left the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// How many segments were written again.
    pub segments: u64,
    /// How many bytes of payloads are gone.
    pub payload_bytes: u64,
    /// How many bytes the segments' files have less.
    pub file_bytes: u64,
}

impl PruneReport {
    /// Adds the bytes of another segment.
    pub(in crate::log::local) const fn add(&mut self, other: Self) {
        self.segments = self.segments.saturating_add(other.segments);
        self.payload_bytes = self.payload_bytes.saturating_add(other.payload_bytes);
        self.file_bytes = self.file_bytes.saturating_add(other.file_bytes);
    }
}

/// The first and the last record of a closed segment that is not needed to tell the end of the journal.
pub(in crate::log::local) type ClosedSegment = (u64, u64);

impl Journal {
    /// The segments that may be written again. The segment that is being written is closed first if it holds
    /// records up to `last_due`.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError::Io`] if the note of the end cannot be written.
    pub(in crate::log::local) fn prunable_segments(
        &mut self,
        last_due: u64,
    ) -> Result<Vec<ClosedSegment>, OpenError> {
        if self.last_seq == 0 || self.poisoned.is_some() {
            return Ok(Vec::new());
        }
        // The note of the end names a frame by its hash; after this neither slot names an earlier one.
        for _ in 0..2 {
            let noted = self.acknowledged.note(self.last_seq, &self.hash);
            noted.map_err(OpenError::io(&self.dir))?;
        }
        let begins = self.segments.starts().last().copied().unwrap_or(1);
        if begins <= self.last_seq && begins <= last_due {
            // Without room for the next segment the others can still give some back.
            if let Err(error) = self.begin_segment(0) {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "the segment that is being written is not pruned for now");
            }
        }
        let starts = self.segments.starts();
        let closed = starts.windows(2).filter_map(|pair| match pair {
            // The last frame of the journal is the one that the note names.
            [first, next] if first < next && *next <= self.last_seq => Some((*first, *next - 1)),
            _ => None,
        });
        Ok(closed.collect())
    }
}

/// Writes a segment again without the payloads of some records; nothing happens if none of them has one. The file
/// before stays under the name `before`, if there is one.
///
/// # Errors
///
/// Returns an [`OpenError`] if the segment is damaged or the disk refuses. The segment is as it was then.
pub(in crate::log::local) fn prune_segment(
    segments: &Segments,
    dir: &Path,
    ((first_seq, last_seq), due): (ClosedSegment, &BTreeSet<u64>),
    before: Option<&Path>,
) -> Result<PruneReport, OpenError> {
    if due.range(first_seq..=last_seq).next().is_none() {
        return Ok(PruneReport::default());
    }
    let path = segment_path(dir, first_seq);
    let len_before = fs::metadata(&path).map_err(OpenError::io(&path))?.len();
    let pruned = PrunedSegment::read(dir, (first_seq, last_seq), due)?;
    if pruned.left_out == 0 {
        return Ok(PruneReport::default());
    }
    let new = path.with_extension("pruned.new");
    let written = pruned.write(&new).and_then(|len| {
        if let Some(before) = before {
            fs::hard_link(&path, before)?;
            File::open(dir)?.sync_all()?;
        }
        segments.replace(first_seq, &new)?;
        Ok(len)
    });
    let len = written.map_err(|error| {
        drop(fs::remove_file(&new));
        OpenError::io(&new)(error)
    })?;
    sync_directory(dir).map_err(OpenError::io(dir))?;
    let file_bytes = len_before.saturating_sub(len);
    Ok(PruneReport { segments: 1, payload_bytes: pruned.left_out, file_bytes })
}

/// A segment without some of its payloads, as it is to be written.
struct PrunedSegment {
    header: SegmentHeader,
    frames: Vec<u8>,
    offsets: Vec<u32>,
    left_out: u64,
}

impl PrunedSegment {
    /// Reads a segment, whose hashes are checked, and leaves payloads out.
    fn read(
        dir: &Path,
        (first_seq, last_seq): ClosedSegment,
        due: &BTreeSet<u64>,
    ) -> Result<Self, OpenError> {
        let path: PathBuf = segment_path(dir, first_seq);
        let mut scan = Scan::over(dir, vec![(first_seq, path.clone())], Acknowledged::default());
        let (mut frames, mut offsets, mut left_out) = (Vec::new(), Vec::new(), 0_u64);
        let (mut begin, mut prev) = (Hash::ZERO, None);
        while let Some(frame) = scan.next_frame()? {
            if prev.is_none() {
                begin = frame.prev;
            }
            let to = prev.unwrap_or(frame.prev);
            let pruned =
                frame.pruned(&scan.key(), (scan.bytes_of(&frame), &to), &|seq| due.contains(&seq));
            let unread = || OpenError::damaged(&path, frames.len(), "its records cannot be read");
            let (hash, bytes, places, bytes_left_out) = pruned.ok_or_else(unread)?;
            let at = PRUNED_HEADER_LEN + frames.len();
            let place = |place: usize| u32::try_from(at + place).unwrap_or(u32::MAX);
            offsets.extend(places.into_iter().map(place));
            frames.extend(bytes);
            left_out = left_out.saturating_add(bytes_left_out);
            prev = Some(hash);
        }
        let key = scan.key();
        let end = scan.end();
        if end.last_seq != last_seq {
            let what = format!("it ends at record {}, not at record {last_seq}", end.last_seq);
            return Err(OpenError::damaged(&path, 0, what));
        }
        let frames_end = (PRUNED_HEADER_LEN + frames.len()) as u64;
        let offsets_len = encode_offsets(&key, &offsets).len() as u64;
        let records = offsets.len() as u64;
        let part = PrunedPart { closing: end.hash, records, frames_end };
        let file_len = frames_end.saturating_add(offsets_len);
        let header = SegmentHeader { key, first_seq, prev: begin, file_len, pruned: Some(part) };
        Ok(Self { header, frames, offsets, left_out })
    }

    /// Writes the segment to a file and forces it to the disk. Returns the file's length in bytes.
    fn write(&self, path: &Path) -> std::io::Result<u64> {
        let mut file = File::create(path)?;
        file.write_all(&self.header.encode())?;
        file.write_all(&self.frames)?;
        file.write_all(&encode_offsets(&self.header.key, &self.offsets))?;
        file.sync_all()?;
        Ok(self.header.file_len)
    }
}
