//! The kinds of events, as the log's format names them.

use keypool_ledger::Event;
use serde::{
    Deserialize, Deserializer,
    de::{Visitor, value::Error},
    forward_to_deserialize_any,
};

/// The names of all kinds of events, read from the type that the log is decoded with.
pub(crate) fn event_kinds() -> &'static [&'static str] {
    let mut kinds: &[&str] = &[];
    // The probe holds no event, so the answer is an error once the names are known.
    let _ = Event::deserialize(KindsProbe(&mut kinds));
    kinds
}

/// A deserializer that holds nothing and notes the variants that an enum asks for.
struct KindsProbe<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for KindsProbe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("no event"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = variants;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
