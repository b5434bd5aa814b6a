//! The tiles on the disk: each a file that grows until it is full, at its path of C2SP `tlog-tiles`.
//!
//! Nothing is forced to the disk: the log has everything, and tiles that differ from it are mended. A
//! reader takes only hashes that a checkpoint covers, which were written before that was signed.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use keypool_transparency::{Node, TILE_WIDTH, Tile, TreeHash};

/// How many bytes a hash has.
const HASH_BYTES: u64 = 32;
/// How many levels of the tree a tile stands for.
const TILE_HEIGHT: u8 = 8;

/// A folder of tiles.
#[derive(Debug)]
pub(super) struct Tiles(PathBuf);

impl Tiles {
    pub(super) fn at(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    pub(super) fn dir(&self) -> &Path {
        &self.0
    }

    /// Stores the nodes that stand in tiles, each where it is not there already.
    ///
    /// # Errors
    ///
    /// As [`io::Error`]; `InvalidData` if the nodes before them are not there.
    pub(super) fn store(&self, nodes: Vec<Node>) -> io::Result<()> {
        let nodes = in_tiles(nodes);
        for stretch in nodes.chunk_by(in_one_tile) {
            let Some(first) = stretch.first() else { continue };
            let (level, index) = tile_of(first);
            let bytes: Vec<u8> = stretch.iter().flat_map(|node| node.hash.0).collect();
            let place = (first.index % TILE_WIDTH).saturating_mul(HASH_BYTES);
            settle(&self.file(level, index), place, &bytes)?;
        }
        Ok(())
    }

    /// The first of the nodes that stand in tiles which is not there as it should be, the lowest level
    /// first; none if all are.
    pub(super) fn differing(&self, nodes: Vec<Node>) -> Option<Node> {
        let nodes = in_tiles(nodes);
        nodes.chunk_by(in_one_tile).find_map(|stretch| {
            let first = stretch.first()?;
            let there = self.bytes(tile_of(first), first.index % TILE_WIDTH, stretch.len() as u64);
            let Ok(there) = there else { return Some(*first) };
            let mut pairs = stretch.iter().zip(there.as_chunks().0);
            pairs.find(|(node, there)| node.hash.0 != **there).map(|(node, _)| *node)
        })
    }

    /// The bytes of a tile.
    pub(super) fn read(&self, tile: Tile) -> io::Result<Vec<u8>> {
        self.bytes((tile.level, tile.index), 0, tile.width)
    }

    /// The hash of a final node of the tree.
    pub(super) fn node(&self, level: u8, index: u64) -> io::Result<TreeHash> {
        let below = level % TILE_HEIGHT;
        let (first, width) = (index << below, 1 << below);
        let tile = (level / TILE_HEIGHT, first / TILE_WIDTH);
        let bytes = self.bytes(tile, first % TILE_WIDTH, width)?;
        let mut hashes: Vec<TreeHash> =
            bytes.as_chunks().0.iter().map(|bytes| TreeHash(*bytes)).collect();
        while 1 < hashes.len() {
            let pairs = hashes.as_chunks().0.iter();
            hashes = pairs.map(|[left, right]| TreeHash::node(*left, *right)).collect();
        }
        hashes.pop().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn bytes(&self, tile: (u8, u64), first: u64, width: u64) -> io::Result<Vec<u8>> {
        let width = usize::try_from(width.min(TILE_WIDTH).saturating_mul(HASH_BYTES));
        let mut bytes = vec![0; width.unwrap_or_default()];
        let file = File::open(self.file(tile.0, tile.1))?;
        file.read_exact_at(&mut bytes, first.saturating_mul(HASH_BYTES))?;
        Ok(bytes)
    }

    fn file(&self, level: u8, index: u64) -> PathBuf {
        let path = Tile { level, index, width: TILE_WIDTH }.to_string();
        self.0.join(path.strip_prefix("tile/").unwrap_or(&path))
    }
}

/// The nodes that stand in tiles, those of one tile together.
fn in_tiles(mut nodes: Vec<Node>) -> Vec<Node> {
    nodes.retain(|node| node.level.is_multiple_of(TILE_HEIGHT));
    nodes.sort_unstable_by_key(|node| (node.level, node.index));
    nodes
}

fn in_one_tile(one: &Node, next: &Node) -> bool {
    tile_of(one) == tile_of(next)
}

/// The level and the index of the tile that a node stands in.
fn tile_of(node: &Node) -> (u8, u64) {
    (node.level / TILE_HEIGHT, node.index / TILE_WIDTH)
}

/// Makes a file hold some bytes at a place. The bytes before must be there.
fn settle(path: &Path, place: u64, bytes: &[u8]) -> io::Result<()> {
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(path);
    let file = match open() {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
            open()?
        }
        opened => opened?,
    };
    if file.metadata()?.len() < place {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut there = vec![0; bytes.len()];
    if file.read_exact_at(&mut there, place).is_ok() && there == bytes {
        return Ok(());
    }
    file.write_all_at(bytes, place)
}
