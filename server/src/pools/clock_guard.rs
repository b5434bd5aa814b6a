//! How far the machine's clock is trusted.
//!
//! The rule: the log's time follows the clock while the clock keeps step with the monotonic one, which
//! nobody sets. It may gain two minutes an hour; a start allows it an hour, since the last event of the
//! log is all that is known then. A clock that is further ahead has *leapt*, and one that is more than
//! two seconds behind the log's time has *regressed*: the log's time stands still, nothing lapses or
//! expires, and commands that depend on time are refused.
//!
//! There are three ways on. The clock may come right again. The operator may accept it. Or registered
//! devices may: their signed times are a second opinion, and the clock is accepted when three devices,
//! or all there are, agree with it to two minutes, and fewer disagree; or when one does, and in half a
//! minute none has disagreed, so that a small server comes back by itself. An accepted clock sets the log's
//! time, forward or back, and leaves a `ClockAccepted` event.

use std::{collections::VecDeque, time::Duration};

use keypool_ledger::{Clock, Event, EventEnvelope, PoolId, Timestamp};

use super::{ExecuteError, published::Changed};

/// How far the clock may be behind the log's time before handing out and spending is refused.
const BEHIND_MAX: Duration = Duration::from_secs(2);
/// How far the clock may be ahead of the monotonic one, and a device's time off the clock.
const OFF_MAX: Duration = Duration::from_mins(2);
/// How far the clock may be ahead of the log's last event at a start.
const AHEAD_AT_START_MAX: Duration = Duration::from_hours(1);
/// After how long the clock may be ahead of the monotonic one again.
const REALIGNED_EVERY: Duration = Duration::from_hours(1);
/// How long a device's signed time counts.
const OPINION_AGE_MAX: Duration = Duration::from_mins(10);
/// How many devices' times are remembered: the last ones.
const OPINIONS_MAX: usize = 64;
/// How many devices are enough to accept the clock at once.
const QUORUM: usize = 3;
/// After how long one device is enough, if none disagrees.
const UNCONTRADICTED: Duration = Duration::from_secs(30);

/// One reading of the machine's two clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    wall: Timestamp,
    monotonic: Duration,
}

impl Reading {
    pub(super) fn of(clock: &dyn Clock) -> Self {
        Self { wall: clock.now(), monotonic: clock.monotonic() }
    }
}

/// The state of the machine's clock against the log's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockState {
    /// The clock is trusted.
    Fine,
    /// The clock is behind the log's time: packages are neither handed out nor spent.
    Regressed {
        /// How far.
        by: Duration,
    },
    /// The clock is further ahead of the log's time than time can have passed: everything that depends
    /// on time is refused.
    Leapt {
        /// How far.
        by: Duration,
    },
}

/// The time to decide by, and whether it may be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClockReading {
    pub(super) now: Timestamp,
    state: ClockState,
}

impl ClockReading {
    /// Whether the clock is not trusted.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.state != ClockState::Fine
    }

    /// Refuses commands that hand out or spend a package while the clock cannot be trusted.
    pub(super) const fn relied_on(&self) -> Result<(), ExecuteError> {
        match self.state {
            ClockState::Fine => Ok(()),
            ClockState::Regressed { .. } => Err(ExecuteError::ClockRegressed),
            ClockState::Leapt { .. } => Err(ExecuteError::ClockLeapt),
        }
    }

    /// Refuses commands that depend on a lifetime or a deadline after a leap.
    pub(super) const fn not_leapt(&self) -> Result<(), ExecuteError> {
        match self.state {
            ClockState::Leapt { .. } => Err(ExecuteError::ClockLeapt),
            ClockState::Fine | ClockState::Regressed { .. } => Ok(()),
        }
    }
}

/// The log's time, and the devices' opinions of the clock.
#[derive(Debug)]
pub(super) struct ClockGuard {
    trusted: Timestamp,
    /// The latest time that the clock may show, and the monotonic reading at which it was so.
    latest: (Timestamp, Duration),
    lapse_floor: Timestamp,
    reservation_ttl: Duration,
    opinions: VecDeque<Opinion>,
    /// Since when devices are heard on the clock as it is in doubt now.
    heard_since: Option<Duration>,
}

