//! A home that is in use by another process.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use keypool_client::{LocalStore, StorageError};

use super::{
    command_line::{keypool, keypool_in, told},
    service::Service,
    support::copy,
};

#[test]
fn a_second_process_on_a_home_is_refused() {
    let service = Service::start();
    assert_eq!(keypool(&service, &["register"]).status.code(), Some(0));
    let home = service.folder.path().join("alice");
    let owner = "alice".parse().unwrap();
    {
        let _held = LocalStore::open(&home, &owner).unwrap();
        let refused = told(&keypool(&service, &["status"]));
        let home = home.display().to_string();
        insta::assert_snapshot!(refused.replace(&home, "HOME"), @r"
        error: another process uses HOME; close it, or give this one a home of its own
        [1]
        ");
    }
    assert_eq!(keypool(&service, &["status"]).status.code(), Some(0));

    // And the other way round, until that process is killed.
    let mut chat = Command::new(env!("CARGO_BIN_EXE_keypool"))
        .args(["chat", "--user", "alice", "--server", &service.tunnel.url(), "--home"])
        .arg(&home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(chat.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let refused = LocalStore::open(&home, &owner).unwrap_err();
    assert!(matches!(refused, StorageError::InUse { .. }), "{refused}");
    chat.kill().unwrap();
    chat.wait().unwrap();
    LocalStore::open(&home, &owner).unwrap();
}

#[test]
fn two_copies_of_a_home_are_told_until_a_person_adopts_one() {
    let service = Service::start();
    keypool(&service, &["register"]);
    let [one, two] = ["alice", "copy"].map(|name| service.folder.path().join(name));
    std::fs::create_dir(&two).unwrap();
    copy(&one, &two);
    keypool(&service, &["refresh"]);
    let in_copy = |arguments: &[&str]| told(&keypool_in(&service, "copy", arguments));
    insta::assert_snapshot!(in_copy(&["refresh"]), @"");
    insta::assert_snapshot!(in_copy(&["adopt"]), @"");
    insta::assert_snapshot!(told(&keypool(&service, &["refresh"])), @"");
}

#[test]
fn a_refresh_that_leaves_nothing_to_hand_out_exits_with_one_and_says_why() {
    let week = Duration::from_hours(7 * 24);
    let service = Service::start_with(|settings| {
        settings.admission.lifetime_max = week;
        settings.admission.last_resort_lifetime_max = week;
    });
    keypool(&service, &["register"]);
    keypool(&service, &["refresh"]);
    insta::assert_snapshot!(told(&keypool(&service, &["refresh"])), @"");
}
