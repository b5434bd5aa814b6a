//! States by name: the fold of the delivery changes them in the place where they are kept.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, Hash},
};

/// States of one kind, by name.
pub trait States<K, T> {
    /// Finds a state, to be changed; `None` if the name has no history.
    fn get_mut(&mut self, name: &K) -> Option<&mut T>;

    /// Finds a state, to be changed; an empty one if the name has no history.
    fn get_or_new(&mut self, name: &K) -> &mut T;
}

impl<K: Ord + Clone, T: Default> States<K, T> for BTreeMap<K, T> {
    fn get_mut(&mut self, name: &K) -> Option<&mut T> {
        Self::get_mut(self, name)
    }

    fn get_or_new(&mut self, name: &K) -> &mut T {
        self.entry(name.clone()).or_default()
    }
}

impl<K: Hash + Eq + Clone, T: Default, S: BuildHasher> States<K, T> for HashMap<K, T, S> {
    fn get_mut(&mut self, name: &K) -> Option<&mut T> {
        Self::get_mut(self, name)
    }

    fn get_or_new(&mut self, name: &K) -> &mut T {
        self.entry(name.clone()).or_default()
    }
}
