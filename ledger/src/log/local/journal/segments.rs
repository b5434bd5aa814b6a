//! Reading records of a journal that is being written, each from where it stands.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    frame::{
        FRAME_HEADER_LEN, Frame, FrameHeader, JournalKey, PRUNED_HEADER_LEN, PrunedPart,
        SEGMENT_HEADER_LEN, SegmentHeader,
    },
    scan::segment_path,
};
use crate::{
    Hash, ReadError, Record,
    codec::{self, DecodeError},
    log::local::{entry::RecordLocation, packing::RecordUnpacker},
};

/// How many files are kept open.
const FILES_MAX: usize = 64;
/// Of how many segments it is remembered where their frames begin.
const TABLES_MAX: usize = 8;
/// How many bytes are read where a record begins: nearly all records are shorter.
const RECORD_BYTES: usize = 1024;

/// The segments of a journal, for reading.
#[derive(Debug)]
pub(in crate::log) struct Segments {
    dir: PathBuf,
    key: JournalKey,
    /// The first record of each, in order.
    starts: RwLock<Vec<u64>>,
    files: Mutex<Files>,
    /// By the numbers of the open files.
    tables: Mutex<HashMap<u64, Table>>,
    /// The number of the next file that is opened.
    next_number: AtomicU64,
}

/// Files that are open, by their segments' first records.
type Files = HashMap<u64, Arc<OpenSegment>>;

/// A file of a segment, which stays as it is when another one takes its name.
#[derive(Debug)]
struct OpenSegment {
    file: Arc<File>,
    first_seq: u64,
    /// Tells it from the other files that the segment has had.
    number: u64,
    /// How many bytes stand before the first frame.
    header_len: u64,
    pruned: Option<PrunedPart>,
}

/// The offsets of the frames of a segment, as far as it has been read.
#[derive(Debug, Default)]
struct Table {
    /// The first record of each frame, and its offset.
    frames: Vec<(u64, u64)>,
    next: Option<(u64, u64)>,
}

impl Segments {
    pub(super) fn new(dir: &Path, key: JournalKey, starts: Vec<u64>) -> Self {
        Self {
            dir: dir.to_owned(),
            key,
            starts: RwLock::new(starts),
            files: Mutex::default(),
            tables: Mutex::default(),
            next_number: AtomicU64::new(0),
        }
    }

    /// The first record of each segment, in order.
    pub(super) fn starts(&self) -> Vec<u64> {
        self.starts.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in that there is another segment, which is open already.
    pub(super) fn add(&self, first_seq: u64, file: &Arc<File>) {
        self.starts.write().unwrap_or_else(PoisonError::into_inner).push(first_seq);
        let opened = self.opened(Arc::clone(file), first_seq, None);
        keep(&mut lock(&self.files), opened);
    }

    /// Puts another file in the place of a segment's. Who reads the old one goes on with it, and nobody opens
    /// it after this.
    pub(super) fn replace(&self, first_seq: u64, new: &Path) -> io::Result<()> {
        let mut files = lock(&self.files);
        fs::rename(new, segment_path(&self.dir, first_seq))?;
        files.remove(&first_seq);
        Ok(())
    }

    fn opened(
        &self,
        file: Arc<File>,
        first_seq: u64,
        pruned: Option<PrunedPart>,
    ) -> Arc<OpenSegment> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let header_len = if pruned.is_some() { PRUNED_HEADER_LEN } else { SEGMENT_HEADER_LEN };
        Arc::new(OpenSegment { file, first_seq, number, header_len: header_len as u64, pruned })
    }

    /// The record that stands at a place.
    pub(in crate::log) fn record_at(&self, place: RecordLocation) -> Result<Record, ReadError> {
        let segment = self.file(self.segment_of(place.seq))?;
        let Some(pruned) = segment.pruned else {
            return record_in(&segment.file, u64::from(place.offset), place);
        };
        // The place is that from before the payloads went; the segment knows where its records stand now.
        let now = segment.offset_of(pruned, place.seq)?;
        match now
            .ok_or_else(|| damaged(place.seq))
            .and_then(|now| record_in(&segment.file, now, place))
        {
            Err(ReadError::Damaged { .. }) => {
                // Found without the offsets, unless it is the place that is wrong.
                let found = self.records(place.seq, place.seq, 1)?.pop();
                let is_it = |record: &Record| place.is_of(&record.envelope_bytes);
                found.filter(is_it).ok_or_else(|| damaged(place.seq))
            }
            read => read,
        }
    }

