//! `prove`: proofs against a checkpoint of a log.

use std::path::Path;

use keypool_transparency::{
    Checkpoint, Consistency, Inclusion, ProofError, SignedArtifact,
    prove_consistency as consistency, prove_inclusion as inclusion,
};

use crate::{
    FINE,
    input::read,
    known_end::read_artifact,
    leaves::{Leaves, contradiction},
    output::{Out, ToolError},
};

fn proof_error(error: &ProofError) -> ToolError {
    ToolError::usage(error.to_string())
}

/// The checkpoint in a file, or one of the whole log.
fn paper_or_whole(
    file: Option<&Path>,
    leaves: &Leaves,
    like: &str,
) -> Result<SignedArtifact, ToolError> {
    if let Some(file) = file {
        return read_artifact(file);
    }
    let checkpoint = Checkpoint::new(like, leaves.size(), leaves.root(leaves.size()))
        .map_err(|err| ToolError::usage(err.to_string()))?;
    Ok(SignedArtifact { checkpoint, note: None })
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
    let old = read_artifact(old)?;
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
