//! A run of the index: the entries of a stretch of the log, sorted, written once and never changed.
//!
//! It lies in the database in chunks. In memory are the first fingerprint of each chunk, and a filter.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use super::filter::Filter;
use crate::{
    ReadError,
    log::local::{
        database::{IndexDatabase, Part, StoredValue},
        entry::{ENTRY_LEN, FINGERPRINT_LEN, Fingerprint, IndexEntry},
        packing::{RecordUnpacker, put_u64},
    },
};

/// How many entries a chunk has.
const CHUNK_ENTRIES: usize = 40;
/// How many chunks are handed to the database at once.
const CHUNKS_AT_A_TIME: usize = 256;
/// How many bytes of fences or of a filter stand in one value of the database.
const PIECE_BYTES: usize = 4000;

/// The description of a run, known before it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Its number; no two runs ever have the same.
    pub(super) id: u64,
    /// How often its entries were merged.
    pub(super) level: u64,
    /// The first record it finds.
    pub(super) first_seq: u64,
    /// The last record it finds.
    pub(super) last_seq: u64,
    /// How many entries it has.
    pub(super) entries: u64,
    /// The beginning of the hash of its fences and its filter.
    pub(super) digest: u64,
}

impl Extent {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let Self { id, level, first_seq, last_seq, entries, digest } = *self;
        for number in [id, level, first_seq, last_seq, entries, digest] {
            put_u64(&mut out, number);
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = RecordUnpacker(bytes);
        let (id, level, first_seq) = (rest.u64()?, rest.u64()?, rest.u64()?);
        let (last_seq, entries, digest) = (rest.u64()?, rest.u64()?, rest.u64()?);
        let extent = Self { id, level, first_seq, last_seq, entries, digest };
        rest.is_empty().then_some(extent)
    }
}

/// A run that can be looked up in.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) extent: Extent,
    /// The first fingerprint of each chunk.
    fences: Vec<Fingerprint>,
    filter: Filter,
}

impl Run {
    /// Writes the chunks of a new run from its entries in order. It is not part of the index yet.
    ///
    /// `count` is how many there are at most.
    pub(super) fn write(
        database: &IndexDatabase,
        extent: Extent,
        entries: impl Iterator<Item = Result<IndexEntry, ReadError>>,
        count: u64,
    ) -> Result<Self, ReadError> {
        let mut run = Self { extent, fences: Vec::new(), filter: Filter::for_entries(count) };
        run.extent.entries = 0;
        let (mut chunk, mut chunks) = (Vec::new(), Vec::new());
        for entry in entries {
            let entry = entry?;
            if chunk.is_empty() {
                run.fences.push(entry.fingerprint());
            }
            run.filter.add(entry.fingerprint());
            run.extent.entries += 1;
            chunk.extend(entry.0);
            if CHUNK_ENTRIES * ENTRY_LEN <= chunk.len() {
                run.put(&mut chunks, &mut chunk);
            }
            if CHUNKS_AT_A_TIME <= chunks.len() {
                database.put_parts(std::mem::take(&mut chunks))?;
            }
        }
        if !chunk.is_empty() {
            run.put(&mut chunks, &mut chunk);
        }
        let fences: Vec<u8> = run.fences.iter().flatten().copied().collect();
        run.extent.digest = digest(&fences, run.filter.bytes());
        for (kind, bytes) in [(Part::FENCES, fences.as_slice()), (Part::FILTER, run.filter.bytes())]
        {
            for (number, piece) in (0_u32..).zip(bytes.chunks(PIECE_BYTES)) {
                chunks.push((Part { kind, run: run.extent.id, number }, piece.to_vec()));
            }
        }
        database.put_parts(chunks)?;
        Ok(run)
    }

