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
        self.make_room();
        self.unpacked_order.push_back(pool.clone());
        self.unpacked.insert(pool, Unpacked { view, used: AtomicBool::new(false) });
    }

    /// Packs one that was not asked for lately, if there are too many.
    fn make_room(&mut self) {
        while UNPACKED_MAX <= self.unpacked.len() {
            let Some(pool) = self.unpacked_order.pop_front() else { return };
            let used = self
                .unpacked
                .get(&pool)
                .is_some_and(|here| here.used.swap(false, Ordering::Relaxed));
            if used {
                self.unpacked_order.push_back(pool);
            } else if let Some(idle) = self.unpacked.remove(&pool) {
                self.pack(pool, &idle.view);
            }
        }
    }

    fn pack(&mut self, pool: PoolId, view: &PoolView) {
        let bytes = view.pack();
        self.packed_bytes += bytes.len();
        self.packed_order.push_back(pool.clone());
        self.packed.insert(pool, bytes);
        while PACKED_BYTES_MAX < self.packed_bytes {
            let Some(oldest) = self.packed_order.pop_front() else { return };
            if let Some(gone) = self.packed.remove(&oldest) {
                self.packed_bytes -= gone.len();
            }
        }
        if 2 * self.packed.len() + UNPACKED_MAX < self.packed_order.len() {
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

    fn pool(n: usize) -> PoolId {
        PoolId::new(&format!("user{n}"), "phone").unwrap()
    }

    #[test]
    fn pools_that_nobody_asks_for_are_packed_and_come_back_as_they_were() {
        let mut residents = Residents::default();
        for n in 0..UNPACKED_MAX + 100 {
            residents.put(pool(n), view(n as u64));
            assert!(residents.get(&pool(0)).is_some(), "the first is asked for all the time");
        }
        assert_eq!(residents.unpacked.len(), UNPACKED_MAX);
        assert_eq!(residents.packed.len(), 100);
        let (first, unpacked) = residents.get(&pool(0)).unwrap();
        assert_eq!((first.head.version, unpacked), (0, false));
        let (second, unpacked) = residents.get(&pool(7)).unwrap();
        assert_eq!((second.head.version, unpacked), (7, true));
        assert_eq!(second.state, view(7).state);
        residents.put(pool(7), second);
        assert!(!residents.get(&pool(7)).unwrap().1);
        assert_eq!(residents.packed.len(), 100, "another had to go");
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
    fn what_is_remembered_of_the_order_does_not_grow() {
        let mut residents = Residents::default();
        for n in 0..20 * UNPACKED_MAX {
            residents.put(pool(n % (UNPACKED_MAX + 50)), view(1));
        }
        assert_eq!(residents.unpacked.len() + residents.packed.len(), UNPACKED_MAX + 50);
        assert!(residents.packed_order.len() < 3 * UNPACKED_MAX);
    }
}
