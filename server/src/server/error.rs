//! Why a server does not start.

use std::{error::Error, io, net::SocketAddr};

use keypool_ledger::OpenError;

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
    /// The address cannot be listened at: it may be in use.
    #[error("cannot listen at {address} (is another server running there?)")]
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
