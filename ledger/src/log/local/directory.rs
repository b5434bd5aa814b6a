//! The directory that a log lives in: who may read it, who holds it, and why it may not open.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
};

use super::disk;
pub use super::open_error::OpenError;

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
            Ok(()) if is_file_at(&lock, &path) => {}
            Ok(()) => return Err(OpenError::Locked { dir: dir.to_owned(), holder: None }),
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

/// Whether an open file still has its name: another process may have put another file in its place.
fn is_file_at(file: &File, path: &Path) -> bool {
    let (opened, named) = (file.metadata(), fs::metadata(path));
    let same = |opened: fs::Metadata, named: fs::Metadata| {
        (opened.dev(), opened.ino()) == (named.dev(), named.ino())
    };
    opened.and_then(|opened| Ok(same(opened, named?))).unwrap_or(false)
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

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_dropped_lock_is_given_up_although_a_copy_of_its_file_is_open() {
        let dir = TempDir::new().unwrap();
        let locked = LockedDirectory::open(dir.path()).unwrap();
        let copy = locked.lock.try_clone().unwrap();
        assert!(matches!(LockedDirectory::open(dir.path()), Err(OpenError::Locked { .. })));
        drop(locked);
        LockedDirectory::open(dir.path()).unwrap();
        drop(copy);
    }

    #[test]
    fn an_open_file_is_known_by_its_place_in_the_directory() {
        let dir = TempDir::new().unwrap();
        let (path, other) = (dir.path().join("lock"), dir.path().join("other"));
        let file = File::create(&path).unwrap();
        assert!(is_file_at(&file, &path));
        fs::write(&other, []).unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(!is_file_at(&file, &path), "another file has its name");
        fs::remove_file(&path).unwrap();
        assert!(!is_file_at(&file, &path));
    }

    #[test]
    fn a_lock_file_that_takes_no_process_number_is_named() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("lock");
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        let refused = LockedDirectory::open(dir.path()).unwrap_err();
        assert!(matches!(&refused, OpenError::Io { path: named, .. } if *named == path));
    }

    #[test]
    fn a_directory_that_is_gone_cannot_be_forced_to_the_disk() {
        let dir = TempDir::new().unwrap();
        sync_directory(dir.path()).unwrap();
        let error = sync_directory(&dir.path().join("gone")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_read_lock_needs_no_lock_file_and_refuses_a_directory_that_cannot_be_read() {
        let dir = TempDir::new().unwrap();
        ReadLock::take(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is written");
        let file = dir.path().join("file");
        fs::write(&file, []).unwrap();
        assert!(matches!(ReadLock::take(&file), Err(OpenError::Io { .. })));
    }
}
