//! What an operator can set: flags over environment over a file over the defaults.

mod error;
mod rates;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum};
use keypool_projections::{
    Limits, OnLapse,
    quota::{Quotas, Rate},
};
use serde::{Deserialize, Deserializer, de};

pub use self::error::SettingsError;
use self::rates::{rate, read_rate};
use crate::{
    admission::AdmissionRules,
    registration::{RegistrationPolicy, RegistrationSettings},
};

/// How many packages that were never handed out are kept for contacts.
const STRANGERS_FLOOR: usize = 8;

/// How a server is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where clients connect; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where the operator connects; port 0 picks a free one.
    pub admin_listen: SocketAddr,
    /// The names clients reach the server by, with the port unless it is the scheme's own; if empty,
    /// the listening address and `localhost`.
    pub public_names: Vec<String>,
    /// The directory that holds the log.
    pub data: PathBuf,
    /// What the ledger is called in its checkpoints; the first public name, or `localhost`, if it is not
    /// said. It keeps the name of its first start.
    pub ledger_name: Option<String>,
    /// Where the last checkpoint is kept; `checkpoint` in the data directory if it is not said.
    pub checkpoint_file: Option<PathBuf>,
    /// Whether to go on with a copy of the data that is older than what was published.
    pub accept_restore: bool,
    /// How much time lies between two checkpoints at least.
    pub checkpoint_interval: Duration,
    /// Whether requests may name their caller instead of being signed. On loopback only.
    pub insecure_no_auth: bool,
    /// Who may register a device.
    pub registration: RegistrationSettings,
    /// The numbers that bound a pool.
    pub limits: Limits,
    /// How much may be asked for; without end if it is not said.
    pub quotas: Option<Quotas>,
    /// The proxies whose word for the address of a client is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// What is admitted.
    pub admission: AdmissionRules,
    /// How many bytes a body may have.
    pub body_bytes_max: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How many packages one upload may hold.
    pub batch_packages_max: usize,
    /// How many targets one request for packages may name.
    pub targets_max: usize,
    /// How many devices these may have in all.
    pub target_devices_max: usize,
    /// How many streams may be open at a time.
    pub streams_max: usize,
    /// How often a stream says that it is alive.
    pub stream_heartbeat: Duration,
    /// How often what time has done is recorded.
    pub sweep_interval: Duration,
    /// How many threads answer requests; as many as there are processors if it is not said.
    pub workers: Option<usize>,
    /// How many connections each of them holds at a time.
    pub connections_max: usize,
    /// How long requests under way may take when the server stops.
    pub shutdown_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            public_names: Vec::new(),
            data: PathBuf::from("./keypool-data"),
            ledger_name: None,
            checkpoint_file: None,
            accept_restore: false,
            checkpoint_interval: Duration::from_secs(1),
            insecure_no_auth: false,
            registration: RegistrationSettings::default(),
            limits: Limits { strangers_floor: STRANGERS_FLOOR, ..Limits::STANDARD },
            quotas: Some(Quotas::STANDARD),
            trusted_proxies: Vec::new(),
            admission: AdmissionRules::default(),
            body_bytes_max: 2 * 1024 * 1024,
            body_timeout: Duration::from_secs(10),
            batch_packages_max: 64,
            targets_max: 256,
            target_devices_max: 768,
            streams_max: 1024,
            stream_heartbeat: Duration::from_secs(15),
            sweep_interval: Duration::from_secs(10),
            workers: None,
            connections_max: 4096,
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

