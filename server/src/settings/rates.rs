//! Durations and rates as an operator writes them.

use std::time::Duration;

use keypool_projections::quota::Rate;

/// Reads a duration such as `60s` or `14days 1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("{text:?} is no time such as \"60s\""))
}

/// A rate as `6/1h`: six at once, and six again in an hour, evenly.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let none =
        || format!("{text:?} is no rate such as \"6/1h\": a count, and the time for as many");
    let (count, time) = text.split_once('/').ok_or_else(none)?;
    let burst: u32 = count.trim().parse().map_err(|_| none())?;
    let every = duration(time)?.checked_div(burst).ok_or_else(none)?;
    // Time is counted in milliseconds.
    if every.as_millis() == 0 {
        return Err(format!("{text:?} is more than one in a millisecond; use --no-quotas"));
    }
    Ok(Rate::new(burst, every))
}

#[cfg(test)]
mod tests {
    use keypool_projections::quota::Quotas;

    use super::{super::Options, *};

    #[test]
    fn the_usual_rates_are_what_the_help_says() {
        let usual = Quotas::STANDARD;
        let said = [
            ("6/1h", usual.pair),
            ("600/12s", usual.requests),
            ("32/640s", usual.strangers),
            ("30/1day", usual.devices),
            ("256/1day", usual.uploads),
            ("10/1min", usual.failures),
        ];
        for (text, usual) in said {
            assert_eq!(rate(text), Ok(usual), "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_in_words() {
        for text in ["6", "six/1h", "0/1h", "6/soon", "2000/1s"] {
            let said = rate(text).unwrap_err();
            assert!(said.contains(" is no ") || said.contains("more than one"), "{said}");
        }
        assert!(Options { no_quotas: Some(true), ..Options::default() }.quotas().is_none());
    }
}
