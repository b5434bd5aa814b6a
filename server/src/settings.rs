//! The operator's settings: flags over environment over a file over the defaults.

mod address;
#[cfg(feature = "cluster")]
mod cluster;
mod error;
mod options;
mod rates;
mod registration;

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use keypool_projections::{Limits, OnLapse, quota::Quotas, retention::RETENTION_MIN};

#[cfg(feature = "cluster")]
pub use self::cluster::{ClusterError, ClusterOptions};
pub use self::{
    error::SettingsError,
    options::{OnLapseWord, Options},
};
#[cfg(feature = "otlp")]
use crate::request_spans::OtlpEndpoint;
use crate::{
    admission::{AdmissionRules, X509Roots},
    authentication::BodyBudget,
    backup_directory::lies_in,
    cors::CorsOrigin,
    disk::LowWater,
    registration::RegistrationSettings,
    tls::TlsCertificate,
    webhook::WebhookUrl,
};

/// How many packages that were never handed out are kept for contacts.
const STRANGERS_FLOOR: usize = 8;
/// For how many days refusals are recorded.
const REFUSALS_DAYS: u16 = 7;

/// How a server is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the operator's, on its own")]
pub struct Settings {
    /// The address that clients connect to; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The address that the operator connects to; port 0 picks a free one.
    pub admin_listen: SocketAddr,
    /// The file with the token that the operator's listener asks for.
    pub admin_token_file: Option<PathBuf>,
    /// The file of the certificate by which clients are served over TLS, if they are.
    pub tls_cert: Option<PathBuf>,
    /// The file of its key.
    pub tls_key: Option<PathBuf>,
    /// The names clients reach the server by, with the port unless it is the scheme's own; if empty,
    /// the listening address and `localhost`.
    pub public_names: Vec<String>,
    /// The origins of web pages that may use the API from a browser; none by default.
    pub cors_origins: Vec<CorsOrigin>,
    /// The URL of the app's backend that events are posted to; `None` if there is none.
    pub webhook: Option<WebhookUrl>,
    /// How long a request to it may take.
    pub webhook_timeout: Duration,
    /// The directory that holds the log.
    pub data: PathBuf,
    /// The mark of free room on the log's disk below which the delivery is refused.
    pub disk_low_water: LowWater,
    /// How many bytes of the disk are kept in a file that a full disk is started with; 0 for none.
    pub ballast_bytes: u64,
    /// The directory for backups without a directory of their own: a new folder for each; `None` if there is none.
    pub backups: Option<PathBuf>,
    /// How long payloads stay in the log after they are over; `None` for ever.
    pub retain: Option<Duration>,
    /// How often payloads that are over are looked for.
    pub prune_interval: Duration,
    /// For how many days refusals are recorded beside the log; 0 for none.
    pub refusals_days: u16,
    /// Whether to go on from the machine's clock although it has leapt, or from one that is behind the log.
    pub accept_clock: bool,
    /// The name of the ledger in its checkpoints; the first public name, or `localhost`, by default. It keeps
    /// the name of its first start.
    pub ledger_name: Option<String>,
    /// The file of the last checkpoint; `checkpoint` in the data directory by default.
    pub checkpoint_file: Option<PathBuf>,
    /// Whether to go on with a copy of the data that is older than the published checkpoint.
    pub accept_restore: bool,
    /// Whether a log that has records and no key begins a ledger with a new key.
    pub accept_new_ledger: bool,
    /// Whether a new log names users and devices by pseudonyms ([`keypool_ledger::NamedLog`]).
    pub hide_names: bool,
    /// How much time lies between two checkpoints at least.
    pub checkpoint_interval: Duration,
    /// Whether requests may name their caller instead of being signed. On loopback only.
    pub insecure_no_auth: bool,
    /// The registration policy.
    pub registration: RegistrationSettings,
    /// The numbers that bound a pool.
    pub limits: Limits,
    /// How much may be asked for; without end if it is not said.
    pub quotas: Option<Quotas>,
    /// The proxies whose word for the address of a client is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// The rules of admission.
    pub admission: AdmissionRules,
    /// The file of roots for X.509 credentials; `None` if these are opaque.
    pub x509_roots: Option<PathBuf>,
    /// How many bytes a body may have.
    pub body_bytes_max: usize,
    /// How many bytes of bodies are held at a time.
    pub bodies_bytes_max: usize,
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
    /// How often the effects of time are recorded.
    pub sweep_interval: Duration,
    /// How many threads answer requests; as many as there are processors if it is not said.
    pub workers: Option<usize>,
    /// How many connections are open at a time, where there are descriptors for so many.
    pub connections_max: usize,
    /// How many connections of one address are open at a time.
    pub address_connections_max: usize,
    /// How long a client may take nothing of an answer.
    pub stalled_timeout: Duration,
    /// How long requests under way may take when the server stops.
    pub shutdown_timeout: Duration,
    /// The OpenTelemetry collector that gets spans of requests; `None` if there is none.
    #[cfg(feature = "otlp")]
    pub otlp_endpoint: Option<OtlpEndpoint>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            admin_token_file: None,
            tls_cert: None,
            tls_key: None,
            public_names: Vec::new(),
            cors_origins: Vec::new(),
            webhook: None,
            webhook_timeout: Duration::from_secs(10),
            data: PathBuf::from("./keypool-data"),
            disk_low_water: LowWater::Usual,
            ballast_bytes: 64 << 20,
            backups: None,
            retain: None,
            prune_interval: Duration::from_hours(3),
            refusals_days: REFUSALS_DAYS,
            accept_clock: false,
            ledger_name: None,
            checkpoint_file: None,
            accept_restore: false,
            accept_new_ledger: false,
            hide_names: false,
            checkpoint_interval: Duration::from_secs(1),
            insecure_no_auth: false,
            registration: RegistrationSettings::default(),
            limits: Limits { strangers_floor: STRANGERS_FLOOR, ..Limits::STANDARD },
            quotas: Some(Quotas::STANDARD),
            trusted_proxies: Vec::new(),
            admission: AdmissionRules::default(),
            x509_roots: None,
            body_bytes_max: 2 * 1024 * 1024,
            bodies_bytes_max: 64 * 1024 * 1024,
            body_timeout: Duration::from_secs(10),
            batch_packages_max: 64,
            targets_max: 256,
            target_devices_max: 768,
            streams_max: 1024,
            stream_heartbeat: Duration::from_secs(15),
            sweep_interval: Duration::from_secs(10),
            workers: None,
            connections_max: 8192,
            address_connections_max: 256,
            stalled_timeout: Duration::from_secs(20),
            shutdown_timeout: Duration::from_secs(10),
            #[cfg(feature = "otlp")]
            otlp_endpoint: None,
        }
    }
}

