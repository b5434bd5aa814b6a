//! Printing: answers for people or as JSON, errors as sentences.

use std::{
    error::Error,
    fmt::Display,
    io::{self, Write},
};

/// The text of an error and of its causes, as one sentence; a cause that says the same is left out.
pub(crate) fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// Makes foreign text safe to print: characters that would steer the terminal, or turn the line's
/// direction, are replaced.
pub(crate) fn plain(text: &str) -> String {
    let steers =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}

/// A number of things, in the singular for one.
pub(crate) fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, what: &str) -> String {
    let s = if count == N::from(1) { "" } else { "s" };
    format!("{count} {what}{s}")
}

/// A bar of one character for each package of a full pool.
pub(crate) fn bar(available: u64) -> String {
    const WIDTH: u64 = 32;
    let full = usize::try_from(available.min(WIDTH)).unwrap_or_default();
    let rest = usize::try_from(WIDTH).unwrap_or_default() - full;
    format!("[{}{}]", "#".repeat(full), "-".repeat(rest))
}

/// Prints an error, each cause on a line of its own.
pub(crate) fn complain(error: &dyn Error) {
    let mut err = io::stderr().lock();
    // If even the error stream is gone there is nobody left to tell.
    let _ = writeln!(err, "error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = writeln!(err, "  because: {error}");
        cause = error.source();
    }
}

/// Prints an answer, for people or as JSON.
pub(crate) fn say(json: bool, value: &serde_json::Value, text: &str) -> Result<(), Box<dyn Error>> {
    if json { print(&value.to_string()) } else { print(text) }
}

pub(crate) fn print(text: &str) -> Result<(), Box<dyn Error>> {
    match writeln!(io::stdout().lock(), "{text}") {
        // Whoever read the output, `head` say, has seen enough.
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
