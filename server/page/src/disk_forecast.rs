//! When the disk is full, at the rate at which it filled lately.

use std::{collections::VecDeque, time::Duration};

use keypool_ledger::Timestamp;

/// The time between two samples that are kept.
const SAMPLE_EVERY: Duration = Duration::from_mins(1);
/// How many samples are kept: those of an hour.
const SAMPLES_MAX: usize = 60;
/// The shortest time that a rate is computed from.
const RATE_MIN: Duration = Duration::from_mins(5);

/// The trend of the free bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskTrend {
    /// There are less than five minutes of samples.
    Unknown,
    /// The disk does not fill.
    NotFilling,
    /// The disk is full after this time, at this rate.
    FullIn(Duration),
}

/// The free bytes of the disk in the last hour.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskForecast(VecDeque<(Timestamp, u64)>);

impl DiskForecast {
    /// Notes how many bytes are free, once a minute.
    pub(crate) fn note(&mut self, now: Timestamp, free: u64) {
        let is_due = self.0.back().is_none_or(|(last, _)| SAMPLE_EVERY <= now.since(*last));
        if is_due {
            self.0.push_back((now, free));
        }
        if SAMPLES_MAX < self.0.len() {
            self.0.pop_front();
        }
    }

    /// The trend of the last hour.
    pub(crate) fn trend(&self) -> DiskTrend {
        let Some(((first_at, first), (last_at, last))) = self.0.front().zip(self.0.back()) else {
            return DiskTrend::Unknown;
        };
        let (span, taken) = (last_at.since(*first_at), first.saturating_sub(*last));
        if span < RATE_MIN {
            return DiskTrend::Unknown;
        }
        let full_in = last.saturating_mul(span.as_secs()).checked_div(taken);
        full_in.map_or(DiskTrend::NotFilling, |secs| DiskTrend::FullIn(Duration::from_secs(secs)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_fills_evenly_is_full_when_it_says() {
        let mut forecast = DiskForecast::default();
        assert_eq!(forecast.trend(), DiskTrend::Unknown);
        for minute in 0..200 {
            let now = Timestamp::from_secs(60 * minute);
            forecast.note(now, 1_000_000 - 1000 * minute);
            forecast.note(now.after(Duration::from_secs(1)), 0);
            if minute < 5 {
                assert_eq!(forecast.trend(), DiskTrend::Unknown, "minute {minute}");
            }
        }
        assert_eq!(forecast.0.len(), SAMPLES_MAX);
        assert_eq!(forecast.trend(), DiskTrend::FullIn(Duration::from_mins(801)));
        forecast.note(Timestamp::from_secs(60 * 200), 5_000_000);
        assert_eq!(forecast.trend(), DiskTrend::NotFilling);
    }
}
