//! A Bloom filter: says of most fingerprints that are not in a run that they are not.
//!
//! Nearly every lookup is for something that was never there (a new command, a new reservation), and
//! must not read the disk once for each run.

use crate::log::local::entry::{FINGERPRINT_LEN, Fingerprint};

/// The bits of a filter for each entry: about one look-up in sixty is a false positive.
const BITS_PER_ENTRY: u64 = 10;
/// How many bits an entry sets, all in one block.
const PROBES: u32 = 7;
/// How many bytes a block has: a line of the processor's cache, so that a look costs one miss.
const BLOCK_BYTES: usize = 64;

/// A set of fingerprints that may take others for its own, but never one of its own for another.
#[derive(Debug)]
pub(super) struct Filter(Vec<u8>);

impl Filter {
    /// A filter with room for so many entries.
    pub(super) fn for_entries(count: u64) -> Self {
        let blocks = count.saturating_mul(BITS_PER_ENTRY).div_ceil(8 * BLOCK_BYTES as u64).max(1);
        let blocks = usize::try_from(blocks).unwrap_or(usize::MAX / BLOCK_BYTES);
        Self(vec![0; blocks * BLOCK_BYTES])
    }

    /// A filter as it was stored.
    pub(super) const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn add(&mut self, fingerprint: Fingerprint) {
        let (block, bits) = self.location(fingerprint);
        if let Some(block) = self.0.as_chunks_mut::<BLOCK_BYTES>().0.get_mut(block) {
            for bit in bits {
                if let Some(byte) = block.get_mut(bit / 8) {
                    *byte |= 1 << (bit % 8);
                }
            }
        }
    }

    /// It looks at all bits, so that the processor need not wait for the memory of one filter before it asks
    /// the next.
    pub(super) fn may_have(&self, fingerprint: Fingerprint) -> bool {
        let (block, bits) = self.location(fingerprint);
        let Some(block) = self.0.as_chunks::<BLOCK_BYTES>().0.get(block) else { return false };
        let is_set = |bit: usize| block.get(bit / 8).copied().unwrap_or_default() >> (bit % 8) & 1;
        bits.fold(1, |all, bit| all & is_set(bit)) == 1
    }

    /// The block of a fingerprint, which is a hash already, and the bits that stand for it there.
    fn location(&self, fingerprint: Fingerprint) -> (usize, impl Iterator<Item = usize> + use<>) {
        const { assert!(FINGERPRINT_LEN >= 9, "eight bytes of hash behind the kind") };
        let hash = fingerprint.last_chunk().copied().map(u64::from_be_bytes).unwrap_or_default();
        let kind = u64::from(fingerprint.first().copied().unwrap_or_default());
        let hash = hash ^ kind.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let blocks = (self.0.len() / BLOCK_BYTES).max(1) as u64;
        let block = usize::try_from(hash % blocks).unwrap_or_default();
        // Other bits than those that have chosen the block: nine for each location among its 512.
        let spread = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ hash.rotate_left(29);
        let bits = (0..PROBES)
            .map(move |n| usize::try_from((spread >> (n * 9)) & 511).unwrap_or_default());
        (block, bits)
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
    fn a_filter_is_stored_in_the_same_bytes_for_ever() {
        let mut filter = Filter::for_entries(1000);
        (0..1000).for_each(|n| filter.add(fingerprint(n)));
        assert_eq!(filter.bytes().len(), 1280);
        let hash = blake3::hash(filter.bytes()).to_hex();
        assert_eq!(
            hash.as_str(),
            "3b4427beb6992a165e87f145944c2187f3b57663ac3c72b65d5d2b4490bae660"
        );
        assert_eq!(Filter::for_entries(0).bytes().len(), BLOCK_BYTES);
    }

    #[test]
    fn most_of_what_was_not_added_is_not_there() {
        let mut filter = Filter::for_entries(10_000);
        (0..10_000).for_each(|n| filter.add(fingerprint(n)));
        let taken = (10_000..110_000).filter(|n| filter.may_have(fingerprint(*n))).count();
        assert!(taken < 2500, "{taken} of 100,000");
    }
}
