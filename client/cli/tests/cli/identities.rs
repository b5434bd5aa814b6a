//! Whose key it is, as the chat and the commands tell it: people who call themselves by others' names, safety
//! numbers, and keys that change.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use insta::assert_snapshot;
use keypool_api::{Base64, ClaimRequest, CommitRequest, GroupRequest, ReserveRequest};
use keypool_client::{MlsMembership, OfferedPackage, PendingAdd, fresh_command};
use keypool_ledger::GroupId;
use keypool_server::{RegistrationPolicy, RegistrationSettings};

use super::{
    chat::{Person, patient_chat, typed},
    command_line::{keypool, told, words},
    members::{Client, open},
    service::{Service, group, run},
    support::{Device, now},
};

/// The id of a group that the chat calls `friday`.
fn friday() -> GroupId {
    group("friday~0123456789abcdef")
}

/// Mallory's device, with a group that only the server knows so far.
async fn mallory_with_a_group(service: &Service, groups: &MlsMembership) -> Client {
    drop(service.device("mallory", 0).await);
    let mallory = open(service, "mallory");
    groups.create_group(&friday(), 1, now()).unwrap();
    let request = GroupRequest { group_id: friday() };
    mallory.connection().api().make_group(&request, fresh_command()).await.unwrap();
    mallory
}

/// Posts a Commit of a group in Mallory's name.
async fn post(mallory: &Client, added: PendingAdd, spend: Vec<ClaimRequest>) {
    let welcomes = spend.iter().map(|_| Base64(added.welcome.clone())).collect();
    let (epoch, commit) = (added.epoch, Base64(added.commit));
    let request = CommitRequest { epoch, commit, welcomes, spend, removed: Vec::new() };
    let api = mallory.connection().api();
    api.post_commit(&friday(), &request, fresh_command()).await.unwrap();
}

/// Mallory brings Alice into a group in which her own leaf says `bob`.
async fn mallory_invites_as_bob(service: &Service) {
    let bob = Device::new("bob/main");
    let mallory = mallory_with_a_group(service, &bob.groups).await;
    let request = ReserveRequest {
        target_user: "alice".to_owned(),
        target_device: None,
        group_id: friday(),
        reservation_id: None,
        ciphersuites: Vec::new(),
        required: None,
        contact_token: None,
    };
    let reply = mallory.connection().api().reserve(&request, fresh_command()).await.unwrap();
    let keypackage_ref = reply.keypackage_ref;
    let offer = OfferedPackage {
        keypackage_ref: keypackage_ref.clone(),
        owner: "alice/main".parse().unwrap(),
        bytes: reply.keypackage.0,
    };
    let added = bob.add(&friday(), &[offer]);
    let claim = ClaimRequest { keypackage_ref, reservation_id: reply.reservation_id };
    post(&mallory, added, vec![claim]).await;
}

/// Mallory, by her own name, brings Alice into a group with a member who says to be Bob.
async fn mallory_invites_with_a_false_bob(service: &Service) {
    let bob = Device::new("bob/main");
    drop(service.device("mallory", 0).await);
    let mallory = open(service, "mallory");
    mallory.create_group_in(&friday(), 1).unwrap();
    let request = GroupRequest { group_id: friday() };
    mallory.connection().api().make_group(&request, fresh_command()).await.unwrap();
    let added = mallory.membership().stage_add(&friday(), &[bob.offer()], now()).unwrap();
    post(&mallory, added, Vec::new()).await;
    mallory.membership().merge_pending_commit(&friday()).unwrap();
    mallory.invite(&friday(), ["alice"]).await.unwrap();
}

#[test]
fn an_invitation_in_the_name_of_somebody_else_is_refused_and_told() {
    let service = Service::start();
    for name in ["alice", "bob"] {
        typed(&service, name, "");
    }
    run(mallory_invites_as_bob(&service));
    let mut alice = Person::opens(&mut patient_chat(&service, "alice"));
    let said = alice.reads_to("was refused");
    assert!(!said.contains("has brought you into"), "{said}");
    let said = said.lines().last().unwrap_or_default();
    assert_snapshot!(said, @"an invitation to friday in the name of bob was refused: another key is registered for the device. Somebody else may be using bob's name: ask bob by another way than this chat");
    alice.says("/groups");
    alice.reads("you are in no group");
    let (rest, code) = alice.ends();
    assert_eq!((code, rest.iter().any(|line| line.contains("refused"))), (0, false), "{rest:?}");
    let again = typed(&service, "alice", "/groups\n");
    assert!(!again.contains("refused"), "told once: {again}");
    let audit = told(&keypool(&service, &["audit"]));
    assert!(audit.ends_with("[3]") && audit.contains("bob/main"), "{audit}");
}

