//! The key that comes with the first package of another signature scheme, as the auditor's tool shows it.

use std::fs;

use insta::assert_snapshot;
use keypool_ledger::{EventLog, RevokeReason};
use keypool_projections::{Command, RevokeScope};
use tempfile::TempDir;

use crate::{
    histories::exported,
    history::leaf_key,
    service::{Service, register, statement},
    tool::tool_in,
};

#[test]
fn the_tool_shows_which_key_signs_packages_and_finds_nothing_wrong_with_it() {
    let service = Service::new();
    service.run(1, "bob", register(1, "bob")).unwrap();
    let declare = |number| Command::DeclareLeafKey {
        statement: statement(&service, "bob", 1),
        leaf_key: leaf_key(number),
    };
    service.run(2, "bob", declare(5)).unwrap();
    service.upload(3, "bob", &["a", "a:5", "b:5"]);
    let all = Command::Revoke { which: RevokeScope::All, reason: RevokeReason::Withdrawn };
    service.run(4, "bob", all).unwrap();
    service.run(5, "bob", declare(6)).unwrap();
    service.upload(6, "bob", &["c:6"]);
    let records = service.log.read(1, usize::MAX).unwrap();
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("pinned.export"), exported(&records, 1024)).unwrap();
    let told = |args: &[&str]| tool_in(dir.path(), args);
    let about_keys = |args: &[&str]| {
        let (said, code) = told(args);
        let lines = said.lines().filter(|line| line.contains("leaf_key_pinned"));
        let lines: Vec<_> = lines.map(|line| line.split_whitespace().skip(3).collect()).collect();
        let lines: Vec<String> = lines.iter().map(|words: &Vec<&str>| words.join(" ")).collect();
        format!("{}\n[{code}]", lines.join("\n"))
    };
    assert_snapshot!(about_keys(&["replay", "pinned.export", "--step"]), @"
    leaf_key_pinned another key signs its packages of that scheme
    leaf_key_pinned another key signs its packages of that scheme
    [0]
    ");
    let key = leaf_key(6).signature_key.to_string();
    let shown = about_keys(&["log", "pinned.export"]).replace(&key, "KEY 6");
    assert!(shown.contains("leaf_key_pinned key KEY 6 signs packages of scheme 0x0403"), "{shown}");
    assert_eq!(told(&["audit", "pinned.export"]).1, 0);
    assert_eq!(told(&["rebuild", "--check", "pinned.export"]).1, 0);
}