    /// The records from one on up to another, at most `limit`.
    pub(in crate::log) fn records(
        &self,
        first: u64,
        last: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let mut records: Vec<Record> = Vec::new();
        let mut next = first;
        while next <= last && records.len() < limit {
            let bytes = self.frame_of(next)?;
            let frame = Frame::decode(&self.key, &bytes).map_err(|_| damaged(next))?;
            let framed = frame.records(&bytes).unwrap_or_default();
            let before = next;
            for (seq, record) in (frame.first_seq..=last).zip(framed) {
                if seq == next && records.len() < limit {
                    records.push(decode(seq, record.envelope, record.payload)?);
                    next = next.saturating_add(1);
                }
            }
            if next == before {
                return Err(damaged(next));
            }
        }
        Ok(records)
    }

    /// The bytes of the frame that holds a record.
    fn frame_of(&self, seq: u64) -> Result<Vec<u8>, ReadError> {
        let segment = self.file(self.segment_of(seq))?;
        let offset = self.frame_offset(&segment, seq)?;
        let header = self.header_at(&segment.file, offset)?.ok_or_else(|| damaged(seq))?;
        let mut bytes = vec![0; header.frame_len()];
        segment.file.read_exact_at(&mut bytes, offset).map_err(unavailable)?;
        Ok(bytes)
    }

    /// The offset of the frame that holds a record.
    fn frame_offset(&self, segment: &OpenSegment, seq: u64) -> Result<u64, ReadError> {
        let mut tables = lock(&self.tables);
        if TABLES_MAX <= tables.len() && !tables.contains_key(&segment.number) {
            tables.clear();
        }
        let table = tables.entry(segment.number).or_default();
        let begin = (segment.first_seq, segment.header_len);
        let (mut next_seq, mut offset) = table.next.unwrap_or(begin);
        while next_seq <= seq {
            let header = self.header_at(&segment.file, offset)?;
            let header = header.filter(|header| header.first_seq == next_seq);
            let header = header.ok_or_else(|| damaged(next_seq))?;
            table.frames.push((next_seq, offset));
            next_seq = next_seq.saturating_add(header.count);
            offset = offset.saturating_add(header.frame_len() as u64);
            table.next = Some((next_seq, offset));
        }
        let behind = table.frames.partition_point(|(first, _)| *first <= seq);
        let frame = behind.checked_sub(1).and_then(|place| table.frames.get(place));
        frame.map(|(_, offset)| *offset).ok_or_else(|| damaged(seq))
    }

    fn header_at(&self, file: &File, offset: u64) -> Result<Option<FrameHeader>, ReadError> {
        let mut bytes = [0; FRAME_HEADER_LEN];
        read_some(file, &mut bytes, offset)?;
        Ok(FrameHeader::decode(&self.key, &bytes))
    }

    /// The segment that holds a record, by its first.
    fn segment_of(&self, seq: u64) -> u64 {
        let starts = self.starts.read().unwrap_or_else(PoisonError::into_inner);
        let behind = starts.partition_point(|start| *start <= seq);
        behind.checked_sub(1).and_then(|place| starts.get(place)).copied().unwrap_or(1)
    }

    fn file(&self, segment: u64) -> Result<Arc<OpenSegment>, ReadError> {
        let mut files = lock(&self.files);
        if let Some(file) = files.get(&segment) {
            return Ok(Arc::clone(file));
        }
        let path = segment_path(&self.dir, segment);
        let opened = File::open(&path).or_else(|_| {
            // The process may have no descriptor left but these.
            files.clear();
            File::open(&path)
        });
        let opened = opened.map_err(|err| {
            let named = format!("{}: {err}", path.display());
            unavailable(io::Error::new(err.kind(), named))
        })?;
        let mut header = [0; PRUNED_HEADER_LEN];
        read_some(&opened, &mut header, 0)?;
        // A damaged header is found by the check of the segment; its records are checked each by itself.
        let pruned = SegmentHeader::decode(&header).ok().and_then(|header| header.pruned);
        let opened = self.opened(Arc::new(opened), segment, pruned);
        keep(&mut files, Arc::clone(&opened));
        Ok(opened)
    }
}

