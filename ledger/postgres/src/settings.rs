//! The settings of a connection: addresses, the log's name, standbys, password, certificates.

use std::{fmt, fs, path::PathBuf, time::Duration};

use tokio_postgres::{
    Config,
    config::{Host, SslMode, TargetSessionAttrs},
};

use crate::PostgresError;

/// How many characters the name of a log may have.
const NAME_MAX: usize = 32;
/// How long a connect goes on trying.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one attempt to connect to a server may take.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// How long a server may be silent before the connection counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// How many demanded standbys are still a plausible number.
const STANDBYS_MAX: usize = 8;

/// The settings of a [`PostgresReplication`](crate::PostgresReplication).
///
/// They are shown without passwords.
#[derive(Clone)]
pub struct PostgresSettings {
    config: Config,
    pub(crate) name: String,
    pub(crate) standbys: usize,
    pub(crate) ledger: Option<String>,
    password_file: Option<PathBuf>,
    pub(crate) tls: PostgresTls,
    pub(crate) patience: Duration,
}

/// The certificates of the connection, all PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostgresTls {
    /// Whether a connection without TLS is refused; `sslmode=require` says the same. The server's certificate is
    /// verified then, and its name.
    pub is_required: bool,
    /// The certificates of the authorities that servers are verified with, instead of the system's.
    pub root_certificates: Option<PathBuf>,
    /// The certificate of this server and its private key, if the servers ask for one.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

