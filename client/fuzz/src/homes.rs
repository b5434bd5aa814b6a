//! Homes of devices whose files or database entries were changed.

use std::sync::Arc;

use keypool_client::{DeviceIdentity, KeyPackagePool, MlsMembership, PoolConfig};

use super::{
    device::{MemoryDatabase, now, open_store, scene},
    edits::edit,
    input::InputReader,
};

/// How many entries of the database an input changes at most.
const CHANGED_MAX: usize = 4;

/// The entry of the database with the end of the own history.
const HISTORY_END: &[u8] = b"t";

/// Opens a home of which an input has changed or removed files and entries. It opens or is refused; each event of
/// the own history is the one that was written, and everything in it can be looked at.
pub fn home(bytes: &[u8]) {
    let mut input = InputReader::new(bytes);
    let scene = scene();
    let mut stored = if input.flag() { scene.joined.clone() } else { scene.invited.clone() };
    let written = stored.open().store.history().unwrap();
    let end = stored.entries.get(HISTORY_END).cloned();
    assert!(end.is_some(), "the end is kept");
    for _ in 0..=input.number(CHANGED_MAX) {
        if input.flag() {
            let name = stored.files.keys().nth(input.number(7)).cloned();
            let Some(name) = name else { continue };
            change(&mut input, &mut stored.files, &name);
        } else {
            let key = stored.entries.keys().nth(input.number(127)).cloned();
            let Some(key) = key else { continue };
            change(&mut input, &mut stored.entries, &key);
        }
    }
    let is_ended = stored.entries.get(HISTORY_END) == end.as_ref();
    let (dir, database) = (stored.write(), MemoryDatabase::of(stored.entries));
    let Ok(store) = open_store(&database, dir.path(), stored.name) else { return };
    let store = Arc::new(store);
    if let Ok(history) = store.history() {
        // Each event has the hash of the one before it, and the end that of the last.
        let chained = history.split_last().map_or(&[][..], |(_, chained)| chained);
        let is_same = if is_ended { written == history } else { written.starts_with(chained) };
        assert!(is_same, "no event differs from the one that was written");
    }
    let Ok(identity) = DeviceIdentity::load_or_create(&store) else { return };
    let groups = MlsMembership::new(Arc::clone(&store), identity.clone());
    for group in groups.groups().unwrap_or_default() {
        let _ = groups.members(&group);
        let _ = groups.decrypt(&scene.messages[0]);
    }
    let pool = KeyPackagePool::new(store, identity, PoolConfig::default());
    if let Ok(pool) = pool {
        let _ = pool.check_up(now());
        let _ = pool.repair(now());
        let _ = pool.pending_upload(now());
    }
}

/// Changes or removes a value.
fn change<K: Ord>(
    input: &mut InputReader<'_>,
    values: &mut std::collections::BTreeMap<K, Vec<u8>>,
    key: &K,
) {
    if input.number(7) == 7 {
        values.remove(key);
    } else if let Some(value) = values.get_mut(key) {
        edit(input, value);
    }
}
