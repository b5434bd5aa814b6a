//! `keypool-ledger`, the auditor's program: histories, their integrity, and proofs of them.
//!
//! It reads exports, journals, copies of data directories and running servers, and changes none of them. Only
//! `repair` writes to a data directory, which no server has open then.

mod audit;

mod check;

mod checkpoint;

mod compare;

mod evidence;

mod explain;

mod export;

mod findings;

mod hide_names;
mod import;

mod info;

mod input;

mod kinds;

mod known_end;

mod leaves;

mod log;

mod output;

mod plot;

mod prove;

mod prune;

mod rebuild;

mod repair;

mod replay;

mod restore;

mod schema;

mod show;

mod times;

mod verify;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum, error::ErrorKind};
use keypool_ledger::PoolId;

use crate::{
    input::Moment,
    log::LogArgs,
    output::{Out, ToolError},
    times::FORMS,
};

/// Everything went well.
const FINE: u8 = 0;
/// The command line is wrong, or names something that does not exist.
const USAGE: u8 = 1;
/// The stored bytes differ from those that were written.
const DAMAGED: u8 = 2;
/// Events break a rule.
const RULE_BROKEN: u8 = 3;
/// Two histories were told where there can be one.
const EQUIVOCATION: u8 = 4;
/// Nothing can be read there.
const UNREADABLE: u8 = 5;

/// The exit codes, for the help.
const EXIT_CODES: &str = "Exit codes: 0 fine, 1 usage, 2 bytes damaged, 3 a rule broken, \
                          4 equivocation, 5 unreadable.";

/// Reads a keypool log: an export, a journal directory, a copy of a data directory, or a server by the
/// address of its operator's listener, as in http://127.0.0.1:8081
#[derive(Debug, Parser)]
#[command(
    name = "keypool-ledger",
    version,
    max_term_width = 100,
    after_help = format!("A time is {FORMS}.\n\n{EXIT_CODES}")
)]
struct AuditorCli {
    /// Print JSON, one object a line: see `schema`
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: AuditorCommand,
}

