//! Damage to one file of a data directory: flipped and zeroed bytes, a lost end, a lost file, an older one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use keypool_ledger::Hash;

use crate::harness::files;

/// Numbers that follow from a seed.
pub(super) struct Draw {
    seed: u64,
    drawn: u64,
}

impl Draw {
    pub(super) const fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.drawn += 1;
        let drawn = Hash::of(format!("{} {}", self.seed, self.drawn).as_bytes());
        let number = u64::from_le_bytes(drawn.as_bytes()[..8].try_into().unwrap());
        usize::try_from(number % end as u64).unwrap()
    }
}

/// A damage, and the file that has it.
pub(super) struct Damage {
    pub(super) file: PathBuf,
    pub(super) kind: String,
}

/// Damages one file of a directory, drawn at random, of which `older` is an earlier state.
pub(super) fn damage(dir: &Path, older: &Path, draw: &mut Draw) -> Damage {
    let files: Vec<PathBuf> = files(dir).into_iter().filter(|file| !is_outside(file)).collect();
    let file = files[draw.below(files.len())].clone();
    let before = older.join(file.strip_prefix(dir).unwrap());
    let mut bytes = fs::read(&file).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let place = draw.below(used.max(1));
    let kind = match draw.below(5) {
        0 if used != 0 => {
            bytes[place] ^= 1 << draw.below(8);
            format!("a flip at {place}")
        }
        1 if used != 0 => {
            let until = bytes.len().min(place + 512);
            bytes[place..until].fill(0);
            format!("zeros at {place}")
        }
        2 if used != 0 => {
            bytes.truncate(place);
            format!("cut at {place}")
        }
        3 if before.exists() => {
            bytes = fs::read(before).unwrap();
            "an older file".to_owned()
        }
        _ => {
            fs::remove_file(&file).unwrap();
            return Damage { file, kind: "lost".to_owned() };
        }
    };
    fs::write(&file, bytes).unwrap();
    Damage { file, kind }
}

/// The lock and the note of its holder say nothing of the log.
fn is_outside(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().contains("lock"))
}
