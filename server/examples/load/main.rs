//! The server under load, beside simpler servers: `just bench`.
//!
//! One program with two sides. It starts each subject as a process of its own (the real
//! `keypool-server`, or itself as a baseline), puts load on it over HTTP, and writes the results into
//! docs/benchmarks.md.

mod baseline;
mod ceiling;
mod client;
mod cluster;
mod goals;
mod image;
mod large;
mod machine;
mod measure;
mod packages;
mod page;
mod picture;
mod population;
mod report;
mod request;
mod rounds;
mod session;
mod soak;
mod subject;
mod workload;

use std::{
    error::Error,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    large::Size,
    machine::Machine,
    report::Report,
    request::Auth,
    session::Stage,
    subject::Subject,
    workload::{Cell, Workload},
};

/// The outcome of a step. Any failure ends the program: there is nothing to save.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// Measures the server and its baselines.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measure everything, and write it into a page
    Run(Run),
    /// Measure one load on one subject
    Once(Once),
    /// Measure the server on a large log
    Large(Size),
    /// Measure the views of the operator's page on a large log
    Page(page::PageLoad),
    /// Put a steady load on the server for hours, with restarts
    Soak(soak::SoakLoad),
    /// Be a baseline, as a measurement starts it beside itself
    #[command(hide = true)]
    Baseline(baseline::Options),
}

#[derive(Args, Debug)]
struct Run {
    /// How often everything is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many of the usual number of operations each measurement has
    #[arg(long, default_value_t = 1.0)]
    share: f64,
    /// The page that the results are written into; the pictures go beside it. Without it they are only
    /// said
    #[arg(long)]
    page: Option<PathBuf>,
    #[command(flatten)]
    size: Size,
}

#[derive(Args, Debug)]
struct Once {
    /// keypool, cluster (three of them), or a baseline: echo, fsync-file, sqlite, postgres, redis. Several, with
    /// commas, are measured in turn
    #[arg(long, default_value = "keypool", value_delimiter = ',')]
    subject: Vec<Subject>,
    #[arg(long, value_enum, default_value = "reserve")]
    workload: Workload,
    /// How many connections ask at a time; several numbers, with commas, one after the other
    #[arg(long, default_value = "64", value_delimiter = ',')]
    concurrency: Vec<usize>,
    /// How many operations there are at most
    #[arg(long, default_value_t = 8000)]
    operations: usize,
    /// Sign the requests
    #[arg(long)]
    signed: bool,
    /// How often it is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Begin with a log that hides names
    #[arg(long)]
    hide_names: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let run = async {
        match cli.what {
            What::Run(run) => or_interrupted(run.run()).await,
            What::Once(once) => or_interrupted(once.run()).await,
            What::Large(size) => or_interrupted(only_large(size)).await,
            What::Page(load) => or_interrupted(only_page(load)).await,
            What::Soak(load) => or_interrupted(only_soak(load)).await,
            What::Baseline(options) => baseline::serve(options).await,
        }
    };
    match actix_rt::System::new().block_on(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            // Where standard error cannot be written either, the exit code is all there is.
            let _ = writeln!(io::stderr(), "load: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Ends the started processes, and removes the written files, also after Ctrl-C.
async fn or_interrupted(run: impl Future<Output = Outcome<()>>) -> Outcome<()> {
    tokio::select! {
        outcome = run => outcome,
        _ = actix_rt::signal::ctrl_c() => Err("interrupted".into()),
    }
}

async fn only_large(size: Size) -> Outcome<()> {
    let work = work_dir()?;
    let large = large::large(work.path(), size).await?;
    Ok(writeln!(io::stdout(), "{}", report::large_text(&large)?)?)
}

async fn only_page(load: page::PageLoad) -> Outcome<()> {
    let work = work_dir()?;
    page::page(work.path(), load).await
}

async fn only_soak(load: soak::SoakLoad) -> Outcome<()> {
    let work = work_dir()?;
    soak::soak(work.path(), load).await
}

impl Run {
    async fn run(self) -> Outcome<()> {
        let Self { rounds, share, page, size } = self;
        let mut out = io::stdout();
        let (subjects, missing) = there();
        for line in &missing {
            writeln!(out, "{line}")?;
        }
        let work = work_dir()?;
        let machine = Machine::here(work.path());
        let mut stage = Stage::set(work.path(), rounds::cells(share), false)?;
        let mut found = Vec::new();
        for number in 1..=rounds {
            write!(out, "round {number} of {rounds}:")?;
            found.push(rounds::round(&mut stage, &subjects, work.path(), &mut out).await?);
        }
        drop(stage);
        let large = match size.events {
            0 => None,
            events => {
                writeln!(out, "a log of {events} events")?;
                Some(large::large(work.path(), size).await?)
            }
        };
        let report =
            Report { machine: &machine, rounds: &found, large: large.as_ref(), missing: &missing };
        let Some(page) = page else { return Ok(writeln!(out, "{}", report.text()?)?) };
        report::put_into(&page, &report)?;
        picture::draw(page.parent().ok_or("the page is in no directory")?, &found)?;
        writeln!(out, "{} is written", page.display())?;
        Ok(())
    }
}

/// The subjects that can be measured here, and a line for each that cannot.
fn there() -> (Vec<Subject>, Vec<String>) {
    let missing = Subject::ALL.into_iter().filter_map(Subject::missing).collect();
    (Subject::ALL.into_iter().filter(|subject| subject.missing().is_none()).collect(), missing)
}

impl Once {
    async fn run(self) -> Outcome<()> {
        let Self { subject, workload, concurrency, operations, signed, rounds, hide_names } = self;
        let auth = if signed { Auth::Signed } else { Auth::Named };
        let work = work_dir()?;
        let mut out = io::stdout();
        let (subjects, missing): (Vec<_>, Vec<_>) =
            subject.into_iter().partition(|subject| subject.missing().is_none());
        for line in missing.into_iter().filter_map(Subject::missing) {
            writeln!(out, "{line}")?;
        }
        let cell = |concurrency| Cell { workload, concurrency, operations };
        let cells = concurrency.into_iter().map(cell).collect();
        let mut stage = Stage::set(work.path(), cells, hide_names)?;
        for _ in 0..rounds {
            for subject in subjects.iter().copied() {
                for (cell, figures) in stage.play(subject, auth, |_| true).await? {
                    let (name, load, at) = (subject.name(), workload.name(), cell.concurrency);
                    writeln!(out, "{name}, {load} at {at}: {figures:.2?}")?;
                }
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
