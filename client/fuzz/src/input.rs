//! The bytes of an input, taken as the values that a target is made of.

use arbitrary::{Arbitrary, Unstructured};

/// Takes values from the bytes of an input. Behind their end come zeros and empty values.
pub(crate) struct InputReader<'a>(Unstructured<'a>);

impl<'a> InputReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// Takes a number from 0 to `max`: one byte where that is enough.
    pub(crate) fn number(&mut self, max: usize) -> usize {
        self.0.int_in_range(0..=max).unwrap_or_default()
    }

    pub(crate) fn any<T: Arbitrary<'a> + Default>(&mut self) -> T {
        self.0.arbitrary().unwrap_or_default()
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.number(1) == 1
    }

    /// Takes a length of one or two bytes, and as many bytes as that says or as there are.
    pub(crate) fn bytes(&mut self, max: usize) -> &'a [u8] {
        let len = self.number(max).min(self.0.len());
        self.0.bytes(len).unwrap_or_default()
    }

    /// Takes bytes as text. Those that are none are replaced.
    pub(crate) fn text(&mut self, max: usize) -> String {
        String::from_utf8_lossy(self.bytes(max)).into_owned()
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.number(of.len() - 1)]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0.take_rest()
    }
}
