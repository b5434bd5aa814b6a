//! The checkpoint of a log at one moment: C2SP `tlog-checkpoint`.

use std::{fmt, str::FromStr};

use super::{
    note::{NoteError, NoteSigner, SignedNote},
    tree::TreeHash,
};

/// The reason why a text is no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is no checkpoint: a line with the log's name, one with its size, one with its tree hash"
)]
pub struct CheckpointError;

/// How many records a log has, and the tree hash over them. A log signs its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    size: u64,
    root: TreeHash,
}

impl Checkpoint {
    /// The checkpoint of the log named `origin`, with `size` records.
    ///
    /// # Errors
    ///
    /// Returns a [`CheckpointError`] if the name is empty or has a line break.
    pub fn new(origin: &str, size: u64, root: TreeHash) -> Result<Self, CheckpointError> {
        if origin.is_empty() || origin.contains(char::is_control) {
            return Err(CheckpointError);
        }
        Ok(Self { origin: origin.to_owned(), size, root })
    }

    /// The log's name.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many records the log has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The tree hash over them.
    #[must_use]
    pub const fn root(&self) -> TreeHash {
        self.root
    }

    /// The checkpoint as a signed note.
    ///
    /// # Errors
    ///
    /// Returns a [`NoteError`] if the text is none that can be signed, which no checkpoint's is.
    pub fn sign(&self, signer: &NoteSigner) -> Result<SignedNote, NoteError> {
        signer.sign(&self.to_string())
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, self.root)
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    /// Reads the text of a checkpoint; lines after the third, which others may have added, are left
    /// out.
    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let text = text.strip_suffix('\n').ok_or(CheckpointError)?;
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError);
        };
        if lines.any(str::is_empty) {
            return Err(CheckpointError);
        }
        let number: u64 = size.parse().map_err(|_| CheckpointError)?;
        if number.to_string() != size {
            return Err(CheckpointError);
        }
        Self::new(origin, number, root.parse().map_err(|_| CheckpointError)?)
    }
}