#[derive(Debug, Subcommand)]
enum AuditorCommand {
    /// Say what a source holds
    Info { source: PathBuf },
    /// List the events, one a line
    Log(LogArgs),
    /// Show all that happened to one thing
    Show {
        source: PathBuf,
        /// A record's number, or how a package's reference, a reservation or a request begins
        #[arg(value_name = "SEQ|REF|RESERVATION|COMMAND")]
        what: String,
    },
    /// Say in sentences why something ended as it did
    Explain {
        source: PathBuf,
        /// How a package's reference, a reservation or a request begins; or a pool, with --at
        #[arg(value_name = "REF|RESERVATION|REQUEST|POOL")]
        what: String,
        /// When a pool is asked about: a record's number or a time
        #[arg(long, value_name = "SEQ|TIME")]
        at: Option<Moment>,
        /// Who was refused a package of the pool, or of any pool of the user, around that moment
        #[arg(long = "for", value_name = "USER[/DEVICE]", requires = "at")]
        caller: Option<String>,
        #[command(flatten)]
        promises: PromiseArgs,
    },
    /// Check that the bytes are those that were written
    Verify {
        source: PathBuf,
        #[command(flatten)]
        seen: SeenArgs,
    },
    /// Check that the events keep every promise
    Audit {
        source: PathBuf,
        #[command(flatten)]
        seen: SeenArgs,
        #[command(flatten)]
        promises: PromiseArgs,
    },
    /// Show the pools as they were at a moment, or what changed between two
    Replay {
        source: PathBuf,
        /// The moment: a record's number or a time, as in `yesterday 06:30`; the end if none
        #[arg(long, value_name = "SEQ|TIME", conflicts_with = "diff")]
        at: Option<Moment>,
        /// Two moments to compare
        #[arg(long, num_args = 2, value_names = ["A", "B"])]
        diff: Option<Vec<Moment>>,
        /// One pool, package by package
        #[arg(long, value_name = "USER/DEVICE")]
        pool: Option<PoolId>,
        /// Each event with what it changed
        #[arg(long, conflicts_with = "diff")]
        step: bool,
    },
    /// Fold all events again, in two ways that share no code, and compare after each
    Rebuild {
        source: PathBuf,
        /// Compare, and write nothing: the log is the only store, so there is nothing to write
        #[arg(long, required = true)]
        check: bool,
    },
    /// Write the log into one file that can be handed on
    Export { source: PathBuf, out: PathBuf },
    /// Write the log into one file, without the bytes of packages and messages that are over
    Prune {
        source: PathBuf,
        out: PathBuf,
        /// How long before the log's last event a package must have ended, or a message been posted, in days
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        keep_days: u32,
    },
    /// Make a new data directory from an export
    Import { export: PathBuf, directory: PathBuf },
    /// Copy the data directory of a stopped server to a new one whose log hides the names of users and devices
    HideNames { source: PathBuf, directory: PathBuf },
    /// Make a new data directory from a backup
    Restore { backup: PathBuf, directory: PathBuf },
    /// Put damaged segments of a data directory back from a backup of it
    Repair {
        directory: PathBuf,
        /// The backup, or another copy of the data directory
        #[arg(long, value_name = "BACKUP")]
        from: PathBuf,
    },
    /// Draw a pool's life
    Plot {
        source: PathBuf,
        #[arg(long, value_name = "USER/DEVICE")]
        pool: PoolId,
        /// The picture, in SVG
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Write a checkpoint of the log: its length and its tree hash
    Checkpoint {
        source: PathBuf,
        /// The log's name in it
        #[arg(long, value_name = "NAME", default_value = "keypool.invalid/log")]
        origin: String,
        /// Of the log as it was after this record
        #[arg(long, value_name = "SEQ")]
        at: Option<u64>,
        /// Sign it with the secret key in this file; its name is the log's then
        #[arg(long, value_name = "FILE")]
        sign: Option<PathBuf>,
    },
    /// Prove something about the log to someone who does not have it
    Prove {
        #[command(subcommand)]
        what: Prove,
    },
    /// Check a checkpoint, a proof, a receipt or evidence; or two receipts against each other. Without
    /// --key nothing but evidence, which names its key, is verified, and the exit code is 1
    Check {
        file: PathBuf,
        /// A second receipt for the same package
        other: Option<PathBuf>,
        #[command(flatten)]
        by: SignedArgs,
    },
    /// Find where two logs part, or whether checkpoints and receipts fit a log or each other
    Compare {
        /// A source, a checkpoint or a receipt
        a: PathBuf,
        /// A source, a checkpoint or a receipt
        b: PathBuf,
        #[command(flatten)]
        by: SignedArgs,
    },
    /// Print the JSON schema of the lines of --json
    Schema,
}

#[derive(Debug, Subcommand)]
enum Prove {
    /// That a record is in the log
    Inclusion {
        source: PathBuf,
        seq: u64,
        /// In the log of this checkpoint; of the whole log if none
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
    },
    /// That the log has only grown since a checkpoint
    Consistency {
        source: PathBuf,
        old: PathBuf,
        /// Up to this checkpoint; up to the whole log if none
        new: Option<PathBuf>,
    },
}

/// The end of the log as somebody remembers it.
#[derive(Debug, Args)]
struct SeenArgs {
    /// An end of this log that was seen before, as `verify` has printed it
    #[arg(long, value_name = "SIZE:ROOT")]
    expect_head: Vec<String>,
    /// A checkpoint of this log that was kept
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// The public key that must have signed the checkpoints
    #[arg(long, value_name = "KEY", requires = "checkpoint")]
    key: Option<String>,
}

/// Who must have signed, and where it goes if he has contradicted himself.
#[derive(Debug, Args)]
struct SignedArgs {
    /// The public key of the log that must have signed it
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Where evidence goes if two signed papers contradict each other
    #[arg(long, value_name = "FILE", default_value = "keypool-evidence.txt")]
    evidence: PathBuf,
}

/// Settings of the server that replace those in its log.
#[derive(Clone, Copy, Debug, Args)]
struct PromiseArgs {
    /// How much longer than its deadline a reservation holds, in seconds; as the log says if none
    #[arg(long, value_name = "SECONDS")]
    grace_s: Option<u64>,
    /// What becomes of a package whose reservation lapses; as the log says if none
    #[arg(long, value_enum)]
    on_lapse: Option<OnLapseArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnLapseArg {
    /// It is offered once more
    Requeue,
    /// It is never offered again
    Retire,
}

fn main() -> ExitCode {
    let cli = match AuditorCli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // If even the error stream is gone there is nobody left to tell.
            let _ = error.print();
            return ExitCode::from(if asked { FINE } else { USAGE });
        }
    };
    let mut out = Out::new(cli.json);
    let outcome = run(cli.command, &mut out).and_then(|code| out.flush().map(|()| code));
    match outcome {
        Ok(code) => ExitCode::from(code),
        // Whoever reads the output has seen enough.
        Err(ToolError::Closed) => ExitCode::from(FINE),
        Err(error) => {
            let _ = out.flush();
            error.complain();
            ExitCode::from(error.code())
        }
    }
}

