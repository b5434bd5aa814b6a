//! The server's time: the device's clock, and how far the server's is ahead of it.
//!
//! The server says its time with each answer. A difference of up to a day is believed as it is said: packages
//! live for days, so a lie of that size costs little. A larger one is believed once the ledger's key has
//! signed it (see [`keypool_transparency::TimeStatement`]); until then a refused request is signed
//! once with the time that the refusal names, and nothing else is dated by it. So nobody on the way can
//! end the lifetimes of a device's packages, whose keys would be deleted.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use keypool_ledger::{Clock, Timestamp};
use serde::{Deserialize, Serialize};

/// A difference that answers on their way explain, in milliseconds.
const NOISE_MS: i64 = 10_000;
/// A difference that is worth telling a person, in milliseconds.
const TOLD_MS: i64 = 60_000;
/// A difference that is believed without a signature, in milliseconds.
const BELIEVED_MS: i64 = 24 * 3_600_000;

/// How far the device's clock is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ClockOffset {
    /// By how many seconds the device's clock is ahead of the server's; negative if it is behind.
    pub device_ahead_s: i64,
    /// Whether this device goes by the server's time. If not, the difference is over a day and the server has
    /// not shown its time by its key: the device's clock has to be set.
    pub corrected: bool,
}

/// The clock of a server, as a device knows it.
pub(crate) struct ServerClock {
    device: Arc<dyn Clock>,
    known: Mutex<KnownTime>,
}

/// A device's knowledge of its server's time. It is kept in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "each name ends with its unit")]
pub(crate) struct KnownTime {
    /// How far the server's clock is ahead of the device's, in milliseconds, as far as it is believed.
    ahead_ms: i64,
    /// How far it was when the ledger's key had signed it.
    verified_ms: i64,
    /// How far it is by the last answer, where that is not believed.
    doubted_ms: Option<i64>,
    /// The difference that the app was told of last.
    told_ms: i64,
}

impl KnownTime {
    /// Takes in how far an answer says that the server's clock is ahead.
    fn hear(&mut self, ahead_ms: i64) {
        if ahead_ms.abs_diff(self.verified_ms) > BELIEVED_MS.unsigned_abs() {
            self.doubted_ms = Some(ahead_ms);
            return;
        }
        self.doubted_ms = None;
        if ahead_ms.abs_diff(self.ahead_ms) > NOISE_MS.unsigned_abs() {
            self.ahead_ms = ahead_ms;
        }
    }

    /// Whether nothing has changed that a person would notice.
    pub(crate) const fn agrees_with(self, other: Self) -> bool {
        self.ahead_ms.abs_diff(other.ahead_ms) <= TOLD_MS.unsigned_abs()
    }

    /// Returns the offset of the device's clock that the app is to be told of, once.
    fn tell(&mut self) -> Option<ClockOffset> {
        let ahead_ms = self.doubted_ms.unwrap_or(self.ahead_ms);
        let is_news = ahead_ms.abs_diff(self.told_ms) > TOLD_MS.unsigned_abs();
        if !is_news {
            return None;
        }
        self.told_ms = ahead_ms;
        (ahead_ms.abs() > TOLD_MS).then(|| ClockOffset {
            device_ahead_s: ahead_ms.saturating_neg() / 1000,
            corrected: self.doubted_ms.is_none(),
        })
    }
}

impl ServerClock {
    pub(crate) fn new(device: Arc<dyn Clock>) -> Self {
        Self { device, known: Mutex::default() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut KnownTime) -> T) -> T {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How far a time is ahead of the device's clock, in milliseconds.
    fn ahead_of_device(&self, theirs: Timestamp) -> i64 {
        let millis = |time: Timestamp| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        millis(theirs).saturating_sub(millis(self.device.now()))
    }

    /// Takes in the server's time from an answer.
    pub(crate) fn hear(&self, theirs: Timestamp) {
        let ahead_ms = self.ahead_of_device(theirs);
        self.with(|known| {
            let before = known.ahead_ms;
            known.hear(ahead_ms);
            if known.ahead_ms != before {
                tracing::warn!(ahead_ms, "the server's clock differs; it is gone by from now on");
            }
        });
    }

    /// Takes in the server's time that its ledger's key has signed.
    pub(crate) fn verify(&self, theirs: Timestamp) {
        let ahead_ms = self.ahead_of_device(theirs);
        self.with(|known| {
            *known = KnownTime { ahead_ms, verified_ms: ahead_ms, doubted_ms: None, ..*known };
        });
    }

    /// Whether the server says a time that is to be shown by its key before it is believed.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.with(|known| known.doubted_ms.is_some())
    }