/// The time that a device has signed.
#[derive(Debug)]
struct Opinion {
    device: PoolId,
    signed: Timestamp,
    heard: Duration,
}

impl Opinion {
    fn is_fresh(&self, at: Reading) -> bool {
        at.monotonic.saturating_sub(self.heard) <= OPINION_AGE_MAX
    }

    /// Whether the device's clock agrees with the machine's, given the time that has passed since.
    fn agrees(&self, at: Reading) -> bool {
        let now = self.signed.after(at.monotonic.saturating_sub(self.heard));
        apart(now, at.wall) <= OFF_MAX
    }
}

impl ClockGuard {
    /// Starts behind the log's last event, if there is one. Reservations that are open have a full TTL
    /// again: their holders could not reach the server.
    pub(super) fn starting(at: Reading, last_at: Timestamp, reservation_ttl: Duration) -> Self {
        let is_new = last_at == Timestamp::default();
        let trusted = if is_new { at.wall } else { last_at };
        let latest = (trusted.after(AHEAD_AT_START_MAX), at.monotonic);
        let mut guard = Self {
            trusted,
            latest,
            lapse_floor: trusted.after(reservation_ttl),
            reservation_ttl,
            opinions: VecDeque::new(),
            heard_since: None,
        };
        if guard.state(at) == ClockState::Fine {
            guard.trusted = guard.trusted.max(at.wall);
            guard.realign(at);
            guard.lapse_floor = guard.trusted.after(reservation_ttl);
        }
        guard
    }

    fn realign(&mut self, at: Reading) {
        self.latest = (self.trusted.after(OFF_MAX), at.monotonic);
    }

    /// Looks at the clock before a batch of commands, and moves the log's time on.
    pub(super) fn observe(&mut self, at: Reading) -> ClockReading {
        let state = self.state(at);
        if state == ClockState::Fine {
            self.opinions.clear();
            self.heard_since = None;
            self.trusted = self.trusted.max(at.wall);
            if REALIGNED_EVERY <= at.monotonic.saturating_sub(self.latest.1) {
                self.realign(at);
            }
        }
        ClockReading { now: self.trusted, state }
    }

    /// The state of the clock.
    pub(super) fn state(&self, at: Reading) -> ClockState {
        let (latest, since) = self.latest;
        if latest.after(at.monotonic.saturating_sub(since)) < at.wall {
            ClockState::Leapt { by: at.wall.since(self.trusted) }
        } else if at.wall.after(BEHIND_MAX) < self.trusted {
            ClockState::Regressed { by: self.trusted.since(at.wall) }
        } else {
            ClockState::Fine
        }
    }

    /// The time for a reader, who changes nothing.
    pub(super) fn read(&self, at: Reading) -> Timestamp {
        match self.state(at) {
            ClockState::Fine => self.trusted.max(at.wall),
            ClockState::Regressed { .. } | ClockState::Leapt { .. } => self.trusted,
        }
    }

    /// Hears the time that a device has signed, while the clock is in doubt.
    pub(super) fn hear(&mut self, device: &PoolId, signed: Timestamp, at: Reading) {
        if !self.is_in_doubt(at) {
            self.opinions.clear();
            self.heard_since = None;
            return;
        }
        self.heard_since.get_or_insert(at.monotonic);
        self.opinions.retain(|opinion| opinion.device != *device && opinion.is_fresh(at));
        if OPINIONS_MAX <= self.opinions.len() {
            self.opinions.pop_front();
        }
        let device = device.clone();
        self.opinions.push_back(Opinion { device, signed, heard: at.monotonic });
    }

    /// Whether the clock is not trusted, and so far off that devices' times can tell.
    fn is_in_doubt(&self, at: Reading) -> bool {
        self.state(at) != ClockState::Fine && OFF_MAX < apart(at.wall, self.trusted)
    }

