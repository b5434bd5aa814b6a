//! The bytes of the journal: the header of a segment, and the frames that follow.
//!
//! ```text
//! segment  magic 8 · journal's key 32 · first seq 8 · hash of the frame before 32 · file length 8 · hash 32
//! frame    marker 8 · body length 4 · records 4 · first seq 8 · hash of the frame before 32 · body · hash 32
//! body     batches 4, each: records 4, each: length 4 · envelope · length 4 · payload
//! ```
//!
//! The hashes and the marker are made with random bytes that each journal draws for itself and never
//! shows, so that nobody can upload a package whose bytes would pass for a frame of it.

use crate::{
    Hash, Record,
    log::local::packing::{RecordUnpacker, packed_len, put_record, put_u32, put_u64},
};

/// The bytes before the first frame of a segment.
pub(super) const SEGMENT_HEADER_LEN: usize = 120;
/// The bytes of a frame before its body.
pub(super) const FRAME_HEADER_LEN: usize = 56;
/// The bytes of a frame after its body.
const HASH_LEN: usize = 32;
/// The longest body of a frame, in bytes.
const BODY_BYTES_MAX: usize = 1 << 30;

/// Leads every segment; the number of the format follows.
const SEGMENT_MAGIC: [u8; 7] = *b"KPLEDGR";
/// The number of this format.
const SEGMENT_FORMAT: u8 = 1;

/// The key of one journal's hashes.
pub(super) type JournalKey = [u8; 32];

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) key: JournalKey,
    pub(super) first_seq: u64,
    pub(super) prev: Hash,
    pub(super) file_len: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = SEGMENT_MAGIC.to_vec();
        out.push(SEGMENT_FORMAT);
        out.extend(self.key);
        put_u64(&mut out, self.first_seq);
        out.extend(self.prev.as_bytes());
        put_u64(&mut out, self.file_len);
        let hash = keyed_hash(&self.key, &out);
        out.extend(hash.as_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let fields = bytes.get(..SEGMENT_HEADER_LEN - HASH_LEN).ok_or("the file is too short")?;
        let mut rest = RecordUnpacker(bytes);
        let header = (|| {
            let magic = (rest.array()?, rest.array()?);
            let (key, first_seq) = (rest.array()?, rest.u64()?);
            let prev = Hash::from_bytes(rest.array()?);
            let header = Self { key, first_seq, prev, file_len: rest.u64()? };
            Some((magic, header, Hash::from_bytes(rest.array()?)))
        })();
        let (magic, header, hash) = header.ok_or("the file is too short")?;
        if magic != (SEGMENT_MAGIC, [SEGMENT_FORMAT]) {
            return Err("it does not begin like a journal segment of this version of keypool");
        }
        if hash != keyed_hash(&header.key, fields) {
            return Err("the hash of the segment's header does not match");
        }
        Ok(header)
    }
}

/// The number of a segment's format, if a newer version of keypool wrote it: its header is whole.
pub(super) fn newer_format(bytes: &[u8]) -> Option<u8> {
    let (fields, rest) = bytes.split_at_checked(SEGMENT_HEADER_LEN - HASH_LEN)?;
    let (format, behind) = fields.strip_prefix(&SEGMENT_MAGIC)?.split_first()?;
    let key = behind.first_chunk()?;
    let whole = rest.starts_with(keyed_hash(key, fields).as_bytes());
    (whole && SEGMENT_FORMAT < *format).then_some(*format)
}

/// One group commit, as it stands in the journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) first_seq: u64,
    pub(super) prev: Hash,
    pub(super) hash: Hash,
    /// How many bytes the whole frame has.
    pub(super) len: usize,
    /// How many records it holds; at least one.
    count: u64,
}

impl Frame {
    /// The bytes and the hash of a frame; `None` if the records are too many for one.
    pub(super) fn encode(
        key: &JournalKey,
        first_seq: u64,
        prev: &Hash,
        batches: &[&[Record]],
    ) -> Option<(Vec<u8>, Hash)> {
        let records = batches.iter().copied().flatten();
        let body_len = records.clone().map(packed_len).sum::<usize>() + 4 + 4 * batches.len();
        if body_len > BODY_BYTES_MAX {
            return None;
        }
        let mut out = Vec::with_capacity(FRAME_HEADER_LEN + body_len + HASH_LEN);
        out.extend(marker(key));
        put_u32(&mut out, body_len);
        put_u32(&mut out, records.count());
        put_u64(&mut out, first_seq);
        out.extend(prev.as_bytes());
        put_u32(&mut out, batches.len());
        for batch in batches {
            put_u32(&mut out, batch.len());
            batch.iter().for_each(|record| put_record(&mut out, record));
        }
        let hash = keyed_hash(key, &out);
        out.extend(hash.as_bytes());
        Some((out, hash))
    }

