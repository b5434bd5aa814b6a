//! `keypool-server`: serves pools of MLS `KeyPackage`s.

use std::{
    env,
    error::Error,
    future::{Future, poll_fn},
    io::{self, IsTerminal, Write},
    path::Path,
    pin::pin,
    process::{self, ExitCode},
    sync::Arc,
    task::Poll,
    thread,
    time::Duration,
};

use actix_rt::signal::unix::{SignalKind, signal};
use keypool_ledger::{Clock, Replication, SystemClock};
use keypool_server::{
    AdminCommand, CLOSE_TIMEOUT, CommandLineError, ConfigCommand, Ended, Invocation, LogFormat,
    Server, ServerCommand, ServerOptions, Settings, StartError, completions, read_command_line,
    show_settings, unknown_variables, write_manual,
};
use mimalloc::MiMalloc;
use sd_notify::NotifyState;
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// Memory of a request is mostly freed by another thread than it was allocated by, and the C library's
/// allocator is slow at that.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The process ends with this when its settings are wrong, as clap's own errors do.
const EXIT_SETTINGS: u8 = 2;
/// Filter for actix's own lines about its threads and malformed HTTP, which do not concern the operator.
const QUIET: &str = "actix_server=warn,actix_http=off";

fn main() -> ExitCode {
    let read = match read_command_line(env::args_os()) {
        Ok(read) => read,
        Err(CommandLineError::Flags(error)) => error.exit(),
        Err(error) => return fail(&error, EXIT_SETTINGS),
    };
    match &read.command_line.command {
        None => start(&read.command_line.options),
        Some(ServerCommand::Config(command)) => config(&read, command),
        Some(ServerCommand::Completions { shell }) => say(&completions(*shell)),
        Some(ServerCommand::Man { dir }) => manual(dir),
        Some(ServerCommand::Admin(asked)) => admin(asked),
        Some(ServerCommand::Backup(asked)) => admin(&asked.clone().into()),
        Some(ServerCommand::ReleaseName(asked)) => admin(&asked.clone().into()),
        #[cfg(feature = "cluster")]
        Some(ServerCommand::Publish(asked)) => told(asked.publish()),
        #[cfg(feature = "cluster")]
        Some(ServerCommand::Compare(asked)) => told(asked.compare()),
    }
}

/// Starts a server, and serves until it is asked to stop.
fn start(options: &ServerOptions) -> ExitCode {
    if let Err(error) = start_log(options.log_format, &options.log) {
        return not_a_filter(&options.log, &error);
    }
    for variable in unknown_variables() {
        tracing::warn!("{variable}");
    }
    let settings = Settings::from(options.options.clone());
    if let Err(error) = settings.check() {
        return fail(&error, EXIT_SETTINGS);
    }
    match replication(options, &settings.data) {
        Ok(replication) => actix_rt::System::new().block_on(serve(settings, replication)),
        Err(error) => fail(&*error, 1),
    }
}

/// Connects to the stream of the cluster that the options name; `None` for a server that runs alone.
#[cfg(feature = "cluster")]
fn replication(
    options: &ServerOptions,
    data: &Path,
) -> Result<Option<Arc<dyn Replication>>, Box<dyn Error>> {
    Ok(options.options.cluster.connect(data)?)
}

/// A program without the feature `cluster` runs alone.
#[cfg(not(feature = "cluster"))]
#[expect(clippy::unnecessary_wraps, reason = "with the feature it may fail")]
fn replication(
    _options: &ServerOptions,
    _data: &Path,
) -> Result<Option<Arc<dyn Replication>>, Box<dyn Error>> {
    Ok(None)
}

/// Prints the outcome of a command about the cluster's stream.
#[cfg(feature = "cluster")]
fn told(outcome: Result<String, keypool_server::ClusterCommandError>) -> ExitCode {
    match outcome {
        Ok(text) => say(text.as_bytes()),
        Err(error) => fail(&error, 1),
    }
}

/// Checks the settings, or shows those in force.
fn config(read: &Invocation, command: &ConfigCommand) -> ExitCode {
    for variable in unknown_variables() {
        complain(&variable.to_string());
    }
    match command {
        ConfigCommand::Show(_) => say(show_settings(read).as_bytes()),
        ConfigCommand::Check(options) => check(options),
    }
}

fn check(options: &ServerOptions) -> ExitCode {
    if let Err(error) = log_filter(&options.log) {
        return not_a_filter(&options.log, &error);
    }
    let settings = Settings::from(options.options.clone());
    match Server::check(&settings, SystemClock.now()) {
        Ok(()) => say(b"the settings are good\n"),
        Err(error) => fail(&error, EXIT_SETTINGS),
    }
}

/// Writes a text to standard output.
fn say(text: &[u8]) -> ExitCode {
    let mut out = io::stdout().lock();
    let said = out.write_all(text).and_then(|()| out.flush());
    if said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn not_a_filter(filter: &str, error: &ParseError) -> ExitCode {
    complain(&format!("--log {filter:?} is not a filter such as info or warn: {error}"));
    ExitCode::from(EXIT_SETTINGS)
}

fn manual(dir: &Path) -> ExitCode {
    match write_manual(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{} cannot be written: {error}", dir.display()));
            ExitCode::FAILURE
        }
    }
}

/// Asks a running server, and prints its answer.
fn admin(asked: &AdminCommand) -> ExitCode {
    match asked.run() {
        Ok(text) => say(text.as_bytes()),
        Err(error) => fail(&error, 1),
    }
}

/// The filter of the log. The operator's goes before [`QUIET`].
fn log_filter(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(format!("{QUIET},{filter}"))
}