    /// The acceptance of a clock in doubt by the operator, or by enough of the `registered` devices.
    pub(super) fn acceptance(
        &self,
        at: Reading,
        by_operator: bool,
        registered: usize,
    ) -> Option<Event> {
        let accepted = Event::ClockAccepted { from: self.trusted, to: at.wall };
        let differs = self.state(at) != ClockState::Fine;
        let is_accepted =
            differs && by_operator || self.is_in_doubt(at) && self.is_agreed_with(at, registered);
        is_accepted.then_some(accepted)
    }

    fn is_agreed_with(&self, at: Reading, registered: usize) -> bool {
        let fresh = self.opinions.iter().filter(|opinion| opinion.is_fresh(at));
        let (agree, disagree): (Vec<_>, Vec<_>) = fresh.partition(|opinion| opinion.agrees(at));
        // Without a device nothing depends on time.
        let heard_for = self.heard_since.map(|since| at.monotonic.saturating_sub(since));
        let is_uncontradicted = disagree.is_empty()
            && !agree.is_empty()
            && heard_for.is_some_and(|heard_for| UNCONTRADICTED <= heard_for);
        let is_quorum = registered.min(QUORUM) <= agree.len() && disagree.len() < agree.len();
        registered == 0 || is_quorum || is_uncontradicted
    }

    /// Goes on from the clock as it was accepted. Reservations that are open have a full TTL again.
    pub(super) fn accept(&mut self, to: Timestamp, at: Reading) {
        self.trusted = to;
        self.realign(at);
        self.lapse_floor = to.after(self.reservation_ttl);
        self.opinions.clear();
        self.heard_since = None;
    }

    /// Moves the log's time on to that of an event that another server has written, or to the clock that the
    /// operator has accepted there.
    pub(super) fn follow(&mut self, envelope: &EventEnvelope, at: Reading) {
        match &envelope.event {
            Event::ClockAccepted { to, .. } => self.accept(*to, at),
            _ => self.trusted = self.trusted.max(envelope.at),
        }
    }

    /// The moment before which no reservation lapses.
    pub(super) const fn lapse_floor(&self) -> Timestamp {
        self.lapse_floor
    }
}

fn apart(one: Timestamp, other: Timestamp) -> Duration {
    one.since(other).max(other.since(one))
}

impl Changed {
    /// Takes in the time of the log's next event.
    pub(super) fn note_time(&mut self, envelope: &EventEnvelope) {
        self.at = match &envelope.event {
            Event::ClockAccepted { to, .. } => *to,
            _ => self.at.max(envelope.at),
        };
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    const TTL: Duration = Duration::from_mins(1);

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(100 * DAY + secs)
    }

    /// The clock shows `wall` after `passed` seconds, both from the start on.
    fn reading(wall: Timestamp, passed: u64) -> Reading {
        Reading { wall, monotonic: Duration::from_secs(passed) }
    }

    fn guard() -> ClockGuard {
        ClockGuard::starting(reading(at(0), 0), Timestamp::default(), TTL)
    }

    fn leapt(guard: &ClockGuard, reading: Reading) -> bool {
        matches!(guard.state(reading), ClockState::Leapt { .. })
    }

    fn regressed(guard: &ClockGuard, reading: Reading) -> bool {
        matches!(guard.state(reading), ClockState::Regressed { .. })
    }

    fn hear(guard: &mut ClockGuard, devices: std::ops::Range<u8>, signed: Timestamp, at: Reading) {
        for device in devices {
            guard.hear(&PoolId::new("u", &format!("d{device}")).unwrap(), signed, at);
        }
    }

    /// The log's time after the acceptance that the devices or the operator give, if they do.
    fn accept(
        guard: &mut ClockGuard,
        reading: Reading,
        operator: bool,
        devices: usize,
    ) -> Option<Timestamp> {
        let Event::ClockAccepted { to, .. } = guard.acceptance(reading, operator, devices)? else {
            return None;
        };
        guard.accept(to, reading);
        Some(guard.observe(reading).now)
    }

    #[test]
    fn time_goes_on_also_where_nobody_looked_for_days() {
        let mut guard = guard();
        let reading = reading(at(3 * DAY), 3 * DAY);
        let fine = ClockReading { now: at(3 * DAY), state: ClockState::Fine };
        assert_eq!(guard.observe(reading), fine);
    }

