//! Times as people write them, in UTC like those that the tool prints.

#[cfg(test)]
mod tests;

use std::str::FromStr;

use jiff::{
    Span, Zoned,
    civil::{Date, Time},
    tz::TimeZone,
};
use keypool_ledger::{Clock, SystemClock, Timestamp};

use crate::output::{tell, time};

/// The forms of a time, for messages and help.
pub(crate) const FORMS: &str = "2027-01-15T06:30:00Z (or another offset than Z), 2027-01-15, \
                                2027-01-15 06:30, 06:30, today, yesterday, yesterday 06:30, now, \
                                2 hours ago; in UTC, and a day alone is its beginning";

/// The reason why a text is no time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TimeError {
    /// The text has none of the forms.
    #[error("`{0}` is no time. A time is {FORMS}")]
    Form(String),
    /// The text is a bare number: a year, a clock time or a record.
    #[error("`{0}` may be a year, a clock time or a record. A time is {FORMS}")]
    Number(String),
    /// The text looks like a date or a clock time, and no calendar or clock shows it.
    #[error("`{0}` is no time ({1}). A time is {FORMS}")]
    Impossible(String, jiff::Error),
    /// The time lies before 1970 or after 9999.
    #[error("`{0}` is not between the years 1970 and 9999. A time is {FORMS}")]
    Range(String),
}

/// Reads a time relative to the machine's clock, for an option of the command line.
///
/// # Errors
///
/// See [`parse`].
pub(crate) fn parse_now(text: &str) -> Result<Timestamp, TimeError> {
    parse(text, SystemClock.now())
}

/// Reads a time relative to `now`.
///
/// # Errors
///
/// Returns a [`TimeError`], which lists the forms, if the text has none of them, is ambiguous, names a
/// time that does not exist, or lies outside the years 1970 to 9999.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Timestamp, TimeError> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TimeError::Number(text.to_owned()));
    }
    if text == "now" {
        return Ok(now);
    }
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return ledger_time(moment, text);
    }
    let now = zoned(now).ok_or_else(|| TimeError::Range(text.to_owned()))?;
    let moment = if text.ends_with("ago") { before(&now, text)? } else { civil(&now, text)? };
    ledger_time(moment, text)
}

/// Tells on the error stream that a time lies in the future: after the machine's clock and after the
/// last record that was read.
pub(crate) fn tell_future(asked: Timestamp, last: Timestamp) {
    if SystemClock.now().max(last) < asked {
        let (asked, last) = (time(asked), time(last));
        tell(&format!("note: {asked} is in the future; the last record is of {last}"));
    }
}

fn zoned(at: Timestamp) -> Option<Zoned> {
    let millis = i64::try_from(at.as_millis()).ok()?;
    Some(jiff::Timestamp::from_millisecond(millis).ok()?.to_zoned(TimeZone::UTC))
}

fn ledger_time(moment: jiff::Timestamp, text: &str) -> Result<Timestamp, TimeError> {
    let millis = u64::try_from(moment.as_millisecond());
    millis.map(Timestamp::from_millis).map_err(|_| TimeError::Range(text.to_owned()))
}

/// The moment a span before `now`, as in `2 hours ago`.
fn before(now: &Zoned, text: &str) -> Result<jiff::Timestamp, TimeError> {
    let span: Span = text.parse().map_err(|_| TimeError::Form(text.to_owned()))?;
    let moment = now.checked_add(span).map_err(|_| TimeError::Range(text.to_owned()))?;
    Ok(moment.timestamp())
}

/// The moment at a day, a clock time, or both.
fn civil(now: &Zoned, text: &str) -> Result<jiff::Timestamp, TimeError> {
    let (day, clock) = match text.split_once([' ', 'T']) {
        Some((day, clock)) => (day_of(now, day, text)?, clock_of(clock.trim_start(), text)?),
        None if text.contains(':') => (now.date(), clock_of(text, text)?),
        None => (day_of(now, text, text)?, Time::midnight()),
    };
    let moment = day.to_datetime(clock).to_zoned(TimeZone::UTC);
    moment.map(|moment| moment.timestamp()).map_err(|_| TimeError::Range(text.to_owned()))
}

fn day_of(now: &Zoned, day: &str, text: &str) -> Result<Date, TimeError> {
    match day {
        "today" => Ok(now.date()),
        "yesterday" => now.date().yesterday().map_err(|_| TimeError::Range(text.to_owned())),
        _ => digits_and(&['-'], day, text),
    }
}

fn clock_of(clock: &str, text: &str) -> Result<Time, TimeError> {
    digits_and(&[':', '.'], clock, text)
}

/// Reads a date or clock time of digits and these marks only: the library passes over an offset or a
/// zone behind it.
fn digits_and<T: FromStr<Err = jiff::Error>>(
    marks: &[char],
    part: &str,
    text: &str,
) -> Result<T, TimeError> {
    let fits = |c: char| c.is_ascii_digit() || marks.contains(&c);
    if !part.contains(marks) || !part.chars().all(fits) {
        return Err(TimeError::Form(text.to_owned()));
    }
    part.parse().map_err(|reason| TimeError::Impossible(text.to_owned(), reason))
}
