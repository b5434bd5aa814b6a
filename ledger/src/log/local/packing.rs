//! How records stand one behind the other in the bytes of the journal and of the engine.
//!
//! Numbers are big-endian; a length of four bytes stands before everything that can be long.

use crate::Record;

/// Appends a number.
pub(super) fn put_u32(out: &mut Vec<u8>, number: usize) {
    // Frames are limited far below 4 GiB before anything is packed, so that nothing is cut here.
    out.extend(u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
}

/// Appends a number.
pub(super) fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend(number.to_be_bytes());
}

/// Appends the stored form of a record: its envelope's bytes and its payload.
pub(super) fn put_record(out: &mut Vec<u8>, record: &Record) {
    for bytes in [&record.envelope_bytes, &record.payload] {
        put_u32(out, bytes.len());
        out.extend(bytes);
    }
}

/// How many bytes [`put_record`] appends.
pub(super) fn packed_len(record: &Record) -> usize {
    8 + record.envelope_bytes.len() + record.payload.len()
}

/// Reads the values that the functions above have written; `None` where the bytes end too early.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordUnpacker<'a>(pub(super) &'a [u8]);

impl<'a> RecordUnpacker<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u32(&mut self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.array()?)).ok()
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    /// The envelope's bytes and the payload of one record.
    pub(super) fn record(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        Some((self.bytes()?, self.bytes()?))
    }
}