impl PostgresSettings {
    /// Reads a connection string that names all servers, such as `postgresql://keypool@a,b,c/keypool`, and the name of
    /// the log: the schema is `keypool_<name>`.
    ///
    /// The primary among the servers is found by itself, so `target_session_attrs=read-write` is implied. A connection
    /// is encrypted if `sslmode=require` is given.
    ///
    /// # Errors
    ///
    /// Returns [`PostgresError::Setting`] if the string cannot be used, or the name has other characters than letters,
    /// digits, `-` and `_`, or more than 32.
    pub fn new(servers: &str, name: &str) -> Result<Self, PostgresError> {
        // The reason may hold a piece of the string, and so of a password.
        let config: Config = servers.parse().map_err(|_| {
            refused(
                "the connection string of PostgreSQL cannot be used: it is \
                 postgresql://role:password@host:port,host:port/database?sslmode=require with special characters \
                 percent-encoded, and of the options of libpq it takes few",
            )
        })?;
        if config.get_hosts().is_empty() {
            return Err(refused(
                "no PostgreSQL server is named: give the addresses of primary and standbys, such as \
                 postgresql://keypool@a,b/keypool",
            ));
        }
        if config.get_target_session_attrs() == TargetSessionAttrs::ReadOnly {
            return Err(refused(
                "the log is written on the primary: give `target_session_attrs=read-write`, or leave it out",
            ));
        }
        if !config.get_hostaddrs().is_empty() {
            return Err(refused(
                "give the addresses of PostgreSQL servers as hosts, without `hostaddr`",
            ));
        }
        let ports = config.get_ports().len();
        if 1 < ports && ports != config.get_hosts().len() {
            return Err(refused("give each PostgreSQL server its port, or one port for all"));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if name.is_empty() || NAME_MAX < name.len() || !name.chars().all(allowed) {
            return Err(PostgresError::Setting(format!(
                "{name:?} cannot be the name of a log: use 1 to {NAME_MAX} letters, digits, `-` and `_`"
            )));
        }
        let (name, tls) = (name.to_owned(), PostgresTls::default());
        let (standbys, ledger, password_file, patience) = (1, None, None, PATIENCE);
        Ok(Self { config, name, standbys, ledger, password_file, tls, patience })
    }

    /// Sets how many synchronous standbys `synchronous_standby_names` must ask for at least; 1 otherwise.
    ///
    /// 0 is for development only: **not durable**, as one lost disk loses acknowledged events.
    #[must_use]
    pub const fn with_standbys(mut self, standbys: usize) -> Self {
        self.standbys = standbys;
        self
    }

    /// Sets the public key of the ledger that the log is of. The database notes it, and one with another key is
    /// refused: servers that sign with two keys are not of one cluster.
    #[must_use]
    pub fn with_ledger(mut self, key: String) -> Self {
        self.ledger = Some(key);
        self
    }

    /// Sets the file that holds the role's password, instead of the connection string. Its first line is the password.
    /// It is read for each connection.
    #[must_use]
    pub fn with_password_file(mut self, path: PathBuf) -> Self {
        self.password_file = Some(path);
        self
    }

    /// Sets the certificates.
    #[must_use]
    pub fn with_tls(mut self, tls: PostgresTls) -> Self {
        self.tls = tls;
        self
    }

    /// Sets how long a connect goes on trying while no primary answers; 30 seconds otherwise.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Checks the number of standbys.
    pub(crate) fn check(&self) -> Result<(), PostgresError> {
        if STANDBYS_MAX < self.standbys {
            let why =
                format!("demand 1 to {STANDBYS_MAX} synchronous standbys, or 0 for development");
            return Err(PostgresError::Setting(why));
        }
        Ok(())
    }

    /// The name of the schema.
    pub(crate) fn schema(&self) -> String {
        format!("keypool_{}", self.name)
    }

    /// Whether a connection without TLS is refused.
    pub(crate) fn requires_tls(&self) -> bool {
        self.tls.is_required
            || self.tls.root_certificates.is_some()
            || self.config.get_ssl_mode() == SslMode::Require
    }

    /// The address of each server, and the settings of a connection to that one alone.
    pub(crate) fn servers(&self) -> Result<Vec<(String, Config)>, PostgresError> {
        let mut shared = self.config_of_all();
        if let Some(path) = &self.password_file {
            let text = fs::read_to_string(path)
                .map_err(|source| PostgresError::File { path: path.clone(), source })?;
            shared.password(text.lines().next().unwrap_or_default());
        }
        let server = |(host, port): (&Host, u16)| {
            let mut config = shared.clone();
            config.port(port);
            match host {
                Host::Tcp(host) => config.host(host.as_str()),
                #[cfg(unix)]
                Host::Unix(path) => config.host_path(path),
            };
            (address(host, port), config)
        };
        Ok(self.places().map(server).collect())
    }

    /// The addresses.
    pub(crate) fn hosts(&self) -> String {
        self.places().map(|(host, port)| address(host, port)).collect::<Vec<_>>().join(", ")
    }

    /// How many servers should have the log: those that are named, or as many as must have each record.
    pub(crate) fn n_servers(&self) -> usize {
        self.config.get_hosts().len().max(self.standbys.saturating_add(1))
    }

    fn places(&self) -> impl Iterator<Item = (&Host, u16)> {
        let ports = self.config.get_ports();
        let port = |index| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        self.config.get_hosts().iter().enumerate().map(move |(index, host)| (host, port(index)))
    }

    /// The settings of a connection, without a server.
    fn config_of_all(&self) -> Config {
        let given = &self.config;
        let mut config = Config::new();
        given.get_user().map(|user| config.user(user));
        given.get_password().map(|password| config.password(password));
        given.get_dbname().map(|dbname| config.dbname(dbname));
        given.get_options().map(|options| config.options(options));
        let mode = if self.requires_tls() { SslMode::Require } else { SslMode::Disable };
        config
            .application_name(given.get_application_name().unwrap_or("keypool-server"))
            .ssl_mode(mode)
            .ssl_negotiation(given.get_ssl_negotiation())
            .channel_binding(given.get_channel_binding())
            .connect_timeout(given.get_connect_timeout().copied().unwrap_or(CONNECT_WAIT))
            .tcp_user_timeout(SILENCE_MAX)
            .keepalives(true)
            .keepalives_idle(SILENCE_MAX / 2)
            .keepalives_interval(SILENCE_MAX / 6)
            .keepalives_retries(3);
        config
    }
}

fn refused(why: &str) -> PostgresError {
    PostgresError::Setting(why.to_owned())
}

fn address(host: &Host, port: u16) -> String {
    match host {
        Host::Tcp(host) => format!("{host}:{port}"),
        #[cfg(unix)]
        Host::Unix(path) => format!("{}:{port}", path.display()),
    }
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings")
            .field("servers", &self.hosts())
            .field("user", &self.config.get_user())
            .field("database", &self.config.get_dbname())
            .field("name", &self.name)
            .field("standbys", &self.standbys)
            .field("ledger", &self.ledger)
            .field("password_file", &self.password_file)
            .field("tls", &self.tls)
            .field("patience", &self.patience)
            .finish()
    }
}
