//! The pause between attempts to reach the server.

use std::time::Duration;

/// The pause after the first failure; it doubles with each one after it.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// The pause after the next failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    /// Starts with the shortest pause; `max` is the longest one.
    pub(super) const fn up_to(max: Duration) -> Self {
        Self { next: PAUSE_MIN, max }
    }

    /// Starts again with the shortest pause: something has succeeded.
    pub(super) const fn reset(&mut self) {
        self.next = PAUSE_MIN;
    }

    /// Returns the pause that is due now, and doubles the next one.
    pub(super) fn after_failure(&mut self) -> Duration {
        let due = self.next;
        self.next = due.saturating_mul(2).min(self.max);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_the_longest_and_starts_again_after_a_success() {
        let mut pause = Backoff::up_to(Duration::from_secs(3));
        let mut due = || pause.after_failure().as_millis();
        assert_eq!([due(), due(), due(), due(), due()], [500, 1000, 2000, 3000, 3000]);
        pause.reset();
        assert_eq!(pause.after_failure().as_millis(), 500);
    }
}
