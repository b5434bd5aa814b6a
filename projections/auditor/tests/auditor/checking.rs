//! Checking signed papers: with the log's key, without it, and with another one.

use std::{fmt::Write as _, fs, path::Path};

use insta::assert_snapshot;
use keypool_transparency::NoteSigner;
use tempfile::TempDir;

use crate::{
    fixtures::{fixtures, signer},
    tool::tool_in,
};

/// Everything that `check` reads, with a file of each: names to give it.
pub(crate) const PAPERS: [&[&str]; 7] = [
    &["one.checkpoint"],
    &["unsigned.checkpoint"],
    &["signed.inclusion"],
    &["unsigned.inclusion"],
    &["grown.proof"],
    &["good.receipt"],
    &["first.receipt", "second.receipt"],
];

/// A folder with a file of everything that `check` reads.
pub(crate) fn papers() -> TempDir {
    let dir = TempDir::new().unwrap();
    for name in ["fork/one.export", "fork/one.checkpoint", "fork/other.checkpoint"] {
        fs::copy(fixtures().join(name), dir.path().join(name.trim_start_matches("fork/"))).unwrap();
    }
    for name in ["good.receipt", "forged.receipt", "first.receipt", "second.receipt"] {
        fs::copy(fixtures().join("receipts").join(name), dir.path().join(name)).unwrap();
    }
    let keep = |name: &str, args: &[&str]| {
        let (said, code) = tool_in(dir.path(), args);
        assert_eq!(code, 0, "{said}");
        fs::write(dir.path().join(name), said).unwrap();
    };
    let (log, origin) = ("one.export", "keypool.example/log");
    keep("unsigned.checkpoint", &["checkpoint", log, "--origin", origin, "--at", "20"]);
    let inclusion = ["prove", "inclusion", log, "15", "--checkpoint"];
    keep("signed.inclusion", &[&inclusion[..], &["one.checkpoint"]].concat());
    keep("unsigned.inclusion", &[&inclusion[..], &["unsigned.checkpoint"]].concat());
    let grown = ["prove", "consistency", log, "unsigned.checkpoint", "one.checkpoint"];
    keep("grown.proof", &grown);
    dir
}

fn check(dir: &Path, files: &[&str], key: Option<&str>) -> (String, i32) {
    let named = key.map_or(Vec::new(), |key| vec!["--key", key]);
    tool_in(dir, &[&["check"], files, &named].concat())
}

#[test]
fn without_the_key_nothing_is_verified_and_the_key_is_named() {
    let (dir, mut all) = (papers(), String::new());
    for files in PAPERS {
        let (said, code) = check(dir.path(), files, None);
        assert_eq!(code, 1, "{files:?}: {said}");
        let _ = writeln!(all, "$ keypool-ledger check {}\n{said}[{code}]", files.join(" "));
    }
    assert_snapshot!(all);
}

#[test]
fn with_the_key_all_is_verified_that_it_has_signed() {
    let (dir, key) = (papers(), signer().public().to_string());
    for files in PAPERS {
        let (said, code) = check(dir.path(), files, Some(&key));
        // Nobody has signed two of them, and two receipts prove a double hand-out.
        let wanted = match files {
            ["unsigned.checkpoint" | "unsigned.inclusion"] => 1,
            [_, _] => 4,
            _ => 0,
        };
        assert_eq!(code, wanted, "{files:?}: {said}");
    }
    let (said, _) = check(dir.path(), &["grown.proof"], Some(&key));
    assert!(said.contains("20 records, signed by nobody\n"), "{said}");
    assert!(said.contains("40 records, signed by the key that was named\n"), "{said}");
}

#[test]
fn an_altered_paper_is_damaged_with_and_without_the_key() {
    let (dir, key) = (papers(), signer().public().to_string());
    for (name, from, to) in
        [("signed.inclusion", "index 14", "index 13"), ("good.receipt", "index 12", "index 11")]
    {
        let text = fs::read_to_string(dir.path().join(name)).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(dir.path().join("altered"), text.replace(from, to)).unwrap();
        for key in [None, Some(key.as_str())] {
            let (said, code) = check(dir.path(), &["altered"], key);
            assert_eq!(code, 2, "{name}: {said}");
        }
    }
}

#[test]
fn evidence_has_its_key_and_is_against_no_other() {
    let (dir, key) = (papers(), signer().public().to_string());
    let other = NoteSigner::new("keypool.example/log", &[1; 32]).unwrap().public().to_string();
    let found = ["compare", "one.checkpoint", "other.checkpoint", "--key", &key];
    assert_eq!(tool_in(dir.path(), &found).1, 4);
    for (named, wanted) in [(None, 4), (Some(key.as_str()), 4), (Some(other.as_str()), 1)] {
        let (said, code) = check(dir.path(), &["keypool-evidence.txt"], named);
        assert_eq!(code, wanted, "{said}");
        assert!(said.contains(&key), "the key that has contradicted itself is told: {said}");
    }
}
