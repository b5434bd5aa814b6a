//! The bytes of a record: a schema number, then `MessagePack`; and the hash chain over those bytes.
//!
//! Hashes are always over the stored bytes, never over bytes made anew. A schema, once released, is
//! read for ever: `fixtures/` keeps a log of each, and old ones never change.

use rmp_serde::config::BytesMode;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{Event, EventEnvelope, Hash, StreamId};

/// The schema of a record that names nobody, or names users and devices as they are called.
pub const SCHEMA: u16 = 1;
/// The schema of a record that names users and devices by pseudonyms ([`crate::SubjectId`]). It differs from
/// [`SCHEMA`] in nothing else, but that a declared credential stands in the payload.
pub const SCHEMA_PSEUDONYMS: u16 = 2;

/// Why bytes could not be read as a record.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There are fewer bytes than a schema number has.
    #[error("the record has {0} bytes; not even its schema number is there")]
    Short(usize),
    /// A newer version of keypool wrote the record.
    #[error(
        "the record has schema {0}; this version of keypool reads up to schema {SCHEMA_PSEUDONYMS}"
    )]
    Newer(u16),
    /// The schema number was never used.
    #[error("the record has schema {0}, which never existed")]
    UnknownSchema(u16),
    /// The bytes after the schema number do not form an envelope.
    #[error("the record is malformed")]
    Malformed(#[source] rmp_serde::decode::Error),
    /// An envelope is there, and bytes after it that belong to nothing.
    #[error("{0} bytes follow the record")]
    Trailing(usize),
    /// The stored bytes are missing or are not those that were written.
    #[error("the stored bytes are not those that were written")]
    Altered,
}

/// An envelope that could not be written as bytes.
#[derive(Debug, thiserror::Error)]
#[error("the event could not be encoded")]
pub struct EncodeError(#[from] rmp_serde::encode::Error);

/// The schema in which a record is written.
#[must_use]
pub fn schema_of(stream: &StreamId, event: &Event) -> u16 {
    let is_hidden = match stream {
        StreamId::Pool(pool) | StreamId::Mailbox(pool) => pool.is_pseudonym(),
        StreamId::Names(_) => true,
        StreamId::Group(_) | StreamId::Server => event.names_pseudonyms(),
    };
    if is_hidden { SCHEMA_PSEUDONYMS } else { SCHEMA }
}

/// The bytes of an envelope, in the schema of its names.
///
/// # Errors
///
/// Returns an [`EncodeError`] if the encoder refuses, which no event that exists makes it do.
pub fn encode(envelope: &EventEnvelope) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = schema_of(&envelope.stream, &envelope.event).to_be_bytes().to_vec();
    let mut serializer =
        rmp_serde::Serializer::new(&mut bytes).with_struct_map().with_bytes(BytesMode::ForceAll);
    envelope.serialize(&mut serializer)?;
    Ok(bytes)
}

/// The envelope that some bytes hold.
///
/// # Errors
///
/// Returns a [`DecodeError`] if the bytes are not exactly one envelope of a known schema.
pub fn decode(bytes: &[u8]) -> Result<EventEnvelope, DecodeError> {
    let Some((schema, mut body)) = bytes.split_first_chunk::<2>() else {
        return Err(DecodeError::Short(bytes.len()));
    };
    let schema = match u16::from_be_bytes(*schema) {
        known @ (SCHEMA | SCHEMA_PSEUDONYMS) => known,
        0 => return Err(DecodeError::UnknownSchema(0)),
        newer => return Err(DecodeError::Newer(newer)),
    };
    // Text and bytes are taken where they lie; who counts what may follow reads them once more.
    if let Some(envelope) = decode_whole(body) {
        return Ok(EventEnvelope { schema, ..envelope });
    }
    rmp_serde::from_read::<_, EventEnvelope>(&mut body).map_err(DecodeError::Malformed)?;
    Err(DecodeError::Trailing(body.len()))
}

/// The envelope that fills some bytes to the last; `None` if none does.
fn decode_whole(body: &[u8]) -> Option<EventEnvelope> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(body);
    let envelope = EventEnvelope::deserialize(&mut decoder).ok()?;
    // Bytes in memory have a marker to read unless they are at their end.
    match IgnoredAny::deserialize(&mut decoder) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Some(envelope),
        _ => None,
    }
}

/// The link that the next envelope of the history carries as `prev`.
#[must_use]
pub fn chain_hash(envelope_bytes: &[u8]) -> Hash {
    Hash::of(envelope_bytes)
}
