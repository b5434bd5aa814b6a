//! The proofs of a log, for someone who trusts neither its server nor its operator.
//!
//! The leaves are the stored bytes of the envelopes, in the order of the log. A [`Checkpoint`] names
//! how many there are and the [`TreeHash`] over all of them; its keeper can later be shown that
//! a record is in that log ([`Inclusion`]), or that the log of today only adds to it
//! ([`Consistency`]). Two checkpoints of one key that contradict each other are proof of a fork.
//!
//! A [`Receipt`] says who was handed which package; two that contradict each other are proof of a double
//! hand-out.
//!
//! The tree is that of RFC 6962 section 2.1 with SHA-256; checkpoints, notes, tiles and proofs have the
//! forms that C2SP names `tlog-checkpoint`, `signed-note`, `tlog-tiles` and `tlog-proof`, so that other
//! programs can check them.

mod checkpoint;

mod files;

mod note;

mod proof;

mod receipt;

mod tile;

mod time_statement;

mod tree;

pub use self::{
    checkpoint::{Checkpoint, CheckpointError},
    files::{Consistency, Inclusion, SignedArtifact, SignedArtifactError},
    note::{NoteError, NoteKey, NoteSigner, SignedNote},
    proof::{
        ProofError, check_consistency, check_inclusion, prove_consistency, prove_inclusion, subtree,
    },
    receipt::{
        Contradiction, HandOut, Receipt, ReceiptError, ReceiptFile, ReceiptStanding, contradiction,
    },
    tile::{TILE_WIDTH, Tile, TileError},
    time_statement::TimeStatement,
    tree::{Node, Tree, TreeError, TreeHash},
};