/// Settings as they are written on the command line, in the environment or in a file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Options {
    /// Where clients connect; port 0 picks a free one [default: 127.0.0.1:8080]
    #[arg(long, env = "KEYPOOL_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where /metrics is, for the operator [default: 127.0.0.1:8081]
    #[arg(long, env = "KEYPOOL_ADMIN_LISTEN", value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<SocketAddr>,
    /// A name clients reach this server by, with the port unless it is the scheme's own; may be
    /// given several times [default: the listening address and localhost]
    #[arg(long, env = "KEYPOOL_PUBLIC_NAME", value_name = "NAME", value_delimiter = ',')]
    pub public_name: Option<Vec<String>>,
    /// The directory that holds the log [default: ./keypool-data]
    #[arg(long, env = "KEYPOOL_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// What the ledger is called in its checkpoints, for ever [default: the first public name, or
    /// localhost]
    #[arg(long, env = "KEYPOOL_LEDGER_NAME", value_name = "NAME")]
    pub ledger_name: Option<String>,
    /// Where the last checkpoint is kept, best on another disk [default: checkpoint in the data
    /// directory]
    #[arg(long, env = "KEYPOOL_CHECKPOINT_FILE", value_name = "FILE")]
    pub checkpoint_file: Option<PathBuf>,
    /// Go on with a copy of the data that is older than what was published, because the newer one is lost:
    /// another ledger begins, and all packages that were available are withdrawn
    #[arg(long, env = "KEYPOOL_ACCEPT_RESTORE", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub accept_restore: Option<bool>,
    /// How much time lies between two checkpoints at least [default: 1s]
    #[arg(long, env = "KEYPOOL_CHECKPOINT_INTERVAL", value_name = "TIME", value_parser = duration)]
    #[serde(deserialize_with = "read_duration")]
    pub checkpoint_interval: Option<Duration>,
    /// How long a reservation lasts, as its holder is told [default: 60s]
    #[arg(long, env = "KEYPOOL_RESERVATION_TTL", value_name = "TIME", value_parser = duration)]
    #[serde(deserialize_with = "read_duration")]
    pub reservation_ttl: Option<Duration>,
    /// How much longer the server waits before a reservation lapses [default: 60s]
    #[arg(long, env = "KEYPOOL_GRACE", value_name = "TIME", value_parser = duration)]
    #[serde(deserialize_with = "read_duration")]
    pub grace: Option<Duration>,
    /// What becomes of a package whose reservation lapsed [default: requeue]
    #[arg(long, env = "KEYPOOL_ON_LAPSE", value_enum)]
    pub on_lapse: Option<OnLapseWord>,
    /// How many single-use packages a pool holds [default: 64]
    #[arg(long, env = "KEYPOOL_PACKAGES_MAX", value_name = "COUNT")]
    pub packages_max: Option<usize>,
    /// How often a reservation may be renewed [default: 5]
    #[arg(long, env = "KEYPOOL_RENEWALS_MAX", value_name = "COUNT")]
    pub renewals_max: Option<u32>,
    /// How long the whole lifetime of a package may be [default: 14days 1h]
    #[arg(long, env = "KEYPOOL_LIFETIME_MAX", value_name = "TIME", value_parser = duration)]
    #[serde(deserialize_with = "read_duration")]
    pub lifetime_max: Option<Duration>,
    /// A ciphersuite that is welcome, by number; may be given several times [default: 1 2 3]
    #[arg(long, env = "KEYPOOL_CIPHERSUITE", value_name = "NUMBER", value_delimiter = ',')]
    pub ciphersuite: Option<Vec<u16>>,
    /// How many bytes a package may have [default: 16384]
    #[arg(long, env = "KEYPOOL_PACKAGE_BYTES_MAX", value_name = "BYTES")]
    pub package_bytes_max: Option<usize>,
    /// How many packages one upload may hold [default: 64]
    #[arg(long, env = "KEYPOOL_BATCH_PACKAGES_MAX", value_name = "COUNT")]
    pub batch_packages_max: Option<usize>,
    /// How many targets one request for packages may name [default: 256]
    #[arg(long, env = "KEYPOOL_TARGETS_MAX", value_name = "COUNT")]
    pub targets_max: Option<usize>,
    /// How many devices these may have in all [default: 768]
    #[arg(long, env = "KEYPOOL_TARGET_DEVICES_MAX", value_name = "COUNT")]
    pub target_devices_max: Option<usize>,
    /// How many streams of pools may be open at a time [default: 1024]
    #[arg(long, env = "KEYPOOL_STREAMS_MAX", value_name = "COUNT")]
    pub streams_max: Option<usize>,
    /// How many bytes the body of a request may have [default: 2097152]
    #[arg(long, env = "KEYPOOL_BODY_BYTES_MAX", value_name = "BYTES")]
    pub body_bytes_max: Option<usize>,
    /// How long the body of a request may take to arrive [default: 10s]
    #[arg(long, env = "KEYPOOL_BODY_TIMEOUT", value_name = "TIME", value_parser = duration)]
    #[serde(deserialize_with = "read_duration")]
    pub body_timeout: Option<Duration>,
    /// How often lapses and expiries are recorded [default: 10s]
    #[arg(long, env = "KEYPOOL_SWEEP_INTERVAL", value_name = "TIME", value_parser = duration)]
    #[serde(deserialize_with = "read_duration")]
    pub sweep_interval: Option<Duration>,
    /// How many threads answer requests [default: one for each processor]
    #[arg(long, env = "KEYPOOL_WORKERS", value_name = "COUNT")]
    pub workers: Option<usize>,
    /// How many connections each of them holds at a time [default: 4096]
    #[arg(long, env = "KEYPOOL_CONNECTIONS_MAX", value_name = "COUNT")]
    pub connections_max: Option<usize>,
    /// Who may register a device [default: tofu]
    #[arg(long, env = "KEYPOOL_REGISTRATION", value_enum)]
    pub registration: Option<RegistrationPolicy>,
    /// A file of lines `user device keyid`: who may register, with --registration allow-list. It is read
    /// again on SIGHUP
    #[arg(long, env = "KEYPOOL_ALLOW_LIST", value_name = "FILE")]
    pub allow_list: Option<PathBuf>,
    /// The Ed25519 public keys, in PEM, of who issues tokens, with --registration jwt. It is read again on
    /// SIGHUP
    #[arg(long, env = "KEYPOOL_JWT_KEY", value_name = "FILE")]
    pub jwt_key: Option<PathBuf>,
    /// Whom a token must be for (its `aud`), with --registration jwt
    #[arg(long, env = "KEYPOOL_JWT_AUDIENCE", value_name = "NAME")]
    pub jwt_audience: Option<String>,
    /// Packages of one pool for one inviter: so many at once, and as many again in this time [default:
    /// 6/1h]
    #[arg(long, env = "KEYPOOL_QUOTA_PAIR", value_name = "COUNT/TIME", value_parser = rate)]
    #[serde(deserialize_with = "read_rate")]
    pub quota_pair: Option<Rate>,
    /// How many reservations of one pool an inviter holds at once [default: 2]
    #[arg(long, env = "KEYPOOL_QUOTA_PAIR_HELD", value_name = "COUNT")]
    pub quota_pair_held: Option<usize>,
    /// How many reservations an inviter holds at once [default: 512]
    #[arg(long, env = "KEYPOOL_QUOTA_HELD", value_name = "COUNT")]
    pub quota_held: Option<usize>,
    /// Packages that one inviter asks for, whether there are any or not [default: 600/12s]
    #[arg(long, env = "KEYPOOL_QUOTA_REQUESTS", value_name = "COUNT/TIME", value_parser = rate)]
    #[serde(deserialize_with = "read_rate")]
    pub quota_requests: Option<Rate>,
    /// Packages of one pool for all who are no contacts of its owner [default: 32/640s]
    #[arg(long, env = "KEYPOOL_QUOTA_STRANGERS", value_name = "COUNT/TIME", value_parser = rate)]
    #[serde(deserialize_with = "read_rate")]
    pub quota_strangers: Option<Rate>,
    /// How many packages that were never handed out are kept for contacts [default: 8]
    #[arg(long, env = "KEYPOOL_STRANGERS_FLOOR", value_name = "COUNT")]
    pub strangers_floor: Option<usize>,
    /// Devices that are registered from one address [default: 30/1day]
    #[arg(long, env = "KEYPOOL_QUOTA_DEVICES", value_name = "COUNT/TIME", value_parser = rate)]
    #[serde(deserialize_with = "read_rate")]
    pub quota_devices: Option<Rate>,
    /// Packages that one device uploads [default: 256/1day]
    #[arg(long, env = "KEYPOOL_QUOTA_UPLOADS", value_name = "COUNT/TIME", value_parser = rate)]
    #[serde(deserialize_with = "read_rate")]
    pub quota_uploads: Option<Rate>,
    /// Changing requests from one address whose signature is wrong [default: 10/1min]
    #[arg(long, env = "KEYPOOL_QUOTA_FAILURES", value_name = "COUNT/TIME", value_parser = rate)]
    #[serde(deserialize_with = "read_rate")]
    pub quota_failures: Option<Rate>,
    /// A proxy whose X-Forwarded-For is believed, by address; may be given several times. Without one,
    /// what comes from this machine is not counted by address
    #[arg(long, env = "KEYPOOL_TRUSTED_PROXY", value_name = "ADDRESS", value_delimiter = ',')]
    pub trusted_proxy: Option<Vec<IpAddr>>,
    /// Let everybody ask for as much as they like, and keep nothing for contacts
    #[arg(long, env = "KEYPOOL_NO_QUOTAS", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub no_quotas: Option<bool>,
    /// Let requests name their caller in X-Keypool-Caller instead of being signed. For experiments:
    /// anyone who reaches the port is anyone. On loopback only
    #[arg(long, env = "KEYPOOL_INSECURE_NO_AUTH", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub insecure_no_auth: Option<bool>,
}

