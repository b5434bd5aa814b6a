//! Moments, spans and ids in the words of explanations.

use std::{borrow::Cow, time::Duration};

use keypool_ledger::Timestamp;

const SECS_PER_DAY: u64 = 86_400;
/// The first second of the year 10000: moments from then on are numbers.
const YEAR_10000: u64 = 253_402_300_800;

/// A moment in UTC to the millisecond, RFC 3339: `2027-01-15T08:00:41.300Z`. After the year 9999 it is the number
/// of milliseconds.
#[must_use]
pub fn time(at: Timestamp) -> String {
    let secs = at.as_secs();
    if YEAR_10000 <= secs {
        return at.to_string();
    }
    let (year, month, day) = date(secs / SECS_PER_DAY);
    let (hours, minutes) = (secs % SECS_PER_DAY / 3600, secs % 3600 / 60);
    let (secs, millis) = (secs % 60, at.as_millis() % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{secs:02}.{millis:03}Z")
}

/// Year, month and day of a number of days since 1970 in the Gregorian calendar.
///
/// Years begin in March here, so that the leap day is their last; 719,468 days lie between 1 March of year 0 and
/// 1970, and 146,097 in each 400 years.
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + (month < 3) as u64, month, day)
}

/// A span of time: `18.7 s`, `5 min`, `3 h` or `12 days`, rounded down.
#[must_use]
pub fn span(span: Duration) -> String {
    let secs = span.as_secs();
    match secs {
        0..120 => format!("{secs}.{} s", span.subsec_millis() / 100),
        120..7200 => format!("{} min", secs / 60),
        7200..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} days", secs / SECS_PER_DAY),
    }
}

/// The first eight digits of an id: enough to tell lines apart, too few to use the id.
#[must_use]
pub fn short(id: &impl ToString) -> String {
    id.to_string().chars().take(8).collect()
}

/// A text on one line that drives no terminal: control characters, line breaks and those that change
/// the direction or hide are escaped, as in `\u{1b}`.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.escape_default().to_string())
}

/// A text in which `escape` stands for each character that drives a terminal.
pub fn escaped(text: &str, escape: fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(drives_terminal) {
        return Cow::Borrowed(text);
    }
    let shown = |c| if drives_terminal(c) { escape(c) } else { c.to_string() };
    Cow::Owned(text.chars().map(shown).collect())
}

/// Whether a character is a command to the terminal, or is not seen and changes the text around it; each
/// is one of the first 65,536, which JSON writes with four digits.
fn drives_terminal(c: char) -> bool {
    let hides = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}');
    hides || c.is_control()
}
