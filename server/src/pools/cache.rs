//! States in memory: pools, groups and mailboxes, those touched lately as they are decided on, the others
//! packed.
//!
//! Groups and mailboxes are all here, in one form or the other. A pool that is in neither is loaded from
//! the log, so that the memory of pools has a bound for any number of them. A state that is asked for again
//! and again costs nothing but a look.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use keypool_ledger::PoolId;
use keypool_projections::States;

use super::{
    PoolView,
    packed_form::{Cached, Form},
};

/// How many states of a kind are kept unpacked: some ten kilobytes each.
pub(super) const UNPACKED_MAX: usize = 4096;
/// How many are packed at a time.
const PACKED_AT_ONCE: usize = 32;

/// States of one kind in memory.
#[derive(Debug)]
pub(super) struct Cache<T: Cached> {
    unpacked: HashMap<T::Name, Unpacked<T>>,
    /// The unpacked ones, the next to be packed first, without the large ones.
    unpacked_order: VecDeque<T::Name>,
    /// How many of the unpacked ones were large when their turn came, and have not changed since.
    large: usize,
    packed: HashMap<T::Name, Arc<[u8]>>,
    /// The packed ones, the next to be given up first, if any ever is. Some may have been unpacked
    /// meanwhile.
    packed_order: VecDeque<T::Name>,
    packed_bytes: usize,
}

#[derive(Debug)]
struct Unpacked<T> {
    state: Arc<T>,
    /// Whether it was asked for since its turn came last.
    used: AtomicBool,
    /// Whether it was large when its turn came, and has not changed since.
    large: bool,
}

impl<T> Unpacked<T> {
    const fn new(state: Arc<T>) -> Self {
        Self { state, used: AtomicBool::new(false), large: false }
    }
}

impl<T: Cached> Default for Cache<T> {
    fn default() -> Self {
        Self {
            unpacked: HashMap::new(),
            unpacked_order: VecDeque::new(),
            large: 0,
            packed: HashMap::new(),
            packed_order: VecDeque::new(),
            packed_bytes: 0,
        }
    }
}

impl<T: Cached> Cache<T> {
    /// Finds a state in the form it lies in. A caller that unpacks it gives it to [`Cache::put_back`].
    pub(super) fn get(&self, name: &T::Name) -> Option<Form<T>> {
        if let Some(found) = self.unpacked.get(name) {
            found.used.store(true, Ordering::Relaxed);
        }
        self.peek(name)
    }

    /// As [`Cache::get`], without its counting as asked for.
    pub(super) fn peek(&self, name: &T::Name) -> Option<Form<T>> {
        if let Some(found) = self.unpacked.get(name) {
            return Some(Form::Unpacked(Arc::clone(&found.state)));
        }
        self.packed.get(name).map(|bytes| Form::Packed(Arc::clone(bytes)))
    }

    /// Finds a state, unpacked.
    pub(super) fn unpacked(&self, name: &T::Name) -> Option<Arc<T>> {
        self.get(name)?.unpacked()
    }

    /// Takes in a state that was unpacked from these bytes, if it still lies here as them.
    pub(super) fn put_back(&mut self, name: &T::Name, state: &Arc<T>, from: &Arc<[u8]>) {
        if self.packed.get(name).is_some_and(|packed| Arc::ptr_eq(packed, from)) {
            self.insert(name.clone(), Arc::clone(state));
        }
    }

    /// Takes in a state as bytes, at a start.
    pub(super) fn put_packed(&mut self, name: T::Name, bytes: &[u8]) {
        self.keep_packed(name, bytes.into());
    }

    /// Takes in a state in the place of the one that is here.
    fn insert(&mut self, name: T::Name, state: Arc<T>) {
        if let Some(packed) = self.packed.remove(&name) {
            self.packed_bytes -= packed.len();
        }
        if let Some(here) = self.unpacked.get_mut(&name) {
            here.state = state;
        } else {
            self.unpacked_order.push_back(name.clone());
            self.unpacked.insert(name, Unpacked::new(state));
        }
    }

    /// Whether there are so many unpacked ones that some should be packed: see [`Cache::idle`].
    pub(super) fn is_crowded(&self) -> bool {
        UNPACKED_MAX + PACKED_AT_ONCE <= self.unpacked.len() - self.large
    }

