//! How identifiers travel: as text where a person may read them, as bytes elsewhere.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    CredentialBytes, GroupId, Hash, KeyPackageRef, NameError, PoolId, Signature, SignatureKey,
    StreamId,
};

/// Serializes as text where a person may read it.
fn write_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Reads a text of [`write_text`].
fn read_text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = NameError>,
{
    deserializer.deserialize_str(TextVisitor(PhantomData))
}

/// Parses text where it lies.
struct TextVisitor<T>(PhantomData<T>);

impl<T: FromStr<Err = NameError>> de::Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(de::Error::custom)
    }
}

/// Serializes bytes as text in formats for people, and as bytes in others.
fn write_bytes<S: Serializer, T: fmt::Display>(
    value: &T,
    bytes: &[u8],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        write_text(value, serializer)
    } else {
        serializer.serialize_bytes(bytes)
    }
}

/// Reads the bytes of [`write_bytes`].
fn read_bytes<'de, D, T>(
    deserializer: D,
    parse: fn(&[u8]) -> Result<T, NameError>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = NameError>,
{
    if deserializer.is_human_readable() {
        return read_text(deserializer);
    }
    deserializer.deserialize_bytes(BytesVisitor(parse))
}

/// Takes bytes where they lie.
struct BytesVisitor<T>(fn(&[u8]) -> Result<T, NameError>);

impl<T> de::Visitor<'_> for BytesVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<T, E> {
        self.0(bytes).map_err(de::Error::custom)
    }
}

impl Serialize for PoolId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_text(self, serializer)
    }
}

impl<'de> Deserialize<'de> for PoolId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer)
    }
}

impl Serialize for StreamId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_text(self, serializer)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer)
    }
}

impl Serialize for KeyPackageRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_bytes(self, &self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for KeyPackageRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_bytes(deserializer, Self::new)
    }
}

impl Serialize for GroupId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_bytes(self, &self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for GroupId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_bytes(deserializer, Self::new)
    }
}

impl Serialize for CredentialBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_bytes(self, &self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for CredentialBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_bytes(deserializer, Self::new)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_bytes(self, &self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_bytes(deserializer, |bytes| {
            let bytes: Result<[u8; 32], _> = bytes.try_into();
            bytes.map(Self).map_err(|_| NameError::new("hash", "", "32 bytes"))
        })
    }
}

impl Serialize for SignatureKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_bytes(self, &self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for SignatureKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_bytes(deserializer, Self::new)
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_bytes(self, &self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_bytes(deserializer, Self::new)
    }
}