impl From<Options> for Settings {
    fn from(said: Options) -> Self {
        let usual = Self::default();
        let (quotas, registration) = (said.quotas(), said.registration_settings());
        let limits = limits(&said, &usual.limits, quotas.is_some());
        let admission = AdmissionRules {
            package_bytes_max: said.package_bytes_max.unwrap_or(usual.admission.package_bytes_max),
            lifetime_max: said.lifetime_max.unwrap_or(usual.admission.lifetime_max),
            last_resort_lifetime_max: said
                .last_resort_lifetime_max
                .unwrap_or(usual.admission.last_resort_lifetime_max),
            life_left_min: limits.reservation_ttl.saturating_add(limits.life_margin),
            ciphersuites: said.ciphersuite.unwrap_or(usual.admission.ciphersuites),
            ..usual.admission
        };
        Self {
            listen: said.listen.unwrap_or(usual.listen),
            admin_listen: said.admin_listen.unwrap_or(usual.admin_listen),
            admin_token_file: said.admin_token_file.or(usual.admin_token_file),
            tls_cert: said.tls_cert.or(usual.tls_cert),
            tls_key: said.tls_key.or(usual.tls_key),
            public_names: said.public_name.unwrap_or(usual.public_names),
            cors_origins: said.cors_origin.unwrap_or(usual.cors_origins),
            webhook: said.webhook.or(usual.webhook),
            data: said.data.unwrap_or(usual.data),
            disk_low_water: said.disk_low_water.unwrap_or(usual.disk_low_water),
            ballast_bytes: said.ballast.unwrap_or(usual.ballast_bytes),
            backups: said.backups.or(usual.backups),
            retain: said.retain.or(usual.retain),
            refusals_days: said.refusals_days.unwrap_or(usual.refusals_days),
            accept_clock: said.accept_clock.unwrap_or_default(),
            ledger_name: said.ledger_name.or(usual.ledger_name),
            checkpoint_file: said.checkpoint_file.or(usual.checkpoint_file),
            accept_restore: said.accept_restore.unwrap_or(usual.accept_restore),
            accept_new_ledger: said.accept_new_ledger.unwrap_or(usual.accept_new_ledger),
            hide_names: said.hide_names.unwrap_or(usual.hide_names),
            checkpoint_interval: said.checkpoint_interval.unwrap_or(usual.checkpoint_interval),
            insecure_no_auth: said.insecure_no_auth.unwrap_or(usual.insecure_no_auth),
            registration,
            limits,
            quotas,
            trusted_proxies: said.trusted_proxy.unwrap_or(usual.trusted_proxies),
            admission,
            x509_roots: said.x509_roots,
            body_bytes_max: said.body_bytes_max.unwrap_or(usual.body_bytes_max),
            bodies_bytes_max: said.bodies_bytes_max.unwrap_or(usual.bodies_bytes_max),
            body_timeout: said.body_timeout.unwrap_or(usual.body_timeout),
            batch_packages_max: said.batch_packages_max.unwrap_or(usual.batch_packages_max),
            targets_max: said.targets_max.unwrap_or(usual.targets_max),
            target_devices_max: said.target_devices_max.unwrap_or(usual.target_devices_max),
            streams_max: said.streams_max.unwrap_or(usual.streams_max),
            sweep_interval: said.sweep_interval.unwrap_or(usual.sweep_interval),
            workers: said.workers.or(usual.workers),
            connections_max: said.connections_max.unwrap_or(usual.connections_max),
            address_connections_max: said
                .address_connections_max
                .unwrap_or(usual.address_connections_max),
            #[cfg(feature = "otlp")]
            otlp_endpoint: said.otlp_endpoint,
            ..usual
        }
    }
}

