//! The reasons why a database cannot be used at a server's start.

use std::{error::Error, io, path::PathBuf};

use keypool_ledger::log::BoxError;

/// The reason why [`PostgresReplication::connect`](crate::PostgresReplication::connect) or
/// [`PostgresSettings::new`](crate::PostgresSettings::new) failed.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// A setting is not one that can be used.
    #[error("{0}")]
    Setting(String),
    /// A file with a password or certificates cannot be used.
    #[error("the file {} cannot be used", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The fault.
        #[source]
        source: io::Error,
    },
    /// The threads of the connection cannot be started.
    #[error("the threads of the PostgreSQL connection cannot be started")]
    Threads(#[source] io::Error),
    /// A server refuses the role, its password or this host.
    #[error(
        "the PostgreSQL server at {server} refuses this server: check the role, its password or certificate, and \
         pg_hba.conf"
    )]
    Refused {
        /// The address.
        server: String,
        /// The answer.
        #[source]
        source: BoxError,
    },
    /// No primary answers whose synchronous standbys confirm. It may pass.
    #[error(
        "none of the PostgreSQL servers at {servers} is a primary whose synchronous standbys confirm: check that they \
         run and can be reached, and promote a standby if the primary is lost"
    )]
    Unreachable {
        /// The addresses, without passwords.
        servers: String,
        /// The last fault of each server.
        #[source]
        source: BoxError,
    },
    /// A server or its tables do not keep the promises of a log. The text says which, and the next step.
    #[error("{0}")]
    Unfit(String),
}

/// An error and those beneath it, as one line.
pub(crate) fn error_line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}
