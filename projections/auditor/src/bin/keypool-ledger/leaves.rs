//! The leaves of a log's tree, and the comparison of a checkpoint with them.

use std::{ops::Range, path::Path};

use keypool_auditor::source::Source;
use keypool_transparency::{SignedArtifact, Tree, TreeHash};
use serde_json::json;

use crate::{
    DAMAGED, EQUIVOCATION,
    output::{Out, ToolError},
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

    pub(crate) fn hash_of(&self, range: Range<u64>) -> TreeHash {
        let place = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let mut tree = Tree::default();
        for leaf in self.0.get(place(range.start)..place(range.end)).unwrap_or_default() {
            tree.append_hash(*leaf, &mut |_| {});
        }
        tree.root()
    }

    pub(crate) fn root(&self, size: u64) -> TreeHash {
        self.hash_of(0..size)
    }
}

/// Reports a checkpoint that is not of this log, and returns the exit code.
pub(crate) fn contradiction(
    leaves: &Leaves,
    paper: &SignedArtifact,
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
