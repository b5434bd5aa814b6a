//! How far the machine's clock is trusted.
//!
//! Log time never falls. A clock that steps back is waited for; one that leaps ahead is believed only
//! when it has been seen twice, by two sweeps or some seconds apart, so that a leap by itself expires
//! no pool. The log's last event counts as the last look before a start.

use std::time::Duration;

use keypool_ledger::Timestamp;

/// How far the clock may step back before handing out and spending is refused.
const STEP_BACK_MAX: Duration = Duration::from_secs(2);
/// How far the clock may leap ahead, between two looks at it, and be believed at once.
const LEAP_MAX: Duration = Duration::from_hours(1);
/// How far apart two looks at a leap agree that are not both a sweep's.
const LOOKS_APART: Duration = Duration::from_secs(10);

/// The time as far as the clock is trusted.
#[derive(Debug)]
pub(super) struct Watch {
    trusted: Timestamp,
    /// The first look at a leap that is not believed yet, and whether a sweep has seen it.
    leap: Option<(Timestamp, bool)>,
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
    /// Starts behind the last recorded event, if there is one; the first look at the clock follows.
    /// Reservations that are open have a full TTL again: their holders could not reach the server.
    pub(super) fn starting(wall: Timestamp, last_at: Timestamp, reservation_ttl: Duration) -> Self {
        let is_new = last_at == Timestamp::default();
        let trusted = if is_new { wall } else { last_at };
        let lapse_floor = trusted.max(wall).after(reservation_ttl);
        let mut watch = Self { trusted, leap: None, lapse_floor, reservation_ttl };
        watch.observe(wall, false);
        watch
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
        // Who sweeps looks every few seconds, and so a second leap is told from the clock going on. Who
        // never does may look once an hour, and must not stand still for ever.
        let is_another = |(seen, swept): &(Timestamp, bool)| {
            wall < *seen || (sweep || *swept) && seen.after(LEAP_MAX) < wall
        };
        let Some((seen, swept)) = self.leap.filter(|leap| !is_another(leap)) else {
            self.leap = Some((wall, sweep));
            return;
        };
        if sweep && swept || seen.after(LOOKS_APART) <= wall {
            tracing::warn!(from = %self.trusted, to = %wall, "the clock leapt ahead");
            self.trusted = wall;
            self.leap = None;
            self.lapse_floor = wall.after(self.reservation_ttl);
        } else {
            self.leap = Some((seen, swept || sweep));
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
        assert_eq!(watch.observe(at(leapt + 6), true).now, at(leapt + 6));
        assert_eq!(watch.lapse_floor(), at(leapt + 66));
    }

    #[test]
    fn a_leap_counts_when_it_was_seen_twice_some_seconds_apart() {
        let mut watch = watch();
        assert_eq!(watch.observe(at(5 * HOUR), false).now, at(0));
        assert_eq!(watch.observe(at(5 * HOUR + 9), false).now, at(0));
        assert_eq!(watch.observe(at(5 * HOUR + 10), false).now, at(5 * HOUR + 10));
    }

    #[test]
    fn who_looks_once_an_hour_and_never_sweeps_does_not_stand_still() {
        let mut watch = watch();
        assert_eq!(watch.observe(at(2 * HOUR), false).now, at(0));
        assert_eq!(watch.observe(at(4 * HOUR), false).now, at(4 * HOUR));
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

    #[test]
    fn a_restart_with_a_clock_years_ahead_is_a_leap_like_any_other() {
        let years = 10 * 365 * 24 * HOUR;
        let mut watch = Watch::starting(at(years), at(0), Duration::from_mins(1));
        assert_eq!(watch.observe(at(years + 1), true).now, at(0));
        assert_eq!(watch.observe(at(2), true).now, at(2));
    }
}