/// What becomes of a package whose reservation lapsed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OnLapseWord {
    /// It is offered once more, after all others: at most one spend, and who loses it is told
    Requeue,
    /// It is never offered again: at most one hand-out
    Retire,
}

impl Options {
    /// Reads options from a TOML file. Names that are no setting are refused.
    ///
    /// # Errors
    ///
    /// Returns a [`SettingsError`] if the file cannot be read or holds something else.
    pub fn from_file(path: PathBuf) -> Result<Self, SettingsError> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(SettingsError::Unreadable { path, source }),
        };
        toml::from_str(&text).map_err(|err: toml::de::Error| {
            let before = err.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            SettingsError::Malformed { path, line, message: err.message().to_owned() }
        })
    }

    /// These options, and those of `file` where nothing is said here.
    #[must_use]
    pub fn or(self, file: Self) -> Self {
        Self {
            listen: self.listen.or(file.listen),
            admin_listen: self.admin_listen.or(file.admin_listen),
            public_name: self.public_name.or(file.public_name),
            data: self.data.or(file.data),
            ledger_name: self.ledger_name.or(file.ledger_name),
            checkpoint_file: self.checkpoint_file.or(file.checkpoint_file),
            accept_restore: self.accept_restore.or(file.accept_restore),
            checkpoint_interval: self.checkpoint_interval.or(file.checkpoint_interval),
            reservation_ttl: self.reservation_ttl.or(file.reservation_ttl),
            grace: self.grace.or(file.grace),
            on_lapse: self.on_lapse.or(file.on_lapse),
            packages_max: self.packages_max.or(file.packages_max),
            renewals_max: self.renewals_max.or(file.renewals_max),
            lifetime_max: self.lifetime_max.or(file.lifetime_max),
            ciphersuite: self.ciphersuite.or(file.ciphersuite),
            package_bytes_max: self.package_bytes_max.or(file.package_bytes_max),
            batch_packages_max: self.batch_packages_max.or(file.batch_packages_max),
            targets_max: self.targets_max.or(file.targets_max),
            target_devices_max: self.target_devices_max.or(file.target_devices_max),
            streams_max: self.streams_max.or(file.streams_max),
            body_bytes_max: self.body_bytes_max.or(file.body_bytes_max),
            body_timeout: self.body_timeout.or(file.body_timeout),
            sweep_interval: self.sweep_interval.or(file.sweep_interval),
            workers: self.workers.or(file.workers),
            connections_max: self.connections_max.or(file.connections_max),
            registration: self.registration.or(file.registration),
            allow_list: self.allow_list.or(file.allow_list),
            jwt_key: self.jwt_key.or(file.jwt_key),
            jwt_audience: self.jwt_audience.or(file.jwt_audience),
            quota_pair: self.quota_pair.or(file.quota_pair),
            quota_pair_held: self.quota_pair_held.or(file.quota_pair_held),
            quota_held: self.quota_held.or(file.quota_held),
            quota_requests: self.quota_requests.or(file.quota_requests),
            quota_strangers: self.quota_strangers.or(file.quota_strangers),
            strangers_floor: self.strangers_floor.or(file.strangers_floor),
            quota_devices: self.quota_devices.or(file.quota_devices),
            quota_uploads: self.quota_uploads.or(file.quota_uploads),
            quota_failures: self.quota_failures.or(file.quota_failures),
            trusted_proxy: self.trusted_proxy.or(file.trusted_proxy),
            no_quotas: self.no_quotas.or(file.no_quotas),
            insecure_no_auth: self.insecure_no_auth.or(file.insecure_no_auth),
        }
    }
}

