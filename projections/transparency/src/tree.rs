//! The Merkle tree of a log, grown leaf by leaf: RFC 6962 section 2.1.

use std::{fmt, str::FromStr};

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

/// A hash of the tree: of a leaf, of an inner node, or of all leaves. Base64 as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeHash(pub [u8; 32]);

impl TreeHash {
    /// The hash of a leaf with the given bytes.
    #[must_use]
    pub fn leaf(bytes: &[u8]) -> Self {
        Self(Sha256::new().chain_update([0]).chain_update(bytes).finalize().into())
    }

    /// The hash of the node over two others.
    #[must_use]
    pub fn node(left: Self, right: Self) -> Self {
        let mut bytes = [1; 65];
        bytes.iter_mut().skip(1).zip(left.0.into_iter().chain(right.0)).for_each(|(to, b)| *to = b);
        Self(Sha256::digest(bytes).into())
    }

    /// The hash of a tree without leaves.
    #[must_use]
    pub fn empty() -> Self {
        Self(Sha256::digest([]).into())
    }
}

impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.0))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreeHash({self})")
    }
}

impl FromStr for TreeHash {
    type Err = TreeError;

    fn from_str(text: &str) -> Result<Self, TreeError> {
        let bytes = BASE64.decode(text.as_bytes()).unwrap_or_default();
        bytes.try_into().map(Self).map_err(|_| TreeError::Hash)
    }
}

/// The reason why a request is for no part of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The text is not the base64 of 32 bytes.
    #[error("a tree hash is the base64 of 32 bytes")]
    Hash,
    /// The stored bytes are not those of a tree.
    #[error("the stored bytes are not those of a tree")]
    Stored,
}

/// A node that is final: all leaves below it are there, so that its hash never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// How many levels are below it: 0 for a leaf.
    pub level: u8,
    /// Its place among the nodes of its level, from 0.
    pub index: u64,
    /// Its hash.
    pub hash: TreeHash,
}

/// A tree that grows at its right edge.
///
/// It holds only the hashes that later ones will be made of, at most 64, so it can be kept for a log of
/// any length and stored with every append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    /// The roots of the full subtrees that the leaves divide into, the largest first: one for each bit
    /// of the size that is set.
    full: Vec<TreeHash>,
}

impl Tree {
    /// The tree of `size` leaves, made of its stored nodes: as many as the size has bits that are set.
    ///
    /// `node` gives the hash of a final node by level and index, as [`Tree::append_hash`] has shown it.
    /// Whether the hashes are those of the leaves is for the caller to check, by [`Tree::root`].
    ///
    /// # Errors
    ///
    /// Returns the errors of `node`.
    pub fn from_nodes<E>(
        size: u64,
        node: &mut dyn FnMut(u8, u64) -> Result<TreeHash, E>,
    ) -> Result<Self, E> {
        let levels = (0..64_u8).rev().filter(|level| size >> level & 1 == 1);
        // What stands before a subtree is a multiple of its width: its place is the size, cut off.
        let full = levels.map(|level| node(level, size >> level ^ 1)).collect::<Result<_, _>>()?;
        Ok(Self { size, full })
    }

    /// How many leaves there are.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Adds the leaf with the given bytes.
    pub fn append(&mut self, leaf: &[u8]) {
        self.append_hash(TreeHash::leaf(leaf), &mut |_| {});
    }

    /// Adds a leaf by its hash, and shows every node that becomes final by it, the leaf first.
    ///
    /// A store of these nodes by level and index is enough to prove anything about the log
    /// ([`super::subtree`]) and to cut its tiles ([`super::Tile`]).
    pub fn append_hash(&mut self, leaf: TreeHash, finished: &mut dyn FnMut(Node)) {
        let (mut node, mut below) = (Node { level: 0, index: self.size, hash: leaf }, self.size);
        finished(node);
        // Every bit that is set at the end of the size is a subtree that the leaf completes.
        while below & 1 == 1 {
            let Some(left) = self.full.pop() else { break };
            let hash = TreeHash::node(left, node.hash);
            node = Node { level: node.level.saturating_add(1), index: node.index >> 1, hash };
            finished(node);
            below >>= 1;
        }
        self.full.push(node.hash);
        self.size = self.size.saturating_add(1);
    }

    /// The hash over all leaves.
    #[must_use]
    pub fn root(&self) -> TreeHash {
        let mut smaller_first = self.full.iter().rev().copied();
        let Some(last) = smaller_first.next() else { return TreeHash::empty() };
        smaller_first.fold(last, |right, left| TreeHash::node(left, right))
    }

    /// The tree as bytes: its size (8 bytes, big-endian), then the hashes it holds.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.size.to_be_bytes().to_vec();
        bytes.extend(self.full.iter().flat_map(|hash| hash.0));
        bytes
    }

    /// The tree that [`Tree::to_bytes`] has stored.
    ///
    /// # Errors
    ///
    /// Returns [`TreeError::Stored`] if there are more or fewer hashes than a tree of that size holds.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TreeError> {
        let (size, hashes) = bytes.split_first_chunk().ok_or(TreeError::Stored)?;
        let (size, chunks) = (u64::from_be_bytes(*size), hashes.chunks(32));
        let full: Result<Vec<_>, _> = chunks
            .map(|chunk| chunk.try_into().map(TreeHash).map_err(|_| TreeError::Stored))
            .collect();
        let full = full?;
        if full.len() != size.count_ones() as usize {
            return Err(TreeError::Stored);
        }
        Ok(Self { size, full })
    }
}