    #[test]
    fn a_small_step_back_stands_still_and_a_large_one_is_said() {
        let mut guard = guard();
        guard.observe(reading(at(10), 10));
        let small = ClockReading { now: at(10), state: ClockState::Fine };
        assert_eq!(guard.observe(reading(at(8), 11)), small);
        let by = Duration::from_secs(3);
        let large = ClockReading { now: at(10), state: ClockState::Regressed { by } };
        assert_eq!(guard.observe(reading(at(7), 12)), large);
    }

    #[test]
    fn one_device_is_enough_after_half_a_minute_if_none_disagrees() {
        let at_start = |passed| reading(at(3 * DAY + passed), passed);
        let mut alone = guard();
        hear(&mut alone, 0..1, at(3 * DAY), at_start(0));
        hear(&mut alone, 0..1, at(3 * DAY + 29), at_start(29));
        assert_eq!(accept(&mut alone, at_start(29), false, 5), None);
        assert_eq!(accept(&mut alone, at_start(30), false, 5), Some(at(3 * DAY + 30)));

        let mut contradicted = guard();
        hear(&mut contradicted, 0..1, at(3 * DAY), at_start(0));
        hear(&mut contradicted, 1..2, at(5), at_start(5));
        assert_eq!(accept(&mut contradicted, at_start(40), false, 5), None);
    }

    #[test]
    fn a_leap_leaves_the_time_where_it_was_until_the_clock_is_right_again() {
        for (wall, for_s) in
            [(2 * DAY, 1), (3650 * DAY, 25), (59 * 60, 1), (59 * 60, 25), (3650 * DAY, 10 * DAY)]
        {
            let mut guard = guard();
            for second in 1..=25.min(for_s) {
                let reading = reading(at(wall + second), second);
                assert_eq!(guard.observe(reading).now, at(0), "{wall}");
                assert!(leapt(&guard, reading));
                assert_eq!(guard.read(reading), at(0));
            }
            let right = reading(at(for_s + 1), for_s + 1);
            assert_eq!(guard.observe(right).now, at(for_s + 1));
            assert_eq!(guard.state(right), ClockState::Fine);
        }
    }

    #[test]
    fn a_clock_in_1970_is_waited_for() {
        let mut guard = guard();
        let reading_1970 = reading(Timestamp::from_secs(5), 5);
        assert_eq!(guard.observe(reading_1970).now, at(0));
        assert!(regressed(&guard, reading_1970));
        assert_eq!(guard.observe(reading(at(6), 6)).now, at(6));
    }

    #[test]
    fn steps_of_59_minutes_are_leaps_like_any_other() {
        let mut guard = guard();
        for step in 1..100 {
            assert_eq!(guard.observe(reading(at(step * 59 * 60), step)).now, at(0));
        }
    }

    #[test]
    fn a_clock_gains_two_minutes_an_hour_at_most() {
        let mut guard = guard();
        assert_eq!(guard.observe(reading(at(119), 1)).now, at(119));
        assert!(leapt(&guard, reading(at(200), 2)));
        guard.observe(reading(at(HOUR + 119), HOUR));
        assert_eq!(guard.observe(reading(at(HOUR + 239), HOUR)).now, at(HOUR + 239));
        assert!(leapt(&guard, reading(at(HOUR + 242), HOUR + 2)));
    }

    #[test]
    fn three_devices_that_agree_with_the_clock_are_enough() {
        let mut guard = guard();
        let leap = reading(at(3 * DAY), 5);
        hear(&mut guard, 0..2, at(3 * DAY + 100), leap);
        hear(&mut guard, 0..2, at(3 * DAY), leap);
        assert_eq!(accept(&mut guard, leap, false, 10), None, "two devices are not enough");
        hear(&mut guard, 2..3, at(3 * DAY), leap);
        let later = reading(at(3 * DAY + 60), 65);
        assert_eq!(accept(&mut guard, later, false, 10), Some(at(3 * DAY + 60)));
        assert_eq!(guard.lapse_floor(), at(3 * DAY + 120));
        assert!(!leapt(&guard, later));
    }

