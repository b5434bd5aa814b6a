//! Proofs as files that can be checked without the log.
//!
//! An [`Inclusion`] is a C2SP `tlog-proof` whose `extra` line holds the envelope's bytes, so that the
//! file alone shows the record. For a [`Consistency`] C2SP has no form; ours is in the same
//! style.

use std::{fmt, str::FromStr};

use data_encoding::BASE64;

use super::{
    checkpoint::Checkpoint,
    note::SignedNote,
    proof::{ProofError, check_consistency, check_inclusion},
    tree::TreeHash,
};

/// The first line of an inclusion proof.
pub(super) const INCLUSION: &str = "c2sp.org/tlog-proof@v1";
/// The first line of a consistency proof.
const CONSISTENCY: &str = "keypool/consistency-proof@v1";

/// Text that is none of the proofs, or proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignedArtifactError {
    /// The text has not the form.
    #[error("it is no checkpoint and no proof of one of the kinds that are known here")]
    Malformed,
    /// The hashes do not lead to the tree hash.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

/// A checkpoint that may be signed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedArtifact {
    /// The text.
    pub checkpoint: Checkpoint,
    /// The note that it stands in; none if nobody has signed it.
    pub note: Option<SignedNote>,
}

impl fmt::Display for SignedArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.note {
            Some(note) => note.fmt(f),
            None => self.checkpoint.fmt(f),
        }
    }
}

impl FromStr for SignedArtifact {
    type Err = SignedArtifactError;

    fn from_str(text: &str) -> Result<Self, SignedArtifactError> {
        if let Ok(note) = text.parse::<SignedNote>() {
            let checkpoint = note.text().parse().map_err(|_| SignedArtifactError::Malformed)?;
            return Ok(Self { checkpoint, note: Some(note) });
        }
        let checkpoint = text.parse().map_err(|_| SignedArtifactError::Malformed)?;
        Ok(Self { checkpoint, note: None })
    }
}

/// Shows that a record is in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inclusion {
    /// The stored bytes of the record's envelope.
    pub envelope: Vec<u8>,
    /// The record's place among the leaves, from 0: its position less one.
    pub index: u64,
    /// The hashes beside its way to the root, from the leaf up.
    pub hashes: Vec<TreeHash>,
    /// The checkpoint of the log.
    pub paper: SignedArtifact,
}

impl Inclusion {
    /// Checks that the hashes lead from the envelope to the checkpoint's tree hash; who signed the
    /// checkpoint is another question ([`SignedNote::check`]).
    ///
    /// # Errors
    ///
    /// Returns a [`ProofError`] if they do not.
    pub fn check(&self) -> Result<(), ProofError> {
        let (leaf, checkpoint) = (TreeHash::leaf(&self.envelope), &self.paper.checkpoint);
        let tree = (checkpoint.size(), checkpoint.root());
        check_inclusion((self.index, leaf), tree, &self.hashes)
    }
}

impl fmt::Display for Inclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{INCLUSION}\nextra {}", BASE64.encode(&self.envelope))?;
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.paper)
    }
}

impl FromStr for Inclusion {
    type Err = SignedArtifactError;

    fn from_str(text: &str) -> Result<Self, SignedArtifactError> {
        let (head, paper) = text.split_once("\n\n").ok_or(SignedArtifactError::Malformed)?;
        let mut lines = head.split('\n');
        if lines.next() != Some(INCLUSION) {
            return Err(SignedArtifactError::Malformed);
        }
        let envelope = field(lines.next(), "extra ").and_then(decode)?;
        let digits = field(lines.next(), "index ")?;
        let index: u64 = digits.parse().map_err(|_| SignedArtifactError::Malformed)?;
        if index.to_string() != digits {
            return Err(SignedArtifactError::Malformed);
        }
        let hashes = lines.map(hash).collect::<Result<_, _>>()?;
        Ok(Self { envelope, index, hashes, paper: paper.parse()? })
    }
}

/// Shows that a log has only grown since an earlier checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consistency {
    /// The first checkpoint of the log.
    pub old: SignedArtifact,
    /// The checkpoint of now.
    pub new: SignedArtifact,
    /// The hashes that show it.
    pub hashes: Vec<TreeHash>,
}

impl Consistency {
    /// Checks that the hashes lead to both tree hashes; who signed the checkpoints is another question
    /// ([`SignedNote::check`]).
    ///
    /// # Errors
    ///
    /// Returns a [`ProofError`] if they do not.
    pub fn check(&self) -> Result<(), ProofError> {
        let tree = |paper: &SignedArtifact| (paper.checkpoint.size(), paper.checkpoint.root());
        check_consistency(tree(&self.old), tree(&self.new), &self.hashes)
    }
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let coded = |paper: &SignedArtifact| BASE64.encode(paper.to_string().as_bytes());
        writeln!(f, "{CONSISTENCY}\nold {}\nnew {}", coded(&self.old), coded(&self.new))?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{hash}"))
    }
}

impl FromStr for Consistency {
    type Err = SignedArtifactError;

    fn from_str(text: &str) -> Result<Self, SignedArtifactError> {
        let mut lines = text.strip_suffix('\n').ok_or(SignedArtifactError::Malformed)?.split('\n');
        if lines.next() != Some(CONSISTENCY) {
            return Err(SignedArtifactError::Malformed);
        }
        let mut paper = |name| {
            let bytes = field(lines.next(), name).and_then(decode)?;
            String::from_utf8(bytes).map_err(|_| SignedArtifactError::Malformed)?.parse()
        };
        let (old, new) = (paper("old ")?, paper("new ")?);
        Ok(Self { old, new, hashes: lines.map(hash).collect::<Result<_, _>>()? })
    }
}

fn field<'a>(line: Option<&'a str>, name: &str) -> Result<&'a str, SignedArtifactError> {
    line.and_then(|line| line.strip_prefix(name)).ok_or(SignedArtifactError::Malformed)
}

fn decode(text: &str) -> Result<Vec<u8>, SignedArtifactError> {
    BASE64.decode(text.as_bytes()).map_err(|_| SignedArtifactError::Malformed)
}

fn hash(line: &str) -> Result<TreeHash, SignedArtifactError> {
    line.parse().map_err(|_| SignedArtifactError::Malformed)
}
