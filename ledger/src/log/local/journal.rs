//! The journal: every group commit is written here and forced to the disk before anyone is answered.
//!
//! A journal is a directory of segments, each named by its first sequence number and made at its
//! full length beforehand, because forcing a growing file to the disk is much slower. Zeros
//! follow the last frame. Records are read from where they stand, which the engine's index knows; it is
//! filled from the journal and can be built anew from it at any time.

mod acknowledged;
mod copy;
mod files;
mod frame;
mod prune;
mod reader;
mod replacement;
mod scan;
mod scrub;
mod segments;
mod spare;
mod writer;

use std::{
    error::Error,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use uuid::Uuid;

pub(in crate::log) use self::segments::Segments;
use self::{
    acknowledged::AcknowledgedFile,
    files::{create_segment, name_segment, remove_unfinished, reopen},
    frame::{Frame, JournalKey, SEGMENT_HEADER_LEN, SegmentHeader, record_offsets},
    scan::{Scan, list_segments},
    spare::Spare,
};
pub(super) use self::{
    copy::{JournalMark, copy_file},
    files::write_zeros,
    prune::prune_segment,
    replacement::{Replacements, SegmentFault, Unmendable},
    scan::segment_path,
    scrub::scrub,
};
pub use self::{
    prune::PruneReport,
    reader::{JournalReader, RawRecord},
    scan::TornTail,
    writer::{JournalWriter, JournalWriterOptions},
};
use crate::{
    Hash, Record, codec,
    log::local::{
        directory::{OpenError, create_private},
        disk,
        entry::RecordLocation,
        health::{LogHealth, Reported, error_chain},
    },
};

/// Why a commit failed: shared by all the batches that were in it.
pub(in crate::log) type Cause = Arc<dyn Error + Send + Sync>;

/// The reason why a commit did not succeed.
#[derive(Clone, Debug)]
pub(super) enum CommitError {
    /// None of it can ever be read back.
    NotWritten(Cause),
    /// None of it can ever be read back, and the journal takes no more.
    Failed(Cause),
    /// It may be there when the journal is opened again.
    Unknown(Cause),
}

/// How many bytes must be free on the disk before a log that refuses events reports that it takes them.
const ROOM_BYTES: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
#[error("{} failed for {}", doing, path.display())]
struct WriteError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

#[derive(Debug, thiserror::Error)]
#[error("the log accepts no more events since an earlier error; free the disk and restart")]
struct Poisoned(#[source] Cause);

#[derive(Debug, thiserror::Error)]
#[error("the events are too long to be written together")]
struct TooLong;

/// The journal, open for writing. There is one at a time: see `LockedDirectory`.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    segment_bytes: u64,
    key: JournalKey,
    segment: Segment,
    /// The next segment.
    spare: Spare,
    /// The directory, open because naming a segment must not need another descriptor.
    directory: File,
    segments: Arc<Segments>,
    /// The first record that was checked when it was opened: those before it were checked earlier.
    checked_from: u64,
    acknowledged: AcknowledgedFile,
    last_seq: u64,
    hash: Hash,
    /// The first error; after it nothing is written any more.
    poisoned: Option<Cause>,
    /// Whether the last append was refused because there was no next segment.
    refusing: bool,
    health: Arc<Reported>,
}

/// The part of a journal that an index has to find.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    /// The directory of the journal.
    pub(super) dir: PathBuf,
    /// The last record; bytes behind it were never acknowledged.
    pub(super) last_seq: u64,
}

/// The segment that is being written.
#[derive(Debug)]
struct Segment {
    file: Arc<File>,
    path: PathBuf,
    /// The offset of the next frame.
    offset: u64,
    /// How long the file is.
    len: u64,
}

impl Journal {
    /// Opens a journal, checks every byte of its last segments, and cuts a torn tail.
    ///
    /// The segments that are checked have `check_bytes` bytes at least; the segments before them are for
    /// [`scrub`]. `witness` is a sequence number that is known from elsewhere to have been acknowledged.
    pub(super) fn open(
        dir: &Path,
        (segment_bytes, check_bytes): (u64, u64),
        witness: u64,
    ) -> Result<Self, OpenError> {
        create_private(dir)?;
        let checked_from = first_to_check(dir, check_bytes)?;
        let mut scan = Scan::open(dir, checked_from, witness)?;
        while scan.next_frame()?.is_some() {}
        let end = scan.end();
        remove_unfinished(dir)?;
        let (key, segment) = match &end.segment {
            Some((key, path, offset, len)) => (*key, reopen(path, *offset, *len, &end)?),
            None => begin(dir, segment_bytes)?,
        };
        let directory = File::open(dir).map_err(OpenError::io(dir))?;
        let mut acknowledged = AcknowledgedFile::open(dir, &end.acknowledged)?;
        if let Some(doubt) = end.acknowledged.doubt.filter(|_| end.last_seq > 0) {
            let dir = dir.display();
            tracing::warn!(%dir, doubt, "the journal is whole, but not its note of what was acknowledged; made anew");
        }
        let last = Some((end.last_seq, end.hash));
        if end.last_seq > 0 && end.acknowledged.last != last {
            acknowledged.note(end.last_seq, &end.hash).map_err(OpenError::io(dir))?;
        }
        let starts = list_segments(dir)?.into_iter().map(|(first_seq, _)| first_seq).collect();
        Ok(Self {
            dir: dir.to_owned(),
            segment_bytes,
            key,
            segment,
            spare: Spare::begin(dir, segment_len(segment_bytes, 0)),
            directory,
            segments: Arc::new(Segments::new(dir, key, starts)),
            checked_from,
            acknowledged,
            last_seq: end.last_seq,
            hash: end.hash,
            poisoned: None,
            refusing: false,
            health: Arc::default(),
        })
    }

