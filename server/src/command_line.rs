//! The command line of `keypool-server`: its flags, its commands, and the layers that settings come from.

mod config_file;

mod layers;

mod pages;

mod sample;

mod show;

mod variables;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use self::{
    layers::{CommandLineError, Invocation, SettingSource, read_command_line},
    pages::{completions, write_manual},
    show::show_settings,
    variables::{UnknownVariable, unknown_variables},
};
#[cfg(feature = "cluster")]
use crate::cluster_command::ClusterCommand;
use crate::{
    admin_command::{AdminCommand, BackupCommand, ReleaseName},
    settings::Options,
};

/// Serves pools of MLS `KeyPackages`: uploaded by their owners, handed out once.
///
/// A flag goes before its variable in the environment, that before the file, that before the default.
#[derive(Debug, Parser)]
#[command(
    name = "keypool-server",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub struct CommandLine {
    /// The settings of the server to start, unless there is a command.
    #[command(flatten)]
    pub options: ServerOptions,
    /// The command, if there is one.
    #[command(subcommand)]
    pub command: Option<ServerCommand>,
}

/// All that may be set: the options of the server, its log, and the file that holds the others.
#[derive(Args, Clone, Debug)]
pub struct ServerOptions {
    /// A TOML file with settings, named as the flags are
    #[arg(long, env = "KEYPOOL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How the log on standard error looks
    #[arg(long, env = "KEYPOOL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What the log shows, as in RUST_LOG: `info`, or `keypool_server=debug,warn`
    #[arg(long, env = "KEYPOOL_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// The options of the server.
    #[command(flatten)]
    pub options: Options,
}

/// A command that starts no server.
#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Check or show the settings, without starting a server
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask a running server, at its operator's listener
    Admin(AdminCommand),
    /// Print the completions of a shell
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Man {
        /// The directory
        dir: PathBuf,
    },
    /// Make a backup of the data directory while the server runs
    Backup(BackupCommand),
    /// Publish the records of a stopped server into the stream of a cluster
    #[cfg(feature = "cluster")]
    Publish(ClusterCommand),
    /// Compare the stream of a cluster with the records of a stopped server, or of a copy
    #[cfg(feature = "cluster")]
    Compare(ClusterCommand),
    /// The same as `admin release-name`
    #[command(hide = true)]
    ReleaseName(ReleaseName),
}

/// A command about the settings.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the settings and the files they name, and end with 0 or 2
    Check(Box<ServerOptions>),
    /// Print the settings in force as TOML, each with its source: a flag, a variable, a line of the file, or
    /// the default
    Show(Box<ServerOptions>),
}

/// Format of the log.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// For programs: one JSON object for each line
    Json,
}
