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
    insta::assert_snapshot!(in_copy(&["refresh"]), @r"
    34 new events, 0 packages expired, 0 uploaded again, 0 made and uploaded
    another copy of this home has used the pool within the last hour: stop one of the two. If this home is a backup that was put back, and no other copy is running, say `keypool adopt`
    32 packages available
    [0]
    ");
    insta::assert_snapshot!(in_copy(&["adopt"]), @r"
    0 new events, 0 packages expired, 0 uploaded again, 32 made and uploaded
    this home is an older copy of itself, and the server knows of packages that were made after it; what was said in your groups since is lost here: have this device removed from them and invited again; 33 packages that this device does not answer for were withdrawn from the server
    a new package of last resort stands behind the others
    32 packages available
    [0]
    ");
    insta::assert_snapshot!(told(&keypool(&service, &["refresh"])), @r"
    99 new events, 0 packages expired, 0 uploaded again, 0 made and uploaded
    another copy of this home has taken over and withdrawn the packages of this one, which makes no more; use that one, or say `keypool adopt` here to go on with this one
    32 packages available
    [0]
    ");
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
    insta::assert_snapshot!(told(&keypool(&service, &["refresh"])), @r"
    0 new events, 0 packages expired, 0 uploaded again, 0 made and uploaded
    rejected lifetime: the server takes no packages of last resort that live so long; they are offered again with another lifetime, or in a day
    rejected lifetime: the server takes no packages that live so long; they are offered again with another lifetime, or in a day
    0 packages available
    error: nobody can invite this device now: no package is available; the server has refused packages (lifetime: the server takes no packages of last resort that live so long; they are offered again with another lifetime, or in a day)
    [1]
    ");
}
