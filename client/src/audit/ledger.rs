//! The checkpoints of the server's log: the one that is kept, and the verdict on the next.

use std::{fmt, time::Duration};

use data_encoding::{BASE64, HEXLOWER};
use keypool_ledger::Timestamp;
use keypool_transparency::{
    Checkpoint, Consistency, NoteError, NoteKey, SignedArtifact, SignedNote, TreeHash,
    check_consistency,
};
use serde::{Deserialize, Serialize};

use super::{AuditFinding, KeptCheckpoint, PROOF_GRACE_H};

/// How many pairs of checkpoints are kept that contradict each other.
const EVIDENCE_MAX: usize = 4;
/// The first line of a file of evidence: two checkpoints of one length.
const EVIDENCE: &str = "keypool/equivocation@v1";

/// How two checkpoints contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceKind {
    /// They have as many records, and other ones: the two alone prove it.
    SameSize,
    /// The newer one does not continue the older: the proof that the server gave leads elsewhere.
    OtherGrowth,
    /// The later one has fewer records, and the server does not show that it had the others.
    SetBack,
}

impl EvidenceKind {
    pub(super) fn write(self, f: &mut fmt::Formatter<'_>, old: u64, new: u64) -> fmt::Result {
        match self {
            Self::SameSize => write!(f, "two checkpoints of {old} records have other ones."),
            Self::OtherGrowth => write!(
                f,
                "the log of {new} records does not begin with the {old} that were seen before."
            ),
            Self::SetBack => {
                write!(f, "its log ends after {new} records, and {old} were seen before.")
            }
        }
    }
}

/// Two checkpoints that contradict each other, as the server has signed them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// How they do.
    pub kind: EvidenceKind,
    /// The signed note that was kept.
    pub old: String,
    /// The one that came later.
    pub new: String,
    /// The hashes the server gave as a proof that the log has only grown; none if it gave none.
    pub hashes: Vec<[u8; 32]>,
    /// The key that has signed both, where it is known.
    pub key: Option<String>,
    /// When the second was seen.
    pub at: Timestamp,
}

impl Evidence {
    /// The evidence as a file that `keypool-ledger check` reads: for two checkpoints of one length the
    /// equivocation itself, otherwise the proof that leads elsewhere.
    #[must_use]
    pub fn to_file(&self) -> String {
        let coded = |note: &str| BASE64.encode(note.as_bytes());
        let papers = (self.old.parse::<SignedArtifact>(), self.new.parse::<SignedArtifact>());
        match (self.kind, &self.key, papers) {
            (EvidenceKind::OtherGrowth, _, (Ok(old), Ok(new))) => {
                let hashes = self.hashes.iter().copied().map(TreeHash).collect();
                Consistency { old, new, hashes }.to_string()
            }
            (_, key, _) => {
                let key = key.as_deref().unwrap_or("unknown");
                let (one, other) = (coded(&self.old), coded(&self.new));
                format!("{EVIDENCE}\nkey {key}\none {one}\nother {other}\n")
            }
        }
    }
}

/// A fault of the server's checkpoints, kept from its first occurrence on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CheckpointIssue {
    Renamed { is: String, at: Timestamp },
    KeyChanged { is: String, at: Timestamp },
    Forged { size: u64, at: Timestamp },
}

/// The server's ledger as this device has come to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownLedger {
    /// The ledger's name, from its first checkpoint.
    origin: String,
    /// How its signatures begin: the name and the id of the key, from the first checkpoint.
    signer: String,
    /// The whole key, where it is known.
    key: Option<String>,
    /// The newest checkpoint that was seen to continue the one before, as it was signed.
    note: String,
    /// Since when the server does not show that its log continues it.
    unproved: Option<Timestamp>,
    troubles: Vec<CheckpointIssue>,
    evidence: Vec<Evidence>,
}

/// The relation of a checkpoint to the one that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same.
    Same,
    /// A note that cannot be compared.
    NotOne,
    /// Another fault, recorded in the known ledger.
    Noted,
    /// The server has to show that the log of one size is the beginning of that of the other.
    Prove {
        /// The smaller size.
        from: u64,
        /// The larger one.
        to: u64,
    },
}

