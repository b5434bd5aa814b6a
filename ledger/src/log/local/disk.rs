//! The disk beneath a log: how much room it has, and a reserve for the day when it has none.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use rustix::{fs::FallocateFlags, io::Errno};

use super::open_error::OpenError;

/// How many bytes a directory must take for its disk not to count as full.
const PROBE_BYTES: usize = 2 << 20;
/// The file of the probe. It is removed again.
const PROBE: &str = "probe.new";
/// The file of the ballast.
const BALLAST: &str = "ballast";

/// Room on the disk that a log lives on, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes that the disk holds when it is empty.
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
    written.map_err(|error| name_full_disk(dir, error))
}

/// Turns the error of an open into [`OpenError::DiskFull`] where a full disk is its cause.
pub(super) fn name_full_disk(dir: &Path, error: OpenError) -> OpenError {
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

/// Reserves room for a file, without which nothing is written to it; a file system that cannot is asked
/// for nothing.
pub(super) fn reserve(file: &File, len: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        reserved => Ok(reserved?),
    }
}

/// A file that only takes room, which is given up when a full disk would keep the log from opening.
#[derive(Debug)]
pub(super) struct Ballast {
    dir: PathBuf,
    bytes: u64,
}

impl Ballast {
    /// The ballast of a log: so many bytes, 0 for none.
    pub(super) fn of(dir: &Path, bytes: u64) -> Self {
        Self { dir: dir.to_owned(), bytes }
    }

    /// Gives the ballast up if less than `needed` bytes are free.
    pub(super) fn give_up_below(&self, needed: u64) {
        let path = self.dir.join(BALLAST);
        let Ok(DiskSpace { free, .. }) = space(&self.dir) else { return };
        if needed <= free || !path.exists() {
            return;
        }
        let dir = self.dir.display();
        match fs::remove_file(&path) {
            Ok(()) => tracing::warn!(%dir, free, "the disk is full; the ballast was given up"),
            Err(error) => tracing::warn!(%dir, free, %error, "the ballast cannot be given up"),
        }
    }

    /// Makes the ballast if it is missing and the disk has twice the room for it; removes one of another
    /// size.
    pub(super) fn keep(&self) -> io::Result<()> {
        let path = self.dir.join(BALLAST);
        let there = fs::metadata(&path).map_or(0, |found| found.len());
        if there == self.bytes {
            return Ok(());
        }
        if there != 0 {
            fs::remove_file(&path)?;
        }
        if self.bytes == 0 || space(&self.dir)?.free < self.bytes.saturating_mul(2) {
            return Ok(());
        }
        let made = File::create(&path).and_then(|file| fill(&file, self.bytes));
        made.inspect_err(|_| drop(fs::remove_file(&path)))
    }
}

/// Gives a file its length and its room on the disk.
fn fill(file: &File, len: u64) -> io::Result<()> {
    reserve(file, len)?;
    if file.metadata()?.len() < len {
        io::copy(&mut io::repeat(0).take(len), &mut io::BufWriter::new(file))?;
    }
    Ok(())
}

/// Whether an error says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const LEN: u64 = 64 << 10;

    fn ballast_len(dir: &TempDir) -> Option<u64> {
        fs::metadata(dir.path().join(BALLAST)).ok().map(|found| found.len())
    }

    #[test]
    fn the_ballast_is_made_once_changed_with_its_option_and_removed_without_it() {
        let dir = TempDir::new().unwrap();
        let keep = |bytes| Ballast::of(dir.path(), bytes).keep().unwrap();
        keep(0);
        assert_eq!(ballast_len(&dir), None);
        for bytes in [LEN, LEN, 2 * LEN, LEN] {
            keep(bytes);
            assert_eq!(ballast_len(&dir), Some(bytes));
        }
        keep(0);
        assert_eq!(ballast_len(&dir), None);
        keep(u64::MAX / 2);
        assert_eq!(ballast_len(&dir), None, "the disk has no room for it twice");
    }

    #[test]
    fn the_ballast_is_given_up_below_the_room_that_an_open_needs_and_only_then() {
        let dir = TempDir::new().unwrap();
        let ballast = Ballast::of(dir.path(), LEN);
        ballast.give_up_below(u64::MAX);
        ballast.keep().unwrap();
        ballast.give_up_below(0);
        assert_eq!(ballast_len(&dir), Some(LEN), "there is room");
        ballast.give_up_below(u64::MAX);
        assert_eq!(ballast_len(&dir), None);
    }

    #[test]
    fn a_reserved_file_has_its_length_and_a_file_that_has_it_stays_as_it_is() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("file");
        reserve(&File::create(&path).unwrap(), LEN).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), LEN);
        for len in [5, 9] {
            fs::write(&path, b"bytes").unwrap();
            let file = File::options().write(true).open(&path).unwrap();
            fill(&file, len).unwrap();
            let found = fs::read(&path).unwrap();
            assert_eq!((found.len() as u64, &found[..5]), (len, b"bytes".as_slice()));
        }
        let file = File::options().write(true).open(&path).unwrap();
        fill(&file, 2).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"bytes\0\0\0\0", "a longer file keeps its bytes");
    }

    #[test]
    fn a_probe_tells_whether_a_directory_can_be_written_to_and_leaves_nothing() {
        let dir = TempDir::new().unwrap();
        probe(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let missing = dir.path().join("missing");
        assert!(matches!(probe(&missing), Err(OpenError::Io { .. })));
    }

    #[test]
    fn an_error_is_a_full_disk_only_if_the_disk_is_full() {
        let dir = TempDir::new().unwrap();
        let named = |dir: &Path, error| name_full_disk(dir, error);
        let io = |kind| OpenError::io(dir.path())(io::Error::from(kind));
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let full = named(dir.path(), io(kind));
            assert!(matches!(&full, OpenError::DiskFull { free, .. } if 0 < *free), "{full:?}");
        }
        let other = named(dir.path(), io(io::ErrorKind::PermissionDenied));
        assert!(matches!(other, OpenError::Io { .. }), "{other:?}");
        let engine = || OpenError::Engine("sled panicked".into());
        assert!(matches!(named(dir.path(), engine()), OpenError::Engine(_)));
        let refused = named(&dir.path().join("missing"), engine());
        assert!(matches!(refused, OpenError::Io { .. }), "the probe fails there: {refused:?}");
    }
}
