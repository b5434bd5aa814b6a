//! The bytes of the journal: the header of a segment, and the frames that follow.
//!
//! ```text
//! segment  magic 8 · journal's key 32 · first seq 8 · hash of the frame before 32 · file length 8 · hash 32
//! pruned   the same, with another number · hash of the last frame as it was first written 32 · records 8 ·
//!          end of the frames 8 · hash 32; behind the frames: the offset of each record 4 · hash 32
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
/// The bytes before the first frame of a segment of which payloads were pruned.
pub(super) const PRUNED_HEADER_LEN: usize = SEGMENT_HEADER_LEN + 48 + HASH_LEN;
/// The bytes of a record's offset behind the frames of a pruned segment.
const OFFSET_LEN: usize = 4;
/// The bytes of a frame before its body.
pub(super) const FRAME_HEADER_LEN: usize = 56;
/// The bytes of a frame after its body.
const HASH_LEN: usize = 32;
/// The longest body of a frame, in bytes.
const BODY_BYTES_MAX: usize = 1 << 30;

/// Leads every segment; the number of the format follows.
const SEGMENT_MAGIC: [u8; 7] = *b"KPLEDGR";
/// The number of the format of a segment that is as it was first written.
const SEGMENT_FORMAT: u8 = 1;
/// The number of the format of a segment of which payloads were pruned.
const PRUNED_FORMAT: u8 = 2;

/// The key of one journal's hashes.
pub(super) type JournalKey = [u8; 32];

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) key: JournalKey,
    pub(super) first_seq: u64,
    pub(super) prev: Hash,
    pub(super) file_len: u64,
    /// `None` for a segment that is as it was first written.
    pub(super) pruned: Option<PrunedPart>,
}

/// The part of a header that a segment has once payloads were pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrunedPart {
    /// The hash of the last frame as it was first written, which the next segment carries.
    pub(super) closing: Hash,
    /// How many records stand in the segment.
    pub(super) records: u64,
    /// The end of the frames, where the offsets of the records begin.
    pub(super) frames_end: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = SEGMENT_MAGIC.to_vec();
        out.push(if self.pruned.is_some() { PRUNED_FORMAT } else { SEGMENT_FORMAT });
        out.extend(self.key);
        put_u64(&mut out, self.first_seq);
        out.extend(self.prev.as_bytes());
        put_u64(&mut out, self.file_len);
        self.put_hash(&mut out);
        if let Some(PrunedPart { closing, records, frames_end }) = self.pruned {
            out.extend(closing.as_bytes());
            put_u64(&mut out, records);
            put_u64(&mut out, frames_end);
            self.put_hash(&mut out);
        }
        out
    }

    /// Appends the hash of everything before it.
    fn put_hash(&self, out: &mut Vec<u8>) {
        let hash = keyed_hash(&self.key, out);
        out.extend(hash.as_bytes());
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let fields = bytes.get(..SEGMENT_HEADER_LEN - HASH_LEN).ok_or("the file is too short")?;
        let mut rest = RecordUnpacker(bytes);
        let header = (|| {
            let (magic, [format]) = (rest.array()?, rest.array()?);
            let (key, first_seq) = (rest.array()?, rest.u64()?);
            let (prev, file_len) = (Hash::from_bytes(rest.array()?), rest.u64()?);
            let header = Self { key, first_seq, prev, file_len, pruned: None };
            Some(((magic, format), header, Hash::from_bytes(rest.array()?)))
        })();
        let ((magic, format), header, hash) = header.ok_or("the file is too short")?;
        if magic != SEGMENT_MAGIC || ![SEGMENT_FORMAT, PRUNED_FORMAT].contains(&format) {
            return Err("it does not begin like a journal segment of this version of keypool");
        }
        if hash != keyed_hash(&header.key, fields) {
            return Err("the hash of the segment's header does not match");
        }
        if format == SEGMENT_FORMAT {
            return Ok(header);
        }
        let pruned = PrunedPart::decode(&header.key, bytes)?;
        Ok(Self { pruned: Some(pruned), ..header })
    }

    /// How many bytes stand before the first frame.
    pub(super) const fn len(&self) -> usize {
        if self.pruned.is_some() { PRUNED_HEADER_LEN } else { SEGMENT_HEADER_LEN }
    }
}