/// The limits that the options say; without quotas nothing is kept from strangers.
fn limits(said: &Options, usual: &Limits, has_quotas: bool) -> Limits {
    let floor = said.strangers_floor.unwrap_or(usual.strangers_floor);
    Limits {
        packages_max: said.packages_max.unwrap_or(usual.packages_max),
        reservation_ttl: said.reservation_ttl.unwrap_or(usual.reservation_ttl),
        grace: said.grace.unwrap_or(usual.grace),
        renewals_max: said.renewals_max.unwrap_or(usual.renewals_max),
        on_lapse: said.on_lapse.map_or(usual.on_lapse, OnLapse::from),
        strangers_floor: if has_quotas { floor } else { 0 },
        ..*usual
    }
}

impl Settings {
    /// The same settings, under which everybody may ask for as much as they like.
    #[must_use]
    pub fn without_quotas(self) -> Self {
        let limits = Limits { strangers_floor: 0, ..self.limits };
        Self { quotas: None, limits, ..self }
    }

    /// The same settings with the roots for X.509 credentials, read from their file if there is one.
    pub(crate) fn with_x509_roots(mut self) -> Result<Self, SettingsError> {
        if let Some(path) = &self.x509_roots {
            self.admission.x509_roots = Some(Arc::new(X509Roots::read(path)?));
        }
        Ok(self)
    }