impl KnownLedger {
    /// A ledger that is trusted from its first checkpoint on, with its key if the server says it.
    /// `None` if it is no checkpoint, or not by that key.
    pub(crate) fn first(note: &str, key: Option<&NoteKey>) -> Option<Self> {
        let (checkpoint, signed) = parse(note)?;
        if key.is_some_and(|key| signed.check(key).is_err() || key.name() != checkpoint.origin()) {
            return None;
        }
        Some(Self {
            origin: checkpoint.origin().to_owned(),
            signer: signer(note, checkpoint.origin())?,
            key: key.map(ToString::to_string),
            note: note.to_owned(),
            unproved: None,
            troubles: Vec::new(),
            evidence: Vec::new(),
        })
    }

    /// Takes a key as the ledger's, because the operator has published it. Faults of names and
    /// earlier keys are settled by that; evidence stays. `false` if the kept checkpoint is not by that key:
    /// then the next one is taken as the first.
    pub(crate) fn trust(&mut self, key: &NoteKey) -> bool {
        self.key = Some(key.to_string());
        self.troubles.clear();
        let is_by_key = |(checkpoint, note): (Checkpoint, SignedNote)| {
            note.check(key).is_ok() && checkpoint.origin() == key.name()
        };
        let fits = parse(&self.note).is_some_and(is_by_key);
        if !fits {
            key.name().clone_into(&mut self.origin);
            (self.note, self.signer, self.unproved) = (String::new(), String::new(), None);
        }
        fits
    }

    /// Compares a new checkpoint with the one that is kept.
    pub(crate) fn judge(&mut self, note: &str, now: Timestamp) -> Verdict {
        if note == self.note {
            return Verdict::Same;
        }
        let Some((checkpoint, signed)) = parse(note) else { return Verdict::NotOne };
        if let Some(trouble) = self.foreign(note, &checkpoint, &signed, now) {
            return self.note_trouble(trouble);
        }
        let Some((kept, _)) = parse(&self.note) else {
            // A key was set anew: it is trusted from here on.
            let Some(by) = signer(note, checkpoint.origin()) else { return Verdict::NotOne };
            (self.note, self.signer) = (note.to_owned(), by);
            return Verdict::Noted;
        };
        match (kept.size(), checkpoint.size()) {
            (old, new) if old != new => Verdict::Prove { from: old.min(new), to: old.max(new) },
            _ if kept.root() == checkpoint.root() => Verdict::Same,
            _ => {
                self.note_evidence(EvidenceKind::SameSize, note, &[], now);
                Verdict::Noted
            }
        }
    }

    /// Why a checkpoint is not this ledger's.
    fn foreign(
        &self,
        note: &str,
        checkpoint: &Checkpoint,
        signed: &SignedNote,
        at: Timestamp,
    ) -> Option<CheckpointIssue> {
        let is = checkpoint.origin().to_owned();
        if is != self.origin {
            return Some(CheckpointIssue::Renamed { is, at });
        }
        let by = signer(note, &self.origin).unwrap_or_else(|| "nobody".to_owned());
        match self.note_key() {
            None if by == self.signer => None,
            None => Some(CheckpointIssue::KeyChanged { is: by, at }),
            Some(key) => match signed.check(&key) {
                Ok(()) => None,
                Err(NoteError::Wrong) => {
                    Some(CheckpointIssue::Forged { size: checkpoint.size(), at })
                }
                Err(_) => Some(CheckpointIssue::KeyChanged { is: by, at }),
            },
        }
    }

    pub(crate) fn note_key(&self) -> Option<NoteKey> {
        self.key.as_deref().and_then(|key| key.parse().ok())
    }

    fn note_trouble(&mut self, trouble: CheckpointIssue) -> Verdict {
        let same = |known: &CheckpointIssue| {
            std::mem::discriminant(known) == std::mem::discriminant(&trouble)
        };
        if !self.troubles.iter().any(same) {
            self.troubles.push(trouble);
        }
        Verdict::Noted
    }

    fn note_evidence(&mut self, kind: EvidenceKind, new: &str, hashes: &[TreeHash], at: Timestamp) {
        let is_known = self.evidence.iter().any(|known| known.kind == kind || known.new == new);
        if is_known || EVIDENCE_MAX <= self.evidence.len() {
            return;
        }
        let hashes = hashes.iter().map(|hash| hash.0).collect();
        let (old, new, key) = (self.note.clone(), new.to_owned(), self.key.clone());
        self.evidence.push(Evidence { kind, old, new, hashes, key, at });
    }

