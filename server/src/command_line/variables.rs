//! Environment variables that look like settings and are none.

use std::{env, fmt};

use clap::{Command, CommandFactory};

use super::CommandLine;

/// The start of each variable's name.
const PREFIX: &str = "KEYPOOL_";
/// The least similarity of two names, by Jaro, for one to be suggested for the other.
const SIMILARITY_MIN: f64 = 0.8;

/// An environment variable that no setting reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The variable with the nearest name, if one is near.
    pub nearest: Option<String>,
}

impl fmt::Display for UnknownVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, nearest } = self;
        write!(
            f,
            "the environment variable {name} is no setting of keypool-server and is ignored"
        )?;
        nearest.as_ref().map_or(Ok(()), |nearest| write!(f, "; is {nearest} meant?"))
    }
}

/// Finds the variables of this process that begin as settings do and are none.
#[must_use]
pub fn unknown_variables() -> Vec<UnknownVariable> {
    let mut known = Vec::new();
    collect(&CommandLine::command(), &mut known);
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut unknown: Vec<String> =
        names.filter(|name| name.starts_with(PREFIX) && !known.contains(name)).collect();
    unknown.sort();
    let bare = |name: &str| name.strip_prefix(PREFIX).map(str::to_owned).unwrap_or_default();
    let known: Vec<String> = known.iter().map(|name| bare(name)).collect();
    let with_nearest = |name: String| {
        let nearest = nearest(&bare(&name), known.iter().map(String::as_str));
        UnknownVariable { nearest: nearest.map(|nearest| format!("{PREFIX}{nearest}")), name }
    };
    unknown.into_iter().map(with_nearest).collect()
}

/// Collects the variables of a command and of those below it.
fn collect(command: &Command, known: &mut Vec<String>) {
    let variables = command.get_arguments().filter_map(clap::Arg::get_env);
    known.extend(variables.map(|name| name.to_string_lossy().into_owned()));
    command.get_subcommands().for_each(|below| collect(below, known));
}

/// The name that is nearest to another, if one is near.
pub(super) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let rated = names.map(|known| (strsim::jaro(name, known), known));
    let best = rated.max_by(|one, other| one.0.total_cmp(&other.0));
    best.filter(|(similarity, _)| SIMILARITY_MIN <= *similarity).map(|(_, known)| known)
}
