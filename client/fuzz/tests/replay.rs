//! Every file of the corpora is run through its target: those that a fuzzer has found, and those that once failed.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy takes functions beside the tests for production code"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use keypool_fuzz::{FuzzTarget, TARGETS};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

/// Counts the bytes that are allocated.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// How long a target may take for one file, on the busiest machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// How many bytes a target may allocate for one file in all, those included that it gives back.
const ALLOCATED_MAX: usize = 512 << 20;
/// The stack of a target: that of the main thread on most systems.
const STACK_BYTES: usize = 8 << 20;
/// How many bytes the corpora may have.
const CORPORA_BYTES_MAX: u64 = 300 << 10;

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/fuzz")
}

/// The files of a target's corpus, in the order of their names.
fn corpus(target: &FuzzTarget) -> Vec<PathBuf> {
    let dir = corpora().join(target.name);
    let entries = fs::read_dir(&dir).unwrap_or_else(|err| panic!("{}: {err}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn every_file_of_the_corpora_is_run_in_bounded_time_and_memory() {
    let mut bytes = 0;
    for target in TARGETS {
        let files = corpus(target);
        assert!(!files.is_empty(), "{} has no corpus", target.name);
        // The things that a target makes once in a process are made before its first file.
        run(*target, Path::new("no file"), Vec::new());
        for file in files {
            let input = fs::read(&file).unwrap();
            bytes += input.len() as u64;
            let region = Region::new(ALLOCATOR);
            run(*target, &file, input);
            let allocated = region.change().bytes_allocated;
            let name = file.display();
            assert!(allocated <= ALLOCATED_MAX, "{name}: {allocated} bytes were allocated");
        }
    }
    assert!(bytes <= CORPORA_BYTES_MAX, "the corpora have {bytes} bytes; minimise them");
}

#[test]
fn every_corpus_is_of_a_target() {
    for entry in fs::read_dir(corpora()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(keypool_fuzz::find_target(&name).is_some(), "{name} is no target");
    }
}

/// Runs a target on an input in a thread of its own, and waits for its end.
fn run(target: FuzzTarget, file: &Path, input: Vec<u8>) {
    let (done, ended) = channel();
    let work = move || {
        (target.run)(&input);
        let _ = done.send(());
    };
    let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(work).unwrap();
    let outcome = ended.recv_timeout(PATIENCE);
    let (name, file) = (target.name, file.display());
    assert!(
        outcome.is_ok() || thread.is_finished() || thread.join().is_err(),
        "{name} hangs: {file}"
    );
    assert!(outcome.is_ok(), "{name} failed: {file}");
}
