//! The packed form of folded states, for memory and snapshots: numbers, texts and bytes in a row.

use keypool_ledger::{PoolId, Timestamp};

/// Writes values one after the other.
#[derive(Debug, Default)]
pub struct Packer(Vec<u8>);

impl Packer {
    /// Seven bits in each byte, the lowest first; the eighth says that more follow.
    pub fn number(&mut self, number: u64) {
        let mut rest = number;
        while let Some(low) = u8::try_from(rest & 127).ok().filter(|_| 127 < rest) {
            self.0.push(low + 128);
            rest >>= 7;
        }
        self.0.extend(u8::try_from(rest));
    }

    /// Appends one byte.
    pub fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// Appends a flag as the byte 0 or 1.
    pub fn flag(&mut self, flag: bool) {
        self.0.push(u8::from(flag));
    }

    /// Bytes of a length that is known.
    pub fn array<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.0.extend(bytes);
    }

    /// Bytes with their length before them.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    /// Appends the names of user and device, each with its length.
    pub fn pool(&mut self, pool: &PoolId) {
        self.bytes(pool.user().as_bytes());
        self.bytes(pool.device().as_bytes());
    }

    /// Returns the appended bytes.
    #[must_use]
    pub fn into_bytes(self) -> Box<[u8]> {
        self.0.into_boxed_slice()
    }
}

/// Reads the values that a [`Packer`] has written; each method returns `None` on other bytes.
#[derive(Debug)]
pub struct Unpacker<'a>(&'a [u8]);

impl<'a> Unpacker<'a> {
    /// Begins at the first of some bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether all bytes are taken.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes that are not taken.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Takes one byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// Takes a number of seven bits in each byte; `None` above 64 bits.
    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let low = u64::from(byte & 127);
            number |= low.checked_shl(shift).filter(|shifted| *shifted >> shift == low)?;
            if byte < 128 {
                return Some(number);
            }
        }
        None
    }

    /// Takes a flag; `None` for a byte other than 0 and 1.
    pub fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// Takes `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    /// Takes bytes with their length before them.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Takes UTF-8 text with its length before it.
    pub fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    /// Takes a time in milliseconds.
    pub fn time(&mut self) -> Option<Timestamp> {
        self.number().map(Timestamp::from_millis)
    }

    /// Takes the names of a pool; `None` if they are not valid.
    pub fn pool(&mut self) -> Option<PoolId> {
        PoolId::new(&self.text()?, &self.text()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    #[test]
    fn a_number_has_a_byte_for_each_seven_bits() {
        let packed = |number| {
            let mut out = Packer::default();
            out.number(number);
            out.into_bytes().into_vec()
        };
        assert_eq!([packed(0), packed(127)], [[0], [127]]);
        assert_eq!([packed(128), packed(300)], [[0x80, 1], [0xac, 2]]);
        assert_eq!(packed(u64::MAX), [vec![0xff; 9], vec![1]].concat());
        let read = |bytes: &[u8]| Unpacker::new(bytes).number();
        assert_eq!(read(&[vec![0xff; 9], vec![1]].concat()), Some(u64::MAX));
        assert_eq!(read(&[vec![0xff; 9], vec![2]].concat()), None, "more than 64 bits");
        assert_eq!(read(&[0x80; 11]), None);
    }

    #[test]
    fn a_reader_knows_the_bytes_that_it_has_not_taken() {
        let mut unpacker = Unpacker::new(&[7, 2, 8, 9, 5]);
        assert_eq!((unpacker.byte(), unpacker.rest()), (Some(7), &[2, 8, 9, 5][..]));
        assert_eq!((unpacker.bytes(), unpacker.rest()), (Some(&[8, 9][..]), &[5][..]));
        assert_eq!((unpacker.flag(), unpacker.is_empty()), (None, true));
    }

    quickcheck! {
        fn numbers_come_back(numbers: Vec<u64>, shift: u8) -> bool {
            let mut out = Packer::default();
            let numbers: Vec<u64> = numbers.iter().map(|n| n >> (shift % 64)).collect();
            for n in &numbers {
                out.number(*n);
            }
            let bytes = out.into_bytes();
            let mut rest = Unpacker::new(&bytes);
            numbers.iter().all(|n| rest.number() == Some(*n)) && rest.is_empty()
        }

        fn garbage_is_no_panic(bytes: Vec<u8>) -> bool {
            let mut rest = Unpacker::new(&bytes);
            while rest.number().is_some() && rest.bytes().is_some() && rest.pool().is_some() {}
            true
        }
    }
}
