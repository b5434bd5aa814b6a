//! The vault: the database, with every value but the histories sealed, each under a key of its own.
//!
//! A write goes in this order, and a crash between two steps leaves the state before or after it:
//! the slots of the new values, durably; the batch of the database, which says which slot each value
//! has; the slots of the values that are no more, overwritten. The rest of an interrupted last step is
//! done when the vault is opened again. A new value never takes the slot of the one it replaces.

mod cipher;
mod device_key;
mod files;
mod header;
mod key_file;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;
use zeroize::Zeroizing;

pub(crate) use self::cipher::randomize;
#[cfg(test)]
pub(super) use self::tests::{copy, homes, images};
use self::{
    cipher::{KeySlot, SealingKey, value_context},
    key_file::{KeyFile, Slots},
};
pub use self::{device_key::DeviceKey, header::DeviceKeyKind};
use super::{
    database::{Changes, KeyValue},
    engine::Engine,
    keys,
};
use crate::{BoxError, SealingError, StorageError};

/// A value that is wiped when it is dropped.
pub(super) type Plain = Zeroizing<Vec<u8>>;

/// Values to put, or with `None` to remove, by their names in the database.
pub(super) type ValueChanges = BTreeMap<Vec<u8>, Option<Plain>>;

/// A durable map from names to values that nobody without the device key can read.
pub(super) struct Vault {
    engine: Engine,
    keys: KeyFile,
    live: Mutex<Live>,
}

/// The slots that are taken, and their values.
#[derive(Default)]
struct Live {
    /// The sealed values; without a place if the value does not say it.
    places: BTreeMap<Vec<u8>, Option<KeySlot>>,
    /// How many values say that their key is in the slot: one, unless somebody has copied them.
    users: BTreeMap<u32, u32>,
    free: BTreeSet<u32>,
    count: u32,
    generation: u64,
}

impl Vault {
    /// The vault of a store that is new, with a key file of its own.
    pub(super) fn create(
        engine: Engine,
        home: &Path,
        key: &DeviceKey,
        store: Uuid,
    ) -> Result<Self, StorageError> {
        let keys = KeyFile::create(home, key, store)?;
        Self::new(engine, keys)
    }

    /// The vault of a store that was made before. The slots that no value has any more are overwritten.
    pub(super) fn open(
        engine: Engine,
        home: &Path,
        key: &DeviceKey,
        store: Uuid,
    ) -> Result<Self, StorageError> {
        let keys = KeyFile::open(home, key, store)?;
        let vault = Self::new(engine, keys)?;
        vault.keys.erase(vault.lock().free.iter().copied())?;
        Ok(vault)
    }

    fn new(engine: Engine, keys: KeyFile) -> Result<Self, StorageError> {
        let mut live = Live { count: keys.count()?, ..Live::default() };
        live.free = (0..live.count).collect();
        for kind in keys::SEALED {
            for (name, sealed) in engine.scan(&[kind])? {
                live.put(name, KeySlot::of(&sealed));
            }
        }
        Ok(Self { engine, keys, live: Mutex::new(live) })
    }

    /// The key file.
    pub(super) fn key_file(&self) -> &Path {
        self.keys.path()
    }

    /// The value under a name.
    pub(super) fn get(&self, name: &[u8]) -> Result<Option<Plain>, StorageError> {
        let Some(bytes) = self.engine.get(name)? else { return Ok(None) };
        if keys::is_sealed(name) {
            Ok(Some(self.unseal(name, &bytes)?))
        } else {
            Ok(Some(Zeroizing::new(bytes)))
        }
    }