    /// The part of it that an index has to find.
    pub(super) fn contents(&self) -> Contents {
        Contents { dir: self.dir.clone(), last_seq: self.last_seq }
    }

    /// The sequence number of the last record.
    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The first record that was checked when it was opened.
    pub(super) fn checked_from(&self) -> u64 {
        self.checked_from
    }

    /// The health that it reports.
    pub(super) fn health(&self) -> Arc<Reported> {
        Arc::clone(&self.health)
    }

    /// The error of every append from now on, if the journal has failed.
    pub(super) fn failure(&self) -> Option<CommitError> {
        let cause = Arc::clone(self.poisoned.as_ref()?);
        Some(CommitError::Failed(Arc::new(Poisoned(cause))))
    }

    /// The segments, for reading.
    pub(super) fn segments(&self) -> Arc<Segments> {
        Arc::clone(&self.segments)
    }

    /// Tells this journal from every other, and nothing about its key.
    pub(super) fn id(&self) -> Hash {
        id_of(&self.key)
    }

    /// Writes batches as one frame and returns when the disk has it, with the places of the records.
    ///
    /// # Errors
    ///
    /// Returns a [`CommitError`]. After a write or a force that failed, all that follow fail; a commit that
    /// is too long, or for which no segment can be made, changes nothing.
    pub(super) fn append(
        &mut self,
        batches: &[&[Record]],
    ) -> Result<Vec<RecordLocation>, CommitError> {
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        let first_seq = self.last_seq.saturating_add(1);
        let Some((bytes, hash)) = Frame::encode(&self.key, first_seq, &self.hash, batches) else {
            return Err(CommitError::NotWritten(Arc::new(TooLong)));
        };
        let n_records: usize = batches.iter().map(|batch| batch.len()).sum();
        self.make_room(&bytes).map_err(|err| CommitError::NotWritten(self.refuse(err)))?;
        let last_seq = self.last_seq.saturating_add(n_records as u64);
        let begin = self.segment.offset;
        self.write(&bytes)?;
        self.note(last_seq, &hash).map_err(|err| CommitError::Unknown(self.poison(err)))?;
        self.accept();
        (self.last_seq, self.hash) = (last_seq, hash);
        let records = batches.iter().copied().flatten();
        let places = records.zip(record_offsets(batches)).map(|(record, offset)| {
            let offset = begin.saturating_add(offset as u64);
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            RecordLocation::new(record.seq, offset, &codec::chain_hash(&record.envelope_bytes))
        });
        Ok(places.collect())
    }

    /// Refuses everything from now on.
    ///
    /// An error of the disk is not tried again: after a failed fsync the kernel may have dropped the
    /// pages, so that a second one succeeds without having written anything.
    pub(super) fn poison(&mut self, err: impl Error + Send + Sync + 'static) -> Cause {
        tracing::error!(error = &err as &dyn Error, "the log stops accepting events");
        self.health.set(LogHealth::Failed { why: error_chain(&err) });
        let cause: Cause = Arc::new(err);
        self.poisoned.get_or_insert_with(|| Arc::clone(&cause));
        cause
    }

    /// Reports that there is no room for a commit, of which nothing was written.
    fn refuse(&mut self, err: WriteError) -> Cause {
        if !self.refusing {
            tracing::error!(error = &err as &dyn Error, "the log refuses events for now");
        }
        self.refusing = true;
        self.health.set(LogHealth::Refusing { why: error_chain(&err) });
        Arc::new(err)
    }

    /// Makes the next segment after one could not be made, and reports when there is one.
    pub(super) fn recover(&mut self) {
        if self.refusing {
            self.spare.prepare();
            let has_room = disk::space(&self.dir).is_ok_and(|space| ROOM_BYTES <= space.free);
            if self.spare.is_ready() && has_room {
                self.accept();
            }
        }
    }

    /// Reports that events are taken again.
    fn accept(&mut self) {
        if self.refusing {
            tracing::info!(dir = %self.dir.display(), "the log takes events again");
            self.health.set(LogHealth::Writable);
        }
        self.refusing = false;
    }

    /// Goes on to a new segment if a frame does not fit into this one.
    fn make_room(&mut self, frame: &[u8]) -> Result<(), WriteError> {
        let end = self.segment.offset.saturating_add(frame.len() as u64);
        if end <= self.segment.len {
            self.spare.prepare();
            return Ok(());
        }
        self.begin_segment(frame.len())
    }

