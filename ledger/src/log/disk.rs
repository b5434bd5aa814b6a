//! The disk beneath a log: how much room it has, and a reserve for the day when it has none.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use super::directory::OpenError;

/// How many bytes a directory must take for its disk not to count as full.
const PROBE_BYTES: usize = 2 << 20;
/// The file of the probe. It is removed again.
const PROBE: &str = "probe.new";

/// Room on the disk that a log lives on, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// What may still be written.
    pub free: u64,
    /// What the disk holds when it is empty.
    pub total: u64,
}

/// Asks how much room the disk of a directory has.
pub(super) fn space(dir: &Path) -> io::Result<DiskSpace> {
    let found = rustix::fs::statvfs(dir)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(DiskSpace { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
}

/// Makes sure that a directory can be written to, by writing there.
///
/// sled tells damaged files and a full disk with the same errors and panics; this tells them apart.
///
/// # Errors
///
/// Returns [`OpenError::DiskFull`] or [`OpenError::Io`].
pub(super) fn probe(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join(PROBE);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&vec![1; PROBE_BYTES])?;
        file.sync_data()
    });
    let removed = fs::remove_file(&path);
    let written = written.and(removed).map_err(OpenError::io(&path));
    written.map_err(|error| told(dir, error))
}

/// Turns the error of an open into [`OpenError::DiskFull`] where a full disk is its cause.
pub(super) fn told(dir: &Path, error: OpenError) -> OpenError {
    match error {
        OpenError::Io { source, .. } if is_full(&source) => {
            let free = space(dir).unwrap_or_default().free;
            OpenError::DiskFull { dir: dir.to_owned(), free, source }
        }
        OpenError::Engine(error) => match probe(dir) {
            Err(full) => full,
            Ok(()) => OpenError::Engine(error),
        },
        other => other,
    }
}

/// Whether an error says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
