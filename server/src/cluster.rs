//! A server of a cluster: its log is replicated, and other servers write to it too.

use std::sync::Arc;

use keypool_api::Code;
use keypool_ledger::{EventLog, MemoryIndex, ReplicaHealth, ReplicatedLog, SledLog};

use crate::problem::Failure;

/// The log as a server writes it: its own, or one that is replicated.
pub(crate) trait ServerLog: EventLog + MemoryIndex {
    /// The journal and index on this server's disk.
    fn local(&self) -> &SledLog;
}

impl ServerLog for SledLog {
    fn local(&self) -> &SledLog {
        self
    }
}

impl ServerLog for ReplicatedLog {
    fn local(&self) -> &SledLog {
        Self::local(self)
    }
}

/// The log of a server, and its replicated form in a cluster.
pub(crate) struct OpenedLog {
    /// The journal and index on this server's disk.
    pub(crate) local: Arc<SledLog>,
    /// Set in a cluster.
    pub(crate) replica: Option<Arc<ReplicatedLog>>,
}

impl OpenedLog {
    /// The log that the pools write to.
    pub(crate) fn written(&self) -> Arc<dyn ServerLog> {
        match &self.replica {
            Some(replica) => Arc::clone(replica) as Arc<dyn ServerLog>,
            None => Arc::clone(&self.local) as Arc<dyn ServerLog>,
        }
    }
}

/// Checks that a server of a cluster follows the others.
///
/// # Errors
///
/// Returns a [`Failure`] with the reason if the stream cannot be followed at the moment, or contradicts this
/// server's journal.
pub(crate) fn check_replica(replica: &ReplicatedLog) -> Result<(), Failure> {
    match replica.health() {
        ReplicaHealth::Following => Ok(()),
        ReplicaHealth::Interrupted { why } => {
            let detail = format!("the replicated log cannot be followed at the moment: {why}");
            Err(Failure::new(Code::LogUnavailable, detail))
        }
        ReplicaHealth::Contradicted { why } => {
            let detail = format!("the replicated log contradicts this server's journal: {why}");
            Err(Failure::new(Code::LogUnavailable, detail))
        }
    }
}
