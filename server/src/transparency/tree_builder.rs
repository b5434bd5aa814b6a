//! Growing the tree over the log, from where the tiles leave off or from the first record.

use std::{io, path::Path};

use keypool_ledger::{EventLog, ReadError, Record};
use keypool_transparency::{Checkpoint, Node, Tree, TreeHash};

use super::{LedgerError, tiles::Tiles};

/// How many records are read first, and wherever they are large: a message may be as large as a body.
const PAGE_MIN: usize = 64;
/// How many records are read at most: as many as a tile has, so that a page writes one file or two.
const PAGE_MAX: usize = 256;
/// How many bytes of payloads a page may have for the next one to be larger.
const SMALL_BYTES_MAX: usize = 256 * 1024;
/// How many of the last records are compared with the tiles at a start. Damage is mostly at the
/// end: a copy that went on from an older one, tiles that a power cut took. So many are read in a
/// few milliseconds; the others are compared behind the start.
const LAST_COMPARED: u64 = 1024;

/// Reads a log from one record on, in pages that are larger where the records are small.
pub(super) struct Pages {
    page_max: usize,
}

impl Pages {
    pub(super) const fn new() -> Self {
        Self { page_max: PAGE_MIN }
    }

    /// The records that follow `after`, up to `until`; none if there is none.
    pub(super) fn read(
        &mut self,
        log: &impl EventLog,
        after: u64,
        until: u64,
    ) -> Result<Vec<Record>, ReadError> {
        let room = usize::try_from(until.saturating_sub(after)).unwrap_or(usize::MAX);
        let records = match room.min(self.page_max) {
            0 => return Ok(Vec::new()),
            limit => log.read(after.saturating_add(1), limit)?,
        };
        let bytes: usize = records.iter().map(|record| record.payload.len()).sum();
        let larger = self.page_max.saturating_mul(2).min(PAGE_MAX);
        self.page_max = if bytes <= SMALL_BYTES_MAX { larger } else { PAGE_MIN };
        Ok(records)
    }
}

/// A tree with some records more, and the nodes that became final by them.
pub(super) fn with(tree: &Tree, records: &[Record]) -> (Tree, Vec<Node>) {
    let (mut grown, mut nodes) = (tree.clone(), Vec::new());
    for record in records {
        let leaf = TreeHash::leaf(&record.envelope_bytes);
        grown.append_hash(leaf, &mut |node| nodes.push(node));
    }
    (grown, nodes)
}

/// Grows a tree to some size, or as far as the log goes. The tiles are stored first.
pub(super) fn grow(
    tree: &mut Tree,
    log: &impl EventLog,
    tiles: &Tiles,
    until: u64,
) -> Result<(), LedgerError> {
    let mut pages = Pages::new();
    loop {
        let records = pages.read(log, tree.size(), until)?;
        if records.is_empty() {
            return Ok(());
        }
        let (grown, nodes) = with(tree, &records);
        let failed = |source| LedgerError::Io { path: tiles.dir().to_owned(), source };
        tiles.store(nodes).map_err(failed)?;
        *tree = grown;
    }
}

/// The tree of a checkpoint, and how many of its records were compared with the log.
pub(super) struct Resumed {
    pub(super) tree: Tree,
    pub(super) compared: u64,
}

/// The tree of a checkpoint: from the tiles if they give it and agree with the last records of the log,
/// from the whole log otherwise.
///
/// `suspected` says that tiles and log were found to differ: then nothing but the whole log will do.
///
/// # Errors
///
/// Returns a [`LedgerError`] if the log is shorter than the checkpoint, or not the one that it is of.
pub(super) fn resume(
    log: &impl EventLog,
    tiles: &Tiles,
    (checkpoint, file): (&Checkpoint, &Path),
    suspected: bool,
) -> Result<Resumed, LedgerError> {
    let (published, found) = (checkpoint.size(), log.head()?.seq);
    if found < published {
        return Err(LedgerError::SetBack { file: file.to_owned(), published, found });
    }
    let resumed = if suspected { None } else { from_tiles(log, tiles, checkpoint)? };
    if let Some(tree) = resumed {
        return Ok(Resumed { tree, compared: 0 });
    }
    tracing::warn!(records = published, suspected, "the tiles are made anew from the whole log");
    let tree = from_log(log, tiles, (checkpoint, file))?;
    Ok(Resumed { tree, compared: published })
}

/// The tree of a checkpoint, grown from the first record on; the tiles are mended by that.
///
/// # Errors
///
/// Returns [`LedgerError::Changed`] if the log is not the one that the checkpoint is of.
pub(super) fn from_log(
    log: &impl EventLog,
    tiles: &Tiles,
    (checkpoint, file): (&Checkpoint, &Path),
) -> Result<Tree, LedgerError> {
    let (mut tree, published) = (Tree::default(), checkpoint.size());
    grow(&mut tree, log, tiles, published)?;
    let same = (tree.size(), tree.root()) == (published, checkpoint.root());
    if same { Ok(tree) } else { Err(LedgerError::Changed { file: file.to_owned(), published }) }
}

/// The tree of a checkpoint as the tiles have it; none if they have another, or other last records than
/// the log.
fn from_tiles(
    log: &impl EventLog,
    tiles: &Tiles,
    checkpoint: &Checkpoint,
) -> Result<Option<Tree>, ReadError> {
    let size = checkpoint.size();
    let tree: io::Result<Tree> =
        Tree::from_nodes(size, &mut |level, index| tiles.node(level, index));
    let Some(tree) = tree.ok().filter(|tree| tree.root() == checkpoint.root()) else {
        return Ok(None);
    };
    let (mut pages, mut next) = (Pages::new(), size.saturating_sub(LAST_COMPARED));
    while next < size {
        let records = pages.read(log, next, size)?;
        let leaves: Vec<Node> = leaves(&records).collect();
        if leaves.is_empty() || tiles.differing(leaves).is_some() {
            return Ok(None);
        }
        next = next.saturating_add(records.len() as u64);
    }
    Ok(Some(tree))
}

fn leaves(records: &[Record]) -> impl Iterator<Item = Node> {
    let leaf = |record: &Record| Node {
        level: 0,
        index: record.seq.saturating_sub(1),
        hash: TreeHash::leaf(&record.envelope_bytes),
    };
    records.iter().map(leaf)
}