/// Starts the log.
fn start_log(format: LogFormat, filter: &str) -> Result<(), ParseError> {
    let log = tracing_subscriber::fmt()
        .with_env_filter(log_filter(filter)?)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

async fn serve(mut settings: Settings, replication: Option<Arc<dyn Replication>>) -> ExitCode {
    if settings.insecure_no_auth {
        tracing::warn!("--insecure-no-auth: anyone who reaches the port is anyone");
    }
    loop {
        let ended = match serve_once(&mut settings, replication.clone()).await {
            Ok(ended) => ended,
            Err(code) => return code,
        };
        match ended {
            Ended::Stopped => return ExitCode::SUCCESS,
            Ended::Erasing => tracing::info!("beginning anew, without the erased users"),
            Ended::Failed => {
                complain(
                    "the log or a listener failed, and the server has ended; nothing that was \
                    acknowledged is lost. The error above says what failed: mend it (is the disk \
                    full?) and start again",
                );
                return ExitCode::FAILURE;
            }
        }
    }
}

/// Serves until the server ends, and returns why; or the code to exit with if it does not start. The settings have
/// the addresses then at which it listened.
async fn serve_once(
    settings: &mut Settings,
    replication: Option<Arc<dyn Replication>>,
) -> Result<Ended, ExitCode> {
    let (data, name) = (settings.data.clone(), settings.public_names.first().cloned());
    let has_files = settings.has_reloaded_files();
    let shutdown_timeout = settings.shutdown_timeout;
    let (asked, clock) = (settings.clone(), Arc::new(SystemClock));
    let started = match replication {
        Some(replication) => Server::start_in_cluster(asked, clock, replication),
        None => Server::start(asked, clock),
    };
    let server = match started {
        Ok(server) => server,
        Err(error @ StartError::Settings(_)) => return Err(fail(&error, EXIT_SETTINGS)),
        Err(error) => return Err(fail(&error, 1)),
    };
    (settings.listen, settings.admin_listen) = (server.address(), server.admin_address());
    if let Some(count) = server.frontend_keys() {
        tracing::info!(count, "the frontend keys were read");
    }
    // Whoever reads the greeting may stop the server at once.
    let stop = asked_to_stop();
    let is_managed = env::var_os("NOTIFY_SOCKET").is_some();
    if let Err(error) = greet(&server, &data, name.as_deref()) {
        tracing::warn!(%error, "standard output cannot be written");
    }
    tell_manager(NotifyState::Ready);
    let asked = either(reloading(&server, has_files || is_managed), stop);
    let ended = either(
        async {
            asked.await;
        },
        server.ended(),
    )
    .await;
    if let Some(ended) = ended {
        return Ok(ended);
    }
    tell_manager(NotifyState::Stopping);
    end_after(shutdown_timeout + CLOSE_TIMEOUT);
    match server.stop().await {
        // It was asked to stop for good while it stopped for an erasure, which the next start goes on with.
        Ended::Erasing => Ok(Ended::Stopped),
        ended => Ok(ended),
    }
}

/// Prints the addresses, and a command to try: at the server's public name, if it has one, since it
/// takes no requests for its address then.
fn greet(server: &Server, data: &Path, name: Option<&str>) -> io::Result<()> {
    let (url, admin, data) = (server.url(), server.admin_address(), data.display());
    let reached = name.map_or_else(|| url.clone(), |name| url_at(name, &url));
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {url}")?;
    writeln!(out, "metrics      http://{admin}/metrics")?;
    writeln!(out, "page         http://{admin}/")?;
    writeln!(out, "data         {data}")?;
    writeln!(out, "API document {url}/openapi.json")?;
    writeln!(out, "ledger key   {}", server.ledger_key())?;
    writeln!(
        out,
        "try          keypool --home ~/.keypool --server {reached} --user alice register"
    )?;
    out.flush()
}

/// The address of a server at `url` by a public name. A name with the server's own port leads to the server itself, any
/// other one to the proxy in front of it.
fn url_at(name: &str, url: &str) -> String {
    let port_of = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
    let is_own = port_of(name).is_some_and(|port| port_of(url) == Some(port));
    let is_plain = is_own && url.starts_with("http://");
    format!("{}://{name}", if is_plain { "http" } else { "https" })
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

/// Tells the service manager of a state, if one has started this process.
fn tell_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Reads the operator's files again on each SIGHUP, for ever. A process without such files and without a service
/// manager ends by the signal, as by that of a terminal that is closed.
async fn reloading(server: &Server, is_heard: bool) {
    let hangup = if is_heard { signal(SignalKind::hangup()).ok() } else { None };
    let Some(mut hangup) = hangup else { return std::future::pending().await };
    while hangup.recv().await.is_some() {
        reload_certificate(server);
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

/// Reads the certificate again, if there is one.
fn reload_certificate(server: &Server) {
    match server.reload_certificate() {
        Ok(true) => tracing::info!("the certificate was read again"),
        Ok(false) => {}
        Err(error) => {
            let cause = error.source().map(ToString::to_string);
            tracing::error!(%error, cause, "the certificate stays as it was");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_name_is_tried_without_tls_only_where_it_leads_to_the_server_itself() {
        let tried = |name, url| url_at(name, url);
        assert_eq!(tried("vm:8080", "http://0.0.0.0:8080"), "http://vm:8080");
        assert_eq!(tried("vm:8080", "https://0.0.0.0:8080"), "https://vm:8080");
        assert_eq!(tried("keypool.example", "http://127.0.0.1:8080"), "https://keypool.example");
        assert_eq!(
            tried("keypool.example:8443", "http://[::]:8080"),
            "https://keypool.example:8443"
        );
        assert_eq!(tried("[2001:db8::1]", "http://[::]:8080"), "https://[2001:db8::1]");
    }
}