#[test]
fn a_member_who_may_be_somebody_else_is_marked_and_nothing_is_sent_until_the_user_chooses() {
    let service = Service::start();
    for name in ["alice", "bob"] {
        typed(&service, name, "");
    }
    run(mallory_invites_with_a_false_bob(&service));
    let mut alice = Person::opens(&mut patient_chat(&service, "alice"));
    let mut said = vec![alice.reads_to("nothing you write goes")];
    alice.says("hello");
    said.push(alice.reads_to("nothing you write goes"));
    alice.says("/list");
    said.push(alice.reads_to("bob(!): "));
    alice.says("/accept");
    said.push(alice.reads_to("accepted"));
    alice.says("hello");
    alice.says("/accept");
    said.push(alice.reads_to("nobody in friday waits"));
    alice.says("/remove bob");
    said.push(alice.reads_to("bob is out of friday"));
    alice.says("/list");
    said.push(alice.reads_to("in friday: "));
    assert_eq!(alice.ends().1, 0);
    let said = said.join("\n");
    let said: Vec<&str> = said.lines().skip_while(|line| !line.contains("brought")).collect();
    assert_snapshot!(said.join("\n"), @"
    mallory has brought you into friday
    bob(!) in friday may be somebody else: another key is registered for the device
    nothing you write goes to friday until you choose: /remove bob, or, once you have asked them by another way, /accept
    that was not sent
    bob(!) in friday may be somebody else: another key is registered for the device
    nothing you write goes to friday until you choose: /remove bob, or, once you have asked them by another way, /accept
    in friday: mallory, bob(!), alice (you)
    bob(!): another key is registered for the device
    bob(!) in friday: accepted; what you write goes to them
    nobody in friday waits to be accepted; /list shows who is there
    bob is out of friday
    in friday: mallory, alice (you)
    ");
}

/// The lines of a safety number.
fn number_in(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.starts_with("  ")).collect()
}

