//! The house rules that neither rustfmt nor clippy can check.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// No source file is longer than this, in lines.
const LINES_MAX: usize = 500;

/// The files that may be longer, and why.
const LONG: &[(&str, &str)] =
    &[("ledger/src/ids.rs", "many small types, each with its text form and nothing else")];

/// Words in place of a noun, in a doc comment.
const RIDDLES: &[&str] = &["what ", "What ", "whoever ", "Whoever ", "whom ", "whatever "];
/// How many doc comments have one of them; fewer each time somebody finds the noun.
const RIDDLES_MAX: usize = 43;

/// Each outside thing has a home; no other source file may name it.
///
/// A home is a file, or with a slash at its end a folder.
const HOMES: &[(&str, &[&str])] = &[
    (
        "sled::",
        &[
            "ledger/src/log/local/database.rs",
            "ledger/src/log/local/database/",
            "client/src/storage.rs",
            "client/src/storage/",
        ],
    ),
    ("async_nats", &["ledger/nats/src/"]),
    ("tokio_postgres", &["ledger/postgres/src/"]),
    ("rmp_serde", &["ledger/src/codec.rs", "client/src/storage.rs", "client/src/storage/"]),
    ("reqwest", &["client/src/lib.rs", "client/src/transport.rs", "server/src/webhook/"]),
    ("actix_web", &["server/src/"]),
    ("ureq", &["projections/auditor/src/source/server.rs", "server/src/admin_command/client.rs"]),
    ("maud", &["server/page/src/"]),
    ("rustyline", &["client/cli/src/chat/screen.rs"]),
    ("jiff", &["client/cli/src/pool.rs", "projections/auditor/src/bin/"]),
    ("clap", &["client/cli/src/", "projections/auditor/src/bin/", "server/src/"]),
    ("comfy_table", &["client/cli/src/pool.rs", "projections/auditor/src/bin/"]),
    ("indicatif", &["projections/auditor/src/bin/keypool-ledger/input.rs"]),
    ("openmls", &["server/src/admission.rs", "server/src/admission/", "client/src/"]),
    ("jsonwebtoken", &["server/src/registration/key_set.rs", "server/src/registration/key_set/"]),
    ("webpki", &["server/src/admission/x509.rs"]),
    ("chacha20poly1305", &["client/src/storage/sealing/cipher.rs"]),
    ("argon2", &["client/src/storage/sealing/device_key.rs"]),
    ("getrandom", &["server/src/transparency.rs", "server/src/transparency/"]),
    ("SystemTime::now", &["ledger/src/time.rs"]),
    // How long a request took is measured there, and nothing is decided by it.
    ("Instant::now", &["ledger/src/time.rs", "server/src/request_log.rs"]),
];

/// A crate of the workspace: its folder, and the crates that its sources may name.
pub(super) struct Room {
    pub(super) folder: &'static str,
    name: &'static str,
    below: &'static [&'static str],
}

/// The crates, each after those that it may name.
pub(super) const ROOMS: &[Room] = &[
    Room { folder: "ledger", name: "ledger", below: &[] },
    Room { folder: "ledger/nats", name: "nats", below: &["ledger"] },
    Room { folder: "ledger/postgres", name: "postgres", below: &["ledger"] },
    Room { folder: "projections", name: "projections", below: &["ledger"] },
    Room { folder: "projections/transparency", name: "transparency", below: &["ledger"] },
    Room { folder: "server/api", name: "api", below: &["ledger", "projections", "transparency"] },
    Room {
        folder: "projections/auditor",
        name: "auditor",
        below: &["ledger", "projections", "transparency", "api"],
    },
    Room { folder: "server/page", name: "operator_page", below: &["ledger", "projections", "api"] },
    Room {
        folder: "server",
        name: "server",
        below: &[
            "ledger",
            "nats",
            "postgres",
            "projections",
            "transparency",
            "api",
            "operator_page",
        ],
    },
    Room {
        folder: "client",
        name: "client",
        below: &["ledger", "projections", "transparency", "api"],
    },
    // It uses the types that the client exports again.
    Room { folder: "client/bindings", name: "bindings", below: &["client"] },
    Room { folder: "client/cli", name: "cli", below: &["client"] },
    // Its targets are the readers of all of them.
    Room {
        folder: "client/fuzz",
        name: "fuzz",
        below: &["ledger", "projections", "transparency", "api", "auditor", "server", "client"],
    },
];

