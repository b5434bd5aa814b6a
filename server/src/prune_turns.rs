//! How long payloads stay in the log, and who prunes it: one at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How long payloads stay in the log, and whether it is being pruned.
#[derive(Debug, Default)]
pub(crate) struct PruneTurns {
    retain: Option<Duration>,
    is_taken: Arc<AtomicBool>,
}

/// The right to prune the log, until it is dropped.
#[derive(Debug)]
pub(crate) struct PruneTurn(Arc<AtomicBool>);

impl Drop for PruneTurn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl PruneTurns {
    /// Payloads leave the log when they have been over for this time; never without one.
    pub(crate) fn after(retain: Option<Duration>) -> Self {
        Self { retain, is_taken: Arc::default() }
    }

    /// How long payloads stay after they are over; `None` where none leaves the log.
    pub(crate) const fn retain(&self) -> Option<Duration> {
        self.retain
    }

    /// Takes the turn; `None` while another one has it.
    pub(crate) fn take(&self) -> Option<PruneTurn> {
        let was_taken = self.is_taken.swap(true, Ordering::Acquire);
        (!was_taken).then(|| PruneTurn(Arc::clone(&self.is_taken)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_prunes_at_a_time_and_the_next_after_it() {
        let turns = PruneTurns::after(Some(Duration::from_hours(24)));
        let turn = turns.take().unwrap();
        assert!(turns.take().is_none());
        drop(turn);
        assert!(turns.take().is_some());
    }
}