#[test]
fn two_people_see_the_same_safety_number_and_verify_each_other() {
    let service = Service::start();
    typed(&service, "bob", "");
    typed(&service, "alice", "/create friday\n/invite bob\n");
    let at_alice =
        typed(&service, "alice", "/verify bob\n/list\n/verify bob yes\n/verify bob yes\n/list\n");
    let at_bob = typed(&service, "bob", "/verify alice\n");
    let number = number_in(&at_bob);
    assert_eq!(number.len(), 3, "{at_bob}");
    assert_eq!(number_in(&at_alice)[..3], number);
    let said = at_alice.replace(&number.join("\n"), "  NUMBER");
    assert_snapshot!(said, @"
    the safety number of you and bob:
      NUMBER
    bob sees it by /verify alice. Compare all of it, face to face or on the phone, not in this chat
    if it is the same: /verify bob yes
    in friday: alice (you), bob
    bob is verified; you are told if the keys of bob change
    bob is verified; you are told if the keys of bob change
    in friday: alice (you), bob (verified)
    [0]
    ");
    let by_command = told(&keypool(&service, &["verify", "bob"]));
    assert!(by_command.starts_with("the safety number") && by_command.contains("bob is verified"));
    let json = keypool(&service, &["verify", "bob", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let digits = json["safety_number"].as_str().unwrap().split(' ').collect::<Vec<_>>();
    assert_eq!(digits, number.iter().flat_map(|line| line.split_whitespace()).collect::<Vec<_>>());
    assert_eq!(json["verified"], true);
}

#[test]
fn nobody_is_verified_or_accepted_without_need() {
    let service = Service::start();
    typed(&service, "bob", "");
    let said = typed(
        &service,
        "alice",
        "/verify\n/verify alice\n/verify carol\n/accept bob\n/accept carol yes\n/accept\n/devices carol\n/devices bob\n",
    );
    assert_snapshot!(words(&said), @"
    whom? /verify USER, and then /verify USER yes
    that is you; /devices shows your devices
    carol has no device at this server; check the name
    the keys of bob follow from those you have seen; /verify bob compares them
    carol has no device at this server; check the name
    you are in no group; /create NAME makes one, /groups lists yours
    carol has no device at this server; check the name
    bob, not verified; /verify bob compares the keys
      main KEY since DATE TIME the first one
    [0]
    ");
}

/// The operator releases the name of a user, as `keypool-server release-name` asks for it.
fn release(service: &Service, user: &str) {
    let address = service.server.admin_address();
    let body = format!("{{\"user\":\"{user}\"}}");
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /names/release HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn keys_that_have_changed_are_told_and_taken_only_when_the_user_says_so() {
    let service = Service::start();
    typed(&service, "bob", "");
    typed(&service, "alice", "/create friday\n/invite bob\n/verify bob\n");
    release(&service, "bob");
    std::fs::rename(service.folder.path().join("bob"), service.folder.path().join("old")).unwrap();
    typed(&service, "bob", "");
    let said = typed(
        &service,
        "alice",
        "/create monday\n/invite bob\n/verify bob yes\n/accept bob\n/accept bob yes\n/invite bob\n/devices bob\n",
    );
    assert_snapshot!(words(&said), @"
    monday is made; /invite USER… brings people in
    bob was not invited: the keys of bob are not those you have seen before: the server's operator has released the name: it may be another person; /accept bob shows more
    ATTENTION: the keys of bob are not those you have seen before: the server's operator has released the name: it may be another person. Nobody is invited by the new ones: ask bob by another way than this chat, then /accept bob, and /verify bob
    the keys of bob are not those you have seen before: the server's operator has released the name: it may be another person; /accept bob shows more
    the keys of bob are not those you have seen before: the server's operator has released the name: it may be another person; seen before were:
      main KEY since DATE TIME the first one
    ask bob by another way than this chat; if the change is theirs: /accept bob yes
    the keys of bob are not those you have seen before: the server's operator has released the name: it may be another person; seen before were:
      main KEY since DATE TIME the first one
    accepted are:
      main KEY since DATE TIME the first one
    bob is not verified now; /verify bob compares the keys
    bob is in monday; they see what is said from now on
    bob, not verified; /verify bob compares the keys
      main KEY since DATE TIME the first one
    [0]
    ");
    let audit = told(&keypool(&service, &["audit"]));
    assert!(!audit.contains("bob"), "{audit}");
}

#[test]
fn a_device_that_a_verified_user_links_is_told_once() {
    let service = Service::start();
    typed(&service, "bob", "");
    typed(&service, "alice", "/create friday\n/invite bob\n/verify bob\n/verify bob yes\n");
    let mut alice = Person::opens(&mut patient_chat(&service, "alice"));
    alice.says("/verify bob\n/verify bob yes");
    alice.reads("bob is verified");
    run(async {
        let bob = open(&service, "bob");
        drop(super::members::second_device(&service, &bob, "phone").await);
    });
    alice.says("/invite bob/phone");
    let said = alice.reads_to("have changed");
    let said =
        said.lines().skip_while(|line| !line.contains("bob/phone is in")).collect::<Vec<_>>();
    assert_snapshot!(said.join("\n"), @"
    bob/phone is in friday; they see what is said from now on
    the devices of bob, whom you have verified, have changed: phone is new, introduced by a key of theirs; /verify bob shows the new safety number
    ");
    alice.says("/devices bob");
    let said = alice.reads_to("vouched for by");
    assert!(!said.contains("have changed"), "told once: {said}");
    assert_eq!(alice.ends().1, 0);
}

/// A device in a home of its own, closed, and its line of the operator's list.
fn closed_device(name: &str) -> (tempfile::TempDir, String) {
    let Device { home, identity, .. } = Device::new(name);
    let line = format!("{} {}\n", name.replace('/', " "), identity.signature_key());
    (home, line)
}

#[test]
fn a_device_that_only_the_operator_has_let_in_is_told_once() {
    let (main, phone) = (closed_device("alice/main"), closed_device("alice/phone"));
    let list = main.0.path().join("list");
    std::fs::write(&list, main.1 + &phone.1).unwrap();
    let service = Service::start_with(|settings| {
        settings.registration = RegistrationSettings {
            policy: RegistrationPolicy::AllowList,
            allow_list: Some(list.clone()),
            ..RegistrationSettings::default()
        };
    });
    let command = |home: &std::path::Path, device: &str, word: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_keypool"));
        command.args([word, "--user", "alice", "--device", device]).arg("--home").arg(home);
        command.args(["--server", &service.tunnel.url()]);
        command
    };
    let mut alice = Person::opens(&mut command(main.0.path(), "main", "chat"));
    alice.says("/pool");
    alice.reads("32 of 32 available");
    let registered = command(phone.0.path(), "phone", "register").output().unwrap();
    assert!(registered.status.success(), "{}", told(&registered));
    alice.says("/refresh");
    let mut said = vec![alice.reads("introduced by no key of yours")];
    alice.says("/refresh");
    alice.says("/devices");
    let rest = alice.reads_to("phone ");
    assert!(!rest.contains("introduced by no key"), "told once: {rest}");
    said.extend(rest.lines().last().map(words));
    assert_snapshot!(said.join("\n"), @"
    your device phone was introduced by no key of yours: if it is not yours, `keypool remove-device phone`, and ask who runs the server how it came to be registered
      phone KEY since DATE TIME by the server's operator alone (!)
    ");
    assert_eq!(alice.ends().1, 0);
}
