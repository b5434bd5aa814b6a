//! Repair of a journal: damaged segments are put back from a backup of the same log.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    directory::{LockedDirectory, OpenError, ReadLock},
    health::error_chain,
    histories,
    journal::{Replacements, SegmentFault, Unmendable},
};

/// A segment that was put back from a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairedSegment {
    /// The segment's file.
    pub file: PathBuf,
    /// The position of its first record.
    pub first_seq: u64,
    /// The position of its last record.
    pub last_seq: u64,
    /// The fault that it had, and where.
    pub fault: String,
}

/// A log that is whole, and the segments that were put back for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairReport {
    /// The segments, in order; none if nothing was damaged.
    pub repaired: Vec<RepairedSegment>,
    /// The position of the log's last record.
    pub last_seq: u64,
}

/// The reason why a log was not repaired. Nothing was changed then, but for [`RepairError::Write`].
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The log or the backup is in use, or cannot be read.
    #[error(transparent)]
    Open(OpenError),
    /// The backup is of another log. Name a backup of this one.
    #[error(
        "{} is a backup of another log; nothing was changed, name a backup of this one",
        backup.display()
    )]
    OtherLog {
        /// The backup.
        backup: PathBuf,
    },
    /// The backup lacks a segment that is needed, or has one that does not fit. Name a newer backup.
    #[error(
        "{} cannot take the place of a damaged segment: {why}; nothing was changed, name another \
         backup of this log",
        file.display()
    )]
    Unfit {
        /// The segment in the backup.
        file: PathBuf,
        /// The reason.
        why: String,
    },
    /// The log is damaged where no segment of a backup can help: in the part that was written last, or in
    /// a file beside the segments. Restore a backup.
    #[error(
        "every closed segment is whole, so that no segment of a backup helps: restore a whole backup into a new \
         directory (keypool-ledger restore BACKUP DIR)"
    )]
    Beyond(#[source] OpenError),
    /// A segment could not be written. Those before it are put back; repair again.
    #[error("a segment could not be put back")]
    Write(#[source] OpenError),
}

/// Puts damaged or missing segments of a log back from a backup of it.
///
/// A segment is replaced if the backup has the same records, with the chain of its neighbors. Everything is
/// read and checked as it will be before the first file is replaced, and nothing else is touched.
///
/// # Errors
///
/// Returns a [`RepairError`].
pub fn repair_journal(dir: &Path, backup: &Path) -> Result<RepairReport, RepairError> {
    let (journal, other) = (dir.join("journal"), backup.join("journal"));
    // A directory without a journal is not made one.
    fs::metadata(&journal).map_err(|error| RepairError::Open(OpenError::io(&journal)(error)))?;
    let _directory = LockedDirectory::open(dir).map_err(RepairError::Open)?;
    let _backup = ReadLock::take(backup).map_err(RepairError::Open)?;
    let found = Replacements::find(&journal, &other).map_err(|error| match error {
        Unmendable::OtherJournal => RepairError::OtherLog { backup: backup.to_owned() },
        Unmendable::Unfit(file, why) => RepairError::Unfit { file, why },
        Unmendable::Open(error) => RepairError::Open(error),
    })?;
    let last_seq = found.reader().and_then(|journal| histories::check_chains(journal, &|| true));
    let last_seq = last_seq.map_err(|error| match found.faults.first() {
        Some(first) => RepairError::Unfit {
            file: other.join(first.file.file_name().unwrap_or_default()),
            why: error_chain(&error),
        },
        None => RepairError::Beyond(error),
    })?;
    found.put().map_err(RepairError::Write)?;
    let repaired = found.faults.iter().map(RepairedSegment::of).collect();
    Ok(RepairReport { repaired, last_seq: last_seq.unwrap_or_default() })
}

impl RepairedSegment {
    fn of(segment: &SegmentFault) -> Self {
        let (first_seq, last_seq) = segment.records;
        let fault = match &segment.fault {
            OpenError::Damaged { offset, what, .. } => format!("damaged at byte {offset}: {what}"),
            OpenError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "missing".to_owned()
            }
            other => error_chain(other),
        };
        Self { file: segment.file.clone(), first_seq, last_seq, fault }
    }
}
