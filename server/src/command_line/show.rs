//! `keypool-server config show`: the settings in force, and their sources.

use std::fmt::Write;

use super::{Invocation, sample};

/// Writes the settings of a command line as TOML, each with its source behind it. The text can be used as a file
/// of settings. It has paths of files with secrets, never their content.
#[must_use]
pub fn show_settings(read: &Invocation) -> String {
    let mut text = String::new();
    for setting in sample::settings() {
        let name = setting.name;
        let line = match (read.sources.get(name), read.values.get(name)) {
            (Some(source), Some(values)) => {
                format!("{name} = {}  # {source}", setting.toml(values))
            }
            _ => match setting.default() {
                Some(default) => format!("{name} = {default}  # default"),
                None => format!("# {name} is not set"),
            },
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
    text
}
