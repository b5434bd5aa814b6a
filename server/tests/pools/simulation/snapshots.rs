//! Snapshots that may be lost, or be those of an earlier moment.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use keypool_ledger::{ReadError, Snapshot, SnapshotStore};

use super::dice::Dice;

/// The snapshots of one server, as the puts before have left them.
#[derive(Debug)]
pub(crate) struct SimulatedSnapshots {
    dice: Arc<Dice>,
    fails: u64,
    pub(crate) armed: AtomicBool,
    puts: Mutex<Vec<Vec<Snapshot>>>,
    kept: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl SimulatedSnapshots {
    pub(crate) fn new(dice: Arc<Dice>, fails: u64) -> Self {
        let (armed, puts, kept) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        Self { dice, fails, armed, puts, kept }
    }

    /// Loses the puts that came last, or all of them.
    pub(crate) fn set_back(&self) {
        let mut puts = self.puts.lock().unwrap();
        let left = self.dice.index(puts.len() + 1);
        puts.truncate(left);
        let mut kept = self.kept.lock().unwrap();
        kept.clear();
        puts.iter().for_each(|put| keep(&mut kept, put));
    }

    fn check(&self) -> Result<(), ReadError> {
        if self.armed.load(Ordering::Relaxed) && self.dice.chance(self.fails) {
            return Err(ReadError::Unavailable("the snapshots do not answer".into()));
        }
        Ok(())
    }
}

fn keep(kept: &mut BTreeMap<Vec<u8>, Vec<u8>>, put: &[Snapshot]) {
    for Snapshot { name, bytes } in put {
        if bytes.is_empty() {
            kept.remove(name);
        } else {
            kept.insert(name.clone(), bytes.clone());
        }
    }
}

impl SnapshotStore for SimulatedSnapshots {
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.kept.lock().unwrap().get(name).cloned())
    }

    fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Snapshot>, ReadError> {
        let kept = self.kept.lock().unwrap();
        let behind = |name: &[u8]| after.is_none_or(|after| after < name);
        let named = kept.iter().filter(|(name, _)| name.starts_with(prefix) && behind(name));
        let named =
            named.map(|(name, bytes)| Snapshot { name: name.clone(), bytes: bytes.clone() });
        Ok(named.take(limit).collect())
    }

    fn put(&self, snapshots: Vec<Snapshot>) -> Result<(), ReadError> {
        self.check()?;
        keep(&mut self.kept.lock().unwrap(), &snapshots);
        self.puts.lock().unwrap().push(snapshots);
        Ok(())
    }
}
