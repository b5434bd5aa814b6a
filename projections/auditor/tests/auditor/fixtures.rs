//! The files in `fixtures/histories`, as the generator makes them, byte for byte.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use keypool_ledger::{JournalWriter, JournalWriterOptions, Record};
use keypool_transparency::{
    Checkpoint, HandOut, Inclusion, NoteSigner, ProofError, Receipt, ReceiptFile, ReceiptStanding,
    SignedArtifact, Tree, TreeHash, prove_inclusion,
};
use tempfile::TempDir;

use crate::{
    histories::{broken_promises, clean, damaged_exports, exported, forked},
    pruning::{prunable, without},
};

/// Files by their path in a folder.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// The folder of the fixtures.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/histories")
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
    let gone = prunable(&clean(), Duration::ZERO);
    made.insert("pruned.export".to_owned(), exported(&without(&clean(), &gone), 1024));
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
    let receipts = receipts().into_iter();
    made.extend(receipts.map(|(name, text)| (format!("receipts/{name}.receipt"), text.into())));
    made.insert("fork/key.public".to_owned(), format!("{}\n", signer().public()).into_bytes());
    made
}

/// The receipt that a server with these records signs of a reservation, as it stands at a record.
pub(crate) fn receipt(
    records: &[Record],
    seq: u64,
    standing: ReceiptStanding,
    as_of: u64,
) -> ReceiptFile {
    let leaves: Vec<_> = records.iter().map(|r| TreeHash::leaf(&r.envelope_bytes)).collect();
    let tree_of = |range: std::ops::Range<u64>| {
        let mut tree = Tree::default();
        let places = range.start.try_into().unwrap()..range.end.try_into().unwrap();
        leaves[places].iter().for_each(|leaf: &TreeHash| tree.append_hash(*leaf, &mut |_| {}));
        tree.root()
    };
    let (size, index) = (records.len() as u64, seq - 1);
    let hashes =
        prove_inclusion(index, size, &mut |range| Ok::<_, ProofError>(tree_of(range))).unwrap();
    let ledger = signer().public().name().to_owned();
    let checkpoint = Checkpoint::new(&ledger, size, tree_of(0..size)).unwrap();
    let note = Some(checkpoint.sign(&signer()).unwrap());
    let record = &records[usize::try_from(index).unwrap()];
    let hand_out = HandOut::of(seq, &record.envelope, false).unwrap();
    let receipt = Receipt { ledger, hand_out, standing, as_of };
    let inclusion = Inclusion {
        envelope: record.envelope_bytes.clone(),
        index,
        hashes,
        paper: SignedArtifact { checkpoint, note },
    };
    ReceiptFile { note: signer().sign(&receipt.to_string()).unwrap(), inclusion }
}

/// Receipts by name: a good one, one that somebody has altered, and those of a server that hands one
/// package to two inviters.
fn receipts() -> Vec<(&'static str, String)> {
    let (clean, twice) = (clean(), history("double-reserve"));
    let reserved = |records: &[Record]| {
        let is_it = |record: &&Record| record.envelope.event.name() == "reserved";
        records.iter().find(is_it).unwrap().seq
    };
    let (good, first) = (reserved(&clean), reserved(&twice));
    let good = receipt(&clean, good, ReceiptStanding::Open, good).to_string();
    vec![
        ("forged", good.replacen("holder alice/main", "holder mallory/main", 1)),
        ("good", good),
        ("first-at-once", receipt(&twice, first, ReceiptStanding::Open, first).to_string()),
        ("first", receipt(&twice, first, ReceiptStanding::Open, first + 1).to_string()),
        ("second", receipt(&twice, first + 1, ReceiptStanding::Open, first + 1).to_string()),
    ]
}

/// One of the histories that break a promise.
pub(crate) fn history(name: &str) -> Vec<Record> {
    broken_promises().into_iter().find(|(found, _)| *found == name).unwrap().1
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
