//! Settings of a server of a cluster: the NATS servers that keep its log.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use keypool_ledger::Replication;
use keypool_nats::{NatsCredentials, NatsError, NatsReplication, NatsSettings, NatsTls};
use keypool_transparency::NoteSigner;

/// The beginning of a file that has a JWT and its key, as `nsc` writes it.
const CREDENTIALS_FILE: &str = "-----BEGIN NATS USER JWT-----";

/// The settings of a cluster, as an operator writes them. Without the first, a server runs alone.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterOptions {
    /// The NATS servers that keep the log of a cluster, separated by commas, such as
    /// `nats://a:4222,nats://b:4222,nats://c:4222`; `tls://` for TLS [default: none, the server runs alone]
    #[arg(long, env = "KEYPOOL_CLUSTER", value_name = "URLS")]
    pub cluster: Option<String>,
    /// The name of the cluster: its stream is KP-NAME [default: keypool]
    #[arg(long, env = "KEYPOOL_CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: Option<String>,
    /// The file with which this server signs in to NATS: the seed of an nkey, or a JWT and its seed as nsc writes them
    #[arg(long, env = "KEYPOOL_CLUSTER_CREDENTIALS", value_name = "FILE")]
    pub cluster_credentials: Option<PathBuf>,
    /// The certificates of the authorities by which NATS servers are known, in PEM [default: those of the system]
    #[arg(long, env = "KEYPOOL_CLUSTER_CA", value_name = "FILE")]
    pub cluster_ca: Option<PathBuf>,
    /// On how many NATS servers each record is kept. 1 is for trying it out: one lost disk loses records [default: 3]
    #[arg(long, env = "KEYPOOL_CLUSTER_REPLICAS", value_name = "COUNT")]
    pub cluster_replicas: Option<usize>,
}

impl ClusterOptions {
    /// Connects to the cluster's stream, and makes it if it is not there; `None` for a server that runs alone. A
    /// stream of another ledger than that of the data directory is refused.
    ///
    /// # Errors
    ///
    /// Returns a [`NatsError`] if a setting is wrong, no NATS server answers, or the stream is not fit for a log.
    pub fn connect(&self, data: &Path) -> Result<Option<Arc<dyn Replication>>, NatsError> {
        let Some(servers) = &self.cluster else { return Ok(None) };
        let name = self.cluster_name.as_deref().unwrap_or("keypool");
        let mut settings = NatsSettings::new(servers, name)?;
        // A directory without a key is told of when it is opened.
        let key = fs::read_to_string(data.join("checkpoint.key")).unwrap_or_default();
        if let Ok(signer) = NoteSigner::from_secret_text(key.trim()) {
            settings = settings.with_ledger(signer.public().to_string());
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
        if let Some(replicas) = self.cluster_replicas {
            settings = settings.with_replicas(replicas);
        }
        Ok(Some(Arc::new(NatsReplication::connect(&settings)?)))
    }
}