    /// States that were not asked for lately, all but as many as are kept unpacked. To pack them takes a
    /// while, so the caller does it where nobody waits, and gives them to [`Cache::replace`].
    pub(super) fn idle(&mut self, kept: usize) -> Vec<(T::Name, Arc<T>)> {
        let mut idle = Vec::new();
        let mut left = (self.unpacked.len() - self.large).saturating_sub(kept);
        while 0 < left {
            let Some(name) = self.unpacked_order.pop_front() else { break };
            match self.unpacked.get_mut(&name) {
                Some(here) if here.state.is_large() => {
                    here.large = true;
                    self.large += 1;
                    left -= 1;
                }
                Some(here) if !here.used.swap(false, Ordering::Relaxed) => {
                    idle.push((name, Arc::clone(&here.state)));
                    left -= 1;
                }
                Some(_) => self.unpacked_order.push_back(name),
                None => {}
            }
        }
        idle
    }

    /// Takes a state packed, if it is still as it was.
    pub(super) fn replace(&mut self, name: T::Name, state: &Arc<T>, packed: Box<[u8]>) {
        match self.unpacked.get(&name) {
            Some(here) if Arc::ptr_eq(&here.state, state) => {
                self.unpacked.remove(&name);
                self.keep_packed(name, packed);
            }
            Some(_) => self.unpacked_order.push_back(name),
            None => {}
        }
    }

    /// Packs the idle ones at once, where nobody else asks for them yet.
    pub(super) fn make_room(&mut self) {
        if self.is_crowded() {
            for (name, state) in self.idle(UNPACKED_MAX) {
                self.replace(name, &state, state.to_bytes());
            }
        }
    }

    fn keep_packed(&mut self, name: T::Name, bytes: Box<[u8]>) {
        self.packed_bytes += bytes.len();
        if T::PACKED_BYTES_MAX.is_some() {
            self.packed_order.push_back(name.clone());
        }
        self.packed.insert(name, bytes.into());
        self.give_up_above(T::PACKED_BYTES_MAX.unwrap_or(usize::MAX));
    }

    fn give_up_above(&mut self, max: usize) {
        while max < self.packed_bytes {
            let Some(oldest) = self.packed_order.pop_front() else { return };
            if let Some(gone) = self.packed.remove(&oldest) {
                self.packed_bytes -= gone.len();
            }
        }
        if 2 * self.packed.len() + UNPACKED_MAX + PACKED_AT_ONCE < self.packed_order.len() {
            let packed = &self.packed;
            self.packed_order.retain(|name| packed.contains_key(name));
        }
    }
}

impl Cache<PoolView> {
    /// Takes in a pool, unless a later state of it is here.
    pub(super) fn put(&mut self, pool: PoolId, view: Arc<PoolView>) {
        let unpacked = self.unpacked.get(&pool).map(|here| here.state.head.version);
        let packed = || PoolView::packed_version(self.packed.get(&pool)?);
        if unpacked.or_else(packed).is_none_or(|here| here <= view.head.version) {
            self.insert(pool, view);
        }
    }
}

impl<T: Cached + Default> States<T::Name, T> for Cache<T> {
    fn get_mut(&mut self, name: &T::Name) -> Option<&mut T> {
        if let Some(packed) = self.packed.get(name) {
            let state = Arc::new(T::of_bytes(packed)?);
            self.insert(name.clone(), state);
        }
        let here = self.unpacked.get_mut(name)?;
        here.used.store(true, Ordering::Relaxed);
        if mem::take(&mut here.large) {
            self.large -= 1;
            self.unpacked_order.push_back(name.clone());
        }
        Some(Arc::make_mut(&mut here.state))
    }

