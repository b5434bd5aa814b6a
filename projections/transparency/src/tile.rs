//! The tree cut into files that never change: C2SP `tlog-tiles`.

use std::fmt;

use super::tree::TreeHash;

/// How many hashes a full tile has.
pub const TILE_WIDTH: u64 = 256;
/// The highest level of tiles that a tree of 2^64 leaves needs.
const LEVEL_MAX: u8 = 7;

/// The reason why bytes are no tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tile's path is tile/LEVEL/INDEX, with .p/WIDTH behind it if it is not full")]
pub struct TileError;

/// Which tile: `width` hashes of the nodes of tree level `8 * level`, from `index * 256` on.
///
/// As text it is its path below a log's address, as in `tile/0/x001/x234/067.p/12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// The level of the tile: 0 holds leaves.
    pub level: u8,
    /// Its place among the tiles of its level, from 0.
    pub index: u64,
    /// How many hashes it has, 1 to 256.
    pub width: u64,
}

impl Tile {
    /// The tiles that a tree of `new` leaves has and one of `old` leaves did not, by level and index.
    #[must_use]
    pub fn between(old: u64, new: u64) -> Vec<Self> {
        let mut tiles = Vec::new();
        for level in 0..=LEVEL_MAX {
            let (had, has) = (nodes_at(old, level), nodes_at(new, level));
            if had == has {
                continue;
            }
            for index in had / TILE_WIDTH..has.div_ceil(TILE_WIDTH) {
                let width = has.saturating_sub(index.saturating_mul(TILE_WIDTH)).min(TILE_WIDTH);
                tiles.push(Self { level, index, width });
            }
        }
        tiles
    }

    /// Whether a tree of `size` leaves has this tile, full or as far as it goes.
    #[must_use]
    pub fn is_in(&self, size: u64) -> bool {
        let end = self.index.saturating_mul(TILE_WIDTH).saturating_add(self.width);
        self.level <= LEVEL_MAX && 0 < self.width && end <= nodes_at(size, self.level)
    }

    /// The bytes of the tile: its hashes one after the other.
    ///
    /// `node` gives the hash of a final node by level of the tree and index, as
    /// [`super::Tree::append_hash`] has shown it.
    ///
    /// # Errors
    ///
    /// Returns the errors of `node`.
    pub fn read<E>(
        &self,
        node: &mut dyn FnMut(u8, u64) -> Result<TreeHash, E>,
    ) -> Result<Vec<u8>, E> {
        let first = self.index.saturating_mul(TILE_WIDTH);
        let mut bytes = Vec::new();
        for index in (first..).take(usize::try_from(self.width.min(TILE_WIDTH)).unwrap_or(0)) {
            bytes.extend(node(self.level.saturating_mul(8), index)?.0);
        }
        Ok(bytes)
    }

    /// Reads a path.
    ///
    /// # Errors
    ///
    /// Returns a [`TileError`] if it is not the one and only path of a tile.
    pub fn from_path(path: &str) -> Result<Self, TileError> {
        let rest = path.strip_prefix("tile/").ok_or(TileError)?;
        let (level, rest) = rest.split_once('/').ok_or(TileError)?;
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse().map_err(|_| TileError)?),
            None => (rest, TILE_WIDTH),
        };
        let digits: String = index.split('/').map(|part| part.trim_start_matches('x')).collect();
        let tile = Self {
            level: level.parse().map_err(|_| TileError)?,
            index: digits.parse().map_err(|_| TileError)?,
            width,
        };
        // A path that reads well but is not the one that is written names nothing.
        let exact = tile.level < 64 && (1..=TILE_WIDTH).contains(&width);
        if exact && tile.to_string() == path { Ok(tile) } else { Err(TileError) }
    }
}

/// How many final nodes a tree of `size` leaves has at tree level `8 * level`.
fn nodes_at(size: u64, level: u8) -> u64 {
    size.checked_shr(u32::from(level).saturating_mul(8)).unwrap_or_default()
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = vec![format!("{:03}", self.index % 1000)];
        let mut rest = self.index / 1000;
        while 0 < rest {
            parts.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        parts.reverse();
        write!(f, "tile/{}/{}", self.level, parts.join("/"))?;
        if self.width < TILE_WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}
