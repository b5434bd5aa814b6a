//! A real server whose clock can be moved, to test an app that was away for a week.
//!
//! `cargo run --example test_server -- --data DIR` takes the flags of `keypool-server`. Its first line on
//! standard output is the same. A line `advance 7days` on standard input moves its clock ahead by that
//! much, and is answered with `it is SECONDS now`. It ends with standard input.

use std::{
    error::Error,
    io::{self, BufRead, Write},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use clap::Parser;
use keypool_ledger::{Clock, SystemClock, Timestamp};
use keypool_server::{Options, Server, Settings};

/// How often it is looked whether standard input has ended.
const LOOK: Duration = Duration::from_millis(50);

/// A server whose clock can be moved.
#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

/// The machine's clock, and as much more as was asked for, in milliseconds.
#[derive(Default)]
struct MovableClock(AtomicU64);

impl Clock for MovableClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().after(Duration::from_millis(self.0.load(Ordering::SeqCst)))
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match actix_rt::System::new().block_on(serve(cli.options.into())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error cannot be written either, the exit code is all there is.
            let _ = writeln!(io::stderr(), "test_server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: Settings) -> Result<(), Box<dyn Error>> {
    settings.check()?;
    let clock = Arc::new(MovableClock::default());
    let server = Server::start(settings, clock.clone())?;
    say(&format!("listening on {}", server.url()))?;
    let (ended, end) = mpsc::channel();
    thread::spawn(move || ended.send(obey(&clock)));
    let outcome = loop {
        match end.try_recv() {
            Ok(outcome) => break outcome,
            Err(_) => actix_rt::time::sleep(LOOK).await,
        }
    };
    server.stop().await;
    Ok(outcome?)
}

/// Moves the clock as lines of standard input say, to their end.
fn obey(clock: &MovableClock) -> io::Result<()> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        let span = line.strip_prefix("advance ").map(humantime::parse_duration);
        let Some(Ok(span)) = span else {
            say("say `advance TIME`, as in `advance 7days`")?;
            continue;
        };
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        clock.0.fetch_add(millis, Ordering::SeqCst);
        say(&format!("it is {} now", clock.now().as_secs()))?;
    }
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
