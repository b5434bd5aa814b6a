//! Copies of a journal's segments, up to a frame that was acknowledged.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::{
    Journal, acknowledged,
    files::write_zeros,
    scan::{Scan, list_segments, segment_path},
};
use crate::{
    Hash,
    log::local::directory::{OpenError, create_private, sync_directory},
};

/// The end of a journal at a moment: everything up to there was acknowledged and never changes.
#[derive(Clone, Debug)]
pub(in crate::log::local) struct JournalMark {
    /// The first record of each segment, in order.
    starts: Vec<u64>,
    /// The end of the last frame in the last segment, in bytes.
    offset: u64,
    /// How long the last segment's file was made.
    file_len: u64,
    /// The last record, and the hash of its frame.
    last: (u64, Hash),
}

impl Journal {
    /// The end of the journal now.
    pub(in crate::log::local) fn mark(&self) -> JournalMark {
        JournalMark {
            starts: self.segments.starts(),
            offset: self.segment.offset,
            file_len: self.segment.len,
            last: (self.last_seq, self.hash),
        }
    }
}

impl JournalMark {
    /// Reads a journal that nobody writes to the end. A torn tail is left out.
    ///
    /// # Errors
    ///
    /// Returns an [`OpenError`] at the first place where the journal differs from the bytes that were written.
    pub(in crate::log::local) fn read(dir: &Path) -> Result<Self, OpenError> {
        let starts = list_segments(dir)?.into_iter().map(|(first_seq, _)| first_seq).collect();
        let mut scan = Scan::open(dir, 1, 0)?;
        while scan.next_frame()?.is_some() {}
        let end = scan.end();
        let none = || OpenError::damaged(&segment_path(dir, 1), 0, "the journal has no segment");
        let (_, _, offset, file_len) = end.segment.ok_or_else(none)?;
        Ok(Self { starts, offset, file_len, last: (end.last_seq, end.hash) })
    }

    /// How many bytes a copy of the journal in a directory takes.
    pub(in crate::log::local) fn bytes(&self, dir: &Path) -> io::Result<u64> {
        let (_, closed) = self.starts.split_last().unwrap_or((&1, &[]));
        let lens = closed.iter().map(|start| Ok(fs::metadata(segment_path(dir, *start))?.len()));
        lens.sum::<io::Result<u64>>().map(|bytes| bytes.saturating_add(self.file_len))
    }

    /// Copies the journal of a directory into another, which is made, and forces the copy to the disk. Returns
    /// whether `goes_on` has let it come to the end.
    pub(in crate::log::local) fn copy(
        &self,
        from: &Path,
        to: &Path,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<bool, OpenError> {
        create_private(to)?;
        let (last, closed) = self.starts.split_last().unwrap_or((&1, &[]));
        for start in closed {
            if !goes_on() {
                return Ok(false);
            }
            let (from, to) = (segment_path(from, *start), segment_path(to, *start));
            copy_file(&from, &to, None)?;
        }
        let (from, named) = (segment_path(from, *last), segment_path(to, *last));
        let made = fs::metadata(&from).map_err(OpenError::io(&from))?.len();
        copy_file(&from, &named, Some((self.offset, self.file_len.max(made))))?;
        let noted = (0 < self.last.0).then_some(self.last);
        acknowledged::renew(to, noted).map_err(OpenError::io(&acknowledged::path_in(to)))?;
        sync_directory(to).map_err(OpenError::io(to))?;
        Ok(true)
    }
}

/// Copies a file and forces the copy, which is its owner's alone, to the disk: whole, or up to an offset
/// with zeros to a length.
pub(in crate::log::local) fn copy_file(
    from: &Path,
    to: &Path,
    cut: Option<(u64, u64)>,
) -> Result<(), OpenError> {
    let source = File::open(from).map_err(OpenError::io(from))?;
    let mut private = File::options();
    let private = private.write(true).create_new(true).mode(0o600);
    let copied = private.open(to).and_then(|mut copy| {
        match cut {
            None => drop(io::copy(&mut &source, &mut copy)?),
            Some((offset, len)) => {
                io::copy(&mut io::Read::take(&source, offset), &mut copy)?;
                write_zeros(&copy, offset, len.saturating_sub(offset))?;
            }
        }
        copy.sync_all()
    });
    copied.map_err(OpenError::io(to))
}
