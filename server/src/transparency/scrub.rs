//! Compares the whole log with the published tree, behind the start.
//!
//! A start trusts the tiles, once they give the tree of the checkpoint and agree with the end of the log.
//! The scrub makes the tree again from the first record on, slowly, and compares each node with the
//! tiles. Where they differ, the checkpoint says which of the two is wrong: a record that differs from the
//! published one ends the server, and a damaged tile is mended.

use std::{io, sync::Arc, time::Duration};

use actix_web::web;
use keypool_ledger::{EventLog, ReadError};
use keypool_transparency::{Checkpoint, Tree, check_inclusion, prove_inclusion};

use tokio::sync::watch;

use super::{
    Ledger,
    tree_builder::{self, Pages},
};
use crate::request_log::timed;

/// How many times as long as it has worked it rests, so that who asks is not kept waiting.
const REST_PER_WORK: u32 = 30;
/// How long to wait before a step that has failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Compares the records up to a checkpoint with the tiles, a page at a time.
pub(super) struct Scrub<L> {
    log: L,
    ledger: Arc<Ledger>,
    checkpoint: Checkpoint,
    pages: Pages,
    /// The tree as the log gives it, so far.
    tree: Tree,
    doubt: Option<Doubt>,
    is_mending: bool,
}

/// The places of differing tiles that do not belong to the checkpoint themselves.
struct Doubt {
    /// The first record that it may be about.
    record: u64,
    /// The tree before the page.
    before: Tree,
}

/// The progress after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScrubProgress {
    /// There are more records.
    More,
    /// All records are as published; whether tiles had to be mended.
    Done {
        /// Whether tiles were damaged.
        mended: bool,
    },
}

/// Why a step has led to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScrubError {
    /// The log holds another record than was published. The server must end.
    #[error("record {record} is not the one that was published")]
    Changed {
        /// Its position.
        record: u64,
    },
    /// The log makes another tree than was published, and the tiles do not tell where it begins to.
    /// The server must end.
    #[error("record {first}, or one after it, is not the one that was published")]
    Unlike {
        /// The first that it may be.
        first: u64,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A tile cannot be mended.
    #[error("the tiles cannot be written")]
    Tiles(#[from] io::Error),
}

impl ScrubError {
    /// Whether the log differs from the published one: trying again would not help.
    const fn is_final(&self) -> bool {
        match self {
            Self::Changed { .. } | Self::Unlike { .. } | Self::Read(ReadError::Damaged { .. }) => {
                true
            }
            Self::Read(ReadError::Unavailable(_)) | Self::Tiles(_) => false,
        }
    }
}

impl<L: EventLog> Scrub<L> {
    /// Begins at the first record; it ends with the last of the checkpoint.
    pub(super) fn new(log: L, ledger: Arc<Ledger>, checkpoint: Checkpoint) -> Self {
        let (pages, tree) = (Pages::new(), Tree::default());
        Self { log, ledger, checkpoint, pages, tree, doubt: None, is_mending: false }
    }

    /// Compares one page of records.
    ///
    /// # Errors
    ///
    /// Returns a [`ScrubError`]; the next step is at the same place then.
    pub(super) fn step(&mut self) -> Result<ScrubProgress, ScrubError> {
        let (done, size) = (self.tree.size(), self.checkpoint.size());
        if size <= done {
            return self.finish();
        }
        let records = self.pages.read(&self.log, done, size)?;
        if records.is_empty() {
            return Err(ScrubError::Unlike { first: done.saturating_add(1) });
        }
        let (grown, nodes) = tree_builder::with(&self.tree, &records);
        if self.is_mending {
            self.ledger.tiles.store(nodes)?;
        } else if let Some(node) = self.ledger.tiles.differing(nodes) {
            let record = (node.index << node.level).saturating_add(1);
            if node.level == 0 && self.is_published(node.index) {
                return Err(ScrubError::Changed { record });
            }
            let before = self.tree.clone();
            self.doubt.get_or_insert(Doubt { record, before });
        }
        self.tree = grown;
        self.ledger.scrubbed(self.tree.size());
        Ok(ScrubProgress::More)
    }

    /// Whether the tiles prove that the checkpoint has a leaf as they have it.
    fn is_published(&self, index: u64) -> bool {
        let (size, root) = (self.checkpoint.size(), self.checkpoint.root());
        let proof = prove_inclusion(index, size, &mut |range| self.ledger.hash_of(range));
        let (Ok(proof), Ok(leaf)) = (proof, self.ledger.tiles.node(0, index)) else { return false };
        check_inclusion((index, leaf), (size, root), &proof).is_ok()
    }

    /// Compares the whole tree with the checkpoint; if it is the same, the differences are the tiles' fault.
    fn finish(&mut self) -> Result<ScrubProgress, ScrubError> {
        let doubt = self.doubt.take();
        if self.tree.root() != self.checkpoint.root() {
            return Err(ScrubError::Unlike { first: doubt.map_or(1, |doubt| doubt.record) });
        }
        let Some(Doubt { record, before }) = doubt else {
            return Ok(ScrubProgress::Done { mended: self.is_mending });
        };
        tracing::warn!(record, "tiles are damaged; they are made anew from here on");
        (self.tree, self.is_mending) = (before, true);
        Ok(ScrubProgress::More)
    }
}

/// Scrubs until all is compared, the log is found to be another one, or it is told to end.
pub(super) async fn scrub<L: EventLog + 'static>(
    mut scrub: Scrub<L>,
    mut end: watch::Receiver<bool>,
) {
    let mut failing = false;
    loop {
        let step = web::block(move || {
            let outcome = scrub.step();
            (scrub, outcome)
        });
        let (stepped, work) = timed(step).await;
        let Ok((returned, outcome)) = stepped else { return };
        scrub = returned;
        let rest = match &outcome {
            Ok(ScrubProgress::More) => work.saturating_mul(REST_PER_WORK),
            Ok(ScrubProgress::Done { mended }) => {
                let records = scrub.checkpoint.size();
                return tracing::info!(records, mended, "the log is the one that was published");
            }
            Err(error) if error.is_final() => return scrub.ledger.refute(error),
            Err(error) if !failing => {
                let error: &dyn std::error::Error = error;
                tracing::error!(error, "the log is not compared; it is tried again");
                RETRY
            }
            Err(_) => RETRY,
        };
        failing = outcome.is_err();
        tokio::select! {
            // Who would say it may be gone as well.
            _ = end.wait_for(|end| *end) => return,
            () = actix_rt::time::sleep(rest) => {}
        }
    }
}
