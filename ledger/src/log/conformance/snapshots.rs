//! The promises of a [`SnapshotStore`].

use crate::{Snapshot, SnapshotStore};

/// Checks that a new, empty store keeps its snapshots whole, under their names. It may keep none.
///
/// # Panics
///
/// Panics if the store breaks a promise.
pub fn check_snapshots(store: &impl SnapshotStore) {
    let named = |name: &[u8], len: usize| Snapshot {
        name: name.to_vec(),
        bytes: (0..len).map(|n| n.to_le_bytes()[n % 2] | 1).collect(),
    };
    let lens: [(&[u8], usize); 6] =
        [(b"a", 1), (b"a\0", 4096), (b"a\0\0", 4097), (b"a\x01", 70_000), (b"ab", 9), (b"b", 3)];
    let mut kept = lens.map(|(name, len)| named(name, len)).to_vec();
    store.put(kept.clone()).unwrap();
    let listed = store.list(b"", None, 99).unwrap();
    if listed.is_empty() {
        return;
    }
    assert_eq!(listed, kept);
    // Longer, shorter, gone.
    (kept[0], kept[3]) = (named(b"a", 9000), named(b"a\x01", 5));
    let gone = Snapshot { bytes: Vec::new(), ..kept.remove(1) };
    store.put(vec![kept[0].clone(), kept[2].clone(), gone.clone()]).unwrap();
    assert_eq!(store.list(b"", None, 99).unwrap(), kept);
    for snapshot in &kept {
        assert_eq!(store.get(&snapshot.name).unwrap().as_ref(), Some(&snapshot.bytes));
    }
    assert_eq!(store.get(&gone.name).unwrap(), None);
    assert_eq!(store.get(b"").unwrap(), None);
    assert_eq!(store.list(b"a", None, 99).unwrap(), kept[..4]);
    assert_eq!(store.list(b"a\0", None, 99).unwrap(), kept[1..2]);
    assert_eq!(store.list(b"a", Some(b"a"), 2).unwrap(), kept[1..3]);
    assert_eq!(store.list(b"", Some(b"a\x01"), 99).unwrap(), kept[3..]);
}
