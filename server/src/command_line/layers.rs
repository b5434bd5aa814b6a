//! Reads the command line over the environment, over the file, over the defaults, and knows the layer of each
//! setting.

use std::{collections::BTreeMap, ffi::OsString, fmt, iter, path::PathBuf};

use clap::{
    ArgMatches, Command, CommandFactory, FromArgMatches,
    builder::Resettable,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

use super::{
    CommandLine, ConfigCommand, ServerCommand, ServerOptions,
    config_file::{ConfigFile, setting_names},
};
use crate::settings::SettingsError;

/// The command line of a process, with the settings of its environment and its file.
#[derive(Debug)]
pub struct Invocation {
    /// The flags and the command. Settings of the file stand in them as if they were flags.
    pub command_line: CommandLine,
    /// The source of each setting that has not its default, by the flag's name.
    pub sources: BTreeMap<String, SettingSource>,
    /// The values of these settings, as they were written.
    pub(super) values: BTreeMap<String, Vec<String>>,
}

/// The layer that a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingSource {
    /// The command line.
    Flag,
    /// A variable of the environment.
    Environment(String),
    /// The file of settings.
    File {
        /// The path.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

impl fmt::Display for SettingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(name) => f.write_str(name),
            Self::File { path, line } => write!(f, "{}, line {line}", path.display()),
        }
    }
}

