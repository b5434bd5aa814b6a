//! The commands about the replicated stream of a cluster: `keypool-server publish` and `keypool-server compare`.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use keypool_ledger::{
    JournalReader, OpenError, PublishError, ReadLock, Replication, StreamComparison,
    compare_journal, publish_journal,
};

use crate::settings::{ClusterError, ClusterOptions};

/// The data directory of a stopped server, and the cluster whose stream it is for.
#[derive(Args, Clone, Debug)]
pub struct ClusterCommand {
    /// The data directory of a server that is stopped, or a copy of one
    #[arg(long, env = "KEYPOOL_DATA", value_name = "DIR", default_value = "./keypool-data")]
    pub data: PathBuf,
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterOptions,
}

/// The reason why a stream was not published or compared.
#[derive(Debug, thiserror::Error)]
pub enum ClusterCommandError {
    /// No cluster is named.
    #[error(
        "--cluster is missing: name its servers, such as nats://a:4222,nats://b:4222,nats://c:4222 or \
         postgresql://keypool@a,b,c/keypool"
    )]
    NoCluster,
    /// The stream cannot be reached or used.
    #[error(transparent)]
    Engine(#[from] ClusterError),
    /// The data directory cannot be read, or a server has it open.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// The stream was not filled, or cannot be compared.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The stream and the directory are not the same.
    #[error("{0}")]
    Differs(String),
}

impl ClusterCommand {
    /// Publishes the journal of the directory into the cluster's stream, and returns a line that says so.
    ///
    /// # Errors
    ///
    /// Returns a [`ClusterCommandError`]; it may be run again.
    pub fn publish(&self) -> Result<String, ClusterCommandError> {
        let (records, stream, _lock) = self.open()?;
        let published = publish_journal(records, &*stream, &|position| {
            tracing::debug!(position, "published");
        })?;
        Ok(format!("the stream has the {published} records of {}\n", self.data.display()))
    }

    /// Compares the cluster's stream with the journal of the directory, and returns a line that says how far they
    /// are the same.
    ///
    /// # Errors
    ///
    /// Returns a [`ClusterCommandError`]: `Differs` if a record is another one, or the stream ends first.
    pub fn compare(&self) -> Result<String, ClusterCommandError> {
        let (records, stream, _lock) = self.open()?;
        let StreamComparison { same, differs, journal, stream } =
            compare_journal(records, &*stream)?;
        let data = self.data.display();
        if let Some(position) = differs {
            let text = format!("record {position} of {data} is not the one that the stream has");
            return Err(ClusterCommandError::Differs(text));
        }
        if stream < journal {
            let text = format!(
                "the stream ends at record {stream}, and {data} has {journal}: the stream has lost records"
            );
            return Err(ClusterCommandError::Differs(text));
        }
        Ok(format!("the stream has the {same} records of {data}, and {} more\n", stream - journal))
    }

    fn open(&self) -> Result<(JournalReader, Arc<dyn Replication>, ReadLock), ClusterCommandError> {
        let stream = self.cluster.connect(&self.data)?.ok_or(ClusterCommandError::NoCluster)?;
        let lock = ReadLock::take(&self.data)?;
        let records = JournalReader::open(&self.data.join("journal"))?;
        Ok((records, stream, lock))
    }
}