impl PrunedPart {
    /// Reads the part from a segment's bytes.
    fn decode(key: &JournalKey, bytes: &[u8]) -> Result<Self, &'static str> {
        let short = "the file is too short";
        let fields = bytes.get(..PRUNED_HEADER_LEN - HASH_LEN).ok_or(short)?;
        let mut rest = RecordUnpacker(bytes.get(SEGMENT_HEADER_LEN..).ok_or(short)?);
        let part = (|| {
            let closing = Hash::from_bytes(rest.array()?);
            let part = Self { closing, records: rest.u64()?, frames_end: rest.u64()? };
            Some((part, Hash::from_bytes(rest.array()?)))
        })();
        match part.ok_or(short)? {
            (part, hash) if hash == keyed_hash(key, fields) => Ok(part),
            _ => Err("the hash of the pruned segment's header does not match"),
        }
    }

    /// The place where the offset of a record stands, by how many records stand before it.
    pub(super) const fn place_of_offset(&self, before: u64) -> u64 {
        self.frames_end.saturating_add(before.saturating_mul(OFFSET_LEN as u64))
    }

    /// Whether the offsets behind the frames are as they were written, and end the segment.
    pub(super) fn has_offsets(&self, key: &JournalKey, bytes: &[u8]) -> bool {
        let offsets = usize::try_from(self.frames_end).ok().and_then(|end| bytes.get(end..));
        let Some((offsets, hash)) = offsets.and_then(<[u8]>::split_last_chunk) else {
            return false;
        };
        offsets.len() as u64 == self.records.saturating_mul(OFFSET_LEN as u64)
            && keyed_hash(key, offsets).as_bytes() == hash
    }
}

/// The offsets of the records of a pruned segment, as they stand behind its frames.
pub(super) fn encode_offsets(key: &JournalKey, offsets: &[u32]) -> Vec<u8> {
    let mut out: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_be_bytes()).collect();
    let hash = keyed_hash(key, &out);
    out.extend(hash.as_bytes());
    out
}

/// The number of a segment's format, if a newer version of keypool wrote it: its header is whole.
pub(super) fn newer_format(bytes: &[u8]) -> Option<u8> {
    let (fields, rest) = bytes.split_at_checked(SEGMENT_HEADER_LEN - HASH_LEN)?;
    let (format, behind) = fields.strip_prefix(&SEGMENT_MAGIC)?.split_first()?;
    let key = behind.first_chunk()?;
    let whole = rest.starts_with(keyed_hash(key, fields).as_bytes());
    (whole && PRUNED_FORMAT < *format).then_some(*format)
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
        if !fits(body_len) {
            return None;
        }
        let mut out = begin_frame(key, (body_len, records.count() as u64), first_seq, prev);
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
        Some(self.batches(bytes)?.concat())
    }

    /// The records of each batch, from the bytes the frame was decoded of.
    fn batches<'a>(&self, bytes: &'a [u8]) -> Option<Vec<Vec<FramedRecord<'a>>>> {
        let bytes = bytes.get(..self.len.checked_sub(HASH_LEN)?)?;
        let mut body = RecordUnpacker(bytes.get(FRAME_HEADER_LEN..)?);
        let mut batches = Vec::new();
        for _ in 0..body.u32()? {
            let mut records = Vec::new();
            for _ in 0..body.u32()? {
                let offset = bytes.len() - body.0.len();
                let (envelope, payload) = body.record()?;
                records.push(FramedRecord { offset, envelope, payload });
            }
            batches.push(records);
        }
        body.is_empty().then_some(batches)
    }

    /// The same frame behind another one, without the payloads of some records: its hash, its bytes, the offsets of
    /// its records in them, and how many bytes were left out.
    pub(super) fn pruned(
        &self,
        key: &JournalKey,
        (bytes, prev): (&[u8], &Hash),
        is_pruned: &dyn Fn(u64) -> bool,
    ) -> Option<(Hash, Vec<u8>, Vec<usize>, u64)> {
        let (mut body, mut offsets, mut left_out) = (Vec::new(), Vec::new(), 0_u64);
        let batches = self.batches(bytes)?;
        put_u32(&mut body, batches.len());
        let mut seq = self.first_seq;
        for batch in batches {
            put_u32(&mut body, batch.len());
            for FramedRecord { envelope, payload, .. } in batch {
                let kept = if is_pruned(seq) { &[] } else { payload };
                left_out = left_out.saturating_add((payload.len() - kept.len()) as u64);
                offsets.push(FRAME_HEADER_LEN + body.len());
                for part in [envelope, kept] {
                    put_u32(&mut body, part.len());
                    body.extend(part);
                }
                seq = seq.saturating_add(1);
            }
        }
        let mut out = begin_frame(key, (body.len(), self.count), self.first_seq, prev);
        out.extend(body);
        let hash = keyed_hash(key, &out);
        out.extend(hash.as_bytes());
        Some((hash, out, offsets, left_out))
    }
}

/// Whether a body of a length is short enough for one frame.
const fn fits(body_len: usize) -> bool {
    body_len <= BODY_BYTES_MAX
}

/// The header of a frame with so many bytes in its body and so many records.
fn begin_frame(
    key: &JournalKey,
    (body_len, records): (usize, u64),
    first_seq: u64,
    prev: &Hash,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_HEADER_LEN + body_len + HASH_LEN);
    out.extend(marker(key));
    put_u32(&mut out, body_len);
    put_u32(&mut out, usize::try_from(records).unwrap_or(usize::MAX));
    put_u64(&mut out, first_seq);
    out.extend(prev.as_bytes());
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_a_gibibyte_fits_into_a_frame_and_no_longer_one() {
        assert!(fits(1 << 30));
        assert!(!fits((1 << 30) + 1));
        assert!(!fits(usize::MAX));
    }
}