/// Things that no source file of a folder may name: the rules are pure, the invariants share nothing with
/// them, the commands and the chat use the client's façade, and the contract of a log knows no engine.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "projections/src/",
        &["std::fs", "std::net", "std::thread", "std::io", "fs::", "thread::", "tokio", "Instant"],
    ),
    ("projections/auditor/src/invariants", &["keypool_projections"]),
    ("client/cli/src/", &["connection()", "membership()", "store()", "wire::"]),
    ("ledger/src/log/conformance", &["MemoryLog", "SledLog", "local::", "memory::", "staging::"]),
];

#[test]
fn every_file_says_what_it_is_for() {
    for (name, text) in sources() {
        assert!(text.starts_with("//! "), "{name}: the first line says what the file is for");
    }
}

#[test]
fn doc_comments_use_the_nouns_of_the_field() {
    let mut found = 0;
    for folder in ["ledger", "projections", "server", "client"] {
        walk(&root().join(folder), &mut |path| {
            let text = fs::read_to_string(path).unwrap();
            let comments = text
                .lines()
                .map(str::trim_start)
                .filter(|line| line.starts_with("///") || line.starts_with("//!"));
            found +=
                comments.filter(|line| RIDDLES.iter().any(|word| mentions(line, word))).count();
        });
    }
    assert!(found <= RIDDLES_MAX, "{found} doc comments ask instead of naming; {RIDDLES_MAX} may");
    assert!(RIDDLES_MAX < found + 10, "fewer do by now: lower RIDDLES_MAX to {found}");
}

#[test]
fn a_type_name_stands_for_one_thing() {
    let mut files = BTreeMap::<String, Vec<String>>::new();
    for (name, text) in sources().into_iter().filter(|(name, _)| !is_test(name)) {
        for defined in types_of(&text) {
            files.entry(defined.to_owned()).or_default().push(name.clone());
        }
    }
    for (defined, files) in &files {
        assert!(files.len() == 1, "{defined} is the name of several types: {files:?}");
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
        let room = room_of(&name);
        for other in ROOMS.iter().filter(|other| !may_name(room, other.name)) {
            let other_crate = format!("keypool_{}", other.name);
            let names_it = code_lines(&text).any(|line| names_crate(line, &other_crate));
            assert!(!names_it, "{name} must not name {other_crate}");
        }
    }
}

#[test]
fn crates_depend_downward() {
    for room in ROOMS {
        let manifest = fs::read_to_string(root().join(room.folder).join("Cargo.toml")).unwrap();
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let dependency =
                line.strip_prefix("keypool-").and_then(|rest| rest.split(['.', ' ']).next());
            let allowed = dependency.is_none_or(|other| may_name(room, &other.replace('-', "_")));
            assert!(section != "[dependencies]" || allowed, "{}: {line}", room.folder);
        }
    }
}

#[test]
fn the_rules_are_pure_and_the_invariants_are_independent() {
    for (folder, things) in FORBIDDEN {
        let mut files = 0;
        for (name, text) in sources().iter().filter(|(name, _)| name.starts_with(folder)) {
            files += 1;
            for thing in *things {
                let line = code_lines(text).find(|line| mentions(line, thing));
                assert!(line.is_none(), "{name} must not name {thing}: {line:?}");
            }
        }
        assert!(1 < files, "{folder} is gone; forget it here");
    }
}

#[test]
fn every_test_and_path_that_the_docs_name_exists() {
    let mut code = String::new();
    for folder in ["ledger", "projections", "server", "client"] {
        walk(&root().join(folder), &mut |path| code.push_str(&fs::read_to_string(path).unwrap()));
    }
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for quoted in text.split('`').skip(1).step_by(2) {
            let is_path = ["ledger/", "projections/", "server/", "client/", "fixtures/"]
                .iter()
                .any(|folder| quoted.starts_with(folder))
                && !quoted.contains([' ', '*']);
            assert!(!is_path || root().join(quoted).exists(), "{}: {quoted}", page.display());
            // Shorter names, and those of fields and figures, are no tests' names.
            let names_tests = page.ends_with("threat-model.md") || page.ends_with("scenarios.md");
            let is_test = names_tests
                && 4 <= quoted.matches('_').count()
                && quoted.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            let known = || code.contains(&format!("fn {quoted}("));
            assert!(!is_test || known(), "{}: no test {quoted}", page.display());
        }
    }
}