    /// Closes the segment and begins the next one, for a frame of a length.
    fn begin_segment(&mut self, frame_len: usize) -> Result<(), WriteError> {
        // The next segment may have its name already when something fails here, so nothing more goes
        // into this one.
        self.segment.len = self.segment.offset;
        let header = SegmentHeader {
            key: self.key,
            first_seq: self.last_seq.saturating_add(1),
            prev: self.hash,
            file_len: segment_len(self.segment_bytes, frame_len),
            pruned: None,
        };
        let failed =
            |source| WriteError { doing: "making a segment", path: self.dir.clone(), source };
        let made = self.spare.take(header.file_len);
        let named = made.and_then(|made| name_segment(made, (&self.dir, &self.directory), &header));
        self.segment = named.map_err(failed)?;
        self.segments.add(header.first_seq, &self.segment.file);
        self.spare.prepare();
        Ok(())
    }

    /// Writes a frame and forces it to the disk.
    fn write(&mut self, frame: &[u8]) -> Result<(), CommitError> {
        let Segment { file, path, offset, .. } = &mut self.segment;
        let path = path.clone();
        let failed = |doing, source| WriteError { doing, path, source };
        if let Err(source) = file.write_all_at(frame, *offset) {
            // A frame that found no room may have left its beginning, which is no frame; the next one is
            // written over it.
            let full = disk::is_full(&source);
            let error = failed("write", source);
            return Err(if full {
                CommitError::NotWritten(self.refuse(error))
            } else {
                CommitError::Unknown(self.poison(error))
            });
        }
        if let Err(source) = file.sync_data() {
            return Err(CommitError::Unknown(self.poison(failed("fdatasync", source))));
        }
        *offset = offset.saturating_add(frame.len() as u64);
        Ok(())
    }

    /// Notes that somebody is about to be told of everything up to a record.
    fn note(&mut self, last_seq: u64, hash: &Hash) -> Result<(), WriteError> {
        let path = &self.segment.path;
        let failed = |source| WriteError {
            doing: "noting what is acknowledged",
            path: path.clone(),
            source,
        };
        self.acknowledged.note(last_seq, hash).map_err(failed)
    }
}

/// The first record of the last segments that have so many bytes together.
fn first_to_check(dir: &Path, check_bytes: u64) -> Result<u64, OpenError> {
    let mut bytes = 0_u64;
    for (first_seq, path) in list_segments(dir)?.into_iter().rev() {
        let len = fs::metadata(&path).map_err(OpenError::io(&path))?.len();
        bytes = bytes.saturating_add(len);
        if check_bytes <= bytes {
            return Ok(first_seq);
        }
    }
    Ok(1)
}

/// The identity of a journal, which no other one has.
fn id_of(key: &JournalKey) -> Hash {
    Hash::of(key)
}

/// Which journal is in a directory, as far as its first segment says; `None` without one.
pub(super) fn id_in(dir: &Path) -> Option<Hash> {
    let mut bytes = vec![0; SEGMENT_HEADER_LEN];
    let file = File::open(segment_path(dir, 1)).ok()?;
    file.read_exact_at(&mut bytes, 0).ok()?;
    SegmentHeader::decode(&bytes).ok().map(|header| id_of(&header.key))
}

/// Makes the first segment of a new journal.
fn begin(dir: &Path, segment_bytes: u64) -> Result<(JournalKey, Segment), OpenError> {
    let key = new_key();
    let file_len = segment_len(segment_bytes, 0);
    let header = SegmentHeader { key, first_seq: 1, prev: Hash::ZERO, file_len, pruned: None };
    Ok((key, create_segment(dir, header).map_err(OpenError::io(dir))?))
}

/// How long a segment's file must be for a frame to fit.
fn segment_len(segment_bytes: u64, frame_len: usize) -> u64 {
    segment_bytes.max(SEGMENT_HEADER_LEN as u64 + frame_len as u64)
}

/// Random bytes that nobody outside can know.
pub(super) fn new_key() -> JournalKey {
    let mut bytes = Uuid::new_v4().as_bytes().to_vec();
    bytes.extend(Uuid::new_v4().as_bytes());
    *blake3::hash(&bytes).as_bytes()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::time::Patience;

    #[test]
    fn events_are_taken_again_when_the_next_segment_is_made_and_not_before() {
        let dir = TempDir::new().unwrap();
        let mut journal = Journal::open(dir.path(), (4096, 0), 0).unwrap();
        let refused = || WriteError {
            doing: "making a segment",
            path: dir.path().to_owned(),
            source: io::Error::from(io::ErrorKind::StorageFull),
        };
        journal.recover();
        journal.refuse(refused());
        journal.spare = Spare::begin(&dir.path().join("missing"), 4096);
        journal.recover();
        assert!(matches!(journal.health().get(), LogHealth::Refusing { .. }));
        journal.spare = Spare::begin(dir.path(), 4096);
        let patience = Patience::of(Duration::from_mins(1));
        while !journal.spare.is_ready() {
            assert!(!patience.is_over(), "the next segment is not made");
            std::thread::yield_now();
        }
        journal.recover();
        assert_eq!(journal.health().get(), LogHealth::Writable);
    }
}
