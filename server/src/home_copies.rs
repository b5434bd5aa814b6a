//! Copies of a device's home that are in use at a time. A home numbers its refreshes; a number that is not above
//! the last one comes from another copy of the home, or from one that was put back.
//!
//! A device that is registered anew, in a new home, has another key, and its numbers begin again.
//!
//! Kept in memory for one to two hours: after a restart a second copy is noticed by its next refresh but one.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use keypool_ledger::{CommandId, PoolId, SignatureKey, Timestamp};

/// How long a noticed copy is told to the device, and the least time that a number is remembered.
const REMEMBERED_FOR: Duration = Duration::from_hours(1);
/// How many homes are remembered in each of the two parts.
const HOMES_MAX: usize = 1 << 16;

/// The numbers of the last refreshes.
#[derive(Debug, Default)]
pub(crate) struct HomeCopies(Mutex<Homes>);

/// A device, and the key that signs its requests.
type Home = (PoolId, Option<SignatureKey>);

/// Two parts, of which the older one is forgotten at a time.
#[derive(Debug, Default)]
struct Homes {
    young: HashMap<Home, LastRefresh>,
    old: HashMap<Home, LastRefresh>,
    /// When the younger part was begun.
    since: Timestamp,
}

/// The last refresh of a device.
#[derive(Clone, Copy, Debug)]
struct LastRefresh {
    number: u64,
    id: CommandId,
    /// When another copy was noticed.
    other_copy_at: Option<Timestamp>,
}

impl HomeCopies {
    /// Notes a refresh of a device by its number in the home and its id, which a repetition of the request has as
    /// well. Returns when another copy of the home was last noticed, if it was within the last hour.
    pub(crate) fn note(
        &self,
        home: Home,
        (number, id): (u64, CommandId),
        now: Timestamp,
    ) -> Option<Timestamp> {
        let mut homes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        homes.age(now);
        let last = homes.young.get(&home).or_else(|| homes.old.get(&home)).copied();
        let is_other = last.is_some_and(|last| number <= last.number && id != last.id);
        let noticed_at = last.and_then(|last| last.other_copy_at);
        let other_copy_at = if is_other { Some(now) } else { noticed_at };
        homes.young.insert(home, LastRefresh { number, id, other_copy_at });
        other_copy_at.filter(|at| now < at.after(REMEMBERED_FOR))
    }
}

impl Homes {
    fn age(&mut self, now: Timestamp) {
        if self.since.after(REMEMBERED_FOR) <= now || HOMES_MAX <= self.young.len() {
            self.old = mem::take(&mut self.young);
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn device(name: &str) -> Home {
        (name.parse().unwrap(), None)
    }

    fn fresh() -> CommandId {
        CommandId(Uuid::new_v4())
    }

    #[test]
    fn a_home_that_counts_on_and_repeats_a_request_is_alone() {
        let copies = HomeCopies::default();
        let bob = device("bob/phone");
        for number in [1, 2, 5] {
            let id = fresh();
            assert_eq!(copies.note(bob.clone(), (number, id), START), None);
            assert_eq!(copies.note(bob.clone(), (number, id), START), None, "a repetition");
        }
        assert_eq!(copies.note(device("bob/laptop"), (1, fresh()), START), None);
    }

    #[test]
    fn a_second_copy_is_told_to_both_for_an_hour() {
        let copies = HomeCopies::default();
        let bob = device("bob/phone");
        copies.note(bob.clone(), (7, fresh()), START);
        assert_eq!(copies.note(bob.clone(), (7, fresh()), START), Some(START));
        assert_eq!(copies.note(bob.clone(), (8, fresh()), START), Some(START), "the first one too");
        let later = START.after(REMEMBERED_FOR);
        assert_eq!(copies.note(bob.clone(), (9, fresh()), later), None, "a backup is whole again");
        assert_eq!(copies.note(bob.clone(), (9, fresh()), later), Some(later));
    }

    #[test]
    fn a_device_that_is_registered_anew_is_no_copy_of_the_one_before() {
        let copies = HomeCopies::default();
        let home = |key: u8| (device("bob/phone").0, Some(SignatureKey::new(&[key; 32]).unwrap()));
        copies.note(home(1), (7, fresh()), START);
        assert_eq!(copies.note(home(2), (1, fresh()), START), None);
        assert_eq!(copies.note(home(1), (7, fresh()), START), Some(START));
    }

    #[test]
    fn ten_thousand_devices_more_than_are_remembered_take_no_more_room() {
        let copies = HomeCopies::default();
        for number in 0..3 * HOMES_MAX {
            copies.note(device(&format!("u{number}")), (1, fresh()), START);
        }
        let homes = copies.0.lock().unwrap();
        assert!(homes.young.len() + homes.old.len() <= 2 * HOMES_MAX);
    }
}
