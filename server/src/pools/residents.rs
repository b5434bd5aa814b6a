//! The pools that are at hand: some as they are decided on, the others packed.
//!
//! A pool that is in neither is loaded from the log. So memory has a bound, whatever the number of
//! pools, and a pool that is asked for again and again costs nothing but a look.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use keypool_ledger::PoolId;

use super::PoolView;

/// How many pools are kept unpacked: some ten kilobytes each.
const UNPACKED_MAX: usize = 4096;
/// How many are packed at a time.
const PACKED_AT_ONCE: usize = 32;
/// How many bytes of packed pools are kept: three kilobytes for a pool of 32 packages.
const PACKED_BYTES_MAX: usize = 1 << 30;

/// Pools in memory.
#[derive(Debug, Default)]
pub(super) struct Residents {
    unpacked: HashMap<PoolId, Unpacked>,
    /// The unpacked ones, the next to be packed first.
    unpacked_order: VecDeque<PoolId>,
    packed: HashMap<PoolId, Box<[u8]>>,
    /// The packed ones, the next to be given up first. Some may have been unpacked meanwhile.
    packed_order: VecDeque<PoolId>,
    packed_bytes: usize,
}

#[derive(Debug)]
struct Unpacked {
    view: Arc<PoolView>,
    /// Whether it was asked for since its turn came last.
    used: AtomicBool,
}

impl Residents {
    /// A pool, and whether it had to be unpacked, so that it should be put back.
    pub(super) fn get(&self, pool: &PoolId) -> Option<(Arc<PoolView>, bool)> {
        if let Some(found) = self.unpacked.get(pool) {
            found.used.store(true, Ordering::Relaxed);
            return Some((Arc::clone(&found.view), false));
        }
        let view = PoolView::unpack(self.packed.get(pool)?)?;
        Some((Arc::new(view), true))
    }

    /// Takes in a pool, unless a later state of it is here.
    pub(super) fn put(&mut self, pool: PoolId, view: Arc<PoolView>) {
        if let Some(here) = self.unpacked.get_mut(&pool) {
            if here.view.head.version <= view.head.version {
                here.view = view;
            }
            return;
        }
        if let Some(packed) = self.packed.get(&pool) {
            if PoolView::packed_version(packed).is_some_and(|here| view.head.version < here) {
                return;
            }
            self.packed_bytes -= packed.len();
            self.packed.remove(&pool);
        }
        self.unpacked_order.push_back(pool.clone());
        self.unpacked.insert(pool, Unpacked { view, used: AtomicBool::new(false) });
    }

    /// Whether there are so many unpacked ones that some should be packed: see [`Residents::idle`].
    pub(super) fn is_crowded(&self) -> bool {
        UNPACKED_MAX + PACKED_AT_ONCE <= self.unpacked.len()
    }

    /// Some pools that were not asked for lately. To pack them takes a while, so whoever asks does it
    /// where nobody waits, and gives them to [`Residents::replace`].
    pub(super) fn idle(&mut self) -> Vec<(PoolId, Arc<PoolView>)> {
        let mut idle = Vec::new();
        let mut left = self.unpacked.len().saturating_sub(UNPACKED_MAX);
        while 0 < left {
            let Some(pool) = self.unpacked_order.pop_front() else { break };
            match self.unpacked.get(&pool) {
                Some(here) if !here.used.swap(false, Ordering::Relaxed) => {
                    idle.push((pool, Arc::clone(&here.view)));
                    left -= 1;
                }
                Some(_) => self.unpacked_order.push_back(pool),
                None => {}
            }
        }
        idle
    }

    /// Takes a pool packed, if it is still as it was.
    pub(super) fn replace(&mut self, pool: PoolId, view: &Arc<PoolView>, packed: Box<[u8]>) {
        match self.unpacked.get(&pool) {
            Some(here) if Arc::ptr_eq(&here.view, view) => {
                self.unpacked.remove(&pool);
                self.keep_packed(pool, packed);
            }
            Some(_) => self.unpacked_order.push_back(pool),
            None => {}
        }
    }

    /// Packs the idle ones at once, where nobody else asks for pools yet.
    pub(super) fn make_room(&mut self) {
        if self.is_crowded() {
            for (pool, view) in self.idle() {
                self.replace(pool, &view, view.pack());
            }
        }
    }

