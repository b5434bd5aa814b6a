//! The settings of a connection: addresses, the stream's name, credentials, certificates.

use std::{fmt, path::PathBuf, time::Duration};

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;

use crate::NatsError;

/// How many characters the name of a log may have.
const NAME_MAX: usize = 32;
/// How long a connect goes on trying.
const PATIENCE: Duration = Duration::from_secs(30);

/// The settings of a [`NatsReplication`](crate::NatsReplication).
///
/// They are shown without passwords.
#[derive(Clone)]
pub struct NatsSettings {
    pub(crate) servers: Vec<ServerAddr>,
    /// The user and the password of the addresses, which have none any more: the client shows them.
    pub(crate) user: Option<User>,
    pub(crate) name: String,
    pub(crate) replicas: usize,
    pub(crate) ledger: Option<String>,
    pub(crate) credentials: NatsCredentials,
    pub(crate) tls: NatsTls,
    pub(crate) patience: Duration,
}

/// The credentials with which a server signs in to NATS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NatsCredentials {
    /// Those of the addresses (`nats://user:password@host`), or none.
    #[default]
    OfAddress,
    /// The file of an nkey seed (`SU…`).
    NkeySeed(PathBuf),
    /// A credentials file: a JWT and its nkey seed, as `nsc` writes it.
    CredentialsFile(PathBuf),
}

/// The certificates of the connection, all PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatsTls {
    /// Whether a connection without TLS is refused. One address with `tls://` says the same of all.
    pub is_required: bool,
    /// The certificates of the authorities that NATS servers are verified with, instead of the system's.
    pub root_certificates: Option<PathBuf>,
    /// The certificate of this server and its private key, if the NATS servers ask for one.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

impl NatsSettings {
    /// Reads the addresses of NATS servers, separated by commas, and the name of the log: the stream is
    /// `KP-<name>`.
    ///
    /// # Errors
    ///
    /// Returns [`NatsError::Setting`] if an address cannot be used, addresses name different users, or the name
    /// has other characters than letters, digits, `-` and `_`, or more than 32.
    pub fn new(servers: &str, name: &str) -> Result<Self, NatsError> {
        let listed = servers.split(',').map(str::trim).filter(|address| !address.is_empty());
        let (mut user, mut servers) = (None, Vec::new());
        for (server, found) in listed.map(address).collect::<Result<Vec<_>, _>>()? {
            if let (Some(user), Some(found)) = (&user, &found)
                && user != found
            {
                let why = "the NATS addresses name different users: name one, and grant it the same on all servers";
                return Err(NatsError::Setting(why.to_owned()));
            }
            user = user.or(found);
            servers.push(server);
        }
        if servers.is_empty() {
            let why = "no NATS server is named: give the addresses of all of them, such as \
                       nats://a:4222,nats://b:4222,nats://c:4222";
            return Err(NatsError::Setting(why.to_owned()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if name.is_empty() || NAME_MAX < name.len() || !name.chars().all(allowed) {
            let why = format!(
                "{name:?} cannot be the name of a log: use 1 to {NAME_MAX} letters, digits, `-` and `_`"
            );
            return Err(NatsError::Setting(why));
        }
        let (credentials, tls) = (NatsCredentials::default(), NatsTls::default());
        let name = name.to_owned();
        let (replicas, ledger, patience) = (3, None, PATIENCE);
        Ok(Self { servers, user, name, replicas, ledger, credentials, tls, patience })
    }

    /// Sets how many NATS servers keep a copy of the stream: 3 or 5.
    ///
    /// 1 is for development only: **not durable**, as one lost disk loses acknowledged events, and slower than a
    /// server without NATS.
    #[must_use]
    pub const fn with_replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Sets the public key of the ledger that the log is of. A new stream notes it, and a stream with another one is
    /// refused: servers that sign with two keys are not of one cluster.
    #[must_use]
    pub fn with_ledger(mut self, key: String) -> Self {
        self.ledger = Some(key);
        self
    }

    /// Sets the credentials.
    #[must_use]
    pub fn with_credentials(mut self, credentials: NatsCredentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Sets the certificates.
    #[must_use]
    pub fn with_tls(mut self, tls: NatsTls) -> Self {
        self.tls = tls;
        self
    }

    /// Sets how long a connect goes on trying while no server answers; 30 seconds otherwise.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The name of the stream.
    pub(crate) fn stream(&self) -> String {
        format!("KP-{}", self.name)
    }

    /// The subject of its messages.
    pub(crate) fn subject(&self) -> String {
        format!("kp.{}.log", self.name)
    }

    /// Whether a connection without TLS is refused.
    pub(crate) fn requires_tls(&self) -> bool {
        self.tls.is_required || self.servers.iter().any(ServerAddr::tls_required)
    }

    /// The addresses.
    pub(crate) fn hosts(&self) -> String {
        let host = |server: &ServerAddr| format!("{}:{}", server.host(), server.port());
        self.servers.iter().map(host).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Debug for NatsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsSettings")
            .field("servers", &self.hosts())
            .field("user", &self.user.as_ref().map(|(user, _)| user))
            .field("name", &self.name)
            .field("replicas", &self.replicas)
            .field("ledger", &self.ledger)
            .field("credentials", &self.credentials)
            .field("tls", &self.tls)
            .field("patience", &self.patience)
            .finish()
    }
}

/// A user and a password.
type User = (String, String);

/// Reads one address, and takes the user and the password out of it. An error does not repeat them.
fn address(text: &str) -> Result<(ServerAddr, Option<User>), NatsError> {
    let refused = |why: &str| {
        NatsError::Setting(format!(
            "one of the NATS addresses cannot be used: {why}; an address is nats://host:port or tls://host:port"
        ))
    };
    let parsed = text.parse().map_err(|_| refused("it is no URL of NATS"));
    let mut url = parsed.map(ServerAddr::into_inner)?;
    if !["nats", "tls"].contains(&url.scheme()) {
        return Err(refused("it begins with another scheme"));
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let user = match (url.username(), url.password()) {
        ("", _) => None,
        (user, password) => Some((decoded(user), decoded(password.unwrap_or_default()))),
    };
    url.set_password(None)
        .and_then(|()| url.set_username(""))
        .map_err(|()| refused("it names no host"))?;
    let address = ServerAddr::from_url(url).map_err(|_| refused("it is no URL of NATS"))?;
    Ok((address, user))
}
