//! Decides whether a refresh may rely on the event stream instead of querying the server: whether the stream is
//! complete, and whether the pool is well by it.
//!
//! A listener receives the events after the mirror. The mirror is complete once a whole refresh, which asks
//! the server, has come to its end while the listener's line was open. From then on the mirror is where the
//! server's history is, but for events on their way, as long as the line is not silent. A refresh relies on
//! it then, for some minutes: a round also finds faults that no event shows, such as a server that was
//! rolled back.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use keypool_ledger::Timestamp;

/// How long a line may be silent: the server says every 15 seconds that it is there.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// How long a refresh relies on the event stream before it queries the server all the same.
const ROUND_APART: Duration = Duration::from_mins(5);

/// The mode of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mls) enum RefreshMode {
    /// It asks the server.
    Query,
    /// It relies on the mirror, and queries the server if the pool is not well by it.
    Mirror,
    /// The refresh is skipped: the last one was a moment ago.
    Skip,
}

/// The event streams since the device was opened, and their alarms.
#[derive(Debug, Default)]
pub(in crate::mls) struct Subscription(Mutex<Heard>);

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

/// The number of alarms when a round began.
#[derive(Clone, Copy, Debug)]
pub(in crate::mls) struct Round {
    alarms: u64,
}

impl Subscription {
    /// A listener has begun. Returns the number of its line.
    pub(in crate::mls) fn open(&self, now: Timestamp) -> u64 {
        let mut heard = self.heard();
        heard.opened = heard.opened.saturating_add(1);
        let number = heard.opened;
        heard.lines.insert(number, Line { heard: now, is_whole: false });
        number
    }

    /// Something has come by a line.
    pub(in crate::mls) fn hear(&self, number: u64, now: Timestamp) {
        if let Some(line) = self.heard().lines.get_mut(&number) {
            line.heard = now;
        }
    }

    /// A line is closed, or broken.
    pub(in crate::mls) fn close(&self, number: u64) {
        self.heard().lines.remove(&number);
    }

    /// Closes all lines, since the mirror starts from the first event again: their events need not follow
    /// on it.
    pub(in crate::mls) fn close_all(&self) {
        self.heard().lines.clear();
    }

    /// It was told that the next refresh is to act at once.
    pub(in crate::mls) fn alarm(&self) {
        let mut heard = self.heard();
        heard.alarms = heard.alarms.saturating_add(1);
    }

    /// A round begins.
    pub(in crate::mls) fn begin_round(&self) -> Round {
        Round { alarms: self.heard().alarms }
    }

    /// A round has come to its end: the mirror is where the server's history was.
    pub(in crate::mls) fn end_round(&self, round: Round, now: Timestamp) {
        let mut heard = self.heard();
        heard.round = Some(now);
        heard.heeded = round.alarms;
        for line in heard.lines.values_mut() {
            line.is_whole = true;
        }
    }

    /// Chooses the mode of a refresh; `is_due` is whether the last one is long enough ago for a query.
    pub(in crate::mls) fn mode(&self, is_due: bool, now: Timestamp) -> RefreshMode {
        let is_alarmed = {
            let heard = self.heard();
            heard.heeded < heard.alarms
        };
        match (is_alarmed, is_due) {
            (true, _) => RefreshMode::Query,
            (false, false) => RefreshMode::Skip,
            (false, true) if self.is_told(now) => RefreshMode::Mirror,
            (false, true) => RefreshMode::Query,
        }
    }

    /// Whether the mirror is complete, but for events on their way.
    pub(in crate::mls) fn is_told(&self, now: Timestamp) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Timestamp {
        Timestamp::from_secs(1_766_400_000)
    }

    /// A device that has had a round with a line open.
    fn told() -> (Subscription, u64) {
        let subscription = Subscription::default();
        let line = subscription.open(start());
        subscription.end_round(subscription.begin_round(), start());
        (subscription, line)
    }

