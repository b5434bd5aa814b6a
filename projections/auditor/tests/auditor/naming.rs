//! Names that stand in a log, as the tool prints them: readable, and harmless for the terminal.

use std::{fmt::Write as _, fs, path::Path};

use insta::assert_snapshot;
use keypool_ledger::{Event, GroupId, RevokeReason, SignatureKey, StreamId};
use tempfile::TempDir;

use crate::{
    histories::{exported, sealed, written},
    history::{package, pool, reference},
    tool::tool_in,
};

/// Clears the screen, sets the window's title, begins a line, hides and turns the text behind.
const HOSTILE: &str = "m\u{1b}[2J\u{9b}31m\u{1b}]0;title\u{7}\n     7  forged\u{202e}\u{200b}y";

/// A log in which everything that a device may name is hostile.
fn hostile_log(dir: &Path) {
    let name = || HOSTILE.to_owned();
    let group = |id: &[u8]| StreamId::Group(GroupId::new(id).unwrap());
    let bobs = |event, payload: &[u8]| written(StreamId::Pool(pool("bob")), 0, event, payload);
    let signature_key = SignatureKey::new(&[1; 32]).unwrap();
    let revoked = Event::Revoked {
        keypackage_ref: reference("a"),
        reason: RevokeReason::Reported,
        check: Some(name()),
    };
    let made = || Event::GroupMade { creator: pool("bob") };
    let posted = Event::Posted { sender: pool("alice"), not_kept: Vec::new() };
    let registered = Event::Registered {
        signature_key,
        credential: name(),
        voucher: None,
        statement: None,
        frontend: None,
    };
    let records = vec![
        bobs(registered, &[]),
        bobs(Event::Uploaded(package("a").facts), b"a"),
        bobs(revoked, &[]),
        bobs(Event::UserBlocked { user: name() }, &[]),
        written(group(HOSTILE.as_bytes()), 0, made(), &[]),
        written(group(HOSTILE.as_bytes()), 0, posted, b"message"),
        written(group("Gruppe \u{c4}".as_bytes()), 0, made(), &[]),
        written(group(&[0xff; 16]), 0, made(), &[]),
    ];
    fs::write(dir.join("log.export"), exported(&sealed(records), 1024)).unwrap();
}

#[test]
fn names_in_a_log_are_readable_and_drive_no_terminal() {
    let (dir, mut all) = (TempDir::new().unwrap(), String::new());
    hostile_log(dir.path());
    let revoked = reference("a").to_string();
    for args in [
        &["log", "log.export"][..],
        &["--json", "log", "log.export", "--event", "group_made,user_blocked"],
        &["show", "log.export", "6"],
        &["explain", "log.export", &revoked],
        &["replay", "log.export"],
        &["replay", "log.export", "--step"],
        &["audit", "log.export"],
    ] {
        let (said, code) = tool_in(dir.path(), args);
        let drives = |c: &char| c.is_control() && *c != '\n' || "\u{202e}\u{200b}".contains(*c);
        assert_eq!(said.chars().find(drives), None, "{args:?}: {said:?}");
        assert!(!said.contains("\n     7  forged"), "{args:?}: {said}");
        let _ = writeln!(all, "$ keypool-ledger {}\n{said}[{code}]", args[..2].join(" "));
    }
    assert_snapshot!(all);
}

#[test]
fn escaped_names_are_the_same_for_programs() {
    let dir = TempDir::new().unwrap();
    hostile_log(dir.path());
    let (said, _) =
        tool_in(dir.path(), &["--json", "log", "log.export", "--event", "user_blocked"]);
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(told["event"]["user_blocked"]["user"], HOSTILE);
}
