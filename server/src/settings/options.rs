//! Settings as an operator writes them.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum};
use keypool_projections::{
    OnLapse,
    quota::{Quotas, Rate},
};

#[cfg(feature = "cluster")]
use super::ClusterOptions;
use super::{
    address::socket_address,
    rates::{duration, rate},
};
#[cfg(feature = "otlp")]
use crate::request_spans::OtlpEndpoint;
use crate::{
    cors::CorsOrigin,
    disk::LowWater,
    registration::{RegistrationPolicy, RegistrationSettings},
    webhook::WebhookUrl,
};

/// Settings as they are written on the command line, in the environment or in a file. `None` stands for the
/// default.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Where clients connect; port 0 picks a free one, a name stands for its first address [default: 127.0.0.1:8080]
    #[arg(long, env = "KEYPOOL_LISTEN", value_name = "ADDRESS:PORT", value_parser = socket_address)]
    pub listen: Option<SocketAddr>,
    /// Where /metrics is, for the operator [default: 127.0.0.1:8081]
    #[arg(long, env = "KEYPOOL_ADMIN_LISTEN", value_name = "ADDRESS:PORT", value_parser = socket_address)]
    pub admin_listen: Option<SocketAddr>,
    /// A file with the token that is asked for there; without it the address must be a loopback one
    #[arg(long, env = "KEYPOOL_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// The certificate in PEM, with its chain, by which clients are served over TLS; with --tls-key. It is read
    /// again on SIGHUP
    #[arg(long, env = "KEYPOOL_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The private key of that certificate, in PEM. It is read again on SIGHUP
    #[arg(long, env = "KEYPOOL_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// A name clients reach this server by, with the port unless it is the scheme's own; may be
    /// given several times [default: the listening address and localhost]
    #[arg(long, env = "KEYPOOL_PUBLIC_NAME", value_name = "NAME", value_delimiter = ',')]
    pub public_name: Option<Vec<String>>,
    /// An origin of web pages that may use the API from a browser, such as `https://app.example`; may be given
    /// several times [default: none]
    #[arg(long, env = "KEYPOOL_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub cors_origin: Option<Vec<CorsOrigin>>,
    /// A URL of the app's backend, to which the server posts why to wake a device: https, or http to a loopback
    /// address
    #[arg(long, env = "KEYPOOL_WEBHOOK", value_name = "URL")]
    pub webhook: Option<WebhookUrl>,
    /// The directory that holds the log [default: ./keypool-data]
    #[arg(long, env = "KEYPOOL_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Below how much room on the disk of the log the delivery is refused: a share as 5%, or a size as
    /// 512MiB. At half of it uploads and registrations are refused too, at a quarter reserving and spending;
    /// 0 refuses nothing [default: 5%, and 256MiB at least]
    #[arg(long, env = "KEYPOOL_DISK_LOW_WATER", value_name = "SIZE")]
    pub disk_low_water: Option<LowWater>,
    /// How many bytes of the disk are kept in a file of ballast, which is given up when the disk is full, so
    /// that the server can start; 0 keeps none [default: 67108864]
    #[arg(long, env = "KEYPOOL_BALLAST", value_name = "BYTES")]
    pub ballast: Option<u64>,
    /// The directory for backups, outside of the data and best on another disk: each that is asked for on the
    /// operator's page, or by `admin backup` without a directory, gets a new folder in it, named by the time
    #[arg(long, env = "KEYPOOL_BACKUPS", value_name = "DIR")]
    pub backups: Option<PathBuf>,
    /// How long payloads stay in the log after nobody can ask for them any more: packages that were spent, have
    /// expired or were withdrawn, and messages that were delivered; 24h at least [default: for ever]
    #[arg(long, env = "KEYPOOL_RETAIN", value_name = "TIME", value_parser = duration)]
    pub retain: Option<Duration>,
    /// For how many days refusals are recorded beside the log, 7 at most; 0 records none [default: 7]
    #[arg(long, env = "KEYPOOL_REFUSALS_DAYS", value_name = "DAYS")]
    pub refusals_days: Option<u16>,
    /// Go on from the time that this machine's clock shows, although it has leapt ahead of the log or is
    /// behind it. It is recorded
    #[arg(long, env = "KEYPOOL_ACCEPT_CLOCK", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub accept_clock: Option<bool>,
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
    /// Begin a ledger with a new key for a log that has records and no `checkpoint.key`, because the log was
    /// imported or its key is lost
    #[arg(long, env = "KEYPOOL_ACCEPT_NEW_LEDGER", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub accept_new_ledger: Option<bool>,
    /// Begin a new log with pseudonyms in the places of users' and devices' names, so that it can forget a
    /// user; a log that was begun so stays so
    #[arg(long, env = "KEYPOOL_HIDE_NAMES", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub hide_names: Option<bool>,
    /// How much time lies between two checkpoints at least [default: 1s]
    #[arg(long, env = "KEYPOOL_CHECKPOINT_INTERVAL", value_name = "TIME", value_parser = duration)]
    pub checkpoint_interval: Option<Duration>,
    /// How long a reservation lasts, as its holder is told [default: 60s]
    #[arg(long, env = "KEYPOOL_RESERVATION_TTL", value_name = "TIME", value_parser = duration)]
    pub reservation_ttl: Option<Duration>,
    /// How much longer the server waits before a reservation lapses [default: 60s]
    #[arg(long, env = "KEYPOOL_GRACE", value_name = "TIME", value_parser = duration)]
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
    pub lifetime_max: Option<Duration>,
    /// How long the whole lifetime of a package marked as a last resort may be [default: 84days 1h]
    #[arg(long, env = "KEYPOOL_LAST_RESORT_LIFETIME_MAX", value_name = "TIME", value_parser = duration)]
    pub last_resort_lifetime_max: Option<Duration>,
    /// A ciphersuite that is welcome, by number; may be given several times [default: 1 2 3 78 79]
    #[arg(long, env = "KEYPOOL_CIPHERSUITE", value_name = "NUMBER", value_delimiter = ',')]
    pub ciphersuite: Option<Vec<u16>>,
    /// A PEM file of authorities: the chain of an X.509 credential must lead to one of them, and its
    /// certificate must be of the leaf's key. Without it these credentials are opaque
    #[arg(long, env = "KEYPOOL_X509_ROOTS", value_name = "FILE")]
    pub x509_roots: Option<PathBuf>,
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
    /// How many bytes the body of an upload, a rotation, a Commit or a message may have; any other has
    /// 65536 at most [default: 2097152]
    #[arg(long, env = "KEYPOOL_BODY_BYTES_MAX", value_name = "BYTES")]
    pub body_bytes_max: Option<usize>,
    /// How many bytes of bodies are held at a time, a quarter of them for small ones [default: 67108864]
    #[arg(long, env = "KEYPOOL_BODIES_BYTES_MAX", value_name = "BYTES")]
    pub bodies_bytes_max: Option<usize>,
    /// How long the body of a request may take to arrive [default: 10s]
    #[arg(long, env = "KEYPOOL_BODY_TIMEOUT", value_name = "TIME", value_parser = duration)]
    pub body_timeout: Option<Duration>,
    /// How often lapses and expiries are recorded [default: 10s]
    #[arg(long, env = "KEYPOOL_SWEEP_INTERVAL", value_name = "TIME", value_parser = duration)]
    pub sweep_interval: Option<Duration>,
    /// How many threads answer requests [default: one for each processor]
    #[arg(long, env = "KEYPOOL_WORKERS", value_name = "COUNT")]
    pub workers: Option<usize>,
    /// How many connections are open at a time; fewer if the limit of open files leaves fewer [default:
    /// 8192]
    #[arg(long, env = "KEYPOOL_CONNECTIONS_MAX", value_name = "COUNT")]
    pub connections_max: Option<usize>,
    /// How many connections of one address are open at a time; those of this machine and of trusted proxies
    /// are not counted [default: 256]
    #[arg(long, env = "KEYPOOL_ADDRESS_CONNECTIONS_MAX", value_name = "COUNT")]
    pub address_connections_max: Option<usize>,
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
    /// The key set (JWKS) of who issues tokens, with keys for EdDSA, ES256 or RS256; with --registration jwt,
    /// beside --jwt-key or in its place. It is read again on SIGHUP
    #[arg(long, env = "KEYPOOL_JWT_JWKS", value_name = "FILE")]
    pub jwt_jwks: Option<PathBuf>,
    /// The issuer that a token must name (its `iss`), with --registration jwt; any if it is left out
    #[arg(long, env = "KEYPOOL_JWT_ISSUER", value_name = "ISSUER")]
    pub jwt_issuer: Option<String>,
    /// Whom a token must be for (its `aud`), with --registration jwt
    #[arg(long, env = "KEYPOOL_JWT_AUDIENCE", value_name = "NAME")]
    pub jwt_audience: Option<String>,
    /// The public keys of the app's own backend, one a line as base64url. Requests that they sign act for the
    /// device that the signed header Keypool-Caller names. The file is read again on SIGHUP
    #[arg(long, env = "KEYPOOL_FRONTEND_KEY", value_name = "FILE")]
    pub frontend_key: Option<PathBuf>,
    /// Packages of one pool for one inviter who is a stranger: so many at once, and as many again in this
    /// time [default: 6/1h]
    #[arg(long, env = "KEYPOOL_QUOTA_PAIR", value_name = "COUNT/TIME", value_parser = rate)]
    pub quota_pair: Option<Rate>,
    /// How many reservations of one pool an inviter who is a stranger holds at once [default: 2]
    #[arg(long, env = "KEYPOOL_QUOTA_PAIR_HELD", value_name = "COUNT")]
    pub quota_pair_held: Option<usize>,
    /// How many reservations an inviter holds at once [default: 512]
    #[arg(long, env = "KEYPOOL_QUOTA_HELD", value_name = "COUNT")]
    pub quota_held: Option<usize>,
    /// Packages that one inviter asks for, whether there are any or not [default: 600/12s]
    #[arg(long, env = "KEYPOOL_QUOTA_REQUESTS", value_name = "COUNT/TIME", value_parser = rate)]
    pub quota_requests: Option<Rate>,
    /// Packages of one pool for all who are no contacts of its owner [default: 32/640s]
    #[arg(long, env = "KEYPOOL_QUOTA_STRANGERS", value_name = "COUNT/TIME", value_parser = rate)]
    pub quota_strangers: Option<Rate>,
    /// How many packages that were never handed out are kept for contacts [default: 8]
    #[arg(long, env = "KEYPOOL_STRANGERS_FLOOR", value_name = "COUNT")]
    pub strangers_floor: Option<usize>,
    /// Devices that are registered from one address [default: 30/1day]
    #[arg(long, env = "KEYPOOL_QUOTA_DEVICES", value_name = "COUNT/TIME", value_parser = rate)]
    pub quota_devices: Option<Rate>,
    /// Packages that one device uploads [default: 256/1day]
    #[arg(long, env = "KEYPOOL_QUOTA_UPLOADS", value_name = "COUNT/TIME", value_parser = rate)]
    pub quota_uploads: Option<Rate>,
    /// Changing requests from one address whose signature is wrong [default: 10/1min]
    #[arg(long, env = "KEYPOOL_QUOTA_FAILURES", value_name = "COUNT/TIME", value_parser = rate)]
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
    /// The cluster that the server is of.
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub cluster: ClusterOptions,
    /// An OpenTelemetry collector that gets a span of each request, by OTLP over HTTP in protobuf: its address without
    /// /v1/traces. Spans name users and devices
    #[cfg(feature = "otlp")]
    #[arg(long, env = "KEYPOOL_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<OtlpEndpoint>,
}

