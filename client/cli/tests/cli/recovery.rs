//! A thief has the laptop: the devices and the 24 words of the recovery key, from the command line.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use insta::assert_snapshot;

use super::{
    command_line::{told, words},
    service::Service,
};

/// Runs `keypool` for a device of Alice's, in a home of its own, with some text typed.
fn alice(service: &Service, device: &str, arguments: &[&str], typed: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keypool"));
    command.args(["--user", "alice", "--device", device, "--home"]);
    command.arg(service.folder.path().join(device));
    command.args(["--server", &service.tunnel.url()]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = command.spawn().unwrap();
    // A program that has ended already reads nothing.
    let _ = program.stdin.take().unwrap().write_all(typed.as_bytes());
    program.wait_with_output().unwrap()
}

/// Alice's laptop and her phone.
fn laptop_and_phone(service: &Service) {
    alice(service, "laptop", &["register"], "");
    link(service, "laptop", "phone");
}

/// A device vouches for a new one, which registers.
fn link(service: &Service, old: &str, new: &str) {
    let refused = alice(service, new, &["register"], "");
    assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
    let refused = String::from_utf8(refused.stderr).unwrap();
    let key = refused.split(['`', ' ']).find(|word| word.len() == 43).unwrap().to_owned();
    let voucher = alice(service, old, &["vouch", new, &key], "");
    assert!(voucher.status.success(), "{}", told(&voucher));
    let voucher = String::from_utf8(voucher.stdout).unwrap();
    let voucher = voucher.split_whitespace().last().unwrap();
    let registered = alice(service, new, &["register", "--voucher", voucher], "");
    assert!(registered.status.success(), "{}", told(&registered));
}

/// The words that a device has shown.
fn shown(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines = text.lines().filter_map(|line| line.trim_start().split_once("  "));
    let lines = lines.filter(|(number, _)| number.parse::<usize>().is_ok());
    let words = lines.map(|(_, words)| words).collect::<Vec<_>>().join(" ");
    assert_eq!(words.split(' ').count(), 24, "{text}");
    words
}

#[test]
fn the_words_win_against_a_thief_who_has_removed_every_other_device() {
    let service = Service::start();
    laptop_and_phone(&service);
    let set = alice(&service, "phone", &["recovery-key"], "");
    let recovery_words = shown(&set);
    let is_of_words = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let set = told(&set);
    let lines: Vec<&str> = set.lines().filter(|line| !is_of_words(line)).collect();
    let mut said = vec![lines.join("\n")];
    said.push(told(&alice(&service, "laptop", &["remove-device", "phone"], "")));
    said.push(told(&alice(&service, "phone", &["remove-device", "laptop"], "")));
    // The thief cannot put words of his own in the place of those.
    let thief = alice(&service, "laptop", &["recovery-key"], "");
    said.push(words(std::str::from_utf8(&thief.stderr).unwrap()) + "\n");
    assert_eq!(thief.status.code(), Some(1));
    let thief = alice(&service, "laptop", &["recovery-key", "--before"], &shown(&thief));
    assert_eq!(thief.status.code(), Some(1), "{}", told(&thief));
    said.push(told(&alice(&service, "tablet", &["recover"], &recovery_words)));
    said.push(told(&alice(&service, "laptop", &["status"], "")));
    said.push(told(&alice(&service, "tablet", &["devices"], "")));
    assert_snapshot!(said.join("\n\n"), @"
    write these words down now; they are stored nowhere, and not shown again:
    the recovery key of alice is set: with these words, `keypool recover` registers a new device and removes all others
    keep the paper where no device is
    [0]

    alice/phone is removed: nobody is given a package of it, and its key is nobody's any more
    remove it from your groups as well; it comes back with a new key and a voucher
    [0]

    error: unauthenticated: unregistered key: KEY speaks for no device here. Register the device first: keypool register, POST /devices. If it was registered before, another device of the user or the operator has removed it, or its key was replaced. (request ID)
    [1]

    error: not_allowed: the statement about the recovery key is not a signature by the key it names, for this device, in this ledger, on the head and until the time it names. Ask as the device that owns the pool, holds the reservation, or is a member of the group. (request ID)
    the words above are no recovery key; if there is a recovery key already, `keypool recovery-key --before` replaces it by its words


    alice/tablet is registered by the recovery key; removed: laptop
    next: keypool refresh; it is in no group: have somebody remove your devices of before from each, and invite you
    [0]

    error: unauthenticated: unregistered key: KEY speaks for no device here. Register the device first: keypool register, POST /devices. If it was registered before, another device of the user or the operator has removed it, or its key was replaced. (request ID)
    [1]

    your devices:
      tablet KEY since DATE TIME by the recovery key (this one)
    [0]
    ");
}

#[test]
fn the_phone_removes_a_stolen_laptop() {
    let service = Service::start();
    laptop_and_phone(&service);
    let removed = told(&alice(&service, "phone", &["remove-device", "laptop"], ""));
    assert!(removed.contains("alice/laptop is removed"), "{removed}");
    let thief = told(&alice(&service, "laptop", &["remove-device", "phone"], ""));
    assert!(thief.ends_with("[1]"), "{thief}");
    let thief = told(&alice(&service, "laptop", &["register"], ""));
    assert!(thief.contains("key_retired"), "{thief}");
}

#[test]
fn words_are_replaced_with_those_of_before_and_are_good_for_nothing_then() {
    let service = Service::start();
    laptop_and_phone(&service);
    let first = shown(&alice(&service, "laptop", &["recovery-key"], ""));
    let typed = first.replacen(' ', "\n", 5).to_uppercase();
    let set = alice(&service, "phone", &["recovery-key", "--before", "--json"], &typed);
    let lines = String::from_utf8(set.stdout.clone()).unwrap();
    let values: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let second = values[0]["words"].as_str().unwrap();
    assert_eq!(values[1]["set"], true, "{lines}");
    let mut said = vec![
        told(&alice(&service, "tablet", &["recover"], &first)),
        told(&alice(&service, "tablet", &["recover"], "abandon art\n\n")),
        told(&alice(&service, "tablet", &["recover"], &first.replacen(' ', "x ", 1))),
    ];
    let recovered = alice(&service, "tablet", &["recover", "--json"], second);
    let reply: serde_json::Value = serde_json::from_slice(&recovered.stdout).unwrap();
    assert_eq!(reply["removed"], serde_json::json!(["laptop", "phone"]));
    said.push(told(&alice(&service, "laptop", &["recover"], second)));
    assert_snapshot!(words(&said.join("\n\n")), @"
    error: unauthenticated: unregistered key: KEY speaks for no device here. Register the device first: keypool register, POST /devices. If it was registered before, another device of the user or the operator has removed it, or its key was replaced. (request ID)
    [1]

    error: these are not the 24 words of the recovery key: a recovery key has 24 words, and there are 2
    [1]

    error: these are not the 24 words of the recovery key: word 1 is not one of the list; look for a slip of the pen
    [1]

    error: key_retired: key KEY was removed or replaced before; make a new one. Make a new key: one that was removed or rotated away is nobody's ever after. (request ID)
    this home's key was removed or replaced: take a new home, --home OTHER
    [1]
    ");
}