    /// Takes in the proof the server gave for a checkpoint that [`KnownLedger::judge`] asked for.
    pub(crate) fn prove(&mut self, note: &str, hashes: &[TreeHash], now: Timestamp) {
        let (Some((kept, _)), Some((checkpoint, _))) = (parse(&self.note), parse(note)) else {
            return;
        };
        let tree = |checkpoint: &Checkpoint| (checkpoint.size(), checkpoint.root());
        let has_grown = kept.size() < checkpoint.size();
        let (old, new) = if has_grown { (&kept, &checkpoint) } else { (&checkpoint, &kept) };
        match check_consistency(tree(old), tree(new), hashes) {
            // An older one, from a cache say, tells nothing new.
            Ok(()) if has_grown => (self.note, self.unproved) = (note.to_owned(), None),
            Ok(()) => self.unproved = None,
            Err(_) if has_grown => {
                self.note_evidence(EvidenceKind::OtherGrowth, note, hashes, now);
            }
            Err(_) => self.note_evidence(EvidenceKind::SetBack, note, hashes, now),
        }
    }

    /// The server refused to prove it. That it has not the records it has signed contradicts them; that
    /// it proves nothing else is no contradiction, but may not go on for long.
    pub(crate) fn refuse(&mut self, note: &str, now: Timestamp) {
        let size = |note: &str| parse(note).map(|(checkpoint, _)| checkpoint.size());
        if size(note) < size(&self.note) {
            self.note_evidence(EvidenceKind::SetBack, note, &[], now);
        } else {
            self.unproved.get_or_insert(now);
        }
    }

    /// The finding.
    pub(crate) fn findings(&self, now: Timestamp) -> Vec<AuditFinding> {
        let was = || self.key.clone().unwrap_or_else(|| self.signer.clone());
        let troubles = self.troubles.iter().map(|trouble| match trouble.clone() {
            CheckpointIssue::Renamed { is, at } => {
                AuditFinding::LedgerRenamed { was: self.origin.clone(), is, at }
            }
            CheckpointIssue::KeyChanged { is, at } => {
                AuditFinding::LedgerKeyChanged { was: was(), is, at }
            }
            CheckpointIssue::Forged { size, at } => AuditFinding::CheckpointForged { size, at },
        });
        let size = |note: &str| parse(note).map_or(0, |(checkpoint, _)| checkpoint.size());
        let evidence = self.evidence.iter().map(|evidence| AuditFinding::CheckpointsContradict {
            kind: evidence.kind,
            old: size(&evidence.old),
            new: size(&evidence.new),
            checked: evidence.key.is_some(),
            at: evidence.at,
        });
        let grace = Duration::from_hours(PROOF_GRACE_H);
        let unproved = self.unproved.filter(|since| since.after(grace) <= now);
        let unproved =
            unproved.map(|since| AuditFinding::GrowthNotShown { size: size(&self.note), since });
        troubles.chain(evidence).chain(unproved).collect()
    }

    /// The checkpoint the server is held to.
    pub(crate) fn kept(&self) -> Option<KeptCheckpoint> {
        let (checkpoint, _) = parse(&self.note)?;
        Some(KeptCheckpoint {
            origin: checkpoint.origin().to_owned(),
            size: checkpoint.size(),
            root: checkpoint.root().to_string(),
            key: self.key.clone(),
        })
    }

    /// How many records the checkpoint has; 0 if none is kept.
    pub(crate) fn size(&self) -> u64 {
        parse(&self.note).map_or(0, |(checkpoint, _)| checkpoint.size())
    }

    /// The contradictions that were kept.
    pub(crate) fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }
}

fn parse(note: &str) -> Option<(Checkpoint, SignedNote)> {
    let signed: SignedNote = note.parse().ok()?;
    Some((signed.text().parse().ok()?, signed))
}

/// How the signature in a name begins: the name, and the four bytes that tell keys apart, as in a key.
fn signer(note: &str, name: &str) -> Option<String> {
    let of = |line: &str| {
        let bytes = line.strip_prefix("\u{2014} ")?.strip_prefix(name)?.strip_prefix(' ')?;
        let bytes = BASE64.decode(bytes.as_bytes()).ok()?;
        Some(format!("{name}+{}", HEXLOWER.encode(bytes.first_chunk::<4>()?)))
    };
    note.lines().find_map(of)
}
