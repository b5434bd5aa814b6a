//! Copies of a log that are complete in themselves: backups, and data directories made from them.
//!
//! A copy is made in a directory beside its destination, checked there, and takes its name when it is on
//! the disk. So a copy with its name is whole, and one that was interrupted has another name.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{
    SledLog,
    directory::{LockedDirectory, OpenError, ReadLock, create_private, sync_directory},
    disk, histories,
    journal::{JournalMark, JournalReader, copy_file},
};

/// The end of the name of a copy that is not finished.
const UNFINISHED: &str = ".unfinished";
/// The folder of the journal in a log's directory.
const JOURNAL: &str = "journal";
/// The file that keeps others out.
const LOCK: &str = "lock";
/// How many bytes a copy leaves free on its disk.
const SPARE_BYTES: u64 = 4 << 20;

/// A file that belongs into a copy of a log, beside the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedFile {
    /// The file.
    pub from: PathBuf,
    /// Its name in the copy, or its path in a folder of it.
    pub name: String,
}

/// The content of a copy that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// The position of the last record.
    pub last_seq: u64,
    /// How many bytes the journal takes.
    pub bytes: u64,
}

/// The reason why no copy was made. Nothing has its name then.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The copy cannot have that name. Choose another directory.
    #[error("no copy can be made in {}: {why}", dir.display())]
    Destination {
        /// The directory.
        dir: PathBuf,
        /// The reason, with the next step.
        why: String,
    },
    /// Another copy is being made there. Wait for it.
    #[error(
        "a copy is being made in {}{}; wait for it, or choose another directory",
        dir.display(),
        holder.map(|pid| format!(" by process {pid}")).unwrap_or_default()
    )]
    Busy {
        /// The directory.
        dir: PathBuf,
        /// The process that makes it, as far as it has said so.
        holder: Option<u32>,
    },
    /// The disk of the copy has no room. Free some of it, or choose another disk.
    #[error(
        "a copy of {needed} bytes has no room on the disk of {}, where {free} bytes are free; \
         nothing of it was kept",
        dir.display()
    )]
    NoRoom {
        /// The directory.
        dir: PathBuf,
        /// How many bytes the copy takes.
        needed: u64,
        /// How many bytes are free.
        free: u64,
    },
    /// The work was ended before the copy was whole. Make it again.
    #[error("the copy was interrupted; nothing of it was kept, make it again")]
    Interrupted,
    /// The log, or the copy that was made of it, differs from the bytes that were written.
    #[error("the log cannot be copied")]
    Log(#[source] OpenError),
    /// The operating system refused. Look at the disk and the permissions.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
}

impl BackupError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self::Io { path, source }
    }

    fn destination(dir: &Path, why: impl Into<String>) -> Self {
        Self::Destination { dir: dir.to_owned(), why: why.into() }
    }
}

impl From<OpenError> for BackupError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io { path, source } => Self::Io { path, source },
            other => Self::Log(other),
        }
    }
}

impl SledLog {
    /// Copies the log into a new directory while events are appended, with everything that was acknowledged
    /// before the call.
    ///
    /// The files of `beside` are copied first, so that a checkpoint among them is never ahead of the copied
    /// log. The copy is read back and checked before it gets its name. Appends do not wait for any of this.
    /// `goes_on` is asked before each segment and may end the work.
    ///
    /// # Errors
    ///
    /// Returns a [`BackupError`]. Nothing has the name then.
    pub fn backup(
        &self,
        to: &Path,
        beside: &[CopiedFile],
        goes_on: &dyn Fn() -> bool,
    ) -> Result<BackupReport, BackupError> {
        let dir = self.core.dir();
        let copy = UnfinishedCopy::claim(to, dir, beside)?;
        copy.finish((&dir.join(JOURNAL), beside), || Ok(self.core.writer().mark()), goes_on)
    }
}

/// Makes a log's directory from a backup, or a backup from a directory that no process has open.
///
/// The files that `beside` names are copied from the backup, where they are there. Everything is checked
/// before the directory gets its name.
///
/// # Errors
///
/// Returns a [`BackupError`]. Nothing has the name then, and the backup is never changed.
pub fn restore_backup(
    backup: &Path,
    to: &Path,
    beside: &[&str],
) -> Result<BackupReport, BackupError> {
    let _lock = ReadLock::take(backup).map_err(BackupError::Log)?;
    let files =
        beside.iter().map(|name| CopiedFile { from: backup.join(name), name: (*name).to_owned() });
    let files: Vec<CopiedFile> = files.filter(|file| file.from.exists()).collect();
    let journal = backup.join(JOURNAL);
    let copy = UnfinishedCopy::claim(to, backup, &files)?;
    copy.finish((&journal, &files), || JournalMark::read(&journal), &|| true)
}

/// A copy that is being made, in a directory of its own that nobody else writes to.
struct UnfinishedCopy {
    to: PathBuf,
    dir: PathBuf,
    _lock: LockedDirectory,
}

impl UnfinishedCopy {
    /// Makes the directory of a copy, and removes the rest of one that was interrupted there.
    fn claim(to: &Path, data: &Path, beside: &[CopiedFile]) -> Result<Self, BackupError> {
        let (parent, name) = place_of(to)?;
        let data = data.canonicalize().map_err(BackupError::io(data))?;
        if parent.starts_with(&data) {
            let why =
                "it lies in the directory that is copied; choose one outside, best on another disk";
            return Err(BackupError::destination(to, why));
        }
        check_vacant(to, &parent)?;
        let to = parent.join(&name);
        let dir = parent.join(format!("{name}{UNFINISHED}"));
        let lock = LockedDirectory::open(&dir).map_err(|error| match error {
            OpenError::Locked { holder, .. } => BackupError::Busy { dir: to.clone(), holder },
            other => other.into(),
        })?;
        let copy = Self { to, dir, _lock: lock };
        copy.clear(beside)?;
        Ok(copy)
    }

