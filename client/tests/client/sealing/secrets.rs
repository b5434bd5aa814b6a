//! The private bytes in the values of OpenMLS, found by the names of the fields that hold them.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

/// Private bytes, and their kind.
pub(crate) type Secrets = BTreeMap<Vec<u8>, String>;

/// Shorter ones are flags and counts.
const BYTES_MIN: usize = 16;

/// Adds the private bytes of a value that stands under a label.
pub(crate) fn collect(label: &str, plaintext: &[u8], secrets: &mut Secrets) {
    let value: Value = rmp_serde::from_slice(plaintext).unwrap();
    walk(&value, label, is_secret_throughout(label), secrets);
}

fn is_secret_throughout(label: &str) -> bool {
    ["epochsec", "rpsk"].contains(&label)
}

fn walk(value: &Value, path: &str, secret: bool, secrets: &mut Secrets) {
    match value {
        Value::Bytes(bytes) if secret && bytes.len() >= BYTES_MIN => {
            secrets.insert(bytes.clone(), path.to_owned());
        }
        Value::Many(values) => values.iter().for_each(|value| walk(value, path, secret, secrets)),
        Value::Named(fields) => {
            for (name, value) in fields {
                let public =
                    ["serialized_context", "leaves", "public_key", "key_package", "public"];
                let private = ["private", "secret", "psk", "membership_key", "confirmation_key"];
                let begins = private.iter().any(|word| name.contains(word));
                let secret = (secret || begins) && !public.contains(&name.as_str());
                walk(value, &format!("{path}.{name}"), secret, secrets);
            }
        }
        Value::Bytes(_) | Value::Number(_) | Value::Other => {}
    }
}

/// A stored value of any shape.
enum Value {
    Number(u8),
    Bytes(Vec<u8>),
    Many(Vec<Value>),
    Named(Vec<(String, Value)>),
    Other,
}

impl Value {
    /// The name of a field; a number stands for itself.
    fn name(&self) -> String {
        match self {
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Number(number) => number.to_string(),
            Self::Many(_) | Self::Named(_) | Self::Other => "?".to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyShape)
    }
}

struct AnyShape;

impl<'de> Visitor<'de> for AnyShape {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(u8::try_from(number).map_or(Value::Other, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Bytes(text.as_bytes().to_vec()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        // A value may hold another one, encoded.
        Ok(Value::Bytes(bytes.to_vec()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        Value::deserialize(inner)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        Value::deserialize(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element::<Value>()? {
            values.push(value);
        }
        let numbers: Option<Vec<u8>> = values
            .iter()
            .map(|value| if let Value::Number(number) = value { Some(*number) } else { None })
            .collect();
        match numbers {
            Some(bytes) if !bytes.is_empty() => Ok(Value::Bytes(bytes)),
            _ => Ok(Value::Many(values)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = map.next_entry::<Value, Value>()? {
            fields.push((name.name(), value));
        }
        Ok(Value::Named(fields))
    }
}
