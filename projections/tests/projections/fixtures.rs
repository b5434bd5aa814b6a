//! The files in `fixtures/histories`: what the generator makes, byte for byte.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use keypool_ledger::{JournalWriter, JournalWriterOptions, Record};
use keypool_projections::transparency::{Checkpoint, NoteSigner, Tree};
use tempfile::TempDir;

use crate::histories::{broken_promises, clean, damaged_exports, exported, forked};

/// Files by their path in a folder.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// Where the fixtures are.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/histories")
}

/// The key that signs the checkpoints of the fixtures. It is no secret and signs nothing else.
pub(crate) fn signer() -> NoteSigner {
    NoteSigner::new("keypool.example/log", &[42; 32]).unwrap()
}

/// The files of a journal that is written with a key of its own, so that its bytes are the same again.
pub(crate) fn journal(records: &[Record], segment_bytes: u64) -> Files {
    let (dir, key) = (TempDir::new().unwrap(), Some([7; 32]));
    let options = JournalWriterOptions { segment_bytes, key };
    let mut writer = JournalWriter::create(dir.path(), options).unwrap();
    for frame in records.chunks(4) {
        writer.append(frame).unwrap();
    }
    drop(writer);
    files(&dir.path().join("journal"))
}

/// All files below a folder, by their path in it.
fn files(dir: &Path) -> Files {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(file, b)| (format!("{name}/{file}"), b)));
        } else if name != "README.md" {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

/// Everything that stands in `fixtures/histories`.
fn made() -> Files {
    let mut made = BTreeMap::new();
    made.insert("clean.export".to_owned(), exported(&clean(), 1024));
    for (name, records) in broken_promises() {
        made.insert(format!("{name}.export"), exported(&records, 1024));
    }
    for (name, bytes) in damaged_exports() {
        made.insert(format!("{name}.export"), bytes);
    }
    for (name, files) in journals() {
        made.extend(files.into_iter().map(|(file, b)| (format!("{name}/{file}"), b)));
    }
    let (one, other) = forked();
    for (name, records) in [("one", one), ("other", other)] {
        let mut tree = Tree::default();
        for record in &records {
            tree.append(&record.envelope_bytes);
        }
        let checkpoint = Checkpoint::new("keypool.example/log", tree.size(), tree.root()).unwrap();
        let note = checkpoint.sign(&signer()).unwrap();
        made.insert(format!("fork/{name}.export"), exported(&records, 1024));
        made.insert(format!("fork/{name}.checkpoint"), note.to_string().into_bytes());
    }
    made.insert("fork/key.public".to_owned(), format!("{}\n", signer().public()).into_bytes());
    made
}

/// Journals, whole and damaged, by name.
fn journals() -> Vec<(&'static str, Files)> {
    let whole = journal(&clean(), 4096);
    let segments: Vec<String> =
        whole.keys().filter(|name| name.as_str() != "acknowledged").cloned().collect();
    let changed = |name, change: &dyn Fn(&mut Files)| {
        let mut files = whole.clone();
        change(&mut files);
        (name, files)
    };
    let (second, last) = (segments[1].clone(), segments[segments.len() - 1].clone());
    vec![
        ("journal-clean", whole.clone()),
        changed("journal-flipped-bit", &|files| files.get_mut(&second).unwrap()[700] ^= 1),
        changed("journal-cut", &|files| files.get_mut(&second).unwrap().truncate(900)),
        changed("journal-without-a-segment", &|files| drop(files.remove(&second))),
        changed("journal-of-yesterday", &|files| drop(files.remove(&last))),
        changed("journal-torn", &|files| {
            // The last frame was being written, and nobody was answered for it.
            let before = journal(&clean()[..(clean().len() - 1) / 4 * 4], 4096);
            files.insert("acknowledged".to_owned(), before["acknowledged"].clone());
            let bytes = files.get_mut(&last).unwrap();
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            bytes[used - 20..].fill(0);
        }),
    ]
}

#[test]
fn the_fixtures_are_what_the_generator_makes() {
    assert_eq!(made(), made(), "the generator makes the same bytes again");
    let stored = files(&fixtures());
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    let made = made();
    assert_eq!(names(&stored), names(&made));
    for (name, bytes) in made {
        assert!(stored[&name] == bytes, "{name} is another one than the generator makes");
    }
}

#[test]
#[ignore = "writes the fixtures: see fixtures/histories/README.md"]
fn write_the_histories() {
    for (name, bytes) in made() {
        let path = fixtures().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}
