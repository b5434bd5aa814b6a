//! Moments, spans and ids in the words of explanations.

use std::{
    borrow::Cow,
    time::{Duration, UNIX_EPOCH},
};

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
    let at = UNIX_EPOCH + Duration::from_millis(at.as_millis());
    humantime::format_rfc3339_millis(at).to_string()
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