/// The reason why a command line cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CommandLineError {
    /// A flag is wrong, or the help or the version was asked for.
    #[error(transparent)]
    Flags(#[from] clap::Error),
    /// A variable of the environment has a value that is none of its setting.
    #[error("{name}: {message}")]
    Variable {
        /// The variable.
        name: String,
        /// The fault.
        message: String,
    },
    /// The file is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// Reads a command line, whose first argument is the program's name, the environment, and the file that they name.
///
/// # Errors
///
/// Returns a [`CommandLineError`]: a wrong value is told with the flag, the variable, or the line of the file
/// that has it.
pub fn read_command_line(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Invocation, CommandLineError> {
    let command = CommandLine::command();
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let matches = first_pass(&command, &arguments)?;
    let flags = settings_of(&matches);
    let path = flags.and_then(|flags| flags.get_one::<PathBuf>("config").cloned());
    let (Some(flags), Some(path)) = (flags, path) else { return invocation(&matches) };
    let file = ConfigFile::read(path, &command)?;
    check_file(&command, &file)?;
    // A setting that neither a flag nor a variable has is taken from the file as if it were the last flag.
    let added: Vec<_> = file.entries().filter(|(name, _)| !is_set(&command, flags, name)).collect();
    arguments.extend(added.iter().flat_map(|(name, entry)| entry.flags(name)));
    let mut read = invocation(&command.try_get_matches_from(&arguments)?)?;
    read.sources.extend(added.into_iter().map(|(name, entry)| {
        let source = SettingSource::File { path: file.path.clone(), line: entry.line };
        (name.to_owned(), source)
    }));
    Ok(read)
}

/// Refuses a file with a value that is none of its setting, even where a flag or a variable takes its place.
fn check_file(command: &Command, file: &ConfigFile) -> Result<(), SettingsError> {
    let flags = file.entries().flat_map(|(name, entry)| entry.flags(name));
    let arguments = iter::once(OsString::from(command.get_name())).chain(flags);
    let bare = without_environment(command.clone());
    bare.try_get_matches_from(arguments).map(drop).map_err(|error| in_file(&error, file))
}

/// Reads the command line and the environment.
fn first_pass(command: &Command, arguments: &[OsString]) -> Result<ArgMatches, CommandLineError> {
    command.clone().try_get_matches_from(arguments).map_err(|error| {
        let Some(flag) = named_flag(&error) else { return error.into() };
        match variable_at_fault(command, arguments, &flag) {
            Some(name) => CommandLineError::Variable { name, message: message(&error, &flag) },
            None => advised(error, &flag).into(),
        }
    })
}

/// The variable of the flag that an error names, if the error is gone without the environment.
fn variable_at_fault(command: &Command, arguments: &[OsString], flag: &str) -> Option<String> {
    let long = long_of(flag);
    let arg = command.get_arguments().find(|arg| arg.get_long() == Some(long))?;
    let variable = arg.get_env().filter(|name| std::env::var_os(name).is_some())?;
    let bare = without_environment(command.clone());
    let without = bare.try_get_matches_from(arguments);
    let is_flags = without.is_err_and(|error| named_flag(&error).as_deref() == Some(flag));
    (!is_flags).then(|| variable.to_string_lossy().into_owned())
}

fn without_environment(command: Command) -> Command {
    let names: Vec<String> =
        command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let command = command.mut_args(|arg| arg.env(Resettable::Reset));
    names
        .into_iter()
        .fold(command, |command, name| command.mut_subcommand(name, without_environment))
}

/// The same error; for `--check`, which is no flag, with the command that checks the settings.
fn advised(mut error: clap::Error, flag: &str) -> clap::Error {
    if error.kind() == ErrorKind::UnknownArgument && flag == "--check" {
        let tip = "to check the settings, use 'keypool-server config check'".to_owned();
        error.remove(ContextKind::SuggestedArg);
        error.remove(ContextKind::Usage);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// The fault of a value in a file.
fn in_file(error: &clap::Error, file: &ConfigFile) -> SettingsError {
    let flag = named_flag(error).unwrap_or_default();
    let line = file.get(long_of(&flag)).map_or(1, |entry| entry.line);
    let message = message(error, &flag);
    SettingsError::Malformed { path: file.path.clone(), line, message }
}

/// The flag that an error is about, with the name of its value: `--grace <TIME>`.
fn named_flag(error: &clap::Error) -> Option<String> {
    match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(flag) => Some(flag.clone()),
        _ => None,
    }
}

fn long_of(flag: &str) -> &str {
    flag.trim_start_matches("--").split(['[', ' ', '=']).next().unwrap_or_default()
}

/// The text of an error without the flag, the usage and colours.
fn message(error: &clap::Error, flag: &str) -> String {
    let text = error.render().to_string();
    let text = text.split("\n\nFor more information").next().unwrap_or_default();
    let text = text.strip_prefix("error: ").unwrap_or(text).trim_end();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join(" ").replace(&format!(" for '{flag}'"), "")
}

/// The flags that set a server: of the process itself, or of `config`; none for other commands.
fn settings_of(matches: &ArgMatches) -> Option<&ArgMatches> {
    match matches.subcommand() {
        None => Some(matches),
        Some(("config", config)) => config.subcommand().map(|(_, flags)| flags),
        Some(_) => None,
    }
}

fn is_set(command: &Command, flags: &ArgMatches, name: &str) -> bool {
    source_in(command, flags, name).is_some_and(|source| source != ValueSource::DefaultValue)
}

fn source_in(command: &Command, flags: &ArgMatches, name: &str) -> Option<ValueSource> {
    let arg = command.get_arguments().find(|arg| arg.get_long() == Some(name))?;
    flags.value_source(arg.get_id().as_str())
}

/// The flags and the environment of a command line that was read.
fn invocation(matches: &ArgMatches) -> Result<Invocation, CommandLineError> {
    let command_line = CommandLine::from_arg_matches(matches)?;
    let (mut sources, mut values) = (BTreeMap::new(), BTreeMap::new());
    let command = CommandLine::command();
    if let Some(flags) = settings_of(matches) {
        for name in setting_names(&command) {
            let Some(source) = source_of(&command, flags, name) else { continue };
            sources.insert(name.to_owned(), source);
            values.insert(name.to_owned(), written(&command, flags, name));
        }
    }
    Ok(Invocation { command_line, sources, values })
}

/// The flag or the variable that has a setting; `None` for the default.
fn source_of(command: &Command, flags: &ArgMatches, name: &str) -> Option<SettingSource> {
    let arg = command.get_arguments().find(|arg| arg.get_long() == Some(name))?;
    match source_in(command, flags, name)? {
        ValueSource::EnvVariable => {
            let variable = arg.get_env()?.to_string_lossy().into_owned();
            Some(SettingSource::Environment(variable))
        }
        ValueSource::CommandLine => Some(SettingSource::Flag),
        _ => None,
    }
}

/// The values of a setting, as they were written.
fn written(command: &Command, flags: &ArgMatches, name: &str) -> Vec<String> {
    let arg = command.get_arguments().find(|arg| arg.get_long() == Some(name));
    let raw = arg.and_then(|arg| flags.get_raw(arg.get_id().as_str()));
    raw.into_iter().flatten().map(|value| value.to_string_lossy().into_owned()).collect()
}

impl Invocation {
    /// The settings of the server to start or to look at; `None` for a command to a running one.
    #[must_use]
    pub const fn options(&self) -> Option<&ServerOptions> {
        match &self.command_line.command {
            None => Some(&self.command_line.options),
            Some(ServerCommand::Config(
                ConfigCommand::Check(options) | ConfigCommand::Show(options),
            )) => Some(options),
            Some(_) => None,
        }
    }
}