/// Keeps a file open, instead of all others if there are many.
fn keep(files: &mut Files, segment: Arc<OpenSegment>) {
    if FILES_MAX <= files.len() {
        files.clear();
    }
    files.insert(segment.first_seq, segment);
}

impl OpenSegment {
    /// The offset of a record in the file of a pruned segment; `None` if the file ends before it.
    fn offset_of(&self, pruned: PrunedPart, seq: u64) -> Result<Option<u64>, ReadError> {
        let place = pruned.place_of_offset(seq.saturating_sub(self.first_seq));
        let mut offset = [0; 4];
        let n_read = read_some(&self.file, &mut offset, place)?;
        Ok((n_read == offset.len()).then(|| u32::from_be_bytes(offset).into()))
    }
}

/// The record that stands at an offset of a file, if it is the one that belongs to a place.
fn record_in(file: &File, offset: u64, place: RecordLocation) -> Result<Record, ReadError> {
    let damaged = || damaged(place.seq);
    let mut bytes = vec![0; RECORD_BYTES];
    let mut n_read = read_some(file, &mut bytes, offset)?;
    let wanted = loop {
        let have = bytes.get(..n_read).unwrap_or_default();
        match wanted_len(have) {
            Some(wanted) if wanted <= n_read => break wanted,
            Some(wanted) if bytes.len() < wanted => {
                bytes.resize(wanted, 0);
                n_read = read_some(file, &mut bytes, offset)?;
            }
            // Shorter than it says, or too short to say it.
            _ => return Err(damaged()),
        }
    };
    let mut rest = RecordUnpacker(bytes.get(..wanted).unwrap_or_default());
    let (envelope, payload) = rest.record().ok_or_else(damaged)?;
    let record = decode(place.seq, envelope, payload)?;
    let intact = payload.is_empty() || Hash::of(payload) == record.envelope.payload;
    if place.is_of(envelope) && intact { Ok(record) } else { Err(damaged()) }
}

/// A record from its stored bytes.
fn decode(seq: u64, envelope: &[u8], payload: &[u8]) -> Result<Record, ReadError> {
    match codec::decode(envelope) {
        Ok(decoded) => {
            let (envelope_bytes, payload) = (envelope.to_vec(), payload.to_vec());
            Ok(Record { seq, envelope: decoded, envelope_bytes, payload })
        }
        Err(source) => Err(ReadError::Damaged { seq, source }),
    }
}

/// How many bytes a record has that begins with these; more of them may be needed to say it.
fn wanted_len(bytes: &[u8]) -> Option<usize> {
    let mut rest = RecordUnpacker(bytes);
    let envelope = rest.u32()?;
    let to_payload = 4_usize.checked_add(envelope)?.checked_add(4)?;
    let Some(from_payload) = bytes.get(4 + envelope..) else { return Some(to_payload) };
    match RecordUnpacker(from_payload).u32() {
        Some(payload) => to_payload.checked_add(payload),
        None => Some(to_payload),
    }
}

/// Fills a buffer from an offset on, as far as the file goes.
fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize, ReadError> {
    let mut n_read = 0;
    while let Some(rest) = buffer.get_mut(n_read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(n_read as u64)) {
            Ok(0) => break,
            Ok(n) => n_read = n_read.saturating_add(n),
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(unavailable(err)),
        }
    }
    Ok(n_read)
}

fn damaged(seq: u64) -> ReadError {
    ReadError::Damaged { seq, source: DecodeError::Altered }
}

fn unavailable(err: io::Error) -> ReadError {
    ReadError::Unavailable(Box::new(err))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
