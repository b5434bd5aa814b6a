//! Folders that hold private keys: made for their owner alone, and told when they are wider.

#[cfg(unix)]
use std::fs::File;
use std::{
    fs::{self, DirBuilder},
    io,
    path::Path,
};

use crate::StorageError;

/// Makes a folder that only its owner may enter; warns if it is there and wider.
pub(super) fn create_private(path: &Path) -> Result<(), StorageError> {
    let unusable = |source| StorageError::Folder { path: path.to_path_buf(), source };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => warn_if_wide(path, &found),
        Ok(_) => return Err(unusable(io::ErrorKind::NotADirectory.into())),
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            private_builder().create(path).map_err(unusable)?;
        }
        Err(err) => return Err(unusable(err)),
    }
    Ok(())
}

/// Makes the entries of a folder survive a crash of the machine.
#[cfg(unix)]
pub(super) fn sync(path: &Path) -> Result<(), StorageError> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| StorageError::Folder { path: path.to_path_buf(), source })
}

/// Does nothing: on other systems a folder is no file that could be synchronized.
#[cfg(not(unix))]
pub(super) fn sync(_path: &Path) -> Result<(), StorageError> {
    Ok(())
}

/// Removes a folder with all that is in it, durably, if it is there.
#[cfg(feature = "sqlite-store")]
pub(super) fn remove_all(path: &Path) -> Result<(), StorageError> {
    match fs::remove_dir_all(path) {
        Ok(()) => sync(path.parent().unwrap_or(path)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(StorageError::Folder { path: path.to_path_buf(), source }),
    }
}

#[cfg(unix)]
fn private_builder() -> DirBuilder {
    use std::os::unix::fs::DirBuilderExt;

    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder
}

#[cfg(unix)]
fn warn_if_wide(path: &Path, found: &fs::Metadata) {
    use std::os::unix::fs::PermissionsExt;

    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            mode = format!("{mode:o}"),
            "others may enter the folder of the private keys; chmod 700 it"
        );
    }
}

#[cfg(not(unix))]
fn private_builder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    builder
}

#[cfg(not(unix))]
fn warn_if_wide(_path: &Path, _found: &fs::Metadata) {}
