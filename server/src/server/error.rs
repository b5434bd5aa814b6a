//! Why a server does not start.

use std::{error::Error, io, net::SocketAddr, path::PathBuf};

use keypool_ledger::{OpenError, StreamJoinError};

use crate::{
    connections::TooFewDescriptors, pools::ReplayError, settings::SettingsError,
    transparency::LedgerError,
};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The address cannot be listened at.
    #[error("cannot listen at {address} ({})", next_step(source.kind()))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log was begun with names, and is to hide them.
    #[error(
        "--hide-names is set, and the log in {} was begun with names: copy it with `keypool-ledger hide-names`, or \
         leave the setting out",
        .0.display()
    )]
    NamesInLog(PathBuf),
    /// A server of a cluster has no key for the ledger that all of them sign.
    #[error(
        "{} has no checkpoint.key, and all servers of a cluster sign one ledger: make a backup of another server          (`keypool-server backup`) and restore it here; the first server is started once without --cluster",
        .0.display()
    )]
    NoCopy(PathBuf),
    /// The replicated log cannot be joined.
    #[error(transparent)]
    Cluster(#[from] StreamJoinError),
    /// The log is not one of pools.
    #[error("the log cannot be replayed; restore its directory from a backup")]
    Replay(#[from] ReplayError),
    /// The log is not the one that was published, or the proof of it is missing.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The process may open too few files.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// The machine did not give the threads that a server needs.
    #[error("the server's threads could not be started")]
    Threads(#[source] io::Error),
    /// The client of the webhook could not be made.
    #[error("the client of --webhook cannot be made (has this machine CA certificates?)")]
    Webhook(#[source] Box<dyn Error + Send + Sync>),
    /// The counters could not be set up, or the server's thread has panicked: a bug.
    #[error("the server could not be set up: {0}")]
    Setup(String),
}

/// The next step where an address cannot be listened at.
const fn next_step(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "this process may not use that port: take one from 1024 on, or give it CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address",
        _ => "is another server running there?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_listened_at_is_told_with_its_reason() {
        let told = |kind| {
            let address = SocketAddr::from(([127, 0, 0, 1], 80));
            StartError::Listen { address, source: io::Error::from(kind) }.to_string()
        };
        assert!(told(io::ErrorKind::PermissionDenied).contains("CAP_NET_BIND_SERVICE"));
        assert!(told(io::ErrorKind::AddrInUse).contains("is another server running there?"));
        assert!(told(io::ErrorKind::AddrNotAvailable).contains("does not have that address"));
    }
}