    fn keep_packed(&mut self, pool: PoolId, bytes: Box<[u8]>) {
        self.packed_bytes += bytes.len();
        self.packed_order.push_back(pool.clone());
        self.packed.insert(pool, bytes);
        while PACKED_BYTES_MAX < self.packed_bytes {
            let Some(oldest) = self.packed_order.pop_front() else { return };
            if let Some(gone) = self.packed.remove(&oldest) {
                self.packed_bytes -= gone.len();
            }
        }
        if 2 * self.packed.len() + UNPACKED_MAX + PACKED_AT_ONCE < self.packed_order.len() {
            let packed = &self.packed;
            self.packed_order.retain(|pool| packed.contains_key(pool));
        }
    }
}

#[cfg(test)]
mod tests {
    use keypool_ledger::StreamHead;

    use super::*;

    fn view(version: u64) -> Arc<PoolView> {
        let mut view = PoolView {
            head: StreamHead { version, ..StreamHead::default() },
            ..PoolView::default()
        };
        (0..version).for_each(|_| view.state.pass_over());
        Arc::new(view)
    }

    fn put(residents: &mut Residents, pool: PoolId, view: Arc<PoolView>) {
        residents.put(pool, view);
        residents.make_room();
    }

    fn pool(n: usize) -> PoolId {
        PoolId::new(&format!("user{n}"), "phone").unwrap()
    }

    #[test]
    fn pools_that_nobody_asks_for_are_packed_and_come_back_as_they_were() {
        let mut residents = Residents::default();
        for n in 0..UNPACKED_MAX + 3 * PACKED_AT_ONCE {
            put(&mut residents, pool(n), view(n as u64));
            assert!(residents.get(&pool(0)).is_some(), "the first is asked for all the time");
        }
        assert_eq!(residents.unpacked.len(), UNPACKED_MAX);
        assert_eq!(residents.packed.len(), 3 * PACKED_AT_ONCE);
        let (first, unpacked) = residents.get(&pool(0)).unwrap();
        assert_eq!((first.head.version, unpacked), (0, false));
        let (second, unpacked) = residents.get(&pool(7)).unwrap();
        assert_eq!((second.head.version, unpacked), (7, true));
        assert_eq!(second.state, view(7).state);
        residents.put(pool(7), second);
        assert!(!residents.get(&pool(7)).unwrap().1);
        assert_eq!(residents.packed.len(), 3 * PACKED_AT_ONCE - 1);
        assert!(residents.get(&pool(999_999)).is_none());
    }

    #[test]
    fn an_earlier_state_does_not_replace_a_later_one() {
        let mut residents = Residents::default();
        residents.put(pool(1), view(9));
        residents.put(pool(1), view(8));
        assert_eq!(residents.get(&pool(1)).unwrap().0.head.version, 9);
    }

    #[test]
    fn a_pool_that_changes_while_it_is_packed_stays_as_it_is_now() {
        let mut residents = Residents::default();
        (0..UNPACKED_MAX + PACKED_AT_ONCE).for_each(|n| residents.put(pool(n), view(1)));
        let idle = residents.idle();
        assert_eq!(idle.len(), PACKED_AT_ONCE);
        let (changed, _) = idle[0].clone();
        residents.put(changed.clone(), view(2));
        for (pool, view) in idle {
            residents.replace(pool, &view, view.pack());
        }
        let (here, unpacked) = residents.get(&changed).unwrap();
        assert_eq!((here.head.version, unpacked), (2, false));
        assert_eq!(residents.packed.len(), PACKED_AT_ONCE - 1);
        assert_eq!(residents.unpacked_order.len(), residents.unpacked.len());
    }

    #[test]
    fn what_is_remembered_of_the_order_does_not_grow() {
        let mut residents = Residents::default();
        for n in 0..20 * UNPACKED_MAX {
            put(&mut residents, pool(n % (UNPACKED_MAX + 50)), view(1));
        }
        assert_eq!(residents.unpacked.len() + residents.packed.len(), UNPACKED_MAX + 50);
        assert!(residents.packed_order.len() < 3 * UNPACKED_MAX);
    }
}