    #[test]
    fn nothing_is_known_before_a_line_is_open_and_a_round_has_ended() {
        let subscription = Subscription::default();
        assert_eq!(subscription.mode(true, start()), RefreshMode::Query);
        subscription.end_round(subscription.begin_round(), start());
        assert_eq!(subscription.mode(true, start()), RefreshMode::Query, "nobody listens");
        subscription.open(start());
        assert_eq!(
            subscription.mode(true, start()),
            RefreshMode::Query,
            "what came between is on its way"
        );
        subscription.end_round(subscription.begin_round(), start());
        assert_eq!(subscription.mode(true, start()), RefreshMode::Mirror);
        assert_eq!(subscription.mode(false, start()), RefreshMode::Skip);
    }

    #[test]
    fn a_line_counts_until_it_is_silent_or_closed_and_counts_again_after_another_round() {
        let (subscription, line) = told();
        let silent = start().after(SILENCE_MAX);
        assert_eq!(subscription.mode(true, silent.before(SECOND)), RefreshMode::Mirror);
        assert_eq!(subscription.mode(true, silent), RefreshMode::Query);
        subscription.hear(line, silent);
        assert_eq!(subscription.mode(true, silent), RefreshMode::Mirror);
        subscription.close(line);
        assert_eq!(subscription.mode(true, silent), RefreshMode::Query);
        subscription.hear(line, silent);
        assert_eq!(
            subscription.mode(true, silent),
            RefreshMode::Query,
            "what is closed tells nothing"
        );
        subscription.open(silent);
        assert_eq!(subscription.mode(true, silent), RefreshMode::Query, "a new line, no round yet");
        subscription.end_round(subscription.begin_round(), silent);
        assert_eq!(subscription.mode(true, silent), RefreshMode::Mirror);
        subscription.close_all();
        assert_eq!(subscription.mode(true, silent), RefreshMode::Query);
    }

    #[test]
    fn one_of_several_lines_is_enough() {
        let (subscription, first) = told();
        let second = subscription.open(start());
        subscription.close(first);
        assert!(!subscription.is_told(start()), "the second began after the round");
        subscription.end_round(subscription.begin_round(), start());
        subscription.close(subscription.open(start()));
        assert!(subscription.is_told(start()));
        subscription.close(second);
        assert!(!subscription.is_told(start()));
    }

    #[test]
    fn some_minutes_after_a_round_it_is_asked_all_the_same() {
        let (subscription, line) = told();
        let due = start().after(ROUND_APART);
        subscription.hear(line, due);
        assert_eq!(subscription.mode(true, due.before(SECOND)), RefreshMode::Mirror);
        assert_eq!(subscription.mode(true, due), RefreshMode::Query);
        // A clock that was set back by much says nothing of how long ago anything was.
        subscription.hear(line, start().before(ROUND_APART));
        assert_eq!(subscription.mode(true, start().before(ROUND_APART)), RefreshMode::Query);
    }

    #[test]
    fn an_alarm_is_acted_on_at_once_and_once() {
        let (subscription, _) = told();
        subscription.alarm();
        assert_eq!(subscription.mode(false, start()), RefreshMode::Query);
        let broken_off = subscription.begin_round();
        assert_eq!(
            subscription.mode(false, start()),
            RefreshMode::Query,
            "the round has not ended"
        );
        subscription.end_round(broken_off, start());
        assert_eq!(subscription.mode(false, start()), RefreshMode::Skip);
        let round = subscription.begin_round();
        subscription.alarm();
        subscription.end_round(round, start());
        assert_eq!(
            subscription.mode(false, start()),
            RefreshMode::Query,
            "told while the round went on"
        );
    }

    #[test]
    fn without_a_listener_an_alarm_is_remembered_too() {
        let subscription = Subscription::default();
        subscription.alarm();
        assert_eq!(subscription.mode(false, start()), RefreshMode::Query);
    }
}
