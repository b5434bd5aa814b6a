//! Why a source cannot be read.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

use keypool_ledger::OpenError;

/// Why a source cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The path holds no log.
    #[error(
        "{} is no export, no journal and no data directory of keypool; name one of these",
        .0.display()
    )]
    Unknown(PathBuf),
    /// A process has the directory open.
    #[error(
        "{} is in use{}; copy the directory and read the copy, or stop that process",
        dir.display(),
        holder.map(|pid| format!(" by process {pid}")).unwrap_or_default()
    )]
    Live {
        /// The directory.
        dir: PathBuf,
        /// The process, as far as it has said so.
        holder: Option<u32>,
    },
    /// The stored bytes differ from those that were written.
    #[error("{} is damaged at byte {offset}: {what}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The place of the damage in the file, in bytes from its beginning.
        offset: u64,
        /// The damage.
        what: String,
    },
    /// Events that were acknowledged are not there.
    #[error("the journal ends at record {found}, but record {expected} was acknowledged")]
    Truncated {
        /// The position of the last record that is known to have been acknowledged.
        expected: u64,
        /// The position of the last record that is there.
        found: u64,
    },
    /// A server does not answer, or not as a server of keypool does.
    #[error("{address} cannot be read: {what}")]
    Server {
        /// The server.
        address: String,
        /// The answer that it gives instead.
        what: String,
        /// Why, if that is known.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The operating system refused.
    #[error("{} cannot be read", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
}

impl SourceError {
    /// Wraps an error of the operating system about a path.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Io { path, source }
    }
}

impl From<OpenError> for SourceError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Locked { dir, holder } => Self::Live { dir, holder },
            OpenError::Damaged { file, offset, what } => Self::Damaged { file, offset, what },
            OpenError::LedgerTruncated { expected, found } => Self::Truncated { expected, found },
            OpenError::Io { path, source } => Self::Io { path, source },
            error @ (OpenError::Contradiction { .. }
            | OpenError::Newer { .. }
            | OpenError::DiskFull { .. }) => {
                Self::Io { path: PathBuf::new(), source: io::Error::other(error) }
            }
            OpenError::Engine(cause) => {
                Self::Io { path: PathBuf::new(), source: io::Error::other(cause) }
            }
        }
    }
}