#[test]
fn the_rules_find_what_they_forbid() {
    assert!(mentions("    db: sled::Db,", "sled::"));
    assert!(mentions("use reqwest::Client;", "reqwest"));
    assert!(!mentions("pub use self::sled::SledLog;", "sled::"));
    assert!(!mentions("use keypool_openmls_like::X;", "openmls"));
    assert!(names_crate("use keypool_cli::run;", "keypool_cli"));
    assert!(!names_crate("use keypool_client::MlsClient;", "keypool_cli"));
    assert!(is_at_home("client/src/storage/vault.rs", HOMES[0].1));
    assert!(!is_at_home("client/src/storage_else.rs", HOMES[0].1));
    assert!(!may_name(room_of("client/src/lib.rs"), "server"));
    assert!(!may_name(room_of("ledger/src/lib.rs"), "projections"));
    assert!(may_name(room_of("server/api/src/lib.rs"), "projections"));
    assert_eq!(code_lines("//! sled::\n  /// sled::\nlet a;").collect::<Vec<_>>(), ["let a;"]);
    let types = "pub struct A<T>(T);\n  pub(in crate::b) enum B {\nstruct C;\npub trait D: C {\n\
                 pub type E = A<u8>;\n    type Err = E;\n// struct F;\nfn structure() {}\n\
                 #[uniffi::remote(Enum)]\npub enum H {\n\
                 mod tests {\n    struct G;";
    assert_eq!(types_of(types).collect::<Vec<_>>(), ["A", "B", "C", "D", "E"]);
    assert!(is_test("client/src/audit/tests/ledger.rs") && is_test("client/src/audit/tests.rs"));
    assert!(!is_test("client/src/audit/ledger.rs"));
}

/// The lines that are not comments.
pub(super) fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// The names of the types that a source file defines, but for those of its tests and associated types. A declaration
/// under `uniffi::remote` defines none: it repeats that of another crate.
fn types_of(text: &str) -> impl Iterator<Item = &str> {
    let text = text.split("\nmod tests {").next().unwrap_or_default();
    let mut before = "";
    code_lines(text).filter_map(move |line| {
        let is_repeated = std::mem::replace(&mut before, line).starts_with("#[uniffi::remote(");
        let item = line.trim_start();
        let item = match item.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
            Some(rest) => rest.trim_start(),
            None => item,
        };
        let (keyword, rest) = item.split_once(' ')?;
        let is_alias = keyword == "type" && !line.starts_with(' ');
        let defines = is_alias || ["struct", "enum", "trait", "union"].contains(&keyword);
        let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        (defines && !is_repeated && !name.is_empty()).then_some(name)
    })
}

/// Whether a source file holds tests of its crate.
fn is_test(name: &str) -> bool {
    name.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// Whether a line has a word: not just a longer one that it ends, nor a module of our own.
fn mentions(line: &str, word: &str) -> bool {
    let part_of_word = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(place, _)| {
        let before = &line[..place];
        !before.ends_with(part_of_word) && !before.ends_with("self::")
    })
}

/// Whether a line names a crate: not one whose name is longer, as `keypool_client` is than `keypool_cli`.
fn names_crate(line: &str, name: &str) -> bool {
    let goes_on = |rest: &str| rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
    mentions(line, name) && line.split(name).skip(1).any(|rest| !goes_on(rest))
}

fn is_at_home(name: &str, homes: &[&str]) -> bool {
    homes.iter().any(|home| name == *home || (home.ends_with('/') && name.starts_with(home)))
}

fn may_name(room: &Room, other: &str) -> bool {
    room.name == other || room.below.contains(&other)
}

/// The crate of a source file.
fn room_of(name: &str) -> &'static Room {
    let is_of =
        |room: &&Room| name.strip_prefix(room.folder).is_some_and(|rest| rest.starts_with("/src/"));
    ROOMS.iter().find(is_of).unwrap()
}

/// The source files of all crates: their names, from the root on, and what is in them.
fn sources() -> Vec<(String, String)> {
    let mut sources = Vec::new();
    for room in ROOMS {
        walk(&root().join(room.folder).join("src"), &mut |path| {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            sources.push((name, fs::read_to_string(path).unwrap()));
        });
    }
    assert!(sources.len() >= 20, "the sources are found");
    sources
}

/// The pages of the documentation.
fn pages() -> Vec<PathBuf> {
    let folders = ["", "docs", "docs/decisions", "fixtures", "fixtures/histories"];
    let mut pages = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    assert!(pages.len() > 15, "the pages are found");
    pages
}

pub(super) fn walk(dir: &Path, visit: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
            walk(&path, visit);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            visit(&path);
        }
    }
}

pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
