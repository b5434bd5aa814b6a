//! `keypool-server`: serves pools of MLS `KeyPackage`s.

use std::{
    error::Error,
    future::{Future, poll_fn},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    pin::pin,
    process::{self, ExitCode},
    sync::Arc,
    task::Poll,
    thread,
    time::Duration,
};

use actix_rt::signal::unix::{SignalKind, signal};
use clap::{Parser, Subcommand, ValueEnum};
use keypool_ledger::SystemClock;
use keypool_server::{
    CLOSE_TIMEOUT, Ended, Options, ReleaseName, Server, Settings, SettingsError, StartError,
};
use mimalloc::MiMalloc;
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Memory of a request is mostly freed by another thread than it was allocated by, and the C library's
/// allocator is slow at that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The process ends with this when its settings are wrong, as clap's own errors do.
const EXIT_SETTINGS: u8 = 2;
/// Filter for actix's own lines about its threads and malformed HTTP, which do not concern the operator.
const QUIET: &str = "actix_server=warn,actix_http=off";

/// Serves pools of MLS `KeyPackages`: uploaded by their owners, handed out once.
///
/// A flag goes before its variable in the environment, that before the file, that before the default.
#[derive(Debug, Parser)]
#[command(name = "keypool-server", version, max_term_width = 100)]
struct ServerCli {
    /// A TOML file with settings, named as the flags are
    #[arg(long, env = "KEYPOOL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the log on standard error looks
    #[arg(long, env = "KEYPOOL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// What the log shows, as in RUST_LOG: `info`, or `keypool_server=debug,warn`
    #[arg(long, env = "KEYPOOL_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<ServerCommand>,
}

/// A command to a server that runs already.
#[derive(Debug, Subcommand)]
enum ServerCommand {
    /// Let anyone register a name again whose user has lost every key
    ReleaseName(ReleaseName),
}

/// How the log looks.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// For programs: one JSON object for each line
    Json,
}

fn main() -> ExitCode {
    let cli = ServerCli::parse();
    if let Some(ServerCommand::ReleaseName(asked)) = &cli.command {
        return release_name(asked);
    }
    if let Err(error) = start_log(cli.log_format, &cli.log) {
        complain(&format!("--log {:?} is not a filter such as info or warn: {error}", cli.log));
        return ExitCode::from(EXIT_SETTINGS);
    }
    let settings = match settings(cli.config, cli.options) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, EXIT_SETTINGS),
    };
    actix_rt::System::new().block_on(serve(settings))
}

