//! What the device knows of its pool without asking: whether listeners have told it all there is, and whether
//! the pool is well by that.
//!
//! A listener tells what happens from where the mirror ends on. That is all there is once a whole round, which
//! asks the server, has come to its end while the listener's line was open. From then on the mirror is where
//! the server's history is, but for what is on its way, as long as the line is not silent. A refresh goes by
//! it then, for some minutes: a round also finds what no event tells, such as a server that was set back.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use keypool_ledger::Timestamp;
use keypool_projections::reconcile::digest;

use super::{
    connection::{MlsConnection, Refresh},
    drift,
};
use crate::RefreshError;

/// How long a line may be silent: the server says every 15 seconds that it is there.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// How long a refresh goes by what was told before it asks all the same.
const ROUND_APART: Duration = Duration::from_mins(5);

/// What a refresh does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// It asks the server.
    Ask,
    /// It goes by what was told, and asks if the pool is not well by that.
    Told,
    /// Nothing: the last one was a moment ago.
    Rest,
}

/// What was heard of the pool since the device was opened.
#[derive(Debug, Default)]
pub(super) struct Hearing(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    lines: BTreeMap<u64, Line>,
    /// How many lines there were.
    opened: u64,
    /// When a round came to its end last.
    round: Option<Timestamp>,
    /// How often it was told that the pool is low or empty, or its last resort used.
    alarms: u64,
    /// How many of these were told before the last round that came to its end had begun.
    heeded: u64,
}

/// The line of a listener.
#[derive(Clone, Copy, Debug)]
struct Line {
    /// When something came by it last.
    heard: Timestamp,
    /// Whether the mirror has all that was to be told when it was opened.
    is_whole: bool,
}

/// What had been told when a round began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    alarms: u64,
}

impl Hearing {
    /// A listener has begun. Returns the number of its line.
    pub(super) fn open(&self, now: Timestamp) -> u64 {
        let mut heard = self.heard();
        heard.opened = heard.opened.saturating_add(1);
        let number = heard.opened;
        heard.lines.insert(number, Line { heard: now, is_whole: false });
        number
    }

    /// Something has come by a line.
    pub(super) fn hear(&self, number: u64, now: Timestamp) {
        if let Some(line) = self.heard().lines.get_mut(&number) {
            line.heard = now;
        }
    }

    /// A line is closed, or broken.
    pub(super) fn close(&self, number: u64) {
        self.heard().lines.remove(&number);
    }

    /// The mirror begins anew: what lines tell need not follow on it.
    pub(super) fn close_all(&self) {
        self.heard().lines.clear();
    }

    /// It was told that the next refresh is to act at once.
    pub(super) fn alarm(&self) {
        let mut heard = self.heard();
        heard.alarms = heard.alarms.saturating_add(1);
    }

    /// A round begins.
    pub(super) fn begin_round(&self) -> Round {
        Round { alarms: self.heard().alarms }
    }

    /// A round has come to its end: the mirror is where the server's history was.
    pub(super) fn end_round(&self, round: Round, now: Timestamp) {
        let mut heard = self.heard();
        heard.round = Some(now);
        heard.heeded = round.alarms;
        for line in heard.lines.values_mut() {
            line.is_whole = true;
        }
    }

    /// What a refresh does; `is_due` is whether the last one is long enough ago for it to ask.
    pub(super) fn course(&self, is_due: bool, now: Timestamp) -> Course {
        let is_alarmed = {
            let heard = self.heard();
            heard.heeded < heard.alarms
        };
        match (is_alarmed, is_due) {
            (true, _) => Course::Ask,
            (false, false) => Course::Rest,
            (false, true) if self.is_told(now) => Course::Told,
            (false, true) => Course::Ask,
        }
    }