    /// Returns the offset of the device's clock that the app is to be told of, once.
    pub(crate) fn tell(&self) -> Option<ClockOffset> {
        self.with(KnownTime::tell)
    }

    /// The knowledge, for the store.
    pub(crate) fn known(&self) -> KnownTime {
        self.with(|known| *known)
    }

    /// Goes on with the knowledge from the store.
    pub(crate) fn restore(&self, stored: KnownTime) {
        self.with(|known| *known = stored);
    }
}

impl Clock for ServerClock {
    fn now(&self) -> Timestamp {
        let ahead_ms = self.with(|known| known.ahead_ms);
        let millis = self.device.now().as_millis().saturating_add_signed(ahead_ms);
        Timestamp::from_millis(millis)
    }

    fn monotonic(&self) -> Duration {
        self.device.monotonic()
    }
}

impl std::fmt::Debug for ServerClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ServerClock").field(&self.known()).finish()
    }
}

#[cfg(test)]
mod tests {
    use keypool_ledger::ManualClock;
    use quickcheck::quickcheck;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const DAY: Duration = Duration::from_hours(24);

    fn at(hours: u64) -> Timestamp {
        Timestamp::default().after(Duration::from_hours(hours))
    }

    fn clock_of() -> (Arc<ManualClock>, ServerClock) {
        let device = Arc::new(ManualClock::at(at(1000)));
        (Arc::clone(&device), ServerClock::new(device))
    }

    #[test]
    fn a_device_that_is_two_hours_ahead_goes_by_the_server_and_is_told_once() {
        let (device, clock) = clock_of();
        clock.hear(at(998));
        assert_eq!(clock.now(), at(998));
        let told = ClockOffset { device_ahead_s: 7200, corrected: true };
        assert_eq!((clock.tell(), clock.tell()), (Some(told), None));
        // Its clock is set right.
        device.set(at(999));
        clock.hear(at(999));
        assert_eq!((clock.now(), clock.tell()), (at(999), None));
        device.set(at(1002));
        clock.hear(at(1000));
        assert_eq!(clock.tell(), Some(told), "wrong again, so told again");
    }

    #[test]
    fn more_than_a_day_is_believed_once_it_is_signed() {
        let (_, clock) = clock_of();
        clock.hear(at(1000 + 72));
        assert_eq!((clock.now(), clock.is_in_doubt()), (at(1000), true));
        let told = ClockOffset { device_ahead_s: -72 * 3600, corrected: false };
        assert_eq!(clock.tell(), Some(told));
        clock.verify(at(1000 + 72));
        assert_eq!((clock.now(), clock.is_in_doubt()), (at(1072), false));
        // A day around it is believed from then on, and what is kept says so.
        let (_, again) = clock_of();
        again.restore(clock.known());
        again.hear(at(1000 + 72 + 23));
        assert_eq!((again.now(), again.is_in_doubt()), (at(1095), false));
    }

    quickcheck! {
        /// However many unsigned answers lie, the time is no more than a day from the device's own.
        fn no_number_of_lies_moves_the_time_by_more_than_a_day(lies: Vec<u64>) -> bool {
            let (device, clock) = clock_of();
            lies.into_iter().all(|lie| {
                clock.hear(Timestamp::from_millis(lie));
                let (ours, theirs) = (device.now(), clock.now());
                ours.since(theirs).max(theirs.since(ours)) <= DAY
            })
        }

        fn small_lies_add_up_to_a_day_at_most(steps: u8) -> bool {
            let (device, clock) = clock_of();
            for step in 1..=u32::from(steps) {
                clock.hear(device.now().after(HOUR * step));
            }
            clock.now().since(device.now()) <= DAY
        }
    }
}