    fn get_or_new(&mut self, name: &T::Name) -> &mut T {
        if self.get_mut(name).is_none() {
            self.insert(name.clone(), Arc::default());
        }
        let new = || Unpacked::new(Arc::default());
        Arc::make_mut(&mut self.unpacked.entry(name.clone()).or_insert_with(new).state)
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use keypool_ledger::{Event, GroupId, StreamHead, StreamId, Timestamp};
    use keypool_projections::{Deliveries, GroupState, MailboxState};

    use super::*;
    use crate::pools::packed_form::PACKED_ITEMS_MAX;

    fn view(version: u64) -> Arc<PoolView> {
        let mut view = PoolView {
            head: StreamHead { version, ..StreamHead::default() },
            ..PoolView::default()
        };
        (0..version).for_each(|_| view.state.pass_over());
        Arc::new(view)
    }

    fn put(residents: &mut Cache<PoolView>, pool: PoolId, view: Arc<PoolView>) {
        residents.put(pool, view);
        residents.make_room();
    }

    /// A pool, and whether it had to be unpacked.
    fn get(residents: &Cache<PoolView>, pool: &PoolId) -> Option<(Arc<PoolView>, bool)> {
        let found = residents.get(pool)?;
        let is_packed = matches!(found, Form::Packed(_));
        Some((found.unpacked()?, is_packed))
    }

    fn pool(n: usize) -> PoolId {
        PoolId::new(&format!("user{n}"), "phone").unwrap()
    }

    #[test]
    fn pools_that_nobody_asks_for_are_packed_and_come_back_as_they_were() {
        let mut residents = Cache::<PoolView>::default();
        for n in 0..UNPACKED_MAX + 3 * PACKED_AT_ONCE {
            put(&mut residents, pool(n), view(n as u64));
            assert!(get(&residents, &pool(0)).is_some(), "the first is asked for all the time");
        }
        assert_eq!(residents.unpacked.len(), UNPACKED_MAX);
        assert_eq!(residents.packed.len(), 3 * PACKED_AT_ONCE);
        let (first, unpacked) = get(&residents, &pool(0)).unwrap();
        assert_eq!((first.head.version, unpacked), (0, false));
        let (second, unpacked) = get(&residents, &pool(7)).unwrap();
        assert_eq!((second.head.version, unpacked), (7, true));
        assert_eq!(second.state, view(7).state);
        residents.put(pool(7), second);
        assert!(!get(&residents, &pool(7)).unwrap().1);
        assert_eq!(residents.packed.len(), 3 * PACKED_AT_ONCE - 1);
        assert!(get(&residents, &pool(999_999)).is_none());
    }

    #[test]
    fn an_earlier_state_does_not_replace_a_later_one() {
        let mut residents = Cache::<PoolView>::default();
        residents.put(pool(1), view(9));
        residents.put(pool(1), view(8));
        assert_eq!(get(&residents, &pool(1)).unwrap().0.head.version, 9);
    }

    #[test]
    fn a_pool_that_changes_while_it_is_packed_stays_as_it_is_now() {
        let mut residents = Cache::<PoolView>::default();
        (0..UNPACKED_MAX + PACKED_AT_ONCE).for_each(|n| residents.put(pool(n), view(1)));
        let idle = residents.idle(UNPACKED_MAX);
        assert_eq!(idle.len(), PACKED_AT_ONCE);
        let (changed, _) = idle[0].clone();
        residents.put(changed.clone(), view(2));
        for (pool, view) in idle {
            residents.replace(pool, &view, view.to_bytes());
        }
        let (here, unpacked) = get(&residents, &changed).unwrap();
        assert_eq!((here.head.version, unpacked), (2, false));
        assert_eq!(residents.packed.len(), PACKED_AT_ONCE - 1);
        assert_eq!(residents.unpacked_order.len(), residents.unpacked.len());
    }

    #[test]
    fn what_is_remembered_of_the_order_does_not_grow() {
        let mut residents = Cache::<PoolView>::default();
        for n in 0..20 * UNPACKED_MAX {
            put(&mut residents, pool(n % (UNPACKED_MAX + 50)), view(1));
        }
        assert_eq!(residents.unpacked.len() + residents.packed.len(), UNPACKED_MAX + 50);
        assert!(residents.packed_order.len() < 3 * UNPACKED_MAX);
    }
    /// As many groups of one event as there is no room for, the first packed.
    fn groups() -> (Cache<GroupState>, GroupId) {
        let mut groups = Cache::<GroupState>::default();
        for n in 0..UNPACKED_MAX + 2 * PACKED_AT_ONCE {
            let event = Event::GroupMade { creator: pool(n) };
            groups.get_or_new(&group(n)).evolve(&event);
            groups.make_room();
        }
        let first = group(0);
        assert!(matches!(groups.get(&first), Some(Form::Packed(_))));
        (groups, first)
    }

    fn group(n: usize) -> GroupId {
        GroupId::new(&n.to_be_bytes()).unwrap()
    }

    #[test]
    fn a_group_is_never_given_up_and_changes_as_if_it_had_not_been_packed() {
        let (mut groups, first) = groups();
        assert!(groups.packed_order.is_empty(), "it would only take memory");
        let added = vec![pool(1)];
        let commit = Event::Committed {
            epoch: 0,
            committer: pool(0),
            added,
            removed: Vec::new(),
            not_kept: Vec::new(),
        };
        groups.get_mut(&first).unwrap().evolve(&commit);
        assert!(matches!(groups.get(&first), Some(Form::Unpacked(_))));
        let first = groups.unpacked(&first).unwrap();
        assert_eq!((first.version(), first.epoch(), first.members().count()), (2, 1, 2));
        assert!(groups.get_mut(&group(999_999)).is_none());
        let known = |n| groups.unpacked(&group(n)).is_some_and(|group| group.has_member(&pool(n)));
        assert!((0..UNPACKED_MAX + 2 * PACKED_AT_ONCE).all(known));
    }

    #[test]
    fn a_state_that_was_changed_while_somebody_unpacked_it_stays_as_it_is_now() {
        let (mut groups, first) = groups();
        let Some(Form::Packed(bytes)) = groups.get(&first) else { panic!("it is not packed") };
        let earlier = Arc::new(GroupState::of_bytes(&bytes).unwrap());
        groups.get_mut(&first).unwrap().end_membership(&pool(0));
        groups.put_back(&first, &earlier, &bytes);
        assert_eq!(groups.unpacked(&first).unwrap().members().count(), 0);
        for (name, state) in groups.idle(0) {
            groups.replace(name, &state, state.to_bytes());
        }
        groups.put_back(&first, &earlier, &bytes);
        assert_eq!(groups.unpacked(&first).unwrap().members().count(), 0, "nor packed again");
    }
    #[test]
    fn a_mailbox_in_which_much_waits_is_packed_once_it_was_emptied() {
        let (group, sender) = (group(1), pool(2));
        let made = Event::GroupMade { creator: pool(1) };
        let joined = Event::Committed {
            epoch: 0,
            committer: sender.clone(),
            added: Vec::new(),
            removed: Vec::new(),
            not_kept: Vec::new(),
        };
        let posted = Event::Posted { sender, not_kept: Vec::new() };
        let mut deliveries = Deliveries::<Cache<GroupState>, Cache<MailboxState>>::default();
        let stream = StreamId::Group(group);
        let events = [made, joined].into_iter().chain(iter::repeat_n(posted, PACKED_ITEMS_MAX));
        for (position, event) in (1..).zip(events) {
            deliveries.take(&stream, &event, (position, Timestamp::default(), 1));
        }
        let mailboxes = &mut deliveries.mailboxes;
        let pack = |mailboxes: &mut Cache<MailboxState>| {
            for (name, state) in mailboxes.idle(0) {
                mailboxes.replace(name, &state, state.to_bytes());
            }
            (mailboxes.packed.len(), mailboxes.large, mailboxes.unpacked_order.len())
        };
        assert_eq!(pack(mailboxes), (1, 1, 0));
        assert_eq!(pack(mailboxes), (1, 1, 0), "it is not looked at again");
        let emptied = Event::Acknowledged {
            through: u64::MAX,
            overrun: false,
            accepted: Vec::new(),
            told: Vec::new(),
            available: Vec::new(),
        };
        deliveries.take(&StreamId::Mailbox(pool(1)), &emptied, (99, Timestamp::default(), 0));
        assert_eq!(pack(&mut deliveries.mailboxes), (2, 0, 0));
        assert_eq!(deliveries.mailboxes.unpacked(&pool(1)).unwrap().len(), 0);
    }
}
