//! Histories as chains: how an event is put at the end of one, and how one is checked.

use keypool_ledger::{
    CommandId, Event, EventEnvelope, Hash, StreamHead, StreamId, Timestamp, codec,
};

use crate::StorageError;

/// The record of an event that follows a head: its bytes, and the head after it.
///
/// No request of anyone else caused it, so its request digest is zeros. An `at` before the last event's is
/// moved up to it: a clock that steps back does not move time.
pub(super) fn extend(
    head: &StreamHead,
    stream: &StreamId,
    event: Event,
    at: Timestamp,
    command: CommandId,
) -> Result<(Vec<u8>, StreamHead), StorageError> {
    let envelope = EventEnvelope {
        schema: codec::SCHEMA,
        stream: stream.clone(),
        version: head.version.saturating_add(1),
        at: at.max(head.at),
        command,
        request: Hash::ZERO,
        prev: head.hash,
        payload: Hash::of(&[]),
        event,
    };
    let bytes = codec::encode(&envelope)
        .map_err(|err| StorageError::Value { what: "event".to_owned(), source: err.into() })?;
    let head = head_after(&envelope, &bytes);
    Ok((bytes, head))
}

/// Reads a record that should follow a head: the envelope and the head after it, or the fault.
pub(super) fn follow(
    head: &StreamHead,
    stream: &StreamId,
    bytes: &[u8],
) -> Result<(EventEnvelope, StreamHead), String> {
    let envelope = codec::decode(bytes).map_err(|err| err.to_string())?;
    if envelope.stream != *stream {
        return Err(format!("it belongs to {}", envelope.stream));
    }
    if envelope.version != head.version.saturating_add(1) {
        return Err(format!("it is event {} and follows event {}", envelope.version, head.version));
    }
    if envelope.prev != head.hash {
        return Err("it was chained to another event than the one before it".to_owned());
    }
    if envelope.at < head.at {
        return Err("it is older than the one before it".to_owned());
    }
    let head = head_after(&envelope, bytes);
    Ok((envelope, head))
}

fn head_after(envelope: &EventEnvelope, bytes: &[u8]) -> StreamHead {
    StreamHead { version: envelope.version, hash: codec::chain_hash(bytes), at: envelope.at }
}
