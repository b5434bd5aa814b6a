//! `checkpoint` and `prove`: what a log says of itself, and what it can show of it.

use std::{fs, ops::Range, path::Path};

use keypool_auditor::source::Source;
use keypool_transparency::{
    Checkpoint, Consistency, Inclusion, NoteKey, NoteSigner, Paper, ProofError, Tree, TreeHash,
    prove_consistency as consistency, prove_inclusion as inclusion,
};
use serde_json::json;

use crate::{
    DAMAGED, EQUIVOCATION, FINE,
    checking::read_paper,
    output::{Out, ToolError},
    reading::read,
};

/// The leaves of a log, up to some record, and the hash over any part of them.
pub(crate) struct Leaves(pub(crate) Vec<TreeHash>);

impl Leaves {
    pub(crate) fn of(path: &Path) -> Result<Self, ToolError> {
        let mut leaves = Vec::new();
        let source = Source::open(path)?;
        source.visit(&mut |raw| {
            leaves.push(TreeHash::leaf(raw.envelope_bytes));
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(Self(leaves))
    }

    pub(crate) fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn hash_of(&self, range: Range<u64>) -> TreeHash {
        let place = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let mut tree = Tree::default();
        for leaf in self.0.get(place(range.start)..place(range.end)).unwrap_or_default() {
            tree.append_hash(*leaf, &mut |_| {});
        }
        tree.root()
    }

    fn root(&self, size: u64) -> TreeHash {
        self.hash_of(0..size)
    }
}

fn proof_error(error: &ProofError) -> ToolError {
    ToolError::usage(error.to_string())
}

/// Writes a checkpoint, signed if a key is named.
pub(crate) fn checkpoint(
    path: &Path,
    origin: &str,
    at: Option<u64>,
    sign: Option<&Path>,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let signer = sign.map(read_signer).transpose()?;
    let leaves = Leaves::of(path)?;
    let size = at.unwrap_or_else(|| leaves.size());
    if leaves.size() < size {
        let records = leaves.size();
        return Err(ToolError::usage(format!("the log has {records} records, not {size}")));
    }
    let public = signer.as_ref().map(NoteSigner::public);
    let origin = public.as_ref().map_or(origin, NoteKey::name);
    let checkpoint = Checkpoint::new(origin, size, leaves.root(size))
        .map_err(|err| ToolError::usage(err.to_string()))?;
    match signer {
        Some(signer) => {
            let note = checkpoint.sign(&signer).map_err(|err| ToolError::usage(err.to_string()))?;
            out.text(&note.to_string())?;
        }
        None => out.text(&checkpoint.to_string())?,
    }
    Ok(FINE)
}

fn read_signer(path: &Path) -> Result<NoteSigner, ToolError> {
    let text = fs::read_to_string(path).map_err(ToolError::file(path))?;
    NoteSigner::from_secret_text(text.trim())
        .map_err(|err| ToolError::usage(format!("{}: {err}", path.display())))
}

/// The checkpoint in a file, or one of the whole log.
fn paper_or_whole(file: Option<&Path>, leaves: &Leaves, like: &str) -> Result<Paper, ToolError> {
    if let Some(file) = file {
        return read_paper(file);
    }
    let checkpoint = Checkpoint::new(like, leaves.size(), leaves.root(leaves.size()))
        .map_err(|err| ToolError::usage(err.to_string()))?;
    Ok(Paper { checkpoint, note: None })
}

/// Proves that a record is in the log.
pub(crate) fn prove_inclusion(
    path: &Path,
    seq: u64,
    file: Option<&Path>,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let leaves = Leaves::of(path)?;
    let paper = paper_or_whole(file, &leaves, "keypool.invalid/log")?;
    if let Some(code) = contradiction(&leaves, &paper, out)? {
        return Ok(code);
    }
    let index = seq.checked_sub(1).ok_or_else(|| ToolError::usage("records begin at 1"))?;
    let hashes = inclusion(index, paper.checkpoint.size(), &mut |range| {
        Ok::<_, ProofError>(leaves.hash_of(range))
    });
    let hashes = hashes.map_err(|err| proof_error(&err))?;
    let mut envelope = Vec::new();
    read(path, &mut |raw, _| {
        if raw.seq == seq {
            envelope = raw.envelope_bytes.to_vec();
            return std::ops::ControlFlow::Break(());
        }
        std::ops::ControlFlow::Continue(())
    })?;
    out.text(&Inclusion { envelope, index, hashes, paper }.to_string())?;
    Ok(FINE)
}

/// Proves that the log has only grown since a checkpoint.
pub(crate) fn prove_consistency(
    path: &Path,
    old: &Path,
    new: Option<&Path>,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let leaves = Leaves::of(path)?;
    let old = read_paper(old)?;
    let new = paper_or_whole(new, &leaves, old.checkpoint.origin())?;
    for paper in [&old, &new] {
        if let Some(code) = contradiction(&leaves, paper, out)? {
            return Ok(code);
        }
    }
    let sizes = (old.checkpoint.size(), new.checkpoint.size());
    let hashes =
        consistency(sizes.0, sizes.1, &mut |range| Ok::<_, ProofError>(leaves.hash_of(range)));
    let hashes = hashes.map_err(|err| proof_error(&err))?;
    out.text(&Consistency { old, new, hashes }.to_string())?;
    Ok(FINE)
}

/// Says so if a checkpoint is not one of this log, and the number to end with.
pub(crate) fn contradiction(
    leaves: &Leaves,
    paper: &Paper,
    out: &mut Out,
) -> Result<Option<u8>, ToolError> {
    let (size, root) = (paper.checkpoint.size(), paper.checkpoint.root());
    if leaves.size() < size {
        let what = format!("the checkpoint is of {size} records; the log has {}", leaves.size());
        out.say(|| what.clone(), || json!({ "verdict": "shorter", "says": what }))?;
        return Ok(Some(DAMAGED));
    }
    let found = leaves.root(size);
    if found == root {
        return Ok(None);
    }
    let what = format!(
        "equivocation: the log's first {size} records have the tree hash {found}; the checkpoint of \
         {} says {root}",
        paper.checkpoint.origin()
    );
    out.say(|| what.clone(), || json!({ "verdict": "equivocation", "says": what }))?;
    Ok(Some(EQUIVOCATION))
}
