//! Making and checking proofs: RFC 6962 sections 2.1.1 and 2.1.2.

use std::ops::Range;

use super::tree::TreeHash;

/// A proof that proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The record is not among the leaves of the tree.
    #[error("the tree has {size} records, so record {seq} is not in it", seq = index.saturating_add(1))]
    Beyond {
        /// The leaf, from 0.
        index: u64,
        /// How many leaves the tree has.
        size: u64,
    },
    /// The old tree has more leaves than the new one.
    #[error("a tree of {old} records cannot have grown into one of {new}")]
    Shrunk {
        /// How many leaves the old tree has.
        old: u64,
        /// How many leaves the new tree has.
        new: u64,
    },
    /// The hashes are more or fewer than the proof needs.
    #[error("the proof has {found} hashes; {expected} are needed")]
    Length {
        /// How many the proof needs.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// The hashes lead to another tree.
    #[error("the proof leads to another tree hash")]
    Mismatch,
}

/// The largest power of two that is smaller than `n`, which is at least 2.
fn split(n: u64) -> u64 {
    1 << n.saturating_sub(1).max(1).ilog2()
}

/// The subtrees whose hashes prove that leaf `index` is in a tree of `size` leaves, from the leaf up.
fn path(index: u64, size: u64) -> Vec<Range<u64>> {
    let (mut tree, mut path) = (0..size, Vec::new());
    while 1 < tree.end - tree.start {
        let middle = tree.start + split(tree.end - tree.start);
        let (left, right) = (tree.start..middle, middle..tree.end);
        let (inside, sibling) = if index < middle { (left, right) } else { (right, left) };
        path.push(sibling);
        tree = inside;
    }
    path.reverse();
    path
}

/// The subtrees whose hashes prove that a tree of `old` leaves has grown into one of `new`.
fn growth(old: u64, new: u64) -> Vec<Range<u64>> {
    let (mut tree, mut path, mut whole) = (0..new, Vec::new(), true);
    while old != tree.end {
        let middle = tree.start + split(tree.end - tree.start);
        if old <= middle {
            path.push(middle..tree.end);
            tree = tree.start..middle;
        } else {
            path.push(tree.start..middle);
            tree = middle..tree.end;
            whole = false;
        }
    }
    if !whole {
        path.push(tree);
    }
    path.reverse();
    path
}

/// Proves that leaf `index`, from 0, is in a tree of `size` leaves.
///
/// `hash_of` gives the hash over a range of leaves; [`subtree`] makes it of stored nodes.
///
/// # Errors
///
/// Returns [`ProofError::Beyond`] if the tree has no such leaf, and the errors of `hash_of`.
pub fn prove_inclusion<E: From<ProofError>>(
    index: u64,
    size: u64,
    hash_of: &mut dyn FnMut(Range<u64>) -> Result<TreeHash, E>,
) -> Result<Vec<TreeHash>, E> {
    if size <= index {
        return Err(ProofError::Beyond { index, size }.into());
    }
    path(index, size).into_iter().map(hash_of).collect()
}

/// Proves that a tree of `old` leaves is the beginning of one of `new`.
///
/// `hash_of` gives the hash over a range of leaves; [`subtree`] makes it of stored nodes.
///
/// # Errors
///
/// Returns [`ProofError::Shrunk`] if the old tree is larger, and the errors of `hash_of`.
pub fn prove_consistency<E: From<ProofError>>(
    old: u64,
    new: u64,
    hash_of: &mut dyn FnMut(Range<u64>) -> Result<TreeHash, E>,
) -> Result<Vec<TreeHash>, E> {
    if new < old {
        return Err(ProofError::Shrunk { old, new }.into());
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    growth(old, new).into_iter().map(hash_of).collect()
}

/// The hash over a range of leaves that proofs ask for, made of final nodes.
///
/// `node` gives the hash of a final node by level and index, as [`super::Tree::append_hash`] has shown
/// it.
///
/// # Errors
///
/// Returns the errors of `node`.
pub fn subtree<E>(
    range: Range<u64>,
    node: &mut dyn FnMut(u8, u64) -> Result<TreeHash, E>,
) -> Result<TreeHash, E> {
    let (mut begin, mut parts) = (range.start, Vec::new());
    while begin < range.end {
        let len = range.end - begin;
        // A range of a proof begins at a multiple of every power of two that fits into it.
        let level = len.ilog2();
        let level = level.min(begin.trailing_zeros());
        parts.push(node(level.to_le_bytes().first().copied().unwrap_or_default(), begin >> level)?);
        begin += 1 << level;
    }
    let mut smaller_first = parts.into_iter().rev();
    let Some(last) = smaller_first.next() else { return Ok(TreeHash::empty()) };
    Ok(smaller_first.fold(last, |right, left| TreeHash::node(left, right)))
}

/// Checks that the leaf with a hash is leaf `index`, from 0, of the tree of `size` leaves with `root`.
///
/// # Errors
///
/// Returns a [`ProofError`] if the proof does not show it.
pub fn check_inclusion(
    (index, leaf): (u64, TreeHash),
    (size, root): (u64, TreeHash),
    proof: &[TreeHash],
) -> Result<(), ProofError> {
    if size <= index {
        return Err(ProofError::Beyond { index, size });
    }
    let path = path(index, size);
    let (expected, found) = (path.len(), proof.len());
    if expected != found {
        return Err(ProofError::Length { expected, found });
    }
    let hash = path.iter().zip(proof).fold(leaf, |inside, (sibling, hash)| {
        if sibling.start <= index {
            TreeHash::node(*hash, inside)
        } else {
            TreeHash::node(inside, *hash)
        }
    });
    if hash == root { Ok(()) } else { Err(ProofError::Mismatch) }
}

/// Checks that the tree of `old.0` leaves with root `old.1` is the beginning of that of `new`.
///
/// # Errors
///
/// Returns a [`ProofError`] if the proof does not show it.
pub fn check_consistency(
    old: (u64, TreeHash),
    new: (u64, TreeHash),
    proof: &[TreeHash],
) -> Result<(), ProofError> {
    if new.0 < old.0 {
        return Err(ProofError::Shrunk { old: old.0, new: new.0 });
    }
    let same = old.0 == new.0;
    let path = if old.0 == 0 || same { Vec::new() } else { growth(old.0, new.0) };
    let (expected, found) = (path.len(), proof.len());
    if expected != found {
        return Err(ProofError::Length { expected, found });
    }
    if old.0 == 0 {
        return if old.1 == TreeHash::empty() { Ok(()) } else { Err(ProofError::Mismatch) };
    }
    if same {
        return if old.1 == new.1 { Ok(()) } else { Err(ProofError::Mismatch) };
    }
    let mut parts = path.iter().zip(proof).peekable();
    // The subtree both trees begin from: the first of the proof, or the old tree if it is a full one.
    let first = match parts.next_if(|(range, _)| range.end == old.0) {
        Some((_, hash)) => *hash,
        None => old.1,
    };
    let (mut in_old, mut in_new) = (first, first);
    for (range, hash) in parts {
        if range.end <= old.0 {
            in_old = TreeHash::node(*hash, in_old);
            in_new = TreeHash::node(*hash, in_new);
        } else {
            in_new = TreeHash::node(in_new, *hash);
        }
    }
    if (in_old, in_new) == (old.1, new.1) { Ok(()) } else { Err(ProofError::Mismatch) }
}
