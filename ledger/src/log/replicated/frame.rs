//! The frame: all records of one group commit, as one message of the replicated stream.
//!
//! `2 | chain: 32 bytes | first position: u64 | (length: u32, envelope, length: u32, payload)*`, numbers
//! little-endian. The chain is the BLAKE3 hash of the frame before, zeros for the first one.

use crate::{Hash, Record, codec};

/// The number of this format.
const FORMAT: u8 = 2;

/// A frame that was read.
#[derive(Debug)]
pub(super) struct FrameContents {
    /// The hash of the frame before.
    pub(super) chain: Hash,
    /// The records, of which the first has the frame's first position.
    pub(super) records: Vec<Record>,
}

/// The reason why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("it has the unknown format {0}; update keypool-server")]
    Format(u8),
    #[error("it is cut short or has no records")]
    Cut,
    #[error("record {seq} in it is damaged")]
    Damaged {
        seq: u64,
        #[source]
        source: codec::DecodeError,
    },
}

/// Writes records with successive positions as a frame.
pub(super) fn encode<'a>(chain: Hash, records: impl IntoIterator<Item = &'a Record>) -> Vec<u8> {
    let mut records = records.into_iter().peekable();
    let first = records.peek().map_or(0, |record| record.seq);
    let mut bytes = vec![FORMAT];
    bytes.extend(chain.as_bytes());
    bytes.extend(first.to_le_bytes());
    for record in records {
        for part in [&record.envelope_bytes, &record.payload] {
            // No part is as long as a segment, whose length is 32 bits.
            bytes.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend(part);
        }
    }
    bytes
}

/// Computes how many bytes a record takes in a frame.
pub(super) fn encoded_len(record: &Record) -> usize {
    8 + record.envelope_bytes.len() + record.payload.len()
}

/// Reads a frame.
pub(super) fn decode(bytes: &[u8]) -> Result<FrameContents, FrameError> {
    let (format, rest) = bytes.split_first().ok_or(FrameError::Cut)?;
    if *format != FORMAT {
        return Err(FrameError::Format(*format));
    }
    let (chain, rest) = rest.split_first_chunk().ok_or(FrameError::Cut)?;
    let (first, mut rest) = rest.split_first_chunk().ok_or(FrameError::Cut)?;
    let mut seq = u64::from_le_bytes(*first);
    let mut records = Vec::new();
    while !rest.is_empty() {
        let (envelope_bytes, payload);
        (envelope_bytes, rest) = part(rest)?;
        (payload, rest) = part(rest)?;
        let envelope =
            codec::decode(envelope_bytes).map_err(|source| FrameError::Damaged { seq, source })?;
        let (envelope_bytes, payload) = (envelope_bytes.to_vec(), payload.to_vec());
        records.push(Record { seq, envelope, envelope_bytes, payload });
        seq = seq.checked_add(1).ok_or(FrameError::Cut)?;
    }
    if records.is_empty() {
        return Err(FrameError::Cut);
    }
    Ok(FrameContents { chain: Hash::from_bytes(*chain), records })
}

fn part(bytes: &[u8]) -> Result<(&[u8], &[u8]), FrameError> {
    let (len, rest) = bytes.split_first_chunk().ok_or(FrameError::Cut)?;
    let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| FrameError::Cut)?;
    rest.split_at_checked(len).ok_or(FrameError::Cut)
}

impl FrameContents {
    /// The position of the first record.
    pub(super) fn first(&self) -> u64 {
        self.records.first().map_or(0, |record| record.seq)
    }

    /// The position of the last record.
    pub(super) fn last(&self) -> u64 {
        self.records.last().map_or(0, |record| record.seq)
    }
}
