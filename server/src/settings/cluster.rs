//! Settings of a server of a cluster: the engine that replicates its log, NATS or PostgreSQL.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use keypool_ledger::Replication;
use keypool_nats::{NatsCredentials, NatsError, NatsReplication, NatsSettings, NatsTls};
use keypool_postgres::{PostgresError, PostgresReplication, PostgresSettings, PostgresTls};
use keypool_transparency::NoteSigner;

/// The beginning of a file that has a JWT and its key, as `nsc` writes it.
const CREDENTIALS_FILE: &str = "-----BEGIN NATS USER JWT-----";
/// The beginnings of an address of PostgreSQL.
const POSTGRES_SCHEMES: [&str; 2] = ["postgresql://", "postgres://"];

/// The settings of a cluster, as an operator writes them. Without the first, a server runs alone.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterOptions {
    /// The servers that keep the log of a cluster: NATS, such as `nats://a:4222,nats://b:4222,nats://c:4222` (`tls://`
    /// for TLS), or PostgreSQL, such as `postgresql://keypool@a,b,c/keypool?sslmode=require` [default: none, the server
    /// runs alone]
    #[arg(long, env = "KEYPOOL_CLUSTER", value_name = "URLS")]
    pub cluster: Option<String>,
    /// The name of the cluster: its stream is KP-NAME, its schema in PostgreSQL keypool_NAME [default: keypool]
    #[arg(long, env = "KEYPOOL_CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// The file with which this server signs in: to NATS with the seed of an nkey, or a JWT and its seed as nsc writes
    /// them; to PostgreSQL with a password
    #[arg(long, env = "KEYPOOL_CLUSTER_CREDENTIALS", value_name = "FILE")]
    pub cluster_credentials: Option<PathBuf>,
    /// The certificates of the authorities by which those servers are known, in PEM [default: those of the system]
    #[arg(long, env = "KEYPOOL_CLUSTER_CA", value_name = "FILE")]
    pub cluster_ca: Option<PathBuf>,
    /// On how many NATS servers each record is kept, or on how many PostgreSQL servers before it counts. 1 is for trying
    /// it out: one lost disk loses records [default: 3 for NATS, 2 for PostgreSQL]
    #[arg(long, env = "KEYPOOL_CLUSTER_REPLICAS", value_name = "COUNT")]
    pub cluster_replicas: Option<usize>,
}

/// The reason why a server cannot use the engine of its cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// NATS cannot be used.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// PostgreSQL cannot be used.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

impl ClusterOptions {
    /// Connects to the cluster's log, and makes it if it is not there; `None` for a server that runs alone. A log of
    /// another ledger than that of the data directory is refused.
    ///
    /// # Errors
    ///
    /// Returns a [`ClusterError`] if a setting is wrong, no server of the engine answers, or its log is not fit.
    pub fn connect(&self, data: &Path) -> Result<Option<Arc<dyn Replication>>, ClusterError> {
        let Some(servers) = &self.cluster else { return Ok(None) };
        let name = self.cluster_name.as_deref().unwrap_or("keypool");
        // A directory without a key is told of when it is opened.
        let key = fs::read_to_string(data.join("checkpoint.key")).unwrap_or_default();
        let signer = NoteSigner::from_secret_text(key.trim()).ok();
        let ledger = signer.map(|signer| signer.public().to_string());
        let is_postgres = POSTGRES_SCHEMES.iter().any(|scheme| servers.starts_with(scheme));
        let waits = "connecting to the servers of the cluster, which may take half a minute";
        let log: Arc<dyn Replication> = if is_postgres {
            let settings = self.postgres(PostgresSettings::new(servers, name)?, ledger);
            tracing::info!("{waits}");
            Arc::new(PostgresReplication::connect(&settings)?)
        } else {
            let settings = self.nats(NatsSettings::new(servers, name)?, ledger);
            tracing::info!("{waits}");
            Arc::new(NatsReplication::connect(&settings)?)
        };
        Ok(Some(log))
    }

    fn nats(&self, mut settings: NatsSettings, ledger: Option<String>) -> NatsSettings {
        if let Some(key) = ledger {
            settings = settings.with_ledger(key);
        }
        if let Some(file) = &self.cluster_credentials {
            // A file that cannot be read is told of by the adapter.
            let text = fs::read_to_string(file).unwrap_or_default();
            settings = settings.with_credentials(if text.contains(CREDENTIALS_FILE) {
                NatsCredentials::CredentialsFile(file.clone())
            } else {
                NatsCredentials::NkeySeed(file.clone())
            });
        }
        if let Some(roots) = &self.cluster_ca {
            let root_certificates = Some(roots.clone());
            settings = settings.with_tls(NatsTls { root_certificates, ..NatsTls::default() });
        }
        match self.cluster_replicas {
            Some(replicas) => settings.with_replicas(replicas),
            None => settings,
        }
    }

    fn postgres(&self, mut settings: PostgresSettings, ledger: Option<String>) -> PostgresSettings {
        if let Some(key) = ledger {
            settings = settings.with_ledger(key);
        }
        if let Some(file) = &self.cluster_credentials {
            settings = settings.with_password_file(file.clone());
        }
        if let Some(roots) = &self.cluster_ca {
            let root_certificates = Some(roots.clone());
            settings =
                settings.with_tls(PostgresTls { root_certificates, ..PostgresTls::default() });
        }
        match self.cluster_replicas {
            // One of them is the primary.
            Some(replicas) => settings.with_standbys(replicas.saturating_sub(1)),
            None => settings,
        }
    }
}
