//! Every single bit of an export and of a journal is watched.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use keypool_auditor::{
    source::{Source, SourceError},
    verify::verify,
};
use tempfile::TempDir;

use crate::{
    fixtures::journal,
    histories::{clean, exported},
};

/// Whether a source is whole, as far as `verify` can tell.
fn is_whole(path: &Path) -> bool {
    match Source::open(path) {
        Ok(source) => verify(&source, &[], &mut |_| {}).findings.is_empty(),
        Err(SourceError::Unknown(_) | SourceError::Damaged { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Flips each bit of a file in turn, and returns those that nobody notices.
fn unnoticed(source: &Path, file: &Path) -> Vec<(usize, u8)> {
    let mut bytes = Vec::new();
    File::open(file).unwrap().read_to_end(&mut bytes).unwrap();
    let out = File::options().write(true).open(file).unwrap();
    let mut unnoticed = Vec::new();
    for (place, byte) in bytes.iter().enumerate() {
        for bit in 0..8 {
            out.write_all_at(&[byte ^ (1 << bit)], place as u64).unwrap();
            if is_whole(source) {
                unnoticed.push((place, bit));
            }
        }
        out.write_all_at(&[*byte], place as u64).unwrap();
    }
    assert!(is_whole(source), "it is put back as it was");
    unnoticed
}

#[test]
fn every_flipped_bit_of_an_export_is_found() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("small.export");
    fs::write(&file, exported(&clean()[..6], 700)).unwrap();
    assert!(is_whole(&file));
    assert_eq!(unnoticed(&file, &file), []);
}

#[test]
fn every_flipped_bit_of_a_journal_is_found() {
    let dir = TempDir::new().unwrap();
    for (name, bytes) in journal(&clean()[..6], 1536) {
        let mut file = File::create(dir.path().join(name)).unwrap();
        file.write_all(&bytes).unwrap();
    }
    assert!(is_whole(dir.path()));
    let files: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(3 <= files.len(), "several segments and the note of what was acknowledged");
    for file in files {
        assert_eq!(unnoticed(dir.path(), &file), [], "{}", file.display());
    }
}

#[test]
fn every_cut_of_an_export_is_found() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("small.export");
    let bytes = exported(&clean()[..6], 700);
    for len in 0..bytes.len() {
        fs::write(&file, &bytes[..len]).unwrap();
        assert!(!is_whole(&file), "cut to {len} bytes");
    }
}