    /// Removes the files of an interrupted copy, and nothing else.
    fn clear(&self, beside: &[CopiedFile]) -> Result<(), BackupError> {
        for entry in fs::read_dir(&self.dir).map_err(BackupError::io(&self.dir))? {
            let entry = entry.map_err(BackupError::io(&self.dir))?;
            let (name, path) = (entry.file_name(), entry.path());
            if name == LOCK {
                continue;
            }
            let is_of = |file: &CopiedFile| Path::new(&file.name).starts_with(&name);
            if name != JOURNAL && !beside.iter().any(is_of) {
                let why = format!("{} is in the way; move it away", path.display());
                return Err(BackupError::destination(&self.to, why));
            }
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(BackupError::io(&path))?;
        }
        Ok(())
    }

    /// Copies everything, checks the copy, and gives it its name. A copy that fails is removed.
    fn finish(
        self,
        from: (&Path, &[CopiedFile]),
        mark: impl FnOnce() -> Result<JournalMark, OpenError>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<BackupReport, BackupError> {
        let mut needed = 0;
        let made = self.fill(from, mark, (&mut needed, goes_on)).and_then(|report| {
            self.name()?;
            Ok(report)
        });
        made.map_err(|error| {
            drop(fs::remove_dir_all(&self.dir));
            match error {
                BackupError::Io { source, .. } if disk::is_full(&source) => {
                    let free = disk::space(&self.parent()).unwrap_or_default().free;
                    BackupError::NoRoom { dir: self.to.clone(), needed, free }
                }
                other => other,
            }
        })
    }

    fn fill(
        &self,
        (journal, beside): (&Path, &[CopiedFile]),
        mark: impl FnOnce() -> Result<JournalMark, OpenError>,
        (needed, goes_on): (&mut u64, &dyn Fn() -> bool),
    ) -> Result<BackupReport, BackupError> {
        for CopiedFile { from, name } in beside {
            let to = self.dir.join(name);
            let folder = to.parent().unwrap_or(&self.dir);
            create_private(folder)?;
            copy_file(from, &to, None)?;
            sync_directory(folder).map_err(BackupError::io(folder))?;
        }
        // The end is taken last: no file beside the journal is ahead of it.
        let mark = mark()?;
        let bytes = mark.bytes(journal).map_err(BackupError::io(journal))?;
        *needed = bytes.saturating_add(SPARE_BYTES);
        let free = disk::space(&self.dir).map_err(BackupError::io(&self.dir))?.free;
        if free < *needed {
            return Err(BackupError::NoRoom { dir: self.to.clone(), needed: *needed, free });
        }
        let copied = self.dir.join(JOURNAL);
        let went_on = mark.copy(journal, &copied, goes_on)?;
        // The copy says up to where its records were acknowledged: one that lacks some is no whole journal.
        let checked = histories::check_chains(JournalReader::open(&copied)?, goes_on)?;
        let Some(last_seq) = checked.filter(|_| went_on) else {
            return Err(BackupError::Interrupted);
        };
        sync_directory(&self.dir).map_err(BackupError::io(&self.dir))?;
        Ok(BackupReport { last_seq, bytes })
    }

    /// Gives the copy its name, which must still be free.
    fn name(&self) -> Result<(), BackupError> {
        let parent = self.parent();
        check_vacant(&self.to, &parent)?;
        fs::rename(&self.dir, &self.to).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                BackupError::destination(&self.to, "there is something in it by now")
            }
            _ => BackupError::io(&self.to)(error),
        })?;
        sync_directory(&parent).map_err(BackupError::io(&parent))
    }

    fn parent(&self) -> PathBuf {
        self.to.parent().map(Path::to_owned).unwrap_or_default()
    }
}

/// The directory that a copy is made in, and its name there.
fn place_of(to: &Path) -> Result<(PathBuf, String), BackupError> {
    let wrong = |why: &str| BackupError::destination(to, why);
    let name = to.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| wrong("name a new directory"))?.to_owned();
    if name.ends_with(UNFINISHED) {
        return Err(wrong("copies that are not finished have such names; choose another one"));
    }
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let found = parent.canonicalize().ok().filter(|parent| parent.is_dir());
    let missing = || format!("there is no directory {}; make it first", parent.display());
    Ok((found.ok_or_else(|| wrong(&missing()))?, name))
}

/// Checks that a directory is not there or empty, and that a directory can take its place.
fn check_vacant(to: &Path, parent: &Path) -> Result<(), BackupError> {
    let found = match fs::symlink_metadata(to) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BackupError::io(to)(error)),
    };
    if !found.is_dir() {
        return Err(BackupError::destination(to, "it is there and is no directory"));
    }
    if fs::read_dir(to).map_err(BackupError::io(to))?.next().is_some() {
        return Err(BackupError::destination(to, "it is not empty; choose a new directory"));
    }
    let parent = fs::metadata(parent).map_err(BackupError::io(parent))?;
    if parent.dev() != found.dev() {
        return Err(BackupError::destination(
            to,
            "a disk is mounted there; name a directory on it",
        ));
    }
    Ok(())
}
