//! The counts of the last sixty minutes.

use std::time::Duration;

use keypool_ledger::{Event, ReleaseReason, Timestamp};

const MINUTES: usize = 60;

/// The counts of one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MinuteCounts {
    /// Reservations that were made.
    pub reserved: u64,
    /// Packages that were spent.
    pub spent: u64,
    /// Reservations that lapsed.
    pub lapsed: u64,
    /// Late spends that were refused because the package had been handed on.
    pub conflicts: u64,
}

/// The counts of the minutes in which something was counted lately, each at its number modulo sixty.
#[derive(Clone, Debug)]
pub(super) struct Minutes([(u64, MinuteCounts); MINUTES]);

impl Default for Minutes {
    fn default() -> Self {
        Self([(0, MinuteCounts::default()); MINUTES])
    }
}

impl Minutes {
    /// Counts an event of a pool.
    pub(super) fn count(&mut self, event: &Event, at: Timestamp) {
        let minute = minute_of(at);
        let Some((kept, counts)) = self.0.get_mut(place_of(minute)) else { return };
        if *kept < minute {
            (*kept, *counts) = (minute, MinuteCounts::default());
        }
        if *kept != minute {
            return;
        }
        match event {
            Event::Reserved { .. } => counts.reserved += 1,
            Event::Spent { .. } => counts.spent += 1,
            Event::Released { reason: ReleaseReason::Lapsed, .. } => counts.lapsed += 1,
            Event::Conflict { .. } => counts.conflicts += 1,
            _ => {}
        }
    }

    /// The counts of the sixty minutes up to a moment, the earliest first.
    pub(super) fn up_to(&self, now: Timestamp) -> Vec<MinuteCounts> {
        let last = minute_of(now);
        let of = |back: u64| {
            let minute = last.checked_sub(back)?;
            let (kept, counts) = self.0.get(place_of(minute))?;
            (*kept == minute).then_some(*counts)
        };
        (0..MINUTES as u64).rev().map(|back| of(back).unwrap_or_default()).collect()
    }
}

const fn minute_of(at: Timestamp) -> u64 {
    at.as_secs() / Duration::from_mins(1).as_secs()
}

fn place_of(minute: u64) -> usize {
    usize::try_from(minute % MINUTES as u64).unwrap_or_default()
}
