//! How many refusals of a caller are kept one by one: a flood of one caller pushes nobody else's out.

use std::{collections::HashMap, mem};

use keypool_api::CountedRefusals;
use keypool_ledger::{PoolId, Timestamp};

use super::day_file::DAY_BYTES_MAX;

/// Refusals of a caller that are kept in an hour.
const HOURLY_MAX: u64 = 256;
/// The same once half of the bytes of the day are used, so that many floods leave room for others.
const HOURLY_MAX_WHEN_SHORT: u64 = 16;
/// Callers that are told apart in an hour.
const CALLERS_MAX: usize = 8192;
/// Milliseconds of an hour.
const HOUR_MS: u64 = 3_600_000;

/// The counts of the present hour.
#[derive(Debug, Default)]
pub(super) struct CallerBounds {
    hour: u64,
    callers: HashMap<Option<PoolId>, CallerCount>,
}

/// The refusals of a caller in an hour.
#[derive(Clone, Copy, Debug, Default)]
struct CallerCount {
    kept: u64,
    counted: u64,
    /// The count that was told last.
    told: u64,
}

/// The fate of a refusal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// It is kept.
    Kept,
    /// It is counted; the count is told each time that it has doubled, so that a kill loses half at most.
    Counted(Option<CountedRefusals>),
}

/// A refusal that was noted, and the counts of hours that ended with it.
#[derive(Debug)]
pub(super) struct NotedRefusal {
    pub(super) verdict: Noted,
    pub(super) ended: Vec<CountedRefusals>,
}

impl CallerBounds {
    /// Decides whether a refusal is kept, when so many bytes of the day are used.
    pub(super) fn note(
        &mut self,
        caller: Option<&PoolId>,
        at: Timestamp,
        day_bytes: u64,
    ) -> NotedRefusal {
        let ended = self.end_hour(at);
        let mut caller = caller.cloned();
        if CALLERS_MAX <= self.callers.len() && !self.callers.contains_key(&caller) {
            caller = None;
        }
        let from_ms = self.hour.saturating_mul(HOUR_MS);
        let is_short = DAY_BYTES_MAX / 2 <= day_bytes;
        let kept_max = if is_short { HOURLY_MAX_WHEN_SHORT } else { HOURLY_MAX };
        let entry = self.callers.entry(caller.clone()).or_default();
        let verdict = if entry.kept < kept_max {
            entry.kept += 1;
            Noted::Kept
        } else {
            entry.counted = entry.counted.saturating_add(1);
            let is_told = entry.told.saturating_mul(2) <= entry.counted;
            Noted::Counted(is_told.then(|| {
                entry.told = entry.counted;
                CountedRefusals { caller, from_ms, count: entry.counted }
            }))
        };
        NotedRefusal { verdict, ended }
    }

    /// Begins another hour if it has come, and returns the counts of the one before that were not told.
    pub(super) fn end_hour(&mut self, now: Timestamp) -> Vec<CountedRefusals> {
        let hour = now.as_millis() / HOUR_MS;
        if hour == self.hour {
            return Vec::new();
        }
        let ended = self.end();
        self.hour = hour;
        ended
    }

    /// Forgets the callers, and returns the counts that were not told.
    pub(super) fn end(&mut self) -> Vec<CountedRefusals> {
        let from_ms = self.hour.saturating_mul(HOUR_MS);
        let untold = |(caller, entry): (Option<PoolId>, CallerCount)| {
            let count = entry.counted;
            (entry.told < count).then_some(CountedRefusals { caller, from_ms, count })
        };
        mem::take(&mut self.callers).into_iter().filter_map(untold).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: u64) -> Timestamp {
        Timestamp::from_millis(hour * HOUR_MS)
    }

    #[test]
    fn a_flood_is_counted_and_others_are_kept() {
        let mut bounds = CallerBounds::default();
        let [mallory, bob] = ["mallory/main", "bob/main"].map(|name| Some(name.parse().unwrap()));
        let mut told = Vec::new();
        let mut kept = 0;
        for _ in 0..10_000 {
            match bounds.note(mallory.as_ref(), at(7), 0).verdict {
                Noted::Kept => kept += 1,
                Noted::Counted(count) => told.extend(count.map(|count| count.count)),
            }
        }
        assert_eq!((kept, told.len()), (HOURLY_MAX, 14), "{told:?}");
        assert_eq!(bounds.note(bob.as_ref(), at(7), 0).verdict, Noted::Kept);
        let next = bounds.note(mallory.as_ref(), at(8), 0);
        let count = 10_000 - HOURLY_MAX;
        let from_ms = 7 * HOUR_MS;
        assert_eq!(next.ended, [CountedRefusals { caller: mallory, from_ms, count }]);
        assert_eq!(next.verdict, Noted::Kept, "another hour");
    }

    #[test]
    fn each_caller_has_less_once_half_of_the_day_is_used_and_callers_are_bounded() {
        let mut bounds = CallerBounds::default();
        let kept = |bounds: &mut CallerBounds, caller: Option<PoolId>| {
            let note = |_: &u64| {
                bounds.note(caller.as_ref(), at(1), DAY_BYTES_MAX / 2).verdict == Noted::Kept
            };
            (0..100).filter(note).count() as u64
        };
        assert_eq!(kept(&mut bounds, Some("bob/main".parse().unwrap())), HOURLY_MAX_WHEN_SHORT);
        for n in 0..CALLERS_MAX + 10 {
            let caller = format!("u{n}/main").parse().unwrap();
            bounds.note(Some(&caller), at(1), 0);
        }
        assert!(bounds.callers.len() <= CALLERS_MAX + 1);
    }
}
