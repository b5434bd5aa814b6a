//! Payloads that are overwritten: the way in which a log forgets.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    SledLogOptions,
    database::FOLDERS,
    directory::{LockedDirectory, OpenError},
    disk,
    journal::{Journal, PruneReport, prune_segment, segment_path, write_zeros},
};

/// Marks the files that are overwritten and removed next.
const ERASED: &str = "erased";

/// Overwrites the payloads of records in the directory of a log that nobody has open, and everything that was
/// derived from them.
///
/// Closed segments are written again without these payloads, as [`super::SledLog::prune`] does, and the bytes of
/// their files before are overwritten with zeros. A record must stand behind them, in another segment: a call of
/// [`super::SledLog::prune`] with them closes theirs. The index and
/// the snapshots are overwritten and removed: the next open fills them from the journal. A call that was
/// interrupted is made good by the next one.
///
/// A file system that writes elsewhere in place of overwriting (copy on write, snapshots), and a disk that does,
/// may keep the bytes.
///
/// # Errors
///
/// Returns an [`OpenError`] if the log is open, damaged, or the disk refuses: the call is to be made again then.
pub fn erase_payloads(
    dir: &Path,
    options: SledLogOptions,
    due: &BTreeSet<u64>,
) -> Result<PruneReport, OpenError> {
    let _directory = LockedDirectory::open(dir)?;
    erase(dir, options, due).map_err(|error| disk::name_full_disk(dir, error))
}

fn erase(
    dir: &Path,
    options: SledLogOptions,
    due: &BTreeSet<u64>,
) -> Result<PruneReport, OpenError> {
    let journal_dir = dir.join("journal");
    for left in files_in(&journal_dir)? {
        if left.extension().is_some_and(|extension| extension == ERASED) {
            overwrite(&left)?;
        }
    }
    let mut report = PruneReport::default();
    let mut journal = Journal::open(&journal_dir, (options.segment_bytes, 0), 0)?;
    if let Some(last_due) = due.last() {
        let closed = journal.prunable_segments(*last_due)?;
        if closed.last().is_none_or(|(_, last_seq)| last_seq < last_due) {
            let what = "the segment with the last of the payloads is still being written";
            return Err(OpenError::io(&journal_dir)(io::Error::other(what)));
        }
        for segment in closed {
            let before = segment_path(&journal_dir, segment.0).with_extension(ERASED);
            let segments = journal.segments();
            report.add(prune_segment(&segments, &journal_dir, (segment, due), Some(&before))?);
            drop(segments);
            if before.exists() {
                overwrite(&before)?;
            }
        }
    }
    for folder in FOLDERS {
        overwrite_all(&dir.join(folder))?;
    }
    Ok(report)
}

/// Overwrites and removes a folder with everything in it; none is fine.
fn overwrite_all(dir: &Path) -> Result<(), OpenError> {
    if !dir.exists() {
        return Ok(());
    }
    for path in files_in(dir)? {
        if path.is_dir() { overwrite_all(&path)? } else { overwrite(&path)? }
    }
    fs::remove_dir(dir).map_err(OpenError::io(dir))
}

fn files_in(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let entries = fs::read_dir(dir).map_err(OpenError::io(dir))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>();
    paths.map_err(OpenError::io(dir))
}

/// Overwrites a file with zeros, forces them to the disk, and removes it. A file that has another name too is
/// still in use, by the journal itself if a call broke off: only this name of it is removed.
fn overwrite(path: &Path) -> Result<(), OpenError> {
    let zeroed = || {
        let file = File::options().write(true).open(path)?;
        let found = file.metadata()?;
        if 1 < found.nlink() {
            return fs::remove_file(path);
        }
        write_zeros(&file, 0, found.len())?;
        file.sync_all()?;
        fs::remove_file(path)
    };
    zeroed().map_err(OpenError::io(path))
}
