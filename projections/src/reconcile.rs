//! Two views of one pool, held against each other: a digest that says whether they agree, and the
//! differences where they do not. Pure, and shared by server and client.

use std::collections::{BTreeMap, BTreeSet};

use keypool_ledger::{Hash, KeyPackageRef};

use crate::{lifecycle::Stage, pool::PoolState};

/// The beginning of every digest, so that it is of nothing else.
const DOMAIN: &[u8] = b"keypool-pool-digest-v1\n";

/// The digest of a pool's live packages: two sides with the same digest agree on which packages may
/// still be handed out or used, and on which of them somebody holds.
///
/// BLAKE3 of the line `keypool-pool-digest-v1` with its line feed, and then, in the order of the
/// references, for each package that is available or reserved: the length of its reference in one byte,
/// the reference, and `a` or `r`. Others are passed over, and the order in which they come is of no
/// consequence.
#[must_use]
pub fn digest<'a>(packages: impl IntoIterator<Item = (&'a KeyPackageRef, Stage)>) -> Hash {
    let mut live: Vec<(&KeyPackageRef, u8)> = packages
        .into_iter()
        .filter_map(|(keypackage_ref, stage)| Some((keypackage_ref, letter(stage)?)))
        .collect();
    live.sort_unstable();
    let mut bytes = DOMAIN.to_vec();
    for (keypackage_ref, letter) in live {
        let name = keypackage_ref.as_bytes();
        // A reference has 64 bytes at most.
        bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(name);
        bytes.push(letter);
    }
    Hash::of(&bytes)
}

const fn letter(stage: Stage) -> Option<u8> {
    match stage {
        Stage::Available => Some(b'a'),
        Stage::Reserved => Some(b'r'),
        Stage::Created | Stage::Spent | Stage::Expired | Stage::Revoked => None,
    }
}

/// The difference between a pool and a list of packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Live in the pool, and not in the list.
    pub only_here: Vec<(KeyPackageRef, Stage)>,
    /// In the list, and not live in the pool: they may be over, or never have been there.
    pub only_there: Vec<KeyPackageRef>,
}

impl PoolState {
    /// The [`digest`] of the pool as it is recorded. Worked out once, and again when the pool has changed.
    #[must_use]
    pub fn digest(&self) -> Hash {
        let live = || self.live().map(|package| (&package.facts.keypackage_ref, package.stage));
        self.digest.get_or(|| digest(live()))
    }

    /// The differences between the recorded pool and another party's list of its live packages.
    #[must_use]
    pub fn difference(&self, named: &BTreeSet<KeyPackageRef>) -> Difference {
        let live: BTreeMap<&KeyPackageRef, Stage> = self
            .live()
            .filter(|package| letter(package.stage).is_some())
            .map(|package| (&package.facts.keypackage_ref, package.stage))
            .collect();
        let unnamed = live.iter().filter(|(live, _)| !named.contains(**live));
        let missing = named.iter().filter(|named| !live.contains_key(named));
        Difference {
            only_here: unnamed.map(|(live, stage)| ((*live).clone(), *stage)).collect(),
            only_there: missing.cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(byte: u8) -> KeyPackageRef {
        KeyPackageRef::new(&[byte; 32]).unwrap()
    }

    /// The bytes are written out, so that other programs can compare theirs.
    #[test]
    fn a_digest_is_of_the_live_packages_in_order_whatever_order_they_come_in() {
        let (one, two, three) = (reference(1), reference(2), reference(3));
        let mut bytes = b"keypool-pool-digest-v1\n".to_vec();
        for (byte, letter) in [(1, b'r'), (2, b'a')] {
            bytes.push(32);
            bytes.extend([byte; 32]);
            bytes.push(letter);
        }
        let expected = Hash::of(&bytes);
        let packages = [(&two, Stage::Available), (&three, Stage::Spent), (&one, Stage::Reserved)];
        assert_eq!(digest(packages), expected);
        assert_eq!(digest(packages.into_iter().rev()), expected);
        assert_ne!(digest([(&one, Stage::Available), (&two, Stage::Available)]), expected);
        insta::assert_snapshot!(digest([]), @"85f226af38c8e722664d53d82fcbe4cdeecfad62856ad6d7d0edec129b522579");
    }

    #[test]
    fn the_end_of_one_reference_is_not_the_begin_of_the_next() {
        let (short, long) = (KeyPackageRef::new(&[b'a'; 16]), KeyPackageRef::new(&[b'a'; 17]));
        let (short, long) = (short.unwrap(), long.unwrap());
        assert_ne!(digest([(&short, Stage::Available)]), digest([(&long, Stage::Available)]));
    }
}