fn release_name(asked: &ReleaseName) -> ExitCode {
    match asked.run() {
        Ok(devices) => {
            let said = writeln!(
                io::stdout(),
                "the name {} is free: {} removed; whoever registers it next has it",
                asked.user,
                devices.join(", ")
            );
            if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(&error, 1),
    }
}

/// Starts the log. The operator's filter goes before [`QUIET`].
fn start_log(format: LogFormat, filter: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(format!("{QUIET},{filter}"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

fn settings(config: Option<PathBuf>, options: Options) -> Result<Settings, SettingsError> {
    let file = config.map(Options::from_file).transpose()?.unwrap_or_default();
    let settings = Settings::from(options.or(file));
    settings.check()?;
    Ok(settings)
}

async fn serve(settings: Settings) -> ExitCode {
    if settings.insecure_no_auth {
        tracing::warn!("--insecure-no-auth: anyone who reaches the port is anyone");
    }
    let (data, name) = (settings.data.clone(), settings.public_names.first().cloned());
    let has_files = settings.registration.has_files();
    let shutdown_timeout = settings.shutdown_timeout;
    let server = match Server::start(settings, Arc::new(SystemClock)) {
        Ok(server) => server,
        Err(error @ StartError::Settings(_)) => return fail(&error, EXIT_SETTINGS),
        Err(error) => return fail(&error, 1),
    };
    if let Some(count) = server.frontend_keys() {
        tracing::info!(count, "the frontend keys were read");
    }
    // Whoever reads the greeting may stop the server at once.
    let stop = asked_to_stop();
    if let Err(error) = greet(&server, &data, name.as_deref()) {
        tracing::warn!(%error, "standard output cannot be written");
    }
    let asked = either(reloading(&server, has_files), stop);
    let ended = either(
        async {
            asked.await;
        },
        server.ended(),
    )
    .await;
    let ended = if let Some(ended) = ended {
        ended
    } else {
        end_after(shutdown_timeout + CLOSE_TIMEOUT);
        server.stop().await
    };
    match ended {
        Ended::Stopped => ExitCode::SUCCESS,
        Ended::Failed => {
            complain(
                "the log or a listener failed, and the server has ended; nothing that was \
                acknowledged is lost. The error above says what failed: mend it (is the disk \
                full?) and start again",
            );
            ExitCode::FAILURE
        }
    }
}

/// Prints the addresses, and a command to try: at the server's public name, if it has one, since it
/// takes no requests for its address then.
fn greet(server: &Server, data: &Path, name: Option<&str>) -> io::Result<()> {
    let (url, admin, data) = (server.url(), server.admin_address(), data.display());
    let reached = name.map_or_else(|| url.clone(), |name| format!("https://{name}"));
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {url}")?;
    writeln!(out, "metrics      http://{admin}/metrics")?;
    writeln!(out, "data         {data}")?;
    writeln!(out, "API document {url}/openapi.json")?;
    writeln!(out, "ledger key   {}", server.ledger_key())?;
    writeln!(
        out,
        "try          keypool --home ~/.keypool --server {reached} --user alice register"
    )?;
    out.flush()
}

/// Waits for SIGTERM or SIGINT, which are heard from this call on; for ever where signals cannot be
/// waited for.
fn asked_to_stop() -> impl Future<Output = ()> {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            tracing::warn!("signals cannot be waited for; the server stops without warning");
            return std::future::pending().await;
        };
        let terminated = async {
            terminate.recv().await;
        };
        either(terminated, interrupt.recv()).await;
    }
}

/// Reads the operator's files again on each SIGHUP, for ever. Where there are none, the signal ends the
/// process, as it does by itself.
async fn reloading(server: &Server, has_files: bool) {
    let hangup = if has_files { signal(SignalKind::hangup()).ok() } else { None };
    let Some(mut hangup) = hangup else { return std::future::pending().await };
    while hangup.recv().await.is_some() {
        match server.reload() {
            Ok(entries) => {
                let frontend_keys = server.frontend_keys();
                tracing::info!(entries, frontend_keys, "who may register was read again");
            }
            Err(error) => {
                let cause = error.source().map(ToString::to_string);
                tracing::error!(%error, cause, "who may register stays as it was");
            }
        }
    }
}

/// Ends the process when stopping has taken so long: a disk that hangs would keep it for ever.
fn end_after(limit: Duration) {
    thread::spawn(move || {
        thread::sleep(limit);
        complain(
            "the disk does not answer, so the log cannot be closed; the server ends without it, and \
             nothing that was acknowledged is lost. Look at the disk before starting again",
        );
        process::exit(1);
    });
}

/// Waits for the first of two; `Some` if it is the second.
async fn either<T>(first: impl Future<Output = ()>, second: impl Future<Output = T>) -> Option<T> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|cx| match (first.as_mut().poll(cx), second.as_mut().poll(cx)) {
        (_, Poll::Ready(value)) => Poll::Ready(Some(value)),
        (Poll::Ready(()), Poll::Pending) => Poll::Ready(None),
        (Poll::Pending, Poll::Pending) => Poll::Pending,
    })
    .await
}

/// Prints an error and its causes on standard error.
fn fail(error: &dyn Error, code: u8) -> ExitCode {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // An error that only passes another on says the same.
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    complain(&text);
    ExitCode::from(code)
}

fn complain(text: &str) {
    // Where standard error cannot be written either, the exit code is all there is.
    let _ = writeln!(io::stderr(), "keypool-server: {text}");
}