    /// Whether there is a sealed value under a name, whether or not it can be opened.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.lock().places.contains_key(name)
    }

    /// The names of the sealed values that begin with `prefix`, in order.
    pub(super) fn names(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let live = self.lock();
        let from = live.places.range(prefix.to_vec()..);
        from.map(|(name, _)| name).take_while(|name| name.starts_with(prefix)).cloned().collect()
    }

    /// The events of a history, which are not sealed, in order.
    pub(super) fn events(&self, kind: u8) -> Result<Vec<KeyValue>, StorageError> {
        self.engine.scan(&[kind])
    }

    /// Whether slots that no value has hold keys nevertheless: how many. None, after an opening.
    pub(super) fn stale_slots(&self) -> Result<usize, StorageError> {
        let mut stale = 0_usize;
        for slot in &self.lock().free {
            stale = stale.saturating_add(usize::from(self.keys.holds_key(*slot)?));
        }
        Ok(stale)
    }

    /// Wraps the keys of all values anew, with another device key. Those of the one before open nothing
    /// any more.
    pub(super) fn change_key(&self, key: &DeviceKey) -> Result<(), SealingError> {
        let live = self.lock();
        self.keys.change_key(key, live.users.keys().copied())
    }

    /// Overwrites all slots that no value has.
    pub(super) fn erase_free_slots(&self) -> Result<(), StorageError> {
        Ok(self.keys.erase(self.lock().free.iter().copied())?)
    }

    /// Writes all values or none, and returns once they survive a crash of the machine, and the values that
    /// they replace cannot be read any more.
    ///
    /// An error leaves it unknown whether they were written.
    pub(super) fn write(&self, draft: ValueChanges) -> Result<(), BoxError> {
        let mut live = self.lock();
        live.generation = self.engine.count().saturating_add(1);
        let (mut changes, mut slots) = (Changes::new(), Slots::new());
        let mut moves = Vec::new();
        for (name, value) in draft {
            if !keys::is_sealed(&name) {
                changes.push((name, value.map(|mut value| std::mem::take(&mut *value))));
                continue;
            }
            let place = value.as_ref().map(|_| self.take_slot(&mut live)).transpose()?;
            let sealed = match (&value, place) {
                (Some(value), Some(place)) => Some(self.seal(&name, place, value, &mut slots)?),
                _ => None,
            };
            moves.push((name.clone(), place));
            changes.push((name, sealed));
        }
        self.keys.write(&slots)?;
        self.engine.write(changes)?;
        let freed: Vec<u32> =
            moves.into_iter().filter_map(|(name, place)| live.replace(name, place)).collect();
        self.keys.erase(freed.iter().copied())?;
        live.free.extend(freed);
        Ok(())
    }

    /// A slot for a new value, which no value has.
    fn take_slot(&self, live: &mut Live) -> Result<KeySlot, SealingError> {
        if live.free.is_empty() {
            let grown = self.keys.grow(live.count)?;
            // A file that was cut short has values whose slots are beyond its end: theirs still.
            let users = &live.users;
            let added = (live.count..grown).filter(|slot| !users.contains_key(slot));
            live.free.extend(added);
            live.count = grown;
        }
        let slot = live.free.pop_first().ok_or(SealingError::TooLarge)?;
        Ok(KeySlot { slot, generation: live.generation })
    }

    /// Seals a value with a fresh key, which it wraps into its slot.
    fn seal(
        &self,
        name: &[u8],
        place: KeySlot,
        value: &[u8],
        slots: &mut Slots,
    ) -> Result<Vec<u8>, SealingError> {
        let key = SealingKey::random()?;
        slots.insert(place.slot, self.keys.wrap(place, &key)?);
        key.seal(&value_context(self.keys.store(), name), place, value)
    }

    fn unseal(&self, name: &[u8], sealed: &[u8]) -> Result<Plain, SealingError> {
        let damaged = || SealingError::ValueDamaged { what: keys::describe(name) };
        let place = KeySlot::of(sealed).ok_or_else(damaged)?;
        let Some(key) = self.keys.data_key(place)? else {
            return Err(SealingError::SlotDamaged { what: keys::describe(name), slot: place.slot });
        };
        key.open(&value_context(self.keys.store(), name), sealed).ok_or_else(damaged)
    }

    /// The slots of some values, for tests that look into the key file.
    #[cfg(test)]
    pub(super) fn slots_of(&self, names: &[Vec<u8>]) -> Vec<usize> {
        let live = self.lock();
        let slot = |name: &Vec<u8>| usize::try_from(live.places[name].unwrap().slot).unwrap();
        names.iter().map(slot).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn put(&mut self, name: Vec<u8>, place: Option<KeySlot>) {
        if let Some(KeySlot { slot, .. }) = place {
            self.free.remove(&slot);
            let users = self.users.entry(slot).or_default();
            *users = users.saturating_add(1);
        }
        self.places.insert(name, place);
    }

    /// Puts a value in the place of the one before it. Returns the slot that nobody has then.
    fn replace(&mut self, name: Vec<u8>, place: Option<KeySlot>) -> Option<u32> {
        let before = self.places.remove(&name).flatten();
        if place.is_some() {
            self.put(name, place);
        }
        let slot = before?.slot;
        let users = self.users.get_mut(&slot)?;
        *users = users.saturating_sub(1);
        if *users > 0 {
            return None;
        }
        self.users.remove(&slot);
        (slot < self.count).then_some(slot)
    }
}
