//! Random numbers that follow from a seed.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// A chance of one in this many is the smallest there is.
pub(crate) const CERTAIN: u64 = 10_000;

/// A sequence of random numbers (splitmix64). All owners of one draw from the same sequence.
#[derive(Debug)]
pub(crate) struct Dice(AtomicU64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(mix(seed)))
    }

    pub(crate) fn next(&self) -> u64 {
        mix(self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn index(&self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    /// True so many times in 10,000.
    pub(crate) fn chance(&self, of: u64) -> bool {
        0 < of && self.below(CERTAIN) < of
    }

    pub(crate) fn pick<'a, T>(&self, among: &'a [T]) -> Option<&'a T> {
        if among.is_empty() { None } else { among.get(self.index(among.len())) }
    }

    pub(crate) fn uuid(&self) -> Uuid {
        let bits = u128::from(self.next()) << 64 | u128::from(self.next());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }
}

/// Spreads the bits of a number.
pub(crate) const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
