//! How a batch becomes records: versions are checked, hashes chained, numbers given.
//!
//! Shared by all engines of this crate, so that none can differ in the batches it accepts or in the bytes
//! it writes.

use std::collections::HashMap;

use super::{AppendError, Batch, Conflict, NewEvent, ReadError, Record, StreamHead, StreamWrite};
use crate::{
    EventEnvelope, Hash, StreamId,
    codec::{self, EncodeError},
};

/// The batches of one append call, as they will be once written.
#[derive(Debug)]
pub(super) struct Staging {
    next_seq: u64,
    heads: HashMap<StreamId, StreamHead>,
}

impl Staging {
    /// Starts behind the last record of a log.
    pub(super) fn after(seq: u64) -> Self {
        Self { next_seq: seq.saturating_add(1), heads: HashMap::new() }
    }

    /// Checks that records which were sealed before follow one another and the log.
    #[cfg(feature = "local")]
    pub(super) fn check_sealed(
        &mut self,
        records: &[Record],
        head_of: impl Fn(&StreamId) -> Result<StreamHead, ReadError>,
    ) -> Result<(), AppendError> {
        for record in records {
            let not_written = |err: ReadError| AppendError::NotWritten(err.into());
            let damaged = |source| not_written(ReadError::Damaged { seq: record.seq, source });
            check_bytes(record).map_err(damaged)?;
            let last = |next: u64| super::LogHead { seq: next.saturating_sub(1) };
            last(self.next_seq).check(last(record.seq))?;
            let stream = &record.envelope.stream;
            let head = match self.heads.get(stream) {
                Some(head) => *head,
                None => head_of(stream).map_err(not_written)?,
            };
            check_follows(record, &head)?;
            self.next_seq = self.next_seq.saturating_add(1);
            self.heads.insert(stream.clone(), record.stream_head());
        }
        Ok(())
    }

    /// Turns one batch into records, or refuses it and leaves everything as it was.
    pub(super) fn stage(
        &mut self,
        batch: Batch,
        head_of: impl Fn(&StreamId) -> Result<StreamHead, ReadError>,
    ) -> Result<Vec<Record>, AppendError> {
        // No batch names many histories.
        let mut heads: Vec<(StreamId, StreamHead)> = Vec::with_capacity(batch.writes.len());
        let mut records = Vec::new();
        for write in batch.writes {
            let StreamWrite { stream, expected, events } = write;
            let mut head = match self.heads.get(&stream) {
                Some(head) => *head,
                None => head_of(&stream).map_err(|err| AppendError::NotWritten(err.into()))?,
            };
            let named = heads.iter().find(|(named, _)| *named == stream);
            if let Some((_, after)) = named {
                head = *after;
            }
            if head.version != expected || named.is_some() {
                return Err(Conflict::Stream { stream, expected, found: head.version }.into());
            }
            for event in events {
                let seq = self.next_seq.saturating_add(records.len() as u64);
                let sealed = seal(seq, &stream, head, event);
                let record = sealed.map_err(|err| AppendError::NotWritten(err.into()))?;
                head = record.stream_head();
                records.push(record);
            }
            heads.push((stream, head));
        }
        self.next_seq = self.next_seq.saturating_add(records.len() as u64);
        self.heads.extend(heads);
        Ok(records)
    }
}

/// Checks that a record is the next one of a history.
#[cfg(feature = "local")]
fn check_follows(record: &Record, head: &StreamHead) -> Result<(), Conflict> {
    let EventEnvelope { stream, version, prev, .. } = &record.envelope;
    let (stream, expected, found) = (stream.clone(), version.saturating_sub(1), head.version);
    if expected != found || *version == 0 {
        return Err(Conflict::Stream { stream, expected, found });
    }
    if *prev != head.hash {
        return Err(Conflict::Chain { stream, version: *version });
    }
    Ok(())
}

/// Checks that a sealed record agrees with its bytes. Its payload may have been pruned.
#[cfg(feature = "local")]
fn check_bytes(record: &Record) -> Result<(), codec::DecodeError> {
    let Record { envelope, envelope_bytes, payload, .. } = record;
    let intact = payload.is_empty() || Hash::of(payload) == envelope.payload;
    if intact && codec::decode(envelope_bytes)? == *envelope {
        return Ok(());
    }
    Err(codec::DecodeError::Altered)
}

/// Puts an event into its envelope, as the next record of a log and of a history that ends at `head`.
///
/// Every engine makes its records with this function, so that the same events have the same bytes in all
/// of them.
///
/// # Errors
///
/// Returns an [`EncodeError`] if the encoder refuses, which no event that exists makes it do.
pub fn seal(
    position: u64,
    stream: &StreamId,
    head: StreamHead,
    new: NewEvent,
) -> Result<Record, EncodeError> {
    let envelope = EventEnvelope {
        schema: codec::schema_of(stream, &new.event),
        stream: stream.clone(),
        version: head.version.saturating_add(1),
        at: new.at,
        command: new.command,
        request: new.request,
        prev: head.hash,
        payload: Hash::of(&new.payload),
        event: new.event,
    };
    let envelope_bytes = codec::encode(&envelope)?;
    Ok(Record { seq: position, envelope, envelope_bytes, payload: new.payload })
}

impl Record {
    /// The head of the record's history once this record is its last.
    #[must_use]
    pub fn stream_head(&self) -> StreamHead {
        StreamHead {
            version: self.envelope.version,
            hash: codec::chain_hash(&self.envelope_bytes),
            at: self.envelope.at,
        }
    }
}
