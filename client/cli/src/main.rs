//! `keypool`: a device's pool from the command line, and a chat that is built on it.

mod audit;
mod chat;
mod identity;
mod output;
mod pool;
mod recovery;

use std::{
    error::Error,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use keypool_client::{
    Code, DatabaseKind, DeviceKey, LocalStore, PoolConfig, PoolId, SignatureKey, Voucher,
};
use serde_json::json;

use self::output::{complain, say};

/// Keeps a device's pool of MLS KeyPackages, and chats over it.
#[derive(Parser)]
#[command(name = "keypool", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    whose: Whose,
    #[command(subcommand)]
    command: CliCommand,
}

/// Which device this is, and where.
#[derive(Args)]
struct Whose {
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
    /// A file whose first line is the passphrase that seals the device's keys; without it they are
    /// sealed with a key file in the home
    #[arg(long, env = "KEYPOOL_PASSPHRASE_FILE", value_name = "FILE", global = true)]
    passphrase_file: Option<PathBuf>,
    /// A token of the server's operator, for registering where the server asks for one
    #[arg(
        long,
        env = "KEYPOOL_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        global = true
    )]
    token: Option<String>,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Talk to others: groups, invitations, messages
    Chat(chat::ChatOptions),
    /// Make the device's keys and register them at the server
    Register {
        /// What another device of the user says for this one, as `keypool vouch` prints it there
        #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
        voucher: Option<Voucher>,
    },
    /// Vouch for another device of the user, so that it can register
    Vouch {
        /// What the other device is called
        #[arg(value_name = "DEVICE")]
        other: String,
        /// Its key, as it says when it is refused
        #[arg(allow_hyphen_values = true)]
        keyid: SignatureKey,
    },
    /// Remove a device of the user, this one or another: its key is nobody's ever after
    RemoveDevice {
        /// What it is called
        #[arg(value_name = "DEVICE")]
        other: String,
        /// Remove the devices as well that it had vouched for: a thief may have made them
        #[arg(long)]
        with_introduced: bool,
    },
    /// Show the safety number of you and another user, to compare it with them
    Verify {
        /// The user
        #[arg(value_name = "USER")]
        other: String,
        /// Note that you have compared it, and that it is the same
        #[arg(long)]
        same: bool,
    },
    /// Show the devices of a user with their keys, and how each came to be the user's
    Devices {
        /// The user; yours without it
        #[arg(value_name = "USER")]
        other: Option<String>,
    },
    /// Make a recovery key: 24 words, shown once, that register a device when all others are lost
    RecoveryKey {
        /// Replace the recovery key there is: its words are read from standard input
        #[arg(long)]
        before: bool,
    },
    /// Register this device by the 24 words of the recovery key, which are read from standard input, and
    /// remove all others
    Recover,
    /// Show how full the pool is
    Status,
    /// Keep the pool: fetch its history, clean up, refill it if it is low
    Refresh(PoolSize),
    /// Show what happened to the pool, or to one package
    History {
        /// The package's reference, or how it begins
        #[arg(value_name = "REF")]
        keypackage_ref: Option<String>,
        /// Show what this device did with its packages, not what the server says
        #[arg(long)]
        own: bool,
    },
    /// Look for what the device's history and its store disagree on
    Doctor {
        /// Repair it, and withdraw from the server what has lost its keys
        #[arg(long)]
        repair: bool,
    },
    /// Look for what the server has told that cannot be so; ends with 3 if a rule is broken, with 4 if
    /// the server has told two histories
    Audit(audit::AuditOptions),
    /// Give the device another signature key, and withdraw the packages of the one before
    RotateKey(PoolSize),
    /// Withdraw all packages: nobody is given one until the next refresh makes new ones
    Withdraw,
    /// Go on with this copy of the home: no other copy of it is used any more
    Adopt(PoolSize),
    /// Seal the device's keys with another passphrase, or with a new key file
    Reseal {
        /// A file whose first line is the new passphrase; without it a new key file is made in the home
        #[arg(long, value_name = "FILE")]
        new_passphrase_file: Option<PathBuf>,
    },
    /// Move the home's store to another database; nothing of it is lost
    MoveStore {
        /// Where it is to be
        to: HomeDatabase,
    },
    /// Say what an error code means, or list them all
    Explain {
        /// The code, as in pool_exhausted
        code: Option<String>,
    },
}

/// The databases that a home may have.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum HomeDatabase {
    /// sled, in the folder `store` of the home
    Sled,
    /// SQLite, in the file `store.sqlite` of the home
    Sqlite,
}

