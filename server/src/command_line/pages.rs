//! Completions for shells and manual pages, made from the command line itself.

use std::{fs, io, path::Path};

use clap::CommandFactory;
use clap_complete::Shell;

use super::CommandLine;

/// The completions of a shell, as its text.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    let mut command = CommandLine::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut text);
    text
}

/// Writes the manual pages into a directory, which it makes: `keypool-server.1`, and one for each command.
///
/// # Errors
///
/// Returns the error of the file that cannot be written.
pub fn write_manual(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(CommandLine::command(), dir)
}
