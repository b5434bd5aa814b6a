//! Times and the clocks that tell them.

use std::time::Duration;

use keypool_ledger::{Clock, ManualClock, SystemClock, Timestamp};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn times_are_moved_and_subtracted_and_never_overflow() {
    let at = Timestamp::from_secs(7);
    assert_eq!((at.as_millis(), at.as_secs()), (7000, 7));
    assert_eq!(at, Timestamp::from_millis(7000));
    assert_eq!(Timestamp::from_millis(7999).as_secs(), 7);
    assert_eq!(at.after(SECOND), Timestamp::from_secs(8));
    assert_eq!(at.before(SECOND), Timestamp::from_secs(6));
    assert_eq!(at.since(at.before(SECOND)), SECOND);
    assert_eq!(at.since(at.after(SECOND)), Duration::ZERO);
    assert_eq!(at.before(8 * SECOND), Timestamp::default());
    assert_eq!(at.after(Duration::MAX), Timestamp::MAX);
    assert_eq!(Timestamp::from_secs(u64::MAX), Timestamp::MAX);
    assert_eq!(at.to_string(), "7000 ms");
}

#[test]
fn a_manual_clock_goes_on_only_when_it_is_told() {
    let clock = ManualClock::at(Timestamp::from_secs(7));
    assert_eq!((clock.now(), clock.monotonic()), (Timestamp::from_secs(7), Duration::ZERO));
    clock.advance(SECOND);
    assert_eq!((clock.now(), clock.monotonic()), (Timestamp::from_secs(8), SECOND));
    clock.set(Timestamp::from_secs(3));
    assert_eq!((clock.now(), clock.monotonic()), (Timestamp::from_secs(3), SECOND));
}

/// A clock with nothing but a time.
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(7)
    }
}

#[test]
fn a_clock_without_a_second_reading_counts_from_the_first_moment() {
    assert_eq!(Fixed.monotonic(), 7 * SECOND);
}

#[test]
fn the_clock_of_the_system_tells_this_century_and_does_not_stand_still() {
    let (first, began) = (SystemClock.now(), SystemClock.monotonic());
    // The end of 2025, and the end of 2125.
    assert!((1_767_000_000..4_922_000_000).contains(&first.as_secs()), "{first}");
    while SystemClock.monotonic() == began {}
    assert!(began < SystemClock.monotonic());
}
