//! The journals of the fixtures, which targets change and read.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use keypool_ledger::{JournalReader, Record};
use tempfile::TempDir;

use super::{edits::edit, input::InputReader};

/// The bytes of a segment's header, and of the header of a pruned segment.
const HEADERS: [usize; 2] = [120, 200];
/// The bytes of a frame before its body.
const FRAME_HEADER_LEN: usize = 56;
/// The bytes of a hash.
const HASH_LEN: usize = 32;

/// A journal of the fixtures: its files by name, and its records.
pub(crate) struct BaseJournal {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) records: Vec<Record>,
}

/// The folder with the fixtures of the repository.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// The journals that inputs choose from: one of which payloads were pruned, and one that was not.
pub(crate) fn base_journals() -> &'static [BaseJournal; 2] {
    static JOURNALS: OnceLock<[BaseJournal; 2]> = OnceLock::new();
    JOURNALS.get_or_init(|| ["pruned-1", "schema-1-identity"].map(read_base))
}

fn read_base(name: &str) -> BaseJournal {
    let dir = fixtures().join("logs").join(name).join("journal");
    let entries = fs::read_dir(&dir).expect("the fixture is there").map(Result::unwrap);
    let file = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    let files = entries.map(file).collect();
    let records = JournalReader::open(&dir).unwrap().collect::<Result<_, _>>().unwrap();
    BaseJournal { files, records }
}

/// The changes that an input has made to a journal's files.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct JournalChanges {
    /// Whether a byte of a segment differs, or a segment is missing.
    pub(crate) segments: bool,
    /// Whether the note of the last acknowledged record differs or is missing.
    pub(crate) note: bool,
    /// Whether hashes were computed again, which nobody can who does not know the journal's key.
    pub(crate) forged: bool,
}

/// Changes the files of a journal as an input says.
pub(crate) fn change_journal(
    input: &mut InputReader<'_>,
    base: &BaseJournal,
) -> (BTreeMap<String, Vec<u8>>, JournalChanges) {
    let (mut files, mut changes) = (base.files.clone(), JournalChanges::default());
    let names: Vec<String> = files.keys().cloned().collect();
    for _ in 0..=input.number(3) {
        let name = &names[input.number(names.len() - 1)];
        let is_segment = name != "acknowledged";
        let is_removed = input.number(15) == 15;
        let Some(bytes) = files.get_mut(name) else { continue };
        let mut differs = edit(input, bytes);
        if is_removed {
            files.remove(name);
            differs = true;
        } else if differs && is_segment && input.flag() {
            seal_again(files.get_mut(name).unwrap(), input.flag());
            changes.forged = true;
        }
        let of = if is_segment { &mut changes.segments } else { &mut changes.note };
        *of |= differs;
    }
    (files, changes)
}

/// Writes the files of a journal into a new directory, in memory where the system has such a folder.
pub(crate) fn write_files<'a>(
    files: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>,
) -> TempDir {
    let dir = temporary_dir();
    fs::create_dir(dir.path().join("journal")).unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join("journal").join(name), bytes).unwrap();
    }
    dir
}

/// A new directory that is removed when it is dropped.
pub(crate) fn temporary_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory can be made")
}

/// Computes the hashes of a segment anew, so that its other bytes are read. With `chained` each frame also names the
/// hash of the one before it.
fn seal_again(segment: &mut [u8], chained: bool) {
    let Some(key) = segment.get(8..40).and_then(|key| <[u8; HASH_LEN]>::try_from(key).ok()) else {
        return;
    };
    let is_pruned = segment.get(7) == Some(&2);
    let mut at = HEADERS[usize::from(is_pruned)];
    for header in &HEADERS[..=usize::from(is_pruned)] {
        put_hash(segment, &key, 0, header - HASH_LEN);
    }
    let mut before = None;
    while let Some(len) = segment.get(at + 8..at + 12) {
        let len = u32::from_be_bytes(len.try_into().unwrap()) as usize;
        let end = at.saturating_add(FRAME_HEADER_LEN).saturating_add(len);
        if len == 0 || segment.len() < end.saturating_add(HASH_LEN) {
            break;
        }
        if let Some(hash) = before.filter(|_| chained) {
            let prev: [u8; HASH_LEN] = hash;
            segment[at + 24..at + FRAME_HEADER_LEN].copy_from_slice(&prev);
        }
        put_hash(segment, &key, at, end);
        before = segment[end..end + HASH_LEN].try_into().ok();
        at = end + HASH_LEN;
    }
    if is_pruned && at + HASH_LEN <= segment.len() {
        let end = segment.len() - HASH_LEN;
        put_hash(segment, &key, at, end);
    }
}

/// Puts the hash over the bytes from `begin` to `end` behind them.
fn put_hash(segment: &mut [u8], key: &[u8; HASH_LEN], begin: usize, end: usize) {
    let Some(bytes) = segment.get(begin..end) else { return };
    let hash = blake3::keyed_hash(key, bytes);
    if let Some(place) = segment.get_mut(end..end + HASH_LEN) {
        place.copy_from_slice(hash.as_bytes());
    }
}
