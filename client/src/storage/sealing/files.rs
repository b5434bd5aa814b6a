//! Files that hold keys: written whole, and overwritten before they are removed.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::cipher::randomize;
use crate::storage::folder;

/// A name with something added to it.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Writes a file that its owner alone may read: beside its place first, then into it.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = with_suffix(path, ".new");
    write_beside(&beside, bytes)?;
    rename(&beside, path)
}

/// Writes a file that its owner alone may read, over the rest of another, durably.
pub(super) fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<()> {
    destroy(path)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Moves a file into the place of another, durably.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    folder::sync(to.parent().unwrap_or(to)).map_err(io::Error::other)
}

/// Overwrites a file, if it is there, and removes it.
pub(super) fn destroy(path: &Path) -> io::Result<()> {
    overwrite(path)?;
    remove(path)
}

/// Removes a file, if it is there, and leaves its bytes as they are.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

/// Overwrites the bytes of a file at random, durably, if it is there.
pub(super) fn overwrite(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).open(path) {
        Ok(mut file) => overwrite_open(&mut file),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(err),
    }
}

fn overwrite_open(file: &mut File) -> io::Result<()> {
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    randomize(&mut bytes).map_err(io::Error::other)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&bytes)?;
    file.sync_data()
}
