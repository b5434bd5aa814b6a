//! Why a log could not be opened.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{StreamId, log::BoxError};

/// Why a log could not be opened. Each case calls for another reaction.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the log open. Stop it, or use another directory.
    #[error(
        "{} is in use{}; stop that process or choose another directory",
        dir.display(),
        holder.map(|pid| format!(" by process {pid}")).unwrap_or_default()
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The process that holds it, as far as it has said so.
        holder: Option<u32>,
    },
    /// The stored bytes differ from those that were written. Put the segment back from a backup.
    #[error(
        "{} is damaged at byte {offset}: {what}; nothing was changed, restore it from a backup \
         (keypool-ledger repair, or keypool-ledger restore for the newest segment)",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The offset in the file at which the damage was noticed, in bytes.
        offset: u64,
        /// The fault.
        what: String,
    },
    /// Events that were acknowledged are not there. Restore the directory from a newer backup.
    #[error(
        "the ledger ends at record {found}, but record {expected} was acknowledged; \
         nothing was changed, restore a newer copy of its directory"
    )]
    LedgerTruncated {
        /// The sequence number of the last record that is known to have been acknowledged.
        expected: u64,
        /// The sequence number of the last record that is there.
        found: u64,
    },
    /// Two records of one history have the same version, so nobody can say which of the two is right.
    #[error(
        "history {stream} contradicts itself: record {seq} of the ledger is a second one with version \
         {version}; nothing was changed. Restore a copy of the directory from before that record, or \
         keep this one with the version of keypool that wrote it until there is one"
    )]
    Contradiction {
        /// Whose history.
        stream: StreamId,
        /// The version that two records have.
        version: u64,
        /// The sequence number of the second.
        seq: u64,
    },
    /// A newer version of keypool wrote to the log. Use that version; nothing is damaged.
    #[error(
        "{} was written by a newer version of keypool: {what}; nothing is damaged and nothing was \
         changed, start that version again",
        file.display()
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// The part that this version does not read.
        what: String,
    },
    /// The disk has no room. Nothing is damaged: free some of it and start again.
    #[error(
        "the disk of {} is full: {} KiB are free; nothing was changed, free some space on it and \
         start again",
        dir.display(),
        free / 1024
    )]
    DiskFull {
        /// The directory of the log.
        dir: PathBuf,
        /// How many bytes are free.
        free: u64,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The operating system refused. Look at the disk, the permissions and the limits.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The engine that serves the reads does not work, although the journal is whole.
    #[error("the engine beneath the ledger cannot be used")]
    Engine(#[source] BoxError),
}

impl OpenError {
    /// Whether the records of the journal are the cause: trying again does not help then.
    pub(super) fn is_of_the_journal(&self) -> bool {
        match self {
            Self::Damaged { .. }
            | Self::LedgerTruncated { .. }
            | Self::Contradiction { .. }
            | Self::Newer { .. } => true,
            Self::Locked { .. } | Self::DiskFull { .. } | Self::Io { .. } | Self::Engine(_) => {
                false
            }
        }
    }

    /// Wraps an error of the operating system about a path.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Io { path, source }
    }

    pub(super) fn damaged(file: &Path, offset: usize, what: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), offset: offset as u64, what: what.into() }
    }
}
