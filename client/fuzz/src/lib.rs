//! The functions that read bytes from outside, each as a fuzz target.
//!
//! A target takes any bytes. It returns whether or not they can be read, and panics only if keypool breaks a
//! promise: a decoded value that is encoded again differs, a limit does not hold, a damaged file is taken for
//! a whole one. `just fuzz TARGET SECONDS` runs one under libFuzzer. The test `replay` runs every file of
//! `fixtures/fuzz/TARGET/` with stable Rust.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a panic is how a target reports a broken promise"
)]

mod addresses;
mod answers;
mod api_bodies;
mod base_journal;
mod device;
mod edits;
mod envelopes;
mod exports;
mod frames;
mod homes;
mod input;
mod journals;
mod logs;
mod messages;
mod packed_states;
mod proofs;
mod signatures;
mod snapshots;
mod statements;
mod uploads;
mod words;

pub use self::{
    addresses::address,
    answers::answers,
    api_bodies::body,
    envelopes::envelope,
    exports::export,
    frames::frames,
    homes::home,
    journals::journal,
    logs::log,
    messages::{message, welcome},
    packed_states::packed,
    proofs::{proof, signed_text},
    signatures::signature,
    snapshots::snapshots,
    statements::{device_list, statement},
    uploads::{upload, upload_signed},
    words::word,
};

/// A target: a function that takes any bytes.
#[derive(Clone, Copy, Debug)]
pub struct FuzzTarget {
    /// The name, which is also that of the folder of its corpus.
    pub name: &'static str,
    /// The function.
    pub run: fn(&[u8]),
    /// The length of the longest input that a fuzzer tries, in bytes.
    pub bytes_max: usize,
}

/// All targets.
pub const TARGETS: &[FuzzTarget] = &[
    target("address", address, 512),
    target("answers", answers, 8192),
    target("body", body, 4096),
    target("device_list", device_list, 2048),
    target("envelope", envelope, 2048),
    target("export", export, 8192),
    target("frames", frames, 4096),
    target("home", home, 512),
    target("journal", journal, 1024),
    target("log", log, 256),
    target("message", message, 4096),
    target("packed", packed, 4096),
    target("proof", proof, 1024),
    target("signature", signature, 2048),
    target("signed_text", signed_text, 4096),
    target("snapshots", snapshots, 4096),
    target("statement", statement, 1024),
    target("upload", upload, 4096),
    target("upload_signed", upload_signed, 2048),
    target("welcome", welcome, 4096),
    target("word", word, 1024),
];

const fn target(name: &'static str, run: fn(&[u8]), bytes_max: usize) -> FuzzTarget {
    FuzzTarget { name, run, bytes_max }
}

/// Finds the target with a name.
#[must_use]
pub fn find_target(name: &str) -> Option<FuzzTarget> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
