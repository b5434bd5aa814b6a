//! `checkpoint`: the size and tree hash of a log, signed if a key is named.

use std::{fs, path::Path};

use keypool_transparency::{Checkpoint, NoteKey, NoteSigner};

use crate::{
    FINE,
    leaves::Leaves,
    output::{Out, ToolError},
};

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
