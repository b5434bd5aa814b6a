//! How a batch becomes records: versions are checked, hashes chained, numbers given.
//!
//! Shared by all engines, so that none can differ in what it accepts or in the bytes it writes.

use std::collections::HashMap;

use super::{AppendError, Batch, NewEvent, ReadError, Record, StreamHead, StreamWrite};
use crate::{EventEnvelope, Hash, StreamId, codec};

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
                return Err(AppendError::Conflict { stream, expected, found: head.version });
            }
            for event in events {
                let seq = self.next_seq.saturating_add(records.len() as u64);
                let record = seal(seq, &stream, head, event)?;
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

/// Puts an event into its envelope, behind the given head of its history.
fn seal(
    seq: u64,
    stream: &StreamId,
    head: StreamHead,
    new: NewEvent,
) -> Result<Record, AppendError> {
    let envelope = EventEnvelope {
        schema: codec::SCHEMA,
        stream: stream.clone(),
        version: head.version.saturating_add(1),
        at: new.at,
        command: new.command,
        request: new.request,
        prev: head.hash,
        payload: Hash::of(&new.payload),
        event: new.event,
    };
    let envelope_bytes =
        codec::encode(&envelope).map_err(|err| AppendError::NotWritten(err.into()))?;
    Ok(Record { seq, envelope, envelope_bytes, payload: new.payload })
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
