//! `keypool audit` as it is typed, and the chat's text for the same.

use std::{fs, net::TcpListener};

use insta::assert_snapshot;
use keypool_transparency::{NoteSigner, TreeHash};

use super::{
    chat::typed,
    command_line::{keypool, told},
    people::published_to,
    service::{Service, run},
    support::in_a_minute,
};

/// The output of `keypool audit` for Alice, with variable parts replaced by words.
fn audit(service: &Service, arguments: &[&str]) -> String {
    let text = told(&keypool(service, &[&["audit"][..], arguments].concat()));
    let text = text.replace(service.server.ledger_key(), "LEDGER-KEY");
    let text = text.replace(service.folder.path().to_str().unwrap(), "FOLDER");
    let text = text.replace(&service.tunnel.authority(), "keys.example");
    // How the signatures of a key begin depends on its name.
    match text.split_once("keys.example+") {
        Some((before, after)) => format!("{before}keys.example+ID{}", &after[8..]),
        None => text,
    }
}

/// How many records were published by then is the server's affair.
fn without_size(text: &str) -> String {
    let is_size = |line: &str| line.starts_with("a checkpoint of keys.example at ");
    let lines = text.lines().map(|line| match line.split_once(" records, ") {
        Some((_, rest)) if is_size(line) => format!("a checkpoint at N records, {rest}"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A checkpoint in the ledger's name that somebody else has signed.
fn foreign_note(service: &Service) -> String {
    let name = service.tunnel.authority();
    let signer = NoteSigner::new(&name, &[7; 32]).unwrap();
    let note = signer.sign(&format!("{name}\n99\n{}\n", TreeHash::leaf(b"?")));
    note.unwrap().to_string()
}

#[test]
fn what_was_checked_is_said_where_nothing_is_found() {
    let service = Service::start();
    let before = audit(&service, &[]);
    keypool(&service, &["register"]);
    keypool(&service, &["refresh", "--target", "2"]);
    let unchecked = audit(&service, &[]);
    let checked = audit(&service, &["--ledger-key", service.server.ledger_key()]);
    let json = told(&keypool(&service, &["audit", "--json"]));
    let keys = ["events", "head", "joined", "checkpoint", "findings", "not_asked"];
    assert!(keys.iter().all(|key| json.contains(&format!("\"{key}\":"))), "{json}");
    let wrong = audit(&service, &["--ledger-key", "abc"]);
    assert_snapshot!(without_size(&[before, unchecked, checked, wrong].join("\n\n")), @"
    the server's history is not known here yet
    0 Welcomes joined here
    no checkpoint of the server's log is known here
    the newest is not known: unauthenticated: unregistered key: KEY speaks for no device here. Register the device first: keypool register, POST /devices. If it was registered before, another device of the user or the operator has removed it, or its key was replaced. (request ID)
    nothing was found
    [1]

    4 events of the server's history, each chained to the one before; the last is REF
    0 Welcomes joined here
    a checkpoint at N records, signed by LEDGER-KEY
    nothing was found
    [0]

    4 events of the server's history, each chained to the one before; the last is REF
    0 Welcomes joined here
    a checkpoint at N records, signed by LEDGER-KEY
    nothing was found
    [0]

    error: invalid value 'abc' for '--ledger-key <KEY>': it is no key of a note: NAME+HASH+BASE64, as a log publishes it

    For more information, try '--help'.
    [2]
    ");
}

#[test]
fn what_breaks_a_rule_ends_with_3_and_is_said_once_in_the_chat() {
    let service = Service::start();
    keypool(&service, &["register"]);
    keypool(&service, &["refresh", "--target", "2"]);
    audit(&service, &["--ledger-key", service.server.ledger_key()]);
    service.tunnel.forge(1, 200, &foreign_note(&service));
    let other_key = audit(&service, &[]);
    assert_snapshot!(without_size(&other_key), @"
    4 events of the server's history, each chained to the one before; the last is REF
    0 Welcomes joined here
    a checkpoint at N records, signed by LEDGER-KEY
    broken: The server's ledger is signed by keys.example+ID now; it was LEDGER-KEY. Ask who runs the server for the ledger's key, by another way than this server, and say it with --ledger-key.
    [3]
    ");
    let json = told(&keypool(&service, &["audit", "--json"]));
    assert!(json.contains("\"finding\":\"ledger_key_changed\""), "{json}");
    assert!(json.contains("\"gravity\":\"broken\"") && json.ends_with("[3]"), "{json}");
    let chat = typed(&service, "alice", "/refresh\n/refresh\n/refresh\n");
    let said: Vec<&str> = chat.lines().filter(|line| line.contains("keypool audit")).collect();
    assert_snapshot!(said.join("\n"), @"1 thing in what the server has told should not be; end the chat, and `keypool audit` says what");
}

#[test]
fn two_histories_end_with_4_and_their_evidence_is_saved() {
    run(async {
        let service = Service::start();
        keypool(&service, &["register"]);
        keypool(&service, &["refresh", "--target", "2"]);
        audit(&service, &["--ledger-key", service.server.ledger_key()]);
        let (service, other) = service.fork().await;
        let add = async |name: &str| {
            let device = service.device(name, 0).await;
            in_a_minute(published_to(&device, 5)).await;
        };
        add("carol").await;
        let sound = audit(&service, &[]);
        service.tunnel.lead_to(other.address());
        add("dave").await;
        let file = service.folder.path().join("evidence");
        let found = audit(&service, &["--evidence", file.to_str().unwrap()]);
        let again = audit(&service, &["--evidence", file.to_str().unwrap()]);
        assert_snapshot!([sound, found, again].join("\n\n"), @"
        4 events of the server's history, each chained to the one before; the last is REF
        0 Welcomes joined here
        a checkpoint of keys.example at 5 records, signed by LEDGER-KEY
        nothing was found
        [0]

        4 events of the server's history, each chained to the one before; the last is REF
        0 Welcomes joined here
        a checkpoint of keys.example at 5 records, signed by LEDGER-KEY
        equivocation: The server has told two histories, both signed by its key: two checkpoints of 5 records have other ones. Do not trust this server any more; save the evidence with --evidence, and show it to others who use it.
        [4]

        4 events of the server's history, each chained to the one before; the last is REF
        0 Welcomes joined here
        a checkpoint of keys.example at 5 records, signed by LEDGER-KEY
        equivocation: The server has told two histories, both signed by its key: two checkpoints of 5 records have other ones. Do not trust this server any more; save the evidence with --evidence, and show it to others who use it.
        [4]
        ");
        let evidence = fs::read_to_string(file).unwrap();
        let key = format!("key {}\n", service.server.ledger_key());
        assert!(evidence.starts_with("keypool/equivocation@v1\n") && evidence.contains(&key));
        other.stop().await;
    });
}

#[test]
fn what_cannot_be_asked_is_not_called_fine() {
    let service = Service::start();
    keypool(&service, &["register"]);
    keypool(&service, &["refresh", "--target", "2"]);
    // Where nobody listens.
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    service.tunnel.lead_to(nowhere);
    let text = without_size(&audit(&service, &[])).replace(": error sending request", "\n");
    let lines = text.lines().filter(|line| !line.starts_with(": client error"));
    assert_snapshot!(lines.collect::<Vec<_>>().join("\n"), @"
    1 event of the server's history, each chained to the one before; the last is REF
    0 Welcomes joined here
    a checkpoint at N records, signed by LEDGER-KEY
    the newest is not known: the server at SERVER cannot be reached; check the address, and that it is running
    nothing was found
    [1]
    ");
}