/// How large the pool is kept.
#[derive(Args, Clone, Debug)]
struct PoolSize {
    /// The ciphersuites to keep packages of, by number; the first one is that of new groups
    #[arg(
        long,
        env = "KEYPOOL_CIPHERSUITES",
        value_name = "NUMBER,…",
        value_delimiter = ',',
        default_values_t = PoolConfig::default().ciphersuites
    )]
    ciphersuites: Vec<u16>,
    /// How many packages of each ciphersuite a refill brings the pool to
    #[arg(long, value_name = "COUNT", default_value_t = PoolConfig::default().target)]
    target: usize,
    /// At how many packages or fewer it is refilled [default: 8, or one less than the target]
    #[arg(long, value_name = "COUNT")]
    low: Option<usize>,
    /// Keep no package of last resort, which inviters are given when no other is left
    #[arg(long)]
    no_last_resort: bool,
}

impl PoolSize {
    fn config(&self) -> PoolConfig {
        let usual = PoolConfig::default();
        let low = usual.low_watermark.min(self.target.saturating_sub(1));
        let low_watermark = self.low.unwrap_or(low);
        let last_resort = !self.no_last_resort;
        let ciphersuites = self.ciphersuites.clone();
        PoolConfig { target: self.target, low_watermark, last_resort, ciphersuites, ..usual }
    }
}

impl Whose {
    /// The device's name and its home, which most commands need.
    fn device(&self) -> Result<(PoolId, &PathBuf), Box<dyn Error>> {
        let user = self.user.as_deref().ok_or("whose device is it? Say --user NAME")?;
        Ok((PoolId::new(user, &self.device)?, self.home()?))
    }

    fn home(&self) -> Result<&PathBuf, Box<dyn Error>> {
        Ok(self.home.as_ref().ok_or("where are its keys? Say --home DIR")?)
    }

    /// The key that seals the device's private keys.
    fn device_key(&self) -> Result<DeviceKey, Box<dyn Error>> {
        device_key(self.passphrase_file.as_deref())
    }
}

/// A device key of the passphrase in a file, or else one in a file of the home.
fn device_key(passphrase_file: Option<&Path>) -> Result<DeviceKey, Box<dyn Error>> {
    let Some(path) = passphrase_file else { return Ok(DeviceKey::in_file()) };
    let mut line = String::new();
    let read = File::open(path).and_then(|file| BufReader::new(file).read_line(&mut line));
    read.map_err(|err| format!("the passphrase in {} cannot be read: {err}", path.display()))?;
    let passphrase = line.trim_end_matches(['\n', '\r']);
    if passphrase.is_empty() {
        return Err(format!("the first line of {} is no passphrase", path.display()).into());
    }
    Ok(DeviceKey::from_passphrase(passphrase.to_owned()))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            complain(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &cli.command {
        CliCommand::Explain { code } => explain(cli.whose.json, code.as_deref())?,
        CliCommand::MoveStore { to } => move_store(&cli.whose, *to)?,
        CliCommand::Chat(options) => runtime.block_on(chat::run(&cli.whose, options))?,
        CliCommand::Audit(options) => return runtime.block_on(audit::run(&cli.whose, options)),
        CliCommand::Verify { other, same } => {
            runtime.block_on(identity::verify(&cli.whose, other, *same))?;
        }
        CliCommand::Devices { other } => {
            runtime.block_on(identity::devices(&cli.whose, other.as_deref()))?;
        }
        CliCommand::RecoveryKey { before } => {
            runtime.block_on(recovery::set(&cli.whose, *before))?;
        }
        CliCommand::Recover => runtime.block_on(recovery::recover(&cli.whose))?,
        command => runtime.block_on(pool::carry_out(&cli.whose, command))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn move_store(whose: &Whose, to: HomeDatabase) -> Result<(), Box<dyn Error>> {
    let (kind, name) = match to {
        HomeDatabase::Sled => (DatabaseKind::Sled, "sled"),
        HomeDatabase::Sqlite => (DatabaseKind::Sqlite, "SQLite"),
    };
    let home = whose.home()?;
    if !home.is_dir() {
        return Err(format!("{} is no home of a device", home.display()).into());
    }
    let moved = LocalStore::move_database(home, kind)?;
    let text = if moved { "the store is in" } else { "nothing to do: the store is already in" };
    say(whose.json, &json!({ "moved": moved }), &format!("{text} {name}"))
}

fn explain(json: bool, code: Option<&str>) -> Result<(), Box<dyn Error>> {
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
        say(json, &value, &text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One key in 64 begins so, and a voucher begins with a key.
    #[test]
    fn a_key_and_a_voucher_may_begin_with_a_hyphen() {
        let key = "-".to_owned() + &"A".repeat(42);
        let voucher = format!("{key}.{}.1.{}", "0".repeat(64), "A".repeat(86));
        for arguments in [["vouch", "phone", &key], ["register", "--voucher", &voucher]] {
            let parsed = Cli::try_parse_from(["keypool"].iter().chain(&arguments));
            assert!(parsed.is_ok(), "{:?}", parsed.err());
        }
    }
}