impl From<Options> for Settings {
    fn from(said: Options) -> Self {
        let usual = Self::default();
        let quotas = said.quotas();
        let floor = said.strangers_floor.unwrap_or(usual.limits.strangers_floor);
        let limits = Limits {
            packages_max: said.packages_max.unwrap_or(usual.limits.packages_max),
            reservation_ttl: said.reservation_ttl.unwrap_or(usual.limits.reservation_ttl),
            grace: said.grace.unwrap_or(usual.limits.grace),
            renewals_max: said.renewals_max.unwrap_or(usual.limits.renewals_max),
            on_lapse: said.on_lapse.map_or(usual.limits.on_lapse, OnLapse::from),
            strangers_floor: if quotas.is_some() { floor } else { 0 },
            ..usual.limits
        };
        let admission = AdmissionRules {
            package_bytes_max: said.package_bytes_max.unwrap_or(usual.admission.package_bytes_max),
            lifetime_max: said.lifetime_max.unwrap_or(usual.admission.lifetime_max),
            life_left_min: limits.reservation_ttl.saturating_add(limits.life_margin),
            ciphersuites: said.ciphersuite.unwrap_or(usual.admission.ciphersuites),
            ..usual.admission
        };
        Self {
            listen: said.listen.unwrap_or(usual.listen),
            admin_listen: said.admin_listen.unwrap_or(usual.admin_listen),
            public_names: said.public_name.unwrap_or(usual.public_names),
            data: said.data.unwrap_or(usual.data),
            ledger_name: said.ledger_name.or(usual.ledger_name),
            checkpoint_file: said.checkpoint_file.or(usual.checkpoint_file),
            accept_restore: said.accept_restore.unwrap_or(usual.accept_restore),
            checkpoint_interval: said.checkpoint_interval.unwrap_or(usual.checkpoint_interval),
            insecure_no_auth: said.insecure_no_auth.unwrap_or(usual.insecure_no_auth),
            registration: RegistrationSettings {
                policy: said.registration.unwrap_or_default(),
                allow_list: said.allow_list,
                jwt_key: said.jwt_key,
                jwt_audience: said.jwt_audience,
            },
            limits,
            quotas,
            trusted_proxies: said.trusted_proxy.unwrap_or(usual.trusted_proxies),
            admission,
            body_bytes_max: said.body_bytes_max.unwrap_or(usual.body_bytes_max),
            body_timeout: said.body_timeout.unwrap_or(usual.body_timeout),
            batch_packages_max: said.batch_packages_max.unwrap_or(usual.batch_packages_max),
            targets_max: said.targets_max.unwrap_or(usual.targets_max),
            target_devices_max: said.target_devices_max.unwrap_or(usual.target_devices_max),
            streams_max: said.streams_max.unwrap_or(usual.streams_max),
            sweep_interval: said.sweep_interval.unwrap_or(usual.sweep_interval),
            workers: said.workers.or(usual.workers),
            connections_max: said.connections_max.unwrap_or(usual.connections_max),
            ..usual
        }
    }
}

