//! Histories as chains: how an event is put at the end of one, and how one is checked.

use keypool_ledger::{
    CommandId, Event, EventEnvelope, Hash, StreamHead, StreamId, Timestamp, codec,
};

use crate::{StorageError, error::BoxError};

/// Leads a record of the server that is kept with the names for its pseudonyms: a number that no schema has,
/// then the length of the record's bytes 4 · these bytes · the event with names as `MessagePack`.
const NAMED: [u8; 2] = [0xff, 0x02];

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

/// The form in which a record that the server has told is kept: its bytes, and where these have pseudonyms also
/// the event with names, as the server reads it.
pub(crate) fn kept_form(bytes: Vec<u8>, named: &Event) -> Result<Vec<u8>, StorageError> {
    match codec::decode(&bytes) {
        Ok(envelope) if envelope.schema == codec::SCHEMA_PSEUDONYMS => {
            let unfit = |source: BoxError| StorageError::Value { what: "event".to_owned(), source };
            let len = u32::try_from(bytes.len()).map_err(|err| unfit(err.into()))?;
            let named = rmp_serde::to_vec_named(named).map_err(|err| unfit(err.into()))?;
            Ok([&NAMED, len.to_be_bytes().as_slice(), &bytes, &named].concat())
        }
        _ => Ok(bytes),
    }
}

/// Reads a kept record: the envelope with names, as far as they were told, and the record's bytes.
pub(crate) fn read(kept: &[u8]) -> Result<(EventEnvelope, &[u8]), String> {
    let Some((len, rest)) =
        kept.strip_prefix(&NAMED).and_then(|kept| kept.split_first_chunk::<4>())
    else {
        let envelope = codec::decode(kept).map_err(|err| err.to_string())?;
        return Ok((envelope, kept));
    };
    let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
    let (bytes, named) = rest.split_at_checked(len).ok_or("the kept record is cut off")?;
    let envelope = codec::decode(bytes).map_err(|err| err.to_string())?;
    let named: Event = rmp_serde::from_slice(named).map_err(|err| err.to_string())?;
    let unlike = "the event that the server tells is not the one in the record's bytes";
    let event = envelope.event.with_names_of(named).ok_or(unlike)?;
    Ok((EventEnvelope { event, ..envelope }, bytes))
}

/// Reads a kept record that should follow a head: the envelope and the head after it, or the fault.
///
/// The history of a record with pseudonyms has one itself: that it stands for this device is the server's word.
pub(super) fn follow(
    head: &StreamHead,
    stream: &StreamId,
    kept: &[u8],
) -> Result<(EventEnvelope, StreamHead), String> {
    let (mut envelope, bytes) = read(kept)?;
    if let (StreamId::Pool(hidden), StreamId::Pool(_)) = (&envelope.stream, stream)
        && hidden.is_pseudonym()
    {
        envelope.stream = stream.clone();
    }
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

/// The end of a history as it is kept beside it: the version of the last event and its hash, which no event behind it has.
pub(super) fn end_of(head: &StreamHead) -> Vec<u8> {
    [&head.version.to_be_bytes()[..], head.hash.as_bytes()].concat()
}
