//! The faults of settings.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{admission::X509RootsError, registration::RegistrationError, tls::TlsError};

/// Settings that make no sense, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("the settings in {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds something that is no setting.
    #[error("{}, line {line}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The fault.
        message: String,
    },
    /// A number is zero that must not be.
    #[error("{0} must be greater than zero")]
    Zero(&'static str),
    /// Payloads would leave the log while limits are still counted from them.
    #[error(
        "--retain {} is too short: payloads stay for 24h at least",
        humantime::format_duration(*.0)
    )]
    RetainTooShort(Duration),
    /// Backups would lie in the directory that they are copies of.
    #[error(
        "--backups {} lies in the data directory {}: choose a directory outside, best on another disk",
        .0.display(), .1.display()
    )]
    BackupsInData(PathBuf, PathBuf),
    /// There is no directory for backups.
    #[error("there is no directory {} for --backups: make it, or mount its disk", .0.display())]
    NoBackups(PathBuf),
    /// Refusals would be kept for longer than they may.
    #[error("--refusals-days {0} is too many: refusals are kept for 7 days at most, or 0 for none")]
    RefusalsDays(u16),
    /// The bodies that are held at a time may not be as large as one that is taken.
    #[error(
        "--bodies-bytes-max {bodies} has no room for a body of --body-bytes-max {body}, which may take a \
         quarter of it: set --bodies-bytes-max to {least} at least, or --body-bytes-max lower"
    )]
    BodiesTooFew {
        /// The largest body.
        body: usize,
        /// All bodies together.
        bodies: usize,
        /// The least that all bodies together must be.
        least: usize,
    },
    /// A policy lacks a setting that it needs.
    #[error("{0} is missing; --registration {1} needs it")]
    Missing(&'static str, &'static str),
    /// Something is set that has no effect.
    #[error("{0} has no effect without --registration {1}")]
    Idle(&'static str, &'static str),
    /// A certificate is set without its key, or a key without its certificate.
    #[error("{0} is missing; {1} needs it")]
    TlsHalf(&'static str, &'static str),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file that says who may register cannot be used.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// The file of roots for X.509 credentials cannot be used.
    #[error(transparent)]
    X509Roots(#[from] X509RootsError),
    /// Others than this machine could read the records of the log.
    #[error(
        "others than this machine reach {0}, where whole records are read: say --admin-token-file FILE \
         with a token that is asked for, or let --admin-listen be a loopback address"
    )]
    AdminInPublic(SocketAddr),
    /// The file of the operator's token holds none.
    #[error(
        "{} holds no token: one line of 16 characters at least, without spaces, as `openssl rand -hex 32` \
         makes one", .0.display()
    )]
    AdminToken(PathBuf),
    /// Requests would not be signed, and others than this machine could send them.
    #[error("--insecure-no-auth works on loopback only, and {0} is not: others could reach it")]
    InsecureInPublic(SocketAddr),
}
