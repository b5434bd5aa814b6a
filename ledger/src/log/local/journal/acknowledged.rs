//! The file `acknowledged`: up to where somebody has been answered.
//!
//! It tells a frame that was being written when the machine stopped, which is cut off, from the
//! last frame that somebody relies on, whose damage must not be taken for the former. It is written
//! after the frame is on the disk and is itself not forced there: it survives the death of the
//! process, and after a power cut it is at worst a little old, never ahead of the journal.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    Hash,
    log::local::{
        directory::{OpenError, sync_directory},
        packing::{RecordUnpacker, put_u64},
    },
};

/// Two slots are written in turn, each in a disk sector of its own, so that one is always whole.
const SLOT_OFFSETS: [u64; 2] = [0, 512];
/// The length of the file, in bytes.
const FILE_LEN: usize = 1024;

/// The content of the file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Acknowledged {
    /// The last record of the last frame that was acknowledged, and the frame's hash.
    pub(super) last: Option<(u64, Hash)>,
    /// Why the file may not say everything: a missing file or a damaged slot.
    pub(super) doubt: Option<&'static str>,
    /// A sequence number that is known from elsewhere to have been acknowledged.
    pub(super) witness: u64,
    /// The slot to be written next: the one that holds less.
    pub(super) next_slot: usize,
}

impl Acknowledged {
    /// The last sequence number that was acknowledged; 0 if none is known.
    pub(super) fn seq(&self) -> u64 {
        self.last.map_or(0, |(seq, _)| seq).max(self.witness)
    }

    /// Reads the file in a journal's directory.
    pub(super) fn read(dir: &Path) -> Result<Self, OpenError> {
        let path = path_in(dir);
        match fs::read(&path) {
            Ok(bytes) => Ok(Self::parse(&bytes)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                Ok(Self { doubt: Some("the file is missing"), ..Self::default() })
            }
            Err(err) => Err(OpenError::io(&path)(err)),
        }
    }

    fn parse(bytes: &[u8]) -> Self {
        let (first, second) = bytes.split_at_checked(FILE_LEN / 2).unwrap_or((bytes, &[]));
        let (first, second) = (AcknowledgedSlot::read(first), AcknowledgedSlot::read(second));
        let whole =
            bytes.len() == FILE_LEN && ![first, second].contains(&AcknowledgedSlot::Damaged);
        Self {
            last: first.noted().max(second.noted()),
            doubt: (!whole).then_some("a slot of the file is damaged"),
            witness: 0,
            next_slot: usize::from(first.noted() > second.noted()),
        }
    }
}

/// The content of a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AcknowledgedSlot {
    Empty,
    Noted(u64, Hash),
    Damaged,
}

impl AcknowledgedSlot {
    fn read(bytes: &[u8]) -> Self {
        if bytes.iter().all(|byte| *byte == 0) {
            return Self::Empty;
        }
        let mut fields = RecordUnpacker(bytes);
        let (Some(seq), Some(hash)) = (fields.u64(), fields.array()) else { return Self::Damaged };
        let hash = Hash::from_bytes(hash);
        let mut expected = slot_of(seq, &hash);
        expected.resize(bytes.len(), 0);
        if bytes == expected { Self::Noted(seq, hash) } else { Self::Damaged }
    }

    fn noted(self) -> Option<(u64, Hash)> {
        match self {
            Self::Noted(seq, hash) => Some((seq, hash)),
            Self::Empty | Self::Damaged => None,
        }
    }
}

/// The bytes of a slot: sequence number, hash of the frame, hash of these two.
fn slot_of(seq: u64, hash: &Hash) -> Vec<u8> {
    let mut slot = Vec::new();
    put_u64(&mut slot, seq);
    slot.extend(hash.as_bytes());
    let check = Hash::of(&slot);
    slot.extend(check.as_bytes());
    slot
}

/// Writes the file.
#[derive(Debug)]
pub(super) struct AcknowledgedFile {
    file: File,
    next_slot: usize,
}

impl AcknowledgedFile {
    /// Opens the file for writing, or makes it anew where it is missing or damaged.
    pub(super) fn open(dir: &Path, read: &Acknowledged) -> Result<Self, OpenError> {
        let path = path_in(dir);
        if read.doubt.is_some() {
            renew(dir, read.last).map_err(OpenError::io(&path))?;
        }
        let next_slot = if read.doubt.is_some() { 1 } else { read.next_slot };
        let file = File::options().write(true).open(&path).map_err(OpenError::io(&path))?;
        Ok(Self { file, next_slot })
    }

    /// Notes that somebody is about to be told of everything up to `seq`.
    pub(super) fn note(&mut self, seq: u64, hash: &Hash) -> io::Result<()> {
        let offset = SLOT_OFFSETS.get(self.next_slot).copied().unwrap_or_default();
        self.file.write_all_at(&slot_of(seq, hash), offset)?;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }
}

/// Writes a whole new file, which takes the old one's name only when it is on the disk.
pub(super) fn renew(dir: &Path, last: Option<(u64, Hash)>) -> io::Result<()> {
    let path = path_in(dir);
    let new = path.with_extension("new");
    let mut bytes = last.map(|(seq, hash)| slot_of(seq, &hash)).unwrap_or_default();
    bytes.resize(FILE_LEN, 0);
    let mut file = File::create(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_directory(dir)
}

/// The file's place.
pub(super) fn path_in(dir: &Path) -> PathBuf {
    dir.join("acknowledged")
}
