//! A Bloom filter: says of most fingerprints that are not in a run that they are not.
//!
//! Nearly every lookup is for something that was never there (a new command, a new reservation), and
//! must not read the disk once for each run.

use super::entry::{FINGERPRINT_LEN, Fingerprint};

/// How many bits there are for each entry: about one wrong maybe in a hundred.
const BITS_PER_ENTRY: u64 = 10;
/// How many of them an entry sets.
const PROBES: u64 = 7;

/// A set of fingerprints that may take others for its own, but never one of its own for another.
#[derive(Debug)]
pub(super) struct Filter(Vec<u8>);

impl Filter {
    /// A filter with room for so many entries.
    pub(super) fn for_entries(count: u64) -> Self {
        let bytes = count.saturating_mul(BITS_PER_ENTRY).div_ceil(8).max(1);
        Self(vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)])
    }

    /// A filter as it was stored.
    pub(super) const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn add(&mut self, fingerprint: Fingerprint) {
        for bit in self.bits(fingerprint) {
            if let Some(byte) = self.0.get_mut(bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
    }

    pub(super) fn may_have(&self, fingerprint: Fingerprint) -> bool {
        let mut bits = self.bits(fingerprint);
        bits.all(|bit| self.0.get(bit / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0))
    }

    /// The places of the bits that stand for a fingerprint, which is a hash already.
    fn bits(&self, fingerprint: Fingerprint) -> impl Iterator<Item = usize> + use<> {
        const { assert!(FINGERPRINT_LEN >= 9, "eight bytes of hash behind the kind") };
        let hash = fingerprint.last_chunk().copied().map(u64::from_be_bytes).unwrap_or_default();
        let kind = u64::from(fingerprint.first().copied().unwrap_or_default());
        let first = hash ^ kind.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Odd, so that the steps do not come back too soon.
        let step = first.rotate_left(32).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1;
        let n_bits = (self.0.len() as u64).saturating_mul(8).max(1);
        (0..PROBES).map(move |n| {
            usize::try_from(first.wrapping_add(step.wrapping_mul(n)) % n_bits).unwrap_or_default()
        })
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::QuickCheck;

    use super::*;

    fn fingerprint(n: u64) -> Fingerprint {
        let hash = blake3::hash(&n.to_be_bytes());
        *hash.as_bytes().first_chunk().unwrap()
    }

    #[test]
    fn what_was_added_may_be_there() {
        #[expect(clippy::needless_pass_by_value, reason = "quickcheck gives values")]
        fn property(added: Vec<u64>) -> bool {
            let mut filter = Filter::for_entries(added.len() as u64);
            for n in &added {
                filter.add(fingerprint(*n));
            }
            let stored = Filter::from_bytes(filter.bytes().to_vec());
            added.iter().all(|n| stored.may_have(fingerprint(*n)))
        }
        QuickCheck::new().quickcheck(property as fn(Vec<u64>) -> bool);
    }

    #[test]
    fn most_of_what_was_not_added_is_not_there() {
        let mut filter = Filter::for_entries(10_000);
        (0..10_000).for_each(|n| filter.add(fingerprint(n)));
        let taken = (10_000..110_000).filter(|n| filter.may_have(fingerprint(*n))).count();
        assert!(taken < 1500, "{taken} of 100,000");
    }
}