    /// The frame at the beginning of some bytes; whether it belongs there is for the caller to say.
    pub(super) fn decode(key: &JournalKey, bytes: &[u8]) -> Result<Self, &'static str> {
        let mut rest = RecordUnpacker(bytes);
        if rest.array() != Some(marker(key)) {
            return Err("no frame begins here");
        }
        let header = (|| Some((rest.u32()?, rest.u32()? as u64, rest.u64()?, rest.array()?)))();
        let (body_len, count, first_seq, prev) = header.ok_or("the frame's header is cut off")?;
        let hashed = bytes.get(..FRAME_HEADER_LEN.saturating_add(body_len));
        let stored = rest.0.get(body_len..).and_then(<[u8]>::first_chunk);
        let (Some(hashed), Some(stored)) = (hashed, stored) else {
            return Err("the frame is longer than the file");
        };
        let hash = keyed_hash(key, hashed);
        if hash.as_bytes() != stored {
            return Err("the hash of the frame does not match");
        }
        let len = hashed.len() + HASH_LEN;
        let frame = Self { first_seq, prev: Hash::from_bytes(prev), hash, len, count };
        match frame.records(bytes) {
            Some(records) if records.len() as u64 == count && count > 0 => Ok(frame),
            _ => Err("the frame's records do not fill it"),
        }
    }

    /// The sequence number of its last record.
    pub(super) fn last_seq(&self) -> u64 {
        self.first_seq.saturating_add(self.count - 1)
    }

    /// The records, from the bytes the frame was decoded of.
    pub(super) fn records<'a>(&self, bytes: &'a [u8]) -> Option<Vec<FramedRecord<'a>>> {
        let bytes = bytes.get(..self.len.checked_sub(HASH_LEN)?)?;
        let mut body = RecordUnpacker(bytes.get(FRAME_HEADER_LEN..)?);
        let mut records = Vec::new();
        for _ in 0..body.u32()? {
            for _ in 0..body.u32()? {
                let offset = bytes.len() - body.0.len();
                let (envelope, payload) = body.record()?;
                records.push(FramedRecord { offset, envelope, payload });
            }
        }
        body.is_empty().then_some(records)
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameHeader {
    pub(super) first_seq: u64,
    /// How many records it holds.
    pub(super) count: u64,
    body_len: usize,
}

impl FrameHeader {
    /// The header that some bytes are; `None` if no frame begins with them.
    pub(super) fn decode(key: &JournalKey, bytes: &[u8]) -> Option<Self> {
        let mut rest = RecordUnpacker(bytes);
        if rest.array()? != marker(key) {
            return None;
        }
        let (body_len, count) = (rest.u32()?, rest.u32()? as u64);
        Some(Self { first_seq: rest.u64()?, count, body_len })
    }

    /// How many bytes the whole frame has.
    pub(super) fn frame_len(&self) -> usize {
        self.body_len.saturating_add(FRAME_HEADER_LEN + HASH_LEN)
    }
}

/// The offsets of the records of a frame's batches, in bytes from the beginning of the frame.
pub(super) fn record_offsets(batches: &[&[Record]]) -> impl Iterator<Item = usize> {
    let mut offset = FRAME_HEADER_LEN + 4;
    batches.iter().flat_map(move |batch| {
        offset += 4;
        let offsets: Vec<usize> = batch
            .iter()
            .map(|record| {
                let begin = offset;
                offset = offset.saturating_add(packed_len(record));
                begin
            })
            .collect();
        offsets
    })
}

/// The bytes of a record in a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct FramedRecord<'a> {
    /// Its offset in the frame, in bytes.
    pub(super) offset: usize,
    pub(super) envelope: &'a [u8],
    pub(super) payload: &'a [u8],
}

/// The eight bytes that every frame of a journal begins with.
pub(super) fn marker(key: &JournalKey) -> [u8; 8] {
    let hash = keyed_hash(key, b"the beginning of a frame");
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// The hash that no other journal computes for the same bytes.
fn keyed_hash(key: &JournalKey, bytes: &[u8]) -> Hash {
    Hash::from_bytes(*blake3::keyed_hash(key, bytes).as_bytes())
}
