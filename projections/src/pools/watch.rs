//! How far the machine's clock is trusted.
//!
//! Log time never falls. A clock that steps back is waited for; one that leaps ahead is believed only
//! when two sweeps have seen it, so that a leap by itself expires no pool.

use std::time::Duration;

use keypool_ledger::Timestamp;

/// How far the clock may step back before handing out and spending is refused.
const STEP_BACK_MAX: Duration = Duration::from_secs(2);
/// How far the clock may leap ahead, between two looks at it, and be believed at once.
const LEAP_MAX: Duration = Duration::from_hours(1);

/// The time as far as the clock is trusted.
#[derive(Debug)]
pub(super) struct Watch {
    trusted: Timestamp,
    /// What a sweep has seen of a leap that is not believed yet.
    leap: Option<Timestamp>,
    lapse_floor: Timestamp,
    reservation_ttl: Duration,
}

/// One look at the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// The time to decide by.
    pub(super) now: Timestamp,
    /// Whether the clock has stepped back further than is accepted.
    pub(super) regressed: bool,
}

impl Watch {
    /// Starts with the clock as it stands, but not before the last recorded event. Reservations that
    /// are open have a full TTL again: their holders could not reach the server meanwhile.
    pub(super) fn starting(wall: Timestamp, last_at: Timestamp, reservation_ttl: Duration) -> Self {
        let trusted = wall.max(last_at);
        Self { trusted, leap: None, lapse_floor: trusted.after(reservation_ttl), reservation_ttl }
    }

    /// Looks at the clock before a group of commands; `sweep` if a sweep is among them.
    pub(super) fn observe(&mut self, wall: Timestamp, sweep: bool) -> Look {
        if self.trusted.after(LEAP_MAX) < wall {
            self.observe_leap(wall, sweep);
        } else {
            self.trusted = self.trusted.max(wall);
            self.leap = None;
        }
        Look { now: self.trusted, regressed: wall.after(STEP_BACK_MAX) < self.trusted }
    }

    fn observe_leap(&mut self, wall: Timestamp, sweep: bool) {
        match self.leap {
            Some(seen) if sweep && seen <= wall && wall <= seen.after(LEAP_MAX) => {
                tracing::warn!(from = %self.trusted, to = %wall, "the clock leapt ahead");
                self.trusted = wall;
                self.leap = None;
                self.lapse_floor = wall.after(self.reservation_ttl);
            }
            _ if sweep => self.leap = Some(wall),
            _ => {}
        }
    }

    /// The time for a reader, who changes nothing.
    pub(super) fn read(&self, wall: Timestamp) -> Timestamp {
        if self.trusted.after(LEAP_MAX) < wall { self.trusted } else { self.trusted.max(wall) }
    }

    /// The moment before which no reservation lapses.
    pub(super) const fn lapse_floor(&self) -> Timestamp {
        self.lapse_floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + secs)
    }

    fn watch() -> Watch {
        Watch::starting(at(0), Timestamp::default(), Duration::from_mins(1))
    }

    #[test]
    fn time_goes_on() {
        let mut watch = watch();
        assert_eq!(watch.observe(at(HOUR), false), Look { now: at(HOUR), regressed: false });
    }

    #[test]
    fn a_small_step_back_stands_still_and_a_large_one_is_said() {
        let mut watch = watch();
        watch.observe(at(10), false);
        assert_eq!(watch.observe(at(8), false), Look { now: at(10), regressed: false });
        assert_eq!(watch.observe(at(7), false), Look { now: at(10), regressed: true });
    }

    #[test]
    fn a_leap_counts_when_two_sweeps_have_seen_it() {
        let mut watch = watch();
        let leapt = 30 * 24 * HOUR;
        assert_eq!(watch.observe(at(leapt), false).now, at(0));
        assert_eq!(watch.observe(at(leapt), true).now, at(0));
        assert_eq!(watch.observe(at(leapt + 5), false).now, at(0));
        assert_eq!(watch.read(at(leapt + 5)), at(0));
        assert_eq!(watch.observe(at(leapt + 10), true).now, at(leapt + 10));
        assert_eq!(watch.lapse_floor(), at(leapt + 70));
    }

    #[test]
    fn two_different_leaps_do_not_agree() {
        let mut watch = watch();
        watch.observe(at(100 * HOUR), true);
        assert_eq!(watch.observe(at(300 * HOUR), true).now, at(0));
        watch.observe(at(20), true);
        assert_eq!(watch.observe(at(300 * HOUR), true).now, at(20));
    }

    #[test]
    fn a_restart_does_not_go_behind_the_log() {
        let mut watch = Watch::starting(at(0), at(500), Duration::from_mins(1));
        assert_eq!(watch.observe(at(1), false), Look { now: at(500), regressed: true });
        assert_eq!(watch.lapse_floor(), at(560));
    }
}