    fn put(&self, chunks: &mut Vec<(Part, Vec<u8>)>, chunk: &mut Vec<u8>) {
        let number = u32::try_from(self.fences.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let part = Part { kind: Part::CHUNK, run: self.extent.id, number };
        chunks.push((part, std::mem::take(chunk)));
    }

    /// Reads the fences and the filter of a run; `None` if it is not whole.
    pub(super) fn open(
        database: &IndexDatabase,
        extent: Extent,
    ) -> Result<Option<Self>, ReadError> {
        let read = |kind| database.pieces(kind, extent.id).map(|pieces| pieces.concat());
        let (fences, filter) = (read(Part::FENCES)?, read(Part::FILTER)?);
        let intact = digest(&fences, &filter) == extent.digest;
        let (fences, rest) = fences.as_chunks::<FINGERPRINT_LEN>();
        let chunks = extent.entries.div_ceil(CHUNK_ENTRIES as u64);
        let whole = intact && rest.is_empty() && fences.len() as u64 == chunks;
        let fences = fences.to_vec();
        Ok(whole.then(|| Self { extent, fences, filter: Filter::from_bytes(filter) }))
    }

    /// Whether it is worth looking into for a fingerprint; this reads no disk.
    pub(super) fn may_have(&self, fingerprint: Fingerprint) -> bool {
        self.filter.may_have(fingerprint)
    }

    /// The entries with a fingerprint, in the order of the log.
    pub(super) fn find(
        &self,
        database: &IndexDatabase,
        fingerprint: Fingerprint,
    ) -> Result<Vec<IndexEntry>, ReadError> {
        // The chunk before the first that begins with it may end with it.
        let begin = self.fences.partition_point(|fence| *fence < fingerprint).saturating_sub(1);
        let end = self.fences.partition_point(|fence| *fence <= fingerprint);
        let mut found = Vec::new();
        for number in begin..end {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let chunk = self.chunk(database, number)?;
            let entries = chunk.bytes().as_chunks::<ENTRY_LEN>().0;
            let before = |entry: &[u8; ENTRY_LEN]| IndexEntry(*entry).fingerprint() < fingerprint;
            let from = entries.partition_point(before);
            let rest = entries.iter().skip(from).map(|entry| IndexEntry(*entry));
            found.extend(rest.take_while(|entry| entry.fingerprint() == fingerprint));
        }
        Ok(found)
    }

    /// Reads a chunk, which begins with the fingerprint that is known of it.
    fn chunk(&self, database: &IndexDatabase, number: u32) -> Result<StoredValue, ReadError> {
        let chunk = database.part(Part { kind: Part::CHUNK, run: self.extent.id, number })?;
        let fence = usize::try_from(number).ok().and_then(|number| self.fences.get(number));
        let first = chunk.bytes().first_chunk::<FINGERPRINT_LEN>();
        if first.is_some() && first == fence { Ok(chunk) } else { Err(database.damaged()) }
    }

    /// How many chunks it has.
    pub(super) fn chunks(&self) -> u32 {
        u32::try_from(self.fences.len()).unwrap_or(u32::MAX)
    }
}

/// Computes the digest by which fences and filter are known to be those that were written.
fn digest(fences: &[u8], filter: &[u8]) -> u64 {
    let hash = blake3::Hasher::new().update(fences).update(filter).finalize();
    hash.as_bytes().first_chunk().copied().map(u64::from_be_bytes).unwrap_or_default()
}

/// The entries of several runs in order. Of those that say where a history ends, only the last of each.
pub(super) struct Merged<'a> {
    database: &'a IndexDatabase,
    cursors: Vec<Cursor>,
    heap: BinaryHeap<Reverse<(IndexEntry, usize)>>,
    failed: Option<ReadError>,
}

struct Cursor {
    run: Arc<Run>,
    next_chunk: u32,
    chunk: std::vec::IntoIter<IndexEntry>,
}

impl<'a> Merged<'a> {
    pub(super) fn new(database: &'a IndexDatabase, runs: &[Arc<Run>]) -> Self {
        let cursor = |run: &Arc<Run>| Cursor {
            run: Arc::clone(run),
            next_chunk: 0,
            chunk: Vec::new().into_iter(),
        };
        let cursors = runs.iter().map(cursor).collect();
        let mut merged = Self { database, cursors, heap: BinaryHeap::new(), failed: None };
        (0..runs.len()).for_each(|which| merged.advance(which));
        merged
    }

    fn advance(&mut self, which: usize) {
        let Some(cursor) = self.cursors.get_mut(which) else { return };
        let mut next = cursor.chunk.next();
        if next.is_none() && cursor.next_chunk < cursor.run.chunks() {
            match cursor.run.chunk(self.database, cursor.next_chunk) {
                Ok(chunk) => {
                    let entries = chunk.bytes().as_chunks::<ENTRY_LEN>().0.iter();
                    cursor.chunk =
                        entries.map(|entry| IndexEntry(*entry)).collect::<Vec<_>>().into_iter();
                }
                Err(error) => self.failed = Some(error),
            }
            cursor.next_chunk += 1;
            next = cursor.chunk.next();
        }
        if let Some(entry) = next {
            self.heap.push(Reverse((entry, which)));
        }
    }

    fn pop(&mut self) -> Option<IndexEntry> {
        let Reverse((entry, which)) = self.heap.pop()?;
        self.advance(which);
        Some(entry)
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<IndexEntry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut entry = self.pop();
        while let (Some(this), Some(Reverse((next, _)))) = (&entry, self.heap.peek()) {
            if !this.is_head() || next.fingerprint() != this.fingerprint() {
                break;
            }
            entry = self.pop();
        }
        match self.failed.take() {
            Some(error) => Some(Err(error)),
            None => entry.map(Ok),
        }
    }
}