    #[test]
    fn a_server_with_one_device_believes_it_and_one_without_believes_the_clock() {
        let leap = reading(at(3 * DAY), 5);
        let mut guard = guard();
        assert_eq!(accept(&mut guard, leap, false, 1), None);
        hear(&mut guard, 0..1, at(3 * DAY), leap);
        assert_eq!(accept(&mut guard, leap, false, 1), Some(at(3 * DAY)));
        assert_eq!(accept(&mut self::guard(), leap, false, 0), Some(at(3 * DAY)));
    }

    #[test]
    fn devices_that_disagree_or_spoke_long_ago_do_not_move_the_time() {
        let leap = reading(at(3650 * DAY), 5);
        let mut guard = guard();
        hear(&mut guard, 0..9, at(5), leap);
        hear(&mut guard, 10..19, at(3650 * DAY), leap);
        assert_eq!(accept(&mut guard, leap, false, 20), None, "as many disagree");
        hear(&mut guard, 19..20, at(3650 * DAY), leap);
        let late = reading(at(3650 * DAY + 601), 606);
        assert_eq!(accept(&mut guard, late, false, 20), None, "that was ten minutes ago");
    }

    #[test]
    fn a_log_that_has_run_ahead_is_set_back_by_the_operator_or_by_devices() {
        let start = || ClockGuard::starting(reading(at(0), 0), at(3650 * DAY), TTL);
        assert!(regressed(&start(), reading(at(0), 0)));
        assert_eq!(accept(&mut start(), reading(at(1), 1), true, 5), Some(at(1)));
        let mut guard = start();
        hear(&mut guard, 0..3, at(1), reading(at(1), 1));
        assert_eq!(accept(&mut guard, reading(at(2), 2), false, 5), Some(at(2)));
        assert_eq!(guard.lapse_floor(), at(62));
    }

    #[test]
    fn a_clock_that_is_fine_needs_no_acceptance() {
        let guard = guard();
        assert_eq!(guard.acceptance(reading(at(1), 1), true, 0), None);
    }

    #[test]
    fn a_restart_within_an_hour_goes_on_and_one_after_days_waits() {
        let start = |wall| ClockGuard::starting(reading(wall, 0), at(0), TTL);
        assert_eq!(start(at(59 * 60)).read(reading(at(59 * 60), 0)), at(59 * 60));
        assert!(leapt(&start(at(3 * DAY)), reading(at(3 * DAY), 0)));
        assert!(leapt(&start(at(3650 * DAY)), reading(at(3650 * DAY), 0)));
        assert!(regressed(&start(Timestamp::from_secs(9)), reading(Timestamp::from_secs(9), 0)));
    }

    quickcheck! {
        /// A walk of clocks: how many seconds pass, and by how many seconds the clock is off from then on. A log whose
        /// time stood still may catch up with all that has passed.
        fn no_walk_of_the_clock_gains_an_hour_or_falls(walk: Vec<(u16, i32)>) -> bool {
            let (mut guard, mut passed) = (guard(), 0_u64);
            walk.into_iter().all(|(secs, off)| {
                passed += u64::from(secs);
                let before = guard.observe(reading(at(passed - u64::from(secs)), passed)).now;
                let wall = 100 * DAY + passed;
                let wall = wall.saturating_add_signed(i64::from(off) * 16);
                let now = guard.observe(reading(Timestamp::from_secs(wall), passed)).now;
                let gained = now.since(before.after(Duration::from_secs(secs.into())).max(at(passed)));
                before <= now && gained <= Duration::from_hours(1) + OFF_MAX
            })
        }

        /// However often the clock is off, the log's time gains two minutes an hour and no more.
        fn no_walk_of_the_clock_runs_away(walk: Vec<(u16, i32)>) -> bool {
            let (mut guard, mut passed) = (guard(), 0_u64);
            walk.into_iter().all(|(secs, off)| {
                passed += u64::from(secs);
                let wall = (100 * DAY + passed).saturating_add_signed(i64::from(off >> 18));
                let now = guard.observe(reading(Timestamp::from_secs(wall), passed)).now;
                now <= at(passed + 120 * (passed / HOUR + 1))
            })
        }
    }
}