    /// Reads the certificate and its key, if clients are served over TLS.
    pub(crate) fn open_tls(&self) -> Result<Option<Arc<TlsCertificate>>, SettingsError> {
        let files = self.tls_cert.as_deref().zip(self.tls_key.as_deref());
        let open = |(certificate, key)| TlsCertificate::open(certificate, key);
        Ok(files.map(open).transpose()?)
    }

    /// Whether the settings name files that are read again while the server runs.
    #[must_use]
    pub fn has_reloaded_files(&self) -> bool {
        self.registration.has_files() || self.tls_cert.is_some()
    }

    /// Refuses settings that no server can run with.
    ///
    /// # Errors
    ///
    /// Returns the first [`SettingsError`] there is.
    pub fn check(&self) -> Result<(), SettingsError> {
        let public = [self.listen, self.admin_listen].into_iter().find(|at| !is_loopback(at.ip()));
        if let (true, Some(address)) = (self.insecure_no_auth, public) {
            return Err(SettingsError::InsecureInPublic(address));
        }
        if self.admin_token_file.is_none() && !is_loopback(self.admin_listen.ip()) {
            return Err(SettingsError::AdminInPublic(self.admin_listen));
        }
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => return Err(SettingsError::TlsHalf("--tls-key", "--tls-cert")),
            (None, Some(_)) => return Err(SettingsError::TlsHalf("--tls-cert", "--tls-key")),
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.registration.check()?;
        if let Some(short) = self.retain.filter(|retain| *retain < RETENTION_MIN) {
            return Err(SettingsError::RetainTooShort(short));
        }
        if let Some(backups) = self.backups.as_deref().filter(|dir| lies_in(dir, &self.data)) {
            return Err(SettingsError::BackupsInData(backups.to_owned(), self.data.clone()));
        }
        if REFUSALS_DAYS < self.refusals_days {
            return Err(SettingsError::RefusalsDays(self.refusals_days));
        }
        let numbers = [
            ("--packages-max", self.limits.packages_max),
            ("--package-bytes-max", self.admission.package_bytes_max),
            ("--batch-packages-max", self.batch_packages_max),
            ("--targets-max", self.targets_max),
            ("--target-devices-max", self.target_devices_max),
            ("--streams-max", self.streams_max),
            ("--body-bytes-max", self.body_bytes_max),
            ("--bodies-bytes-max", self.bodies_bytes_max),
            ("--connections-max", self.connections_max),
            ("--address-connections-max", self.address_connections_max),
            ("--workers", self.workers.unwrap_or(1)),
            ("--quota-pair-held", self.quotas.map_or(1, |quotas| quotas.pair_held_max)),
            ("--quota-held", self.quotas.map_or(1, |quotas| quotas.held_max)),
        ];
        let times = [
            ("--reservation-ttl", self.limits.reservation_ttl),
            ("--lifetime-max", self.admission.lifetime_max),
            ("--last-resort-lifetime-max", self.admission.last_resort_lifetime_max),
            ("--body-timeout", self.body_timeout),
            ("--sweep-interval", self.sweep_interval),
            ("--checkpoint-interval", self.checkpoint_interval),
        ];
        let zero = numbers.into_iter().find(|(_, number)| *number == 0).map(|(name, _)| name);
        let none = times.into_iter().find(|(_, time)| time.is_zero()).map(|(name, _)| name);
        if let Some(name) = zero.or(none) {
            return Err(SettingsError::Zero(name));
        }
        let least = BodyBudget::bytes_min(self.body_bytes_max);
        if self.bodies_bytes_max < least {
            let (body, bodies) = (self.body_bytes_max, self.bodies_bytes_max);
            return Err(SettingsError::BodiesTooFew { body, bodies, least });
        }
        Ok(())
    }
}

/// Decides whether only this machine reaches an address.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
