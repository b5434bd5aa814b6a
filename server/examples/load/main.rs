//! What the server does under load, beside what else could have been built: `just bench`.
//!
//! One program with two sides. It starts each subject as a process of its own (the real
//! `keypool-server`, or itself as a baseline), puts load on it over HTTP, and writes what it found into
//! docs/benchmarks.md.

mod baseline;
mod client;
mod image;
mod measure;
mod packages;
mod population;
mod request;
mod session;
mod subject;
mod workload;

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    request::Auth,
    session::Stage,
    subject::Subject,
    workload::{Cell, Workload},
};

/// What a step ends with. Whatever fails ends the program: there is nothing to save.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// Measures the server and what it is measured against.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measure one load on one subject
    Once(Once),
    /// Be a baseline: what a measurement starts beside itself
    #[command(hide = true)]
    Baseline(baseline::Options),
}

#[derive(Args, Debug)]
struct Once {
    /// keypool, or a baseline: echo, fsync-file, sqlite, postgres, redis
    #[arg(long, default_value = "keypool")]
    subject: Subject,
    #[arg(long, value_enum, default_value = "reserve")]
    workload: Workload,
    /// How many connections ask at a time
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// How many operations there are at most
    #[arg(long, default_value_t = 8000)]
    operations: usize,
    /// Sign the requests
    #[arg(long)]
    signed: bool,
    /// How often it is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let run = async {
        match cli.what {
            What::Once(once) => once.run().await,
            What::Baseline(options) => baseline::serve(options).await,
        }
    };
    match actix_rt::System::new().block_on(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error cannot be written either, the exit code is all there is.
            let _ = writeln!(io::stderr(), "load: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Once {
    async fn run(self) -> Outcome<()> {
        let Self { subject, workload, concurrency, operations, signed, rounds } = self;
        let auth = if signed { Auth::Signed } else { Auth::Named };
        let work = work_dir()?;
        let cell = Cell { workload, concurrency, operations };
        let mut stage = Stage::set(work.path(), vec![cell])?;
        for _ in 0..rounds {
            for (_, figures) in stage.play(subject, auth, |_| true).await? {
                writeln!(io::stdout(), "{} {}: {figures:.2?}", subject.name(), workload.name())?;
            }
        }
        Ok(())
    }
}

/// A directory for everything, which a database that runs as another user can enter.
fn work_dir() -> Outcome<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(0o755);
    Ok(tempfile::Builder::new().prefix("keypool-bench").permissions(permissions).tempdir()?)
}