fn run(command: AuditorCommand, out: &mut Out) -> Result<u8, ToolError> {
    match command {
        AuditorCommand::Info { source } => info::info(&source, out),
        AuditorCommand::Log(args) => log::log(&args, out),
        AuditorCommand::Show { source, what } => show::show(&source, &what, out),
        AuditorCommand::Explain { source, what, at: Some(at), caller: Some(caller), promises } => {
            explain::refused::explain(&source, (&what, &caller), at, promises, out)
        }
        AuditorCommand::Explain { source, what, at, promises, .. } => {
            explain::explain(&source, &what, at, promises, out)
        }
        AuditorCommand::Verify { source, seen } => verify::verify(&source, &seen, out),
        AuditorCommand::Audit { source, seen, promises } => {
            audit::audit(&source, &seen, promises, out)
        }
        AuditorCommand::Replay { source, at, pool, step: true, .. } => {
            rebuild::step(&source, at, pool.as_ref(), out)
        }
        AuditorCommand::Rebuild { source, .. } => rebuild::rebuild(&source, out),
        AuditorCommand::Replay { source, at, diff, pool, .. } => match diff.as_deref() {
            Some([a, b]) => replay::diff(&source, (*a, *b), pool.as_ref(), out),
            _ => replay::replay(&source, at, pool.as_ref(), out),
        },
        AuditorCommand::Export { source, out: file } => export::export(&source, &file, out),
        AuditorCommand::Prune { source, out: file, keep_days } => {
            prune::prune(&source, &file, keep_days, out)
        }
        AuditorCommand::HideNames { source, directory } => {
            hide_names::hide_names(&source, &directory, out)
        }
        AuditorCommand::Import { export, directory } => import::import(&export, &directory, out),
        AuditorCommand::Restore { backup, directory } => restore::restore(&backup, &directory, out),
        AuditorCommand::Repair { directory, from } => repair::repair(&directory, &from, out),
        AuditorCommand::Plot { source, pool, out: file } => plot::plot(&source, &pool, &file, out),
        AuditorCommand::Checkpoint { source, origin, at, sign } => {
            checkpoint::checkpoint(&source, &origin, at, sign.as_deref(), out)
        }
        AuditorCommand::Prove { what: Prove::Inclusion { source, seq, checkpoint } } => {
            prove::prove_inclusion(&source, seq, checkpoint.as_deref(), out)
        }
        AuditorCommand::Prove { what: Prove::Consistency { source, old, new } } => {
            prove::prove_consistency(&source, &old, new.as_deref(), out)
        }
        AuditorCommand::Check { file, other: None, by } => check::check(&file, &by, out),
        AuditorCommand::Check { file, other: Some(other), by } => {
            compare::receipts((&file, &other), &by, out)
        }
        AuditorCommand::Compare { a, b, by } => compare::compare((&a, &b), &by, out),
        AuditorCommand::Schema => schema::schema(out),
    }
}