    /// Whether all there is was told, but for what is on its way.
    pub(super) fn is_told(&self, now: Timestamp) -> bool {
        let heard = self.heard();
        heard.round.is_some_and(|at| is_about(at, now, ROUND_APART))
            && heard.lines.values().any(|it| it.is_whole && is_about(it.heard, now, SILENCE_MAX))
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether two moments are less than a span apart; which of them is the later one is for clocks to know.
fn is_about(one: Timestamp, other: Timestamp, span: Duration) -> bool {
    u128::from(one.as_millis().abs_diff(other.as_millis())) < span.as_millis()
}

impl<D> MlsConnection<D> {
    /// Whether a listener keeps this device told: a refresh asks the server then only if there is a need to.
    #[must_use]
    pub fn is_kept_told(&self) -> bool {
        self.hearing().is_told(self.api().now())
    }

    /// The upkeep that needs no server, if the pool is well by what was told; nothing if it is not: then the
    /// server is to be asked.
    pub(super) fn keep_by_ear(&self, now: Timestamp) -> Result<Option<Refresh>, RefreshError> {
        let (told, held) = (self.store().server_pool(), self.pool().uploaded(now)?);
        let ours = self.answered_for(&held)?;
        let agrees = digest(ours.iter().map(|(own, stage)| (own, *stage))) == told.digest();
        let then = self.api().server_time(now);
        if !agrees || drift::is_noted(&self.store().stage()?)? {
            return Ok(None);
        }
        let Some(available) = self.pool().available_if_well(&told, then, now)? else {
            return Ok(None);
        };
        let expired = self.pool().expire(now)?.len();
        self.forget_old_keys(now)?;
        Ok(Some(Refresh { skipped: true, expired, available, ..Refresh::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Timestamp {
        Timestamp::from_secs(1_766_400_000)
    }

    /// A device that has had a round with a line open.
    fn told() -> (Hearing, u64) {
        let hearing = Hearing::default();
        let line = hearing.open(start());
        hearing.end_round(hearing.begin_round(), start());
        (hearing, line)
    }

    #[test]
    fn nothing_is_known_before_a_line_is_open_and_a_round_has_ended() {
        let hearing = Hearing::default();
        assert_eq!(hearing.course(true, start()), Course::Ask);
        hearing.end_round(hearing.begin_round(), start());
        assert_eq!(hearing.course(true, start()), Course::Ask, "nobody listens");
        hearing.open(start());
        assert_eq!(hearing.course(true, start()), Course::Ask, "what came between is on its way");
        hearing.end_round(hearing.begin_round(), start());
        assert_eq!(hearing.course(true, start()), Course::Told);
        assert_eq!(hearing.course(false, start()), Course::Rest);
    }

    #[test]
    fn a_line_counts_until_it_is_silent_or_closed_and_counts_again_after_another_round() {
        let (hearing, line) = told();
        let silent = start().after(SILENCE_MAX);
        assert_eq!(hearing.course(true, silent.before(SECOND)), Course::Told);
        assert_eq!(hearing.course(true, silent), Course::Ask);
        hearing.hear(line, silent);
        assert_eq!(hearing.course(true, silent), Course::Told);
        hearing.close(line);
        assert_eq!(hearing.course(true, silent), Course::Ask);
        hearing.hear(line, silent);
        assert_eq!(hearing.course(true, silent), Course::Ask, "what is closed tells nothing");
        hearing.open(silent);
        assert_eq!(hearing.course(true, silent), Course::Ask, "a new line, no round yet");
        hearing.end_round(hearing.begin_round(), silent);
        assert_eq!(hearing.course(true, silent), Course::Told);
        hearing.close_all();
        assert_eq!(hearing.course(true, silent), Course::Ask);
    }

    #[test]
    fn one_of_several_lines_is_enough() {
        let (hearing, first) = told();
        let second = hearing.open(start());
        hearing.close(first);
        assert!(!hearing.is_told(start()), "the second began after the round");
        hearing.end_round(hearing.begin_round(), start());
        hearing.close(hearing.open(start()));
        assert!(hearing.is_told(start()));
        hearing.close(second);
        assert!(!hearing.is_told(start()));
    }

    #[test]
    fn some_minutes_after_a_round_it_is_asked_all_the_same() {
        let (hearing, line) = told();
        let due = start().after(ROUND_APART);
        hearing.hear(line, due);
        assert_eq!(hearing.course(true, due.before(SECOND)), Course::Told);
        assert_eq!(hearing.course(true, due), Course::Ask);
        // A clock that was set back by much says nothing of how long ago anything was.
        hearing.hear(line, start().before(ROUND_APART));
        assert_eq!(hearing.course(true, start().before(ROUND_APART)), Course::Ask);
    }

    #[test]
    fn an_alarm_is_acted_on_at_once_and_once() {
        let (hearing, _) = told();
        hearing.alarm();
        assert_eq!(hearing.course(false, start()), Course::Ask);
        let broken_off = hearing.begin_round();
        assert_eq!(hearing.course(false, start()), Course::Ask, "the round has not ended");
        hearing.end_round(broken_off, start());
        assert_eq!(hearing.course(false, start()), Course::Rest);
        let round = hearing.begin_round();
        hearing.alarm();
        hearing.end_round(round, start());
        assert_eq!(hearing.course(false, start()), Course::Ask, "told while the round went on");
    }

    #[test]
    fn without_a_listener_an_alarm_is_remembered_too() {
        let hearing = Hearing::default();
        hearing.alarm();
        assert_eq!(hearing.course(false, start()), Course::Ask);
    }
}
