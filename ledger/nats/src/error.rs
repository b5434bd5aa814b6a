//! The reasons why a stream cannot be used at a server's start.

use std::{io, path::PathBuf};

use keypool_ledger::log::BoxError;

/// The reason why [`NatsReplication::connect`](crate::NatsReplication::connect) or
/// [`NatsSettings::new`](crate::NatsSettings::new) failed.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// A setting is not one that can be used.
    #[error("{0}")]
    Setting(String),
    /// A file with credentials or certificates cannot be used.
    #[error("the file {} cannot be used", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: io::Error,
    },
    /// The threads of the connection cannot be started.
    #[error("the threads of the NATS connection cannot be started")]
    Threads(#[source] io::Error),
    /// The NATS servers refuse the credentials.
    #[error(
        "the NATS servers at {servers} refuse this server: check the user, nkey or credentials file"
    )]
    Refused {
        /// The addresses, without passwords.
        servers: String,
        /// The answer.
        #[source]
        source: BoxError,
    },
    /// No NATS server answers, or too few for the stream. It may pass.
    #[error(
        "the NATS servers at {servers} do not serve the stream: check that a majority of them runs, can be \
         reached, and has JetStream enabled"
    )]
    Unreachable {
        /// The addresses, without passwords.
        servers: String,
        /// The last fault.
        #[source]
        source: BoxError,
    },
    /// The servers or the stream do not keep the promises of a log. The text says which, and the next step.
    #[error("{0}")]
    Unfit(String),
}