/// The fate of a package whose reservation lapsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnLapseWord {
    /// It is offered once more, after all others: at most one spend, and who loses it is told
    Requeue,
    /// It is never offered again: at most one hand-out
    Retire,
}

impl Options {
    /// The settings of registration.
    pub(super) fn registration_settings(&self) -> RegistrationSettings {
        RegistrationSettings {
            policy: self.registration.unwrap_or_default(),
            allow_list: self.allow_list.clone(),
            jwt_key: self.jwt_key.clone(),
            jwt_jwks: self.jwt_jwks.clone(),
            jwt_issuer: self.jwt_issuer.clone(),
            jwt_audience: self.jwt_audience.clone(),
            frontend_key: self.frontend_key.clone(),
        }
    }

    /// The rate limits; `None` if they are switched off.
    pub(super) fn quotas(&self) -> Option<Quotas> {
        let usual = Quotas::STANDARD;
        let quotas = Quotas {
            pair: self.quota_pair.unwrap_or(usual.pair),
            pair_held_max: self.quota_pair_held.unwrap_or(usual.pair_held_max),
            held_max: self.quota_held.unwrap_or(usual.held_max),
            requests: self.quota_requests.unwrap_or(usual.requests),
            strangers: self.quota_strangers.unwrap_or(usual.strangers),
            devices: self.quota_devices.unwrap_or(usual.devices),
            uploads: self.quota_uploads.unwrap_or(usual.uploads),
            failures: self.quota_failures.unwrap_or(usual.failures),
            ..usual
        };
        (!self.no_quotas.unwrap_or_default()).then_some(quotas)
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
