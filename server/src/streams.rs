//! Who listens to what happens to their pool: how many at a time, all in all and of one device.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use keypool_ledger::PoolId;

/// How many streams of one device are open at a time: its app, and what it has not closed yet.
const DEVICE_STREAMS_MAX: usize = 4;

/// The streams that are open.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    open: Arc<Mutex<HashMap<PoolId, usize>>>,
    all_max: usize,
}

/// A place among the streams; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    streams: Streams,
    pool: PoolId,
}

impl Streams {
    pub(crate) fn at_most(all_max: usize) -> Self {
        Self { open: Arc::default(), all_max }
    }

    /// A place for one more; `None` if there are as many as there may be.
    pub(crate) fn enter(&self, pool: &PoolId) -> Option<Place> {
        let mut open = self.open();
        let (all, own) = (open.values().sum::<usize>(), open.get(pool).copied().unwrap_or(0));
        if self.all_max <= all || DEVICE_STREAMS_MAX <= own {
            return None;
        }
        open.insert(pool.clone(), own + 1);
        Some(Place { streams: self.clone(), pool: pool.clone() })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<PoolId, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open();
        match open.get_mut(&self.pool) {
            Some(own) if 1 < *own => *own -= 1,
            _ => drop(open.remove(&self.pool)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_it_is_left() {
        let streams = Streams::at_most(5);
        let pool = |name: &str| name.parse::<PoolId>().unwrap();
        let own: Vec<Place> = (0..4).map(|_| streams.enter(&pool("alice")).unwrap()).collect();
        assert!(streams.enter(&pool("alice")).is_none(), "four of one device");
        let other = streams.enter(&pool("bob")).unwrap();
        assert!(streams.enter(&pool("carol")).is_none(), "five in all");
        drop(other);
        assert!(streams.enter(&pool("carol")).is_some());
        drop(own);
        assert!(streams.open().is_empty());
    }
}
