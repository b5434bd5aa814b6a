//! The end of a log as somebody remembers it: a head, or a checkpoint with the log's key.

use std::{fs, path::Path};

use keypool_auditor::verify::Seen;
use keypool_transparency::{NoteKey, SignedArtifact};

use crate::{SeenArgs, output::ToolError};

impl SeenArgs {
    /// The ends of the log that somebody remembers.
    pub(crate) fn seen(&self) -> Result<Vec<Seen>, ToolError> {
        let mut seen = Vec::new();
        for text in &self.expect_head {
            let head = text.split_once(':').and_then(|(size, root)| {
                Some(Seen { size: size.parse().ok()?, root: root.parse().ok()? })
            });
            let wrong =
                || ToolError::usage(format!("{text} is no head: SIZE:ROOT, as verify prints it"));
            seen.push(head.ok_or_else(wrong)?);
        }
        for path in &self.checkpoint {
            let paper = read_artifact(path)?;
            if let Some(key) = self.key.as_deref() {
                check_signed(path, &paper, &parse_key(key)?)?;
            }
            seen.push(Seen { size: paper.checkpoint.size(), root: paper.checkpoint.root() });
        }
        Ok(seen)
    }
}

/// Reads a checkpoint's file.
pub(crate) fn read_artifact(path: &Path) -> Result<SignedArtifact, ToolError> {
    let text = fs::read_to_string(path).map_err(ToolError::file(path))?;
    text.parse().map_err(|err| ToolError::usage(format!("{}: {err}", path.display())))
}

/// Reads a log's public key.
pub(crate) fn parse_key(text: &str) -> Result<NoteKey, ToolError> {
    text.trim().parse().map_err(|err| ToolError::usage(format!("{text}: {err}")))
}

/// Refuses a checkpoint that the log has not signed.
pub(crate) fn check_signed(
    path: &Path,
    paper: &SignedArtifact,
    key: &NoteKey,
) -> Result<(), ToolError> {
    let path = path.display();
    if paper.checkpoint.origin() != key.name() {
        let origin = paper.checkpoint.origin();
        return Err(ToolError::usage(format!(
            "{path} is of {origin}, the key is {}'s",
            key.name()
        )));
    }
    let note = paper.note.as_ref();
    let note = note.ok_or_else(|| ToolError::usage(format!("{path}: nobody has signed it")))?;
    note.check(key).map_err(|err| ToolError::usage(format!("{path}: {err}")))
}
