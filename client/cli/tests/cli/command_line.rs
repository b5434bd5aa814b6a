//! The command `keypool`, as it is typed: its output and its exit code.

use std::process::{Command, Output};

use insta::assert_snapshot;

use super::{
    service::{Service, group, run},
    support::lose_a_package,
};

/// Runs `keypool` for Alice at a server.
pub(crate) fn keypool(service: &Service, arguments: &[&str]) -> Output {
    keypool_in(service, "alice", arguments)
}

/// As [`keypool`], in another home of hers.
pub(crate) fn keypool_in(service: &Service, home: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keypool"))
        .args(["--home", service.folder.path().join(home).to_str().unwrap()])
        .args(["--server", &service.tunnel.url(), "--user", "alice"])
        .args(arguments)
        .output()
        .unwrap()
}

/// The output, with variable parts replaced by words.
pub(crate) fn told(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    let text = format!("{text}{errors}[{}]", output.status.code().unwrap());
    words(&text)
}

/// Replaces keys, references, ids of requests and times by words.
pub(crate) fn words(text: &str) -> String {
    let is_hex = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_id = |word: &str| word.matches('-').count() == 4;
    let replaced = |word: &str| match word.len() {
        43 => "KEY".to_owned(),
        37 if word.ends_with(')') && is_id(word) => "ID)".to_owned(),
        8 if is_hex(word) => "REF".to_owned(),
        10 if word.matches('-').count() == 2 => "DATE".to_owned(),
        8 if word.matches(':').count() == 2 => "TIME".to_owned(),
        _ if word.starts_with("http://127.0.0.1:") => "SERVER".to_owned(),
        _ => word.to_owned(),
    };
    let lines =
        text.lines().map(|line| line.split(' ').map(replaced).collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_device_is_registered_and_its_pool_kept() {
    let service = Service::start();
    let played = [
        &["register"][..],
        &["register", "--json"],
        &["status"],
        &["refresh"],
        &["refresh"],
        &["status"],
        &["history", "ffffffffff"],
    ]
    .map(|arguments| {
        format!("$ keypool {}\n{}", arguments.join(" "), {
            let output = keypool(&service, arguments);
            if arguments.contains(&"--json") { is_json(&output) } else { told(&output) }
        })
    });
    assert_snapshot!(played.join("\n\n"), @"
    $ keypool register
    alice/main is registered; its key is KEY
    next: keypool refresh
    [0]

    $ keypool register --json
    device keyid position user

    $ keypool status
    alice/main  empty
    [--------------------------------] 0 available
    reserved 0, spent 0, expired 0, revoked 0, uploaded 0 in all
    expiring within two days: 0
    of last resort: 0
    next: upload 32 packages
    [0]

    $ keypool refresh
    1 new event, 0 packages expired, 0 uploaded again, 32 made and uploaded
    a new package of last resort stands behind the others
    32 packages available
    [0]

    $ keypool refresh
    33 new events, 0 packages expired, 0 uploaded again, 0 made and uploaded
    32 packages available
    [0]

    $ keypool status
    alice/main  healthy
    [################################] 32 available
    reserved 0, spent 0, expired 0, revoked 0, uploaded 32 in all
    expiring within two days: 0
    of last resort: 1
    next: nothing to do
    [0]

    $ keypool history ffffffffff
    error: no package here has a reference that begins with ffffffffff
    [1]
    ");
}

/// Checks that each line is one JSON object, whose content is the API's.
fn is_json(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let objects = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let keys = objects.map(|object: serde_json::Map<String, serde_json::Value>| {
        object.keys().cloned().collect::<Vec<_>>().join(" ")
    });
    keys.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_history_is_a_table_or_one_object_a_line() {
    let service = Service::start();
    keypool(&service, &["register"]);
    keypool(&service, &["refresh"]);
    let table = told(&keypool(&service, &["history"]));
    assert_eq!(table.lines().filter(|line| line.contains("uploaded")).count(), 33);
    assert_eq!(table.lines().filter(|line| line.contains("last resort")).count(), 1);
    let own = told(&keypool(&service, &["history", "--own"]));
    assert_eq!(own.lines().filter(|line| line.contains("created")).count(), 33);
    let json = is_json(&keypool(&service, &["history", "--json"]));
    assert_eq!(json.lines().count(), 34);
}

#[test]
fn an_error_code_is_explained() {
    let service = Service::start();
    let told =
        ["pool_exhausted", "no_such_code"].map(|code| told(&keypool(&service, &["explain", code])));
    assert_snapshot!(told.join("\n\n"), @r#"
    pool_exhausted: No KeyPackage is left to hand out
      Try again later: the owner's app refills the pool when it comes online.
      the same request may succeed later
    [0]

    error: "no_such_code" is no error code
    [1]
    "#);
}

#[test]
fn what_went_wrong_is_said_with_what_to_do() {
    let service = Service::start();
    let not_registered = told(&keypool(&service, &["status"]));
    let mut nobody = Command::new(env!("CARGO_BIN_EXE_keypool"));
    let nobody = told(&nobody.arg("status").env_clear().output().unwrap());
    assert_snapshot!(format!("{not_registered}\n\n{nobody}"), @"
    error: unauthenticated: unregistered key: KEY speaks for no device here. Register the device first: keypool register, POST /devices. If it was registered before, another device of the user or the operator has removed it, or its key was replaced. (request ID)
    [1]

    error: whose device is it? Say --user NAME
    [1]
    ");
}

#[test]
fn the_help_says_what_there_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_keypool")).arg("--help").output().unwrap();
    assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r"
    Keeps a device's pool of MLS KeyPackages, and chats over it

    Usage: keypool [OPTIONS] <COMMAND>

    Commands:
      chat           Talk to others: groups, invitations, messages
      register       Make the device's keys and register them at the server
      vouch          Vouch for another device of the user, so that it can register
      remove-device  Remove a device of the user, this one or another: its key is nobody's ever after
      verify         Show the safety number of you and another user, to compare it with them
      devices        Show the devices of a user with their keys, and how each came to be the user's
      recovery-key   Make a recovery key: 24 words, shown once, that register a device when all others
                     are lost
      recover        Register this device by the 24 words of the recovery key, which are read from
                     standard input, and remove all others
      status         Show how full the pool is
      refresh        Keep the pool: fetch its history, clean up, refill it if it is low
      history        Show what happened to the pool, or to one package
      doctor         Look for what the device's history and its store disagree on
      audit          Look for what the server has told that cannot be so; ends with 3 if a rule is
                     broken, with 4 if the server has told two histories
      rotate-key     Give the device another signature key, and withdraw the packages of the one before
      withdraw       Withdraw all packages: nobody is given one until the next refresh makes new ones
      adopt          Go on with this copy of the home: no other copy of it is used any more
      reseal         Seal the device's keys with another passphrase, or with a new key file
      move-store     Move the home's store to another database; nothing of it is lost
      explain        Say what an error code means, or list them all
      help           Print this message or the help of the given subcommand(s)

    Options:
          --home <DIR>              Where the device's keys and groups are [env: KEYPOOL_HOME=]
          --server <URL>            The server [env: KEYPOOL_SERVER=] [default: http://127.0.0.1:8080]
          --user <NAME>             Whose device this is [env: KEYPOOL_USER=]
          --device <NAME>           Which of the user's devices [env: KEYPOOL_DEVICE=] [default: main]
          --passphrase-file <FILE>  A file whose first line is the passphrase that seals the device's
                                    keys; without it they are sealed with a key file in the home [env:
                                    KEYPOOL_PASSPHRASE_FILE=]
          --token <TOKEN>           A token of the server's operator, for registering where the server
                                    asks for one [env: KEYPOOL_TOKEN]
          --json                    Print JSON, one object a line
      -h, --help                    Print help
      -V, --version                 Print version
    ");
}

#[test]
fn a_store_moves_to_another_database_and_back() {
    let service = Service::start();
    let played = [
        &["register"][..],
        &["refresh"],
        &["move-store", "sqlite"],
        &["move-store", "sqlite"],
        &["doctor"],
        &["refresh"],
        &["move-store", "sled"],
        &["doctor"],
        &["move-store", "paper"],
    ]
    .map(|arguments| told(&keypool(&service, arguments)));
    assert_snapshot!(played[2..].join("\n\n"), @"
    the store is in SQLite
    [0]

    nothing to do: the store is already in SQLite
    [0]

    the device's history and its store agree
    deleted keys: the file system overwrites what is deleted
    [0]

    0 new events, 0 packages expired, 0 uploaded again, 0 made and uploaded
    32 packages available
    [0]

    the store is in sled
    [0]

    the device's history and its store agree
    deleted keys: the file system overwrites what is deleted
    [0]

    error: invalid value 'paper' for '<TO>'
      [possible values: sled, sqlite]

    For more information, try '--help'.
    [2]
    ");
}

#[test]
fn keys_are_sealed_with_a_passphrase_and_sealed_anew() {
    let service = Service::start();
    let file = |name: &str, text: &str| {
        let path = service.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (first, second) = (file("first", "correct horse\n"), file("second", "battery staple"));
    let empty = file("empty", "\n");
    let missing = service.folder.path().join("missing");
    let played = [
        &["--passphrase-file", &first, "register"][..],
        &["--passphrase-file", &second, "doctor"],
        &["doctor"],
        &["--passphrase-file", &empty, "doctor"],
        &["--passphrase-file", missing.to_str().unwrap(), "doctor"],
        &["--passphrase-file", &first, "reseal", "--new-passphrase-file", &second],
        &["--passphrase-file", &first, "doctor"],
        &["--passphrase-file", &second, "reseal"],
        &["doctor"],
    ]
    .map(|arguments| told(&keypool(&service, arguments)));
    let text = played.join("\n\n").replace(service.folder.path().to_str().unwrap(), "FOLDER");
    assert_snapshot!(text, @"
    alice/main is registered; its key is KEY
    next: keypool refresh
    [0]

    error: the passphrase is not the one that FOLDER/alice was sealed with; try again
    [1]

    error: FOLDER/alice is sealed with a passphrase, not with a key in a file; open it with that
    [1]

    error: the first line of FOLDER/empty is no passphrase
    [1]

    error: the passphrase in FOLDER/missing cannot be read: No such file or directory (os error 2)
    [1]

    the device's keys are sealed with the new passphrase
    [0]

    error: the passphrase is not the one that FOLDER/alice was sealed with; try again
    [1]

    the device's keys are sealed with a new key file in the home
    [0]

    the device's history and its store agree
    deleted keys: the file system overwrites what is deleted
    [0]
    ");
}

#[test]
fn a_refresh_right_after_another_says_how_many_packages_are_left() {
    let service = Service::start();
    keypool(&service, &["register"]);
    keypool(&service, &["refresh"]);
    run(async {
        let bob = service.device("bob", 0).await;
        bob.create_group(&group("g")).unwrap();
        bob.invite(&group("g"), ["alice"]).await.unwrap();
    });
    let said = told(&keypool(&service, &["refresh"]));
    assert!(!said.contains("0 new events") && said.contains("31 packages available"), "{said}");
}

#[test]
fn packages_are_withdrawn_and_the_key_is_replaced() {
    let service = Service::start();
    let played = [
        &["register"][..],
        &["refresh", "--target", "3"],
        &["withdraw"],
        &["withdraw", "--json"],
        &["rotate-key"],
        &["status"],
        &["register"],
    ]
    .map(|arguments| told(&keypool(&service, arguments)));
    assert_snapshot!(played.join("\n\n"), @r#"
    alice/main is registered; its key is KEY
    next: keypool refresh
    [0]

    1 new event, 0 packages expired, 0 uploaded again, 3 made and uploaded
    a new package of last resort stands behind the others
    3 packages available
    [0]

    4 packages are withdrawn
    next: keypool refresh
    [0]

    {"withdrawn":0}
    [0]

    the key is KEY now; 32 new packages are available
    the chat brings it into your groups
    [0]

    alice/main  healthy
    [################################] 32 available
    reserved 0, spent 0, expired 0, revoked 3, uploaded 35 in all
    expiring within two days: 0
    of last resort: 1
    next: nothing to do
    [0]

    alice/main is registered; its key is KEY
    next: keypool refresh
    [0]
    "#);
}

#[test]
fn a_pool_is_kept_of_two_ciphersuites() {
    let service = Service::start();
    let both = ["--ciphersuites", "1,2", "--target", "3"];
    keypool(&service, &["register"]);
    let played = [
        &[&["refresh"][..], &both].concat()[..],
        &["status"],
        &[&["rotate-key"][..], &both].concat(),
        &["status"],
        &["refresh", "--ciphersuites", "1,4"],
        &["refresh", "--ciphersuites", "1,2,3"],
    ]
    .map(|arguments| told(&keypool(&service, arguments)));
    assert_snapshot!(played.join("\n\n"), @"
    1 new event, 0 packages expired, 0 uploaded again, 6 made and uploaded
    a new package of last resort stands behind the others
    6 packages available
    [0]

    alice/main  low
    [######--------------------------] 6 available
    of these 3 of ciphersuite 1, 3 of ciphersuite 2
    reserved 0, spent 0, expired 0, revoked 0, uploaded 6 in all
    expiring within two days: 0
    of last resort: 2
    next: upload 26 packages
    [0]

    the key is KEY now; 6 new packages are available
    the chat brings it into your groups
    [0]

    alice/main  low
    [######--------------------------] 6 available
    of these 3 of ciphersuite 1, 3 of ciphersuite 2
    reserved 0, spent 0, expired 0, revoked 6, uploaded 12 in all
    expiring within two days: 0
    of last resort: 2
    next: upload 26 packages
    [0]

    error: ciphersuite 4 is not one the device can use; 1, 2, 3, 78 and 79 are
    [1]

    error: a target of 32 packages for each of 3 ciphersuites is above the cap of 64; at most 21 each fit
    [1]
    ");
}

#[test]
fn a_device_is_removed_and_stays_its_users() {
    let service = Service::start();
    let played = [
        &["register"][..],
        &["remove-device", "phone"],
        &["remove-device", "main"],
        &["status"],
        &["--token", "secret", "register"],
    ]
    .map(|arguments| told(&keypool(&service, arguments)));
    assert_snapshot!(played.join("\n\n"), @"
    alice/main is registered; its key is KEY
    next: keypool refresh
    [0]

    error: unknown_user: the device is not registered, or was removed. Check the name; the owner registers with POST /devices. (request ID)
    [1]

    alice/main is removed: nobody is given a package of it, and its key is nobody's any more
    remove it from your groups as well; it comes back with a new key and a voucher
    [0]

    error: unauthenticated: unregistered key: KEY speaks for no device here. Register the device first: keypool register, POST /devices. If it was registered before, another device of the user or the operator has removed it, or its key was replaced. (request ID)
    [1]

    error: key_retired: key KEY was removed or replaced before; make a new one. Make a new key: one that was removed or rotated away is nobody's ever after. (request ID)
    this device was removed, or its home is an old copy: its key is nobody's ever after; register with a new home, --home OTHER, and have it vouched for on a device that is left
    [1]
    ");
}

#[test]
fn the_doctor_says_what_is_lost_and_mends_what_can_be() {
    let service = Service::start();
    keypool(&service, &["register"]);
    keypool(&service, &["refresh", "--target", "3"]);
    let before = told(&keypool(&service, &["doctor"]));
    // The keys of a package that the server may hand out go missing.
    let home = service.folder.path().join("alice");
    let store = std::sync::Arc::new(
        keypool_client::LocalStore::open(&home, &"alice".parse().unwrap()).unwrap(),
    );
    lose_a_package(&store);
    drop(store);
    let ill = told(&keypool(&service, &["doctor"]));
    let mended = told(&keypool(&service, &["doctor", "--repair"]));
    let after = told(&keypool(&service, &["doctor"]));
    let status = told(&keypool(&service, &["status"]));
    let text = [before, ill, mended, after, status].join("\n\n");
    assert_snapshot!(text, @"
    the device's history and its store agree
    deleted keys: the file system overwrites what is deleted
    [0]

    package REF may still be used, and its private keys are lost
    package REF is to be withdrawn from the server
    deleted keys: the file system overwrites what is deleted
    error: something is not as it should be; `keypool doctor --repair` mends it
    [1]

    package REF may still be used, and its private keys are lost (repaired)
    package REF is to be withdrawn from the server
    deleted keys: the file system overwrites what is deleted
    [0]

    the device's history and its store agree
    deleted keys: the file system overwrites what is deleted
    [0]

    alice/main  critical
    [##------------------------------] 2 available
    reserved 0, spent 0, expired 0, revoked 1, uploaded 3 in all
    expiring within two days: 0
    of last resort: 1
    next: upload 30 packages
    [0]
    ");
}
