//! The directory that a log lives in: who may read it, who holds it, and why it may not open.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::disk;
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
    /// The stored bytes are not what was written. Restore the directory from a backup.
    #[error(
        "{} is damaged at byte {offset}: {what}; nothing was changed, restore it from a backup",
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

/// A directory that nobody else opens while this value lives.
#[derive(Debug)]
pub(super) struct LockedDirectory {
    /// Closing the file gives up the lock, also when the process is killed.
    lock: File,
}

impl Drop for LockedDirectory {
    /// Gives up the lock at once, although a child that is just being started may hold a copy of
    /// the open file.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the ledger's directory could not be unlocked");
        }
    }
}

impl LockedDirectory {
    /// Makes the directory if it is not there, and takes its lock.
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        create_private(dir)?;
        let path = dir.join("lock");
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(OpenError::io(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::Locked { dir: dir.to_owned(), holder: holder(&mut lock) });
            }
            Err(TryLockError::Error(source)) => return Err(OpenError::Io { path, source }),
        }
        // The number only serves the message above: a lock without it locks as well.
        let said = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        match said {
            Err(error) if !disk::is_full(&error) => Err(OpenError::io(&path)(error)),
            _ => Ok(Self { lock }),
        }
    }
}

/// A directory that is being read, and that nobody opens as a log meanwhile.
#[derive(Debug)]
pub struct ReadLock {
    /// Closing the file gives up the lock; none where the directory has no lock file.
    _lock: Option<File>,
}

impl ReadLock {
    /// Makes sure that no process has the log in a directory open, without writing anything.
    ///
    /// # Errors
    ///
    /// Returns [`OpenError::Locked`] if one has, and [`OpenError::Io`] if that cannot be found out.
    pub fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("lock");
        let mut lock = match File::open(&path) {
            Ok(lock) => lock,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Self { _lock: None }),
            Err(err) => return Err(OpenError::io(&path)(err)),
        };
        match lock.try_lock_shared() {
            Ok(()) => Ok(Self { _lock: Some(lock) }),
            Err(TryLockError::WouldBlock) => {
                Err(OpenError::Locked { dir: dir.to_owned(), holder: holder(&mut lock) })
            }
            Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
        }
    }
}

/// The process that holds the lock, as it has written into the file.
fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Makes a directory that only its owner may enter, and warns about one that others may.
pub(super) fn create_private(dir: &Path) -> Result<(), OpenError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(dir).map_err(OpenError::io(dir))?;
    let mode = fs::metadata(dir).map_err(OpenError::io(dir))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let (dir, mode) = (dir.display(), format!("{mode:o}"));
        tracing::warn!(%dir, mode, "other users may enter the ledger's directory; chmod it to 700");
    }
    Ok(())
}

/// Makes the names in a directory survive a crash of the machine.
pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
