//! `keypool`: a device's pool from the command line.

use std::{
    error::Error,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, Subcommand};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use keypool_client::{
    ApiClient, DeviceIdentity, KeyPackagePool, LocalStore, MlsConnection, PoolConfig, fresh_command,
};
use keypool_ledger::{Clock, KeyPackageRef, PoolId, SystemClock};
use keypool_projections::{
    Moment, timeline,
    wire::{Code, PoolStatus},
};
use serde_json::json;

/// How wide the bar of `status` is, in characters: one for each package of a full pool.
const BAR_WIDTH: u64 = 32;

/// Keeps a device's pool of MLS KeyPackages.
#[derive(Debug, Parser)]
#[command(name = "keypool", version, max_term_width = 100)]
struct Cli {
    /// Where the device's keys and groups are
    #[arg(long, env = "KEYPOOL_HOME", value_name = "DIR", global = true)]
    home: Option<PathBuf>,
    /// The server
    #[arg(
        long,
        env = "KEYPOOL_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:8080",
        global = true
    )]
    server: String,
    /// Whose device this is
    #[arg(long, env = "KEYPOOL_USER", value_name = "NAME", global = true)]
    user: Option<String>,
    /// Which of the user's devices
    #[arg(
        long,
        env = "KEYPOOL_DEVICE",
        value_name = "NAME",
        default_value = "main",
        global = true
    )]
    device: String,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the device's keys and register them at the server
    Register,
    /// Show how full the pool is
    Status,
    /// Keep the pool: fetch its history, clean up, refill it if it is low
    Refresh,
    /// Show what happened to the pool, or to one package
    History {
        /// The package's reference, or how it begins
        #[arg(value_name = "REF")]
        keypackage_ref: Option<String>,
        /// Show what this device did with its packages, not what the server says
        #[arg(long)]
        own: bool,
    },
    /// Say what an error code means, or list them all
    Explain {
        /// The code, as in pool_exhausted
        code: Option<String>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

/// Says what happened and why, each cause on a line of its own.
fn complain(error: &dyn Error) {
    let mut err = io::stderr().lock();
    // If even the error stream is gone there is nobody left to tell.
    let _ = writeln!(err, "error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = writeln!(err, "  because: {error}");
        cause = error.source();
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn Error>> {
    if let Command::Explain { code } = &cli.command {
        return explain(cli, code.as_deref());
    }
    let device = Device::open(cli)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(device.carry_out(cli))
}

/// A device's store and its link to the server.
struct Device {
    store: Arc<LocalStore>,
    connection: MlsConnection<()>,
}

impl Device {
    fn open(cli: &Cli) -> Result<Self, Box<dyn Error>> {
        let user = cli.user.as_deref().ok_or("whose device is it? Say --user NAME")?;
        let home = cli.home.as_ref().ok_or("where are its keys? Say --home DIR")?;
        let owner = PoolId::new(user, &cli.device)?;
        let store = Arc::new(LocalStore::open(home, &owner)?);
        let identity = DeviceIdentity::load_or_create(&store)?;
        let pool =
            KeyPackagePool::new(Arc::clone(&store), identity.clone(), PoolConfig::default())?;
        let api = ApiClient::new(&cli.server, identity, Arc::new(SystemClock))?;
        let connection = MlsConnection::new(Arc::clone(&store), pool, api, ());
        Ok(Self { store, connection })
    }

    async fn carry_out(&self, cli: &Cli) -> Result<(), Box<dyn Error>> {
        let now = SystemClock.now();
        match &cli.command {
            Command::Register => {
                let reply = self.connection.api().register(fresh_command()).await?;
                let text = format!(
                    "{}/{} is registered; its key is {}\nnext: keypool refresh",
                    reply.user, reply.device, reply.keyid
                );
                say(cli, &serde_json::to_value(&reply)?, &text)
            }
            Command::Status => {
                let status = self.connection.status().await?;
                say(cli, &serde_json::to_value(&status)?, &status_text(&status))
            }
            Command::Refresh => {
                let refresh = self.connection.refresh_key_packages(now).await?;
                say(cli, &serde_json::to_value(&refresh)?, &refresh_text(&refresh))
            }
            Command::History { keypackage_ref, own } => {
                if !own {
                    self.connection.fetch_history(now).await?;
                }
                self.history(cli, keypackage_ref.as_deref().unwrap_or_default(), *own)
            }
            Command::Explain { .. } => Ok(()),
        }
    }

    fn history(&self, cli: &Cli, begins: &str, own: bool) -> Result<(), Box<dyn Error>> {
        let events = if own { self.store.history()? } else { self.store.mirror()? };
        let mut moments = timeline(&events, None);
        let of = |moment: &Moment| {
            let name = moment.keypackage_ref.as_ref().map(ToString::to_string);
            begins.is_empty() || name.is_some_and(|name| name.starts_with(begins))
        };
        moments.retain(of);
        if cli.json {
            return moments.iter().try_for_each(|moment| print(&serde_json::to_string(moment)?));
        }
        if moments.is_empty() && begins.is_empty() {
            return print("nothing has happened yet; `keypool refresh` fills the pool");
        }
        if moments.is_empty() {
            return Err(format!("no package here has a reference that begins with {begins}").into());
        }
        print(&history_table(&moments).to_string())
    }
}

fn status_text(status: &PoolStatus) -> String {
    let counts = &status.counts;
    let full = usize::try_from(counts.available.min(BAR_WIDTH)).unwrap_or_default();
    let rest = usize::try_from(BAR_WIDTH).unwrap_or_default() - full;
    let mut lines = vec![
        format!("{}/{}  {}", status.user, status.device, status.pool_health),
        format!("[{}{}] {} available", "#".repeat(full), "-".repeat(rest), counts.available),
        format!(
            "reserved {}, spent {}, expired {}, revoked {}, uploaded {} in all",
            counts.reserved, counts.spent, counts.expired, counts.revoked, counts.total
        ),
        format!("expiring within two days: {}", status.expiring_soon),
    ];
    if let Some(seconds) = status.seconds_to_empty {
        lines.push(format!("at today's pace it lasts {} hours", seconds / 3600));
    }
    lines.push(format!("next: {}", status.recommended_action));
    lines.join("\n")
}

fn refresh_text(refresh: &keypool_client::Refresh) -> String {
    if refresh.skipped {
        return format!(
            "refreshed less than a minute ago; {} packages available",
            refresh.available
        );
    }
    let mut lines = vec![format!(
        "{} new events, {} packages expired, {} uploaded again, {} made and uploaded",
        refresh.events, refresh.expired, refresh.reuploaded, refresh.created
    )];
    lines.extend(refresh.rejected.iter().map(|rejected| format!("rejected {rejected}")));
    lines.push(format!("{} packages available", refresh.available));
    lines.join("\n")
}

fn history_table(moments: &[Moment]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["version", "time", "package", "event", ""]);
    for moment in moments {
        let package = moment.keypackage_ref.as_ref().map(KeyPackageRef::short).unwrap_or_default();
        table.add_row([
            moment.version.to_string(),
            time(moment),
            package,
            moment.event.clone(),
            moment.detail.clone(),
        ]);
    }
    table
}

/// The time of an event as people write it, in UTC.
fn time(moment: &Moment) -> String {
    let millis = i64::try_from(moment.at.as_millis()).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => moment.at.to_string(),
    }
}

fn explain(cli: &Cli, code: Option<&str>) -> Result<(), Box<dyn Error>> {
    let chosen: Vec<Code> = match code {
        Some(word) => vec![word.parse()?],
        None => Code::ALL.to_vec(),
    };
    for code in chosen {
        let again = if code.retryable() { "may succeed later" } else { "will fail again" };
        let value = json!({
            "code": code.word(),
            "title": code.title(),
            "hint": code.hint(),
            "retryable": code.retryable(),
        });
        let text = format!(
            "{}: {}\n  {}\n  the same request {again}",
            code.word(),
            code.title(),
            code.hint()
        );
        say(cli, &value, &text)?;
    }
    Ok(())
}

/// Prints an answer, for people or as JSON.
fn say(cli: &Cli, value: &serde_json::Value, text: &str) -> Result<(), Box<dyn Error>> {
    if cli.json { print(&value.to_string()) } else { print(text) }
}

fn print(text: &str) -> Result<(), Box<dyn Error>> {
    match writeln!(io::stdout().lock(), "{text}") {
        // Whoever read the output, `head` say, has seen enough.
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
