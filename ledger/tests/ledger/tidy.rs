//! The house rules that neither rustfmt nor clippy can check.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// No source file is longer than this, in lines.
const LINES_MAX: usize = 500;

/// The files that may be longer, and why.
const LONG: &[(&str, &str)] =
    &[("ledger/src/ids.rs", "many small types, each with its text form and nothing else")];

/// Each outside thing has a home; no other source file may name it.
///
/// A home is a file, or with a slash at its end a folder.
const HOMES: &[(&str, &[&str])] = &[
    (
        "sled::",
        &[
            "ledger/src/log/database.rs",
            "ledger/src/log/database/",
            "client/src/storage.rs",
            "client/src/storage/",
        ],
    ),
    ("rmp_serde", &["ledger/src/codec.rs", "client/src/storage.rs", "client/src/storage/"]),
    ("reqwest", &["client/src/api.rs", "client/src/api/"]),
    ("actix_web", &["server/src/"]),
    ("ureq", &["projections/src/source/server.rs", "server/src/release_name.rs"]),
    ("indicatif", &["projections/src/bin/keypool-ledger/reading.rs"]),
    ("openmls", &["server/src/admission.rs", "server/src/admission/", "client/src/"]),
    ("chacha20poly1305", &["client/src/storage/sealing/cipher.rs"]),
    ("argon2", &["client/src/storage/sealing/device_key.rs"]),
    ("getrandom", &["server/src/transparency.rs", "server/src/transparency/"]),
    ("SystemTime::now", &["ledger/src/time.rs"]),
    // How long a request took is measured there, and nothing is decided by it.
    ("Instant::now", &["ledger/src/time.rs", "server/src/observation.rs"]),
];

/// Which of our crates each crate may name in its sources: only those below it.
const BELOW: &[(&str, &[&str])] = &[
    ("ledger", &[]),
    ("projections", &["ledger"]),
    ("server", &["projections", "ledger"]),
    ("client", &["projections", "ledger"]),
];

#[test]
fn every_file_says_what_it_is_for() {
    for (name, text) in sources() {
        assert!(text.starts_with("//! "), "{name}: the first line says what the file is for");
    }
}

#[test]
fn no_file_is_long_without_a_reason() {
    let sources = sources();
    for (name, text) in &sources {
        let (lines, allowed) = (text.lines().count(), LONG.iter().any(|(long, _)| long == name));
        assert!(lines <= LINES_MAX || allowed, "{name}: {lines} lines; split it");
    }
    for (long, _) in LONG {
        assert!(sources.iter().any(|(name, _)| name == long), "{long} is gone; forget it here");
    }
}

#[test]
fn every_outside_thing_stays_at_home() {
    for (name, text) in sources() {
        for (thing, homes) in HOMES {
            let names_it = code_lines(&text).any(|line| mentions(line, thing));
            assert!(!names_it || is_at_home(&name, homes), "{name}: {thing} belongs in {homes:?}");
        }
    }
}

#[test]
fn sources_look_downward() {
    for (name, text) in sources() {
        let krate = name.split('/').next().unwrap();
        for (other, _) in BELOW {
            let other_crate = format!("keypool_{other}");
            let names_it = code_lines(&text).any(|line| mentions(line, &other_crate));
            assert!(!names_it || may_name(krate, other), "{name} must not name {other_crate}");
        }
    }
}

#[test]
fn crates_depend_downward() {
    for (krate, _) in BELOW {
        let manifest = fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            }
            for (other, _) in BELOW {
                let depends = section == "[dependencies]"
                    && line.strip_prefix("keypool-").is_some_and(|rest| rest.starts_with(other));
                assert!(!depends || may_name(krate, other), "{krate} must not depend on {other}");
            }
        }
    }
}

#[test]
fn the_rules_find_what_they_forbid() {
    assert!(mentions("    db: sled::Db,", "sled::"));
    assert!(mentions("use reqwest::Client;", "reqwest"));
    assert!(!mentions("pub use self::sled::SledLog;", "sled::"));
    assert!(!mentions("use keypool_openmls_like::X;", "openmls"));
    assert!(is_at_home("client/src/storage/vault.rs", HOMES[0].1));
    assert!(!is_at_home("client/src/storage_else.rs", HOMES[0].1));
    assert!(!may_name("client", "server") && !may_name("ledger", "projections"));
    assert_eq!(code_lines("//! sled::\n  /// sled::\nlet a;").collect::<Vec<_>>(), ["let a;"]);
}

/// The lines that are not comments.
fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// Whether a line has a word: not just a longer one that it ends, nor a module of our own.
fn mentions(line: &str, word: &str) -> bool {
    let part_of_word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(place, _)| {
        let before = &line[..place];
        !before.ends_with(part_of_word) && !before.ends_with("self::")
    })
}

fn is_at_home(name: &str, homes: &[&str]) -> bool {
    homes.iter().any(|home| name == *home || (home.ends_with('/') && name.starts_with(home)))
}

fn may_name(krate: &str, other: &str) -> bool {
    krate == other || BELOW.iter().any(|(name, below)| *name == krate && below.contains(&other))
}

/// The source files of all crates: their names, from the root on, and what is in them.
fn sources() -> Vec<(String, String)> {
    let mut sources = Vec::new();
    for (krate, _) in BELOW {
        walk(&root().join(krate).join("src"), &mut |path| {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            sources.push((name, fs::read_to_string(path).unwrap()));
        });
    }
    assert!(sources.len() >= 20, "the sources are found");
    sources
}

fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, visit);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            visit(&path);
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
