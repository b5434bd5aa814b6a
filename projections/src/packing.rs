//! Numbers, texts and bytes one behind the other: how what was folded is kept beside the log.

use keypool_ledger::{PoolId, Timestamp};

/// Puts values behind each other.
#[derive(Debug, Default)]
pub(crate) struct Packer(Vec<u8>);

impl Packer {
    /// Seven bits in each byte, the lowest first; the eighth says that more follow.
    pub(crate) fn number(&mut self, number: u64) {
        let mut rest = number;
        while let Some(low) = u8::try_from(rest & 127).ok().filter(|_| 127 < rest) {
            self.0.push(low | 128);
            rest >>= 7;
        }
        self.0.extend(u8::try_from(rest));
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.0.push(u8::from(flag));
    }

    /// Bytes of a length that is known.
    pub(crate) fn array<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.0.extend(bytes);
    }

    /// Bytes with their length before them.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    pub(crate) fn pool(&mut self, pool: &PoolId) {
        self.bytes(pool.user().as_bytes());
        self.bytes(pool.device().as_bytes());
    }

    pub(crate) fn into_bytes(self) -> Box<[u8]> {
        self.0.into_boxed_slice()
    }
}

/// Takes apart what a [`Packer`] has put together; `None` where it is something else.
#[derive(Debug)]
pub(crate) struct Unpacker<'a>(pub(crate) &'a [u8]);

impl<'a> Unpacker<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
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

    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    pub(crate) fn time(&mut self) -> Option<Timestamp> {
        self.number().map(Timestamp::from_millis)
    }

    pub(crate) fn pool(&mut self) -> Option<PoolId> {
        PoolId::new(&self.text()?, &self.text()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn numbers_come_back(numbers: Vec<u64>, shift: u8) -> bool {
            let mut out = Packer::default();
            let numbers: Vec<u64> = numbers.iter().map(|n| n >> (shift % 64)).collect();
            for n in &numbers {
                out.number(*n);
            }
            let bytes = out.into_bytes();
            let mut rest = Unpacker(&bytes);
            numbers.iter().all(|n| rest.number() == Some(*n)) && rest.0.is_empty()
        }

        fn garbage_is_no_panic(bytes: Vec<u8>) -> bool {
            let mut rest = Unpacker(&bytes);
            while rest.number().is_some() && rest.bytes().is_some() && rest.pool().is_some() {}
            true
        }
    }
}