impl Settings {
    /// The same settings, under which everybody may ask for as much as they like.
    #[must_use]
    pub fn without_quotas(self) -> Self {
        let limits = Limits { strangers_floor: 0, ..self.limits };
        Self { quotas: None, limits, ..self }
    }

    /// Refuses settings that no server can run with.
    ///
    /// # Errors
    ///
    /// Returns the first [`SettingsError`] there is.
    pub fn check(&self) -> Result<(), SettingsError> {
        let public = [self.listen, self.admin_listen].into_iter().find(|at| !at.ip().is_loopback());
        if let (true, Some(address)) = (self.insecure_no_auth, public) {
            return Err(SettingsError::InsecureInPublic(address));
        }
        self.registration.check()?;
        let numbers = [
            ("--packages-max", self.limits.packages_max),
            ("--package-bytes-max", self.admission.package_bytes_max),
            ("--batch-packages-max", self.batch_packages_max),
            ("--targets-max", self.targets_max),
            ("--target-devices-max", self.target_devices_max),
            ("--streams-max", self.streams_max),
            ("--body-bytes-max", self.body_bytes_max),
            ("--connections-max", self.connections_max),
            ("--workers", self.workers.unwrap_or(1)),
            ("--quota-pair-held", self.quotas.map_or(1, |quotas| quotas.pair_held_max)),
            ("--quota-held", self.quotas.map_or(1, |quotas| quotas.held_max)),
        ];
        let times = [
            ("--reservation-ttl", self.limits.reservation_ttl),
            ("--lifetime-max", self.admission.lifetime_max),
            ("--body-timeout", self.body_timeout),
            ("--sweep-interval", self.sweep_interval),
            ("--checkpoint-interval", self.checkpoint_interval),
        ];
        let zero = numbers.into_iter().find(|(_, number)| *number == 0).map(|(name, _)| name);
        let none = times.into_iter().find(|(_, time)| time.is_zero()).map(|(name, _)| name);
        zero.or(none).map_or(Ok(()), |name| Err(SettingsError::Zero(name)))
    }
}

impl From<OnLapseWord> for OnLapse {
    fn from(word: OnLapseWord) -> Self {
        match word {
            OnLapseWord::Requeue => Self::Requeue,
            OnLapseWord::Retire => Self::Retire,
        }
    }
}

/// A time as `60s` or `14days 1h`.
fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("{text:?} is no time such as \"60s\""))
}

fn read_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    duration(&text).map(Some).map_err(de::Error::custom)
}
