//! Attacks of strangers, members and thieves, played over HTTP.

use std::{fs, time::Duration};

use keypool_ledger::SignatureKey;
use keypool_projections::{
    quota::{Quotas, Rate},
    statement::Agreement,
};
use keypool_server::{RegistrationPolicy, RegistrationSettings};
use openmls_basic_credential::SignatureKeyPair;
use openmls_traits::types::SignatureScheme;
use serde_json::{Value, json};

use crate::{
    groups::{APPLICATION, COMMIT, Group, mailbox},
    harness::{Answer, Api, Device, NOW, Process, Running, answer},
    quotas::{limited, refused as over},
    registration,
};

/// The scheme of ciphersuite 2.
const P256: u16 = 0x0403;

/// Another device of a user, for which `by` has vouched.
async fn vouched(api: &Api, by: &Device, name: &str) -> Device {
    let device = Device::new(name);
    let voucher = by.vouches_for(api, &device).await;
    api.register_with(&device, &voucher).await.ok();
    device
}

#[track_caller]
fn refused(answer: &Answer, code: &str) {
    assert_eq!(answer.code(), code, "{}", answer.body);
}

#[actix_web::test]
async fn a_removed_device_comes_back_by_no_voucher_and_removes_nobody() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let api = &running.api;
    let laptop = Device::new("alice/laptop");
    let first = alice.vouches_for(api, &laptop).await;
    api.register_with(&laptop, &first).await.ok();
    // The thief has had others made, for this key and for another one, by itself too.
    let spare = laptop.impostor();
    let second = alice.vouches_for(api, &laptop).await;
    let for_spare = laptop.vouches_for(api, &spare).await;
    let other = Device { pool: "alice/other".parse().unwrap(), ..spare.clone() };
    let for_other = laptop.vouches_for(api, &other).await;
    api.remove(&alice, "laptop").await.ok();

    for voucher in [&first, &second] {
        refused(&api.register_with(&laptop, voucher).await, "key_retired");
    }
    for (device, voucher) in [(&spare, &for_spare), (&other, &for_other)] {
        refused(&api.register_with(device, voucher).await, "identity_bound");
    }
    // Not under another name, nor as another user.
    let elsewhere = Device { pool: "alice/tablet".parse().unwrap(), ..laptop.clone() };
    let voucher = alice.vouches_for(api, &elsewhere).await;
    refused(&api.register_with(&elsewhere, &voucher).await, "key_retired");
    let stranger = Device { pool: "zoe".parse().unwrap(), ..laptop.clone() };
    refused(&api.register(&stranger).await, "key_retired");

    for device in ["main", "laptop"] {
        refused(&api.remove(&laptop, device).await, "unauthenticated");
    }
    refused(&api.get(&laptop, "/mailbox").await, "unauthenticated");
    assert_eq!(api.devices_of(&alice).await.devices.devices, ["main"]);
}

#[actix_web::test]
async fn a_voucher_that_was_made_before_a_removal_lets_no_key_in() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let api = &running.api;
    let laptop = vouched(api, &alice, "alice/laptop").await;
    let spare = laptop.impostor();
    let before = alice.vouches_for(api, &spare).await;
    api.remove(&alice, "laptop").await.ok();
    refused(&api.register_with(&spare, &before).await, "statement_stale");
}

#[actix_web::test]
async fn a_removed_device_comes_back_by_no_list_of_the_operators() {
    let dir = tempfile::tempdir().unwrap();
    let (path, alice, laptop) =
        (dir.path().join("who"), Device::new("alice"), Device::new("alice/laptop"));
    let line = |device: &Device| {
        format!("{} {} {}\n", device.pool.user(), device.pool.device(), device.keyid())
    };
    fs::write(&path, [line(&alice), line(&laptop)].concat()).unwrap();
    let running = Running::start_with(|settings| {
        settings.registration = RegistrationSettings {
            policy: RegistrationPolicy::AllowList,
            allow_list: Some(path),
            ..RegistrationSettings::default()
        };
    });
    let running = running.with(&[&alice, &laptop], 0).await;
    running.api.remove(&alice, "laptop").await.ok();
    refused(&running.api.register(&laptop).await, "key_retired");
    refused(&running.api.remove(&laptop, "main").await, "unauthenticated");
}

#[actix_web::test]
async fn a_removed_device_comes_back_by_no_token_within_its_hour() {
    let dir = tempfile::tempdir().unwrap();
    let running = registration::start(dir.path());
    let (alice, laptop) = (Device::new("alice"), Device::new("alice/laptop"));
    for device in [&alice, &laptop] {
        assert_eq!(registration::with_own_token(&running, device).await.status, 201);
    }
    running.api.remove(&alice, "laptop").await.ok();
    refused(&registration::with_own_token(&running, &laptop).await, "key_retired");
    // Another key of the device is the operator's to let in.
    let next = laptop.impostor();
    assert_eq!(registration::with_own_token(&running, &next).await.status, 201);
}

#[actix_web::test]
async fn a_key_that_was_rotated_away_speaks_for_nothing_ever_after() {
    let a = Device::new("bob");
    let (b, c) = (a.impostor(), a.impostor().impostor());
    let running = Running::start().with(&[&a], 0).await;
    let api = &running.api;
    let a_to_b = a.agrees_to(api, &b).await;
    api.post(&b, "/devices/rotate", a_to_b.clone()).await.ok();
    let b_to_a = b.agrees_to(api, &a).await;
    refused(&api.post(&a, "/devices/rotate", b_to_a).await, "key_retired");
    let b_to_c = b.agrees_to(api, &c).await;
    api.post(&c, "/devices/rotate", b_to_c).await.ok();
    refused(&api.post(&b, "/devices/rotate", a_to_b).await, "key_retired");
    for retired in [&a, &b] {
        refused(&api.register(retired).await, "key_retired");
        refused(&api.get(retired, "/mailbox").await, "unauthenticated");
    }
}

#[actix_web::test]
async fn a_new_key_of_a_name_reads_no_mail_of_the_one_before_and_is_in_no_group() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 0).await;
    let api = &running.api;
    let laptop = vouched(api, &alice, "alice/laptop").await;
    api.upload(&laptop, &laptop.packages(NOW, 1)).await.ok();
    let group = Group::new(api, "group-1");
    group.make(&bob).await.ok();
    group.add(&bob, 0, "alice").await.ok();
    group.accept(&laptop).await.ok();
    group.say(&bob, "for the laptop").await.ok();
    assert_eq!(mailbox(api, &laptop, "").await, ["welcome", "message: for the laptop"]);

    api.remove(&alice, "laptop").await.ok();
    let next = laptop.impostor();
    let voucher = alice.vouches_for(api, &next).await;
    api.register_with(&next, &voucher).await.ok();
    assert_eq!(group.say(&bob, "for whoever is there").await.ok().body["position"], 0);
    assert_eq!(mailbox(api, &next, "").await, [""; 0]);
    refused(&group.say(&next, "hello?").await, "not_allowed");
}

/// Alice, who has accepted a group of Bob's; and Mallory, who adds her to one of theirs.
struct Harassment {
    running: Running,
    alice: Device,
    bob: Device,
    mallory: Device,
    friends: Group,
    theirs: Group,
    /// Mallory's Commit that has added her.
    spent: Value,
}

async fn harassment() -> Harassment {
    let [bob, mallory, alice] = ["bob", "mallory", "alice"].map(Device::new);
    let running = Running::start().with(&[&bob, &mallory, &alice], 12).await;
    let friends = Group::new(&running.api, "friends");
    friends.make(&bob).await.ok();
    friends.add(&bob, 0, "alice").await.ok();
    friends.accept(&alice).await.ok();
    let theirs = Group::new(&running.api, "theirs");
    theirs.make(&mallory).await.ok();
    let reserved = theirs.reserve(&mallory, "alice").await.ok();
    let spent = theirs.adding(0, &reserved);
    theirs.commit(&mallory, spent.clone()).await.ok();
    Harassment { running, alice, bob, mallory, friends, theirs, spent }
}

#[actix_web::test]
async fn a_stranger_who_floods_a_mailbox_silences_nobody_else_and_is_told() {
    let Harassment { running, alice, bob, mallory, friends, theirs, .. } = harassment().await;
    let api = &running.api;
    // Small messages, as many as are kept; then large ones, of a second group too.
    let mut kept = 0;
    let told = loop {
        let posted = theirs.say(&mallory, "x").await.ok();
        if !posted.body["not_kept"].is_null() {
            break posted;
        }
        kept += 1;
        assert!(kept <= 100, "a group that is not accepted has no end");
    };
    assert_eq!(told.body["not_kept"], json!(["alice/main"]));
    let second = Group::new(api, "another of theirs");
    second.make(&mallory).await.ok();
    second.add(&mallory, 0, "alice").await.ok();
    let large = "x".repeat(1_400_000);
    for group in [&theirs, &second] {
        let told = group.say(&mallory, &large).await.ok();
        assert_eq!(told.body["not_kept"], json!(["alice/main"]));
    }
    // Their part takes in nothing more, and Bob's words arrive.
    theirs.say(&mallory, "more").await.ok();
    let said = friends.say(&bob, "are you there?").await.ok();
    assert!(said.body["not_kept"].is_null(), "{}", said.body);
    let through = said.body["position"].as_u64().unwrap();
    let waiting = mailbox(api, &alice, &format!("?after={}", through - 1)).await;
    assert_eq!(waiting, ["message: are you there?"]);
    let whole = api.get(&alice, &format!("/mailbox?after={through}")).await.ok();
    let groups: Vec<&Value> =
        whole.body["not_kept"].as_array().unwrap().iter().map(|part| &part["group_id"]).collect();
    assert_eq!(groups, [&json!(second.id()), &json!(theirs.id())]);
}

#[actix_web::test]
async fn whoever_has_left_a_group_is_added_by_no_package_that_was_spent() {
    let Harassment { running, alice, bob, mallory, friends, theirs, spent } = harassment().await;
    let api = &running.api;
    theirs.leave(&alice).await.ok();
    // A group of one stores nothing.
    assert_eq!(theirs.say(&mallory, "to nobody").await.ok().body["position"], 0);
    let mut again = theirs.changing_nothing(1);
    again["spend"] = spent["spend"].clone();
    again["welcomes"] = spent["welcomes"].clone();
    refused(&theirs.commit(&mallory, again).await, "already_spent");
    // Neither in another group.
    let second = Group::new(api, "another of theirs");
    second.make(&mallory).await.ok();
    let mut elsewhere = second.changing_nothing(0);
    elsewhere["spend"] = spent["spend"].clone();
    elsewhere["welcomes"] = spent["welcomes"].clone();
    let elsewhere = second.commit(&mallory, elsewhere).await;
    assert!(400 <= elsewhere.status, "{}", elsewhere.body);
    assert_eq!(theirs.say(&mallory, "to nobody").await.ok().body["position"], 0);
    friends.say(&bob, "hello").await.ok();
    assert_eq!(mailbox(api, &alice, "").await, ["welcome", "message: hello"]);
}

#[actix_web::test]
async fn a_stranger_adds_a_device_to_eight_groups_that_it_has_not_accepted_and_no_more() {
    let Harassment { running, alice, bob, mallory, .. } = harassment().await;
    let api = &running.api;
    for n in 2..=9 {
        let group = Group::new(api, &format!("theirs {n}"));
        group.make(&mallory).await.ok();
        let added = group.add(&mallory, 0, "alice").await;
        if n == 9 {
            refused(&added, "invitations_full");
        } else {
            added.ok();
        }
    }
    // Bob's second group is not theirs.
    let group = Group::new(api, "friends 2");
    group.make(&bob).await.ok();
    group.add(&bob, 0, "alice").await.ok();
    assert!(mailbox(api, &alice, "").await.len() <= 10);
}

#[actix_web::test]
async fn a_blocked_user_neither_reserves_nor_adds_nor_posts() {
    let Harassment { running, alice, bob, mallory, friends, theirs, .. } = harassment().await;
    let api = &running.api;
    let second = Group::new(api, "another of theirs");
    second.make(&mallory).await.ok();
    let reserved = second.reserve(&mallory, "alice").await.ok();
    api.post(&alice, "/keypackages/policy", json!({ "blocked": ["mallory"] })).await.ok();
    refused(&second.reserve(&mallory, "alice").await, "not_allowed");
    refused(&second.commit(&mallory, second.adding(0, &reserved)).await, "not_allowed");
    // A blocked user is not told.
    let posted = theirs.say(&mallory, "psst").await.ok();
    assert!(posted.body["not_kept"].is_null(), "{}", posted.body);
    friends.say(&bob, "hello").await.ok();
    let waiting = mailbox(api, &alice, "").await;
    assert_eq!(waiting, ["welcome", "welcome", "message: hello"]);
}

#[actix_web::test]
async fn a_device_posts_and_makes_groups_by_its_limits() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = limited(&Quotas {
        posts: Rate::new(20, Duration::from_secs(1)),
        post_kib: Rate::new(4 * 1024, Duration::from_millis(110)),
        groups: Rate::new(3, Duration::from_mins(2)),
        ..Quotas::STANDARD
    });
    let running = running.with(&[&alice, &bob], 1).await;
    let group = Group::new(&running.api, "group-1");
    group.make(&alice).await.ok();
    // A Commit is a post as well.
    group.add(&alice, 0, "bob").await.ok();
    group.accept(&bob).await.ok();
    for _ in 0..19 {
        group.say(&alice, "x").await.ok();
    }
    assert_eq!(over(&group.say(&alice, "x").await, "rate_limited"), Duration::from_secs(1));
    // Bob is another device, and has bytes of his own.
    let large = "x".repeat(1_400_000);
    for _ in 0..2 {
        group.say(&bob, &large).await.ok();
    }
    over(&group.say(&bob, &large).await, "rate_limited");
    group.say(&bob, "small").await.ok();
    for n in 2..=3 {
        Group::new(&running.api, &format!("group-{n}")).make(&alice).await.ok();
    }
    over(&Group::new(&running.api, "group-4").make(&alice).await, "rate_limited");
    running.clock.advance(Duration::from_mins(2));
    Group::new(&running.api, "group-4").make(&alice).await.ok();
}

#[actix_web::test]
async fn a_message_that_no_mailbox_keeps_is_not_written() {
    let Harassment { running, mallory, theirs, .. } = harassment().await;
    let large = "x".repeat(1_400_000);
    // The first one closes the part of the mailbox, which is recorded.
    theirs.say(&mallory, &large).await.ok();
    let next = Group::new(&running.api, "another of theirs");
    let before = next.make(&mallory).await.ok().body["position"].as_u64().unwrap();
    for _ in 0..3 {
        let told = theirs.say(&mallory, &large).await.ok();
        assert_eq!(told.body["not_kept"], json!(["alice/main"]));
        assert_eq!(told.body["position"], 0);
    }
    let next = Group::new(&running.api, "a third of theirs");
    assert_eq!(next.make(&mallory).await.ok().body["position"], before + 1);
}

#[actix_web::test]
async fn a_device_in_a_group_of_one_writes_nothing_to_the_log() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let group = Group::new(&running.api, "group-1");
    let made = group.make(&alice).await.ok().body["position"].as_u64().unwrap();
    let large = "x".repeat(1_400_000);
    for _ in 0..5 {
        assert_eq!(group.say(&alice, &large).await.ok().body["position"], 0);
    }
    let other = Group::new(&running.api, "group-2");
    assert_eq!(other.make(&alice).await.ok().body["position"], made + 1);
}

#[actix_web::test]
async fn an_invitee_does_not_take_the_group_whose_id_a_reservation_tells() {
    let [alice, carol, bob] = ["alice", "carol", "bob"].map(Device::new);
    let running = Running::start().with(&[&alice, &carol, &bob], 2).await;
    let api = &running.api;
    api.upload(&carol, &carol.packages(NOW, 1)).await.ok();
    let group = Group::new(api, "alices");
    group.make(&alice).await.ok();
    let reserved = group.reserve(&alice, "bob").await.ok();
    let events = api.get(&bob, "/keypackages/events?after=3").await.ok();
    assert_eq!(events.body["events"][0]["event"]["reserved"]["group"], group.id());

    refused(&group.make(&bob).await, "group_exists");
    refused(&group.reserve(&bob, "carol").await, "not_a_member");
    let many = json!({
        "group_id": group.id(), "reservation_id": uuid::Uuid::new_v4(), "targets": [{ "user": "carol" }],
    });
    let many = api.post(&bob, "/keypackages/reserve-many", many).await;
    assert!(
        many.code() == "not_a_member" || many.body["missing"][0]["code"] == "not_a_member",
        "{}",
        many.body
    );
    refused(&group.commit(&bob, group.changing_nothing(0)).await, "not_allowed");
    refused(&group.say(&bob, "mine").await, "not_allowed");
    assert_eq!(group.leave(&bob).await.ok().body["position"], 0);
    assert_eq!(group.commit(&alice, group.adding(0, &reserved)).await.ok().body["epoch"], 1);
}

#[actix_web::test]
async fn nothing_but_a_commit_of_the_group_and_epoch_passes_for_a_commit() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 1).await;
    let group = Group::new(&running.api, "group-1");
    group.make(&alice).await.ok();
    group.add(&alice, 0, "bob").await.ok();
    let other = Group::new(&running.api, "group-2");
    let whole = group.framed(1, COMMIT, "x");
    let longer = [data_encoding::BASE64.decode(whole.as_bytes()).unwrap(), vec![0]].concat();
    let last = u64::MAX;
    let cases = [
        (1, "eHh4".to_owned(), "invalid_message"),
        (1, String::new(), "invalid_message"),
        (1, group.framed(1, APPLICATION, "x"), "invalid_message"),
        (1, group.framed(1, 2, "x"), "invalid_message"),
        (1, group.framed(1, 9, "x"), "invalid_message"),
        (1, other.framed(1, COMMIT, "x"), "invalid_message"),
        (1, group.framed(0, COMMIT, "x"), "invalid_message"),
        (1, group.framed(2, COMMIT, "x"), "invalid_message"),
        (1, data_encoding::BASE64.encode(&longer), "invalid_message"),
        (1, data_encoding::BASE64.encode(&bob.package(NOW)), "invalid_message"),
        (0, group.framed(0, COMMIT, "x"), "epoch_taken"),
        (2, group.framed(2, COMMIT, "x"), "bad_request"),
        (last, group.framed(last, COMMIT, "x"), "bad_request"),
    ];
    for (epoch, commit, code) in cases {
        let body = json!({ "epoch": epoch, "commit": commit, "removed": ["bob/main"] });
        refused(&group.commit(&alice, body).await, code);
    }
    // Nor does a Commit pass for a message, and nothing has changed.
    refused(&group.post(&alice, &whole).await, "invalid_message");
    refused(&group.post(&alice, "eHh4").await, "invalid_message");
    refused(&group.post(&alice, &other.framed(1, APPLICATION, "x")).await, "invalid_message");
    group.say(&alice, "you are in it still").await.ok();
    let waiting = mailbox(&running.api, &bob, "").await;
    assert_eq!(waiting, ["welcome", "message: you are in it still"]);
    assert_eq!(group.commit(&bob, group.changing_nothing(1)).await.ok().body["epoch"], 2);
}

/// A Commit in a `PublicMessage` of member 0, with proposals by value and neither path nor real signatures.
fn public_commit(group: &str, epoch: u64, proposals: &[u8]) -> String {
    let vector = |bytes: &[u8]| [&[u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let mut out = vec![0, 1, 0, 1];
    out.extend(vector(group.as_bytes()));
    out.extend(epoch.to_be_bytes());
    out.extend([1, 0, 0, 0, 0]);
    out.extend([vector(b""), vec![COMMIT], vector(proposals), vec![0]].concat());
    out.extend([vector(b"signature"), vector(b"confirmation"), vector(b"membership")].concat());
    data_encoding::BASE64.encode(&out)
}

#[actix_web::test]
async fn a_commit_in_clear_removes_nobody_whom_its_request_does_not_name() {
    let [alice, bob] = ["alice", "bob"].map(Device::new);
    let running = Running::start().with(&[&alice, &bob], 1).await;
    let group = Group::new(&running.api, "group-1");
    group.make(&alice).await.ok();
    group.add(&alice, 0, "bob").await.ok();
    // A Remove of leaf 1.
    let commit = public_commit("group-1", 1, &[1, 0, 3, 0, 0, 0, 1]);

    let silent = json!({ "epoch": 1, "commit": commit });
    refused(&group.commit(&alice, silent).await, "invalid_message");
    let named = json!({ "epoch": 1, "commit": commit, "removed": ["bob/main"] });
    assert_eq!(group.commit(&alice, named).await.ok().body["epoch"], 2);
}

#[actix_web::test]
async fn one_commit_removes_half_of_the_others_at_most_by_its_word() {
    let people = ["alice", "bob", "carol", "dave", "erin"].map(Device::new);
    let running = Running::start();
    let group = Group::new(&running.api, "group-1");
    for person in &people {
        running.api.register(person).await.ok();
        running.api.upload(person, &person.packages(NOW, 1)).await.ok();
    }
    let [alice, others @ ..] = &people;
    group.make(alice).await.ok();
    for (epoch, other) in (0..).zip(others) {
        group.add(alice, epoch, other.pool.user()).await.ok();
    }
    let mut all = group.changing_nothing(4);
    all["removed"] = json!(["alice/main", "carol/main", "dave/main", "erin/main"]);
    let refused = group.commit(&people[1], all.clone()).await;
    assert_eq!((refused.status, refused.code()), (400, "bad_request"));
    all["removed"] = json!(["dave/main", "erin/main"]);
    group.commit(&people[1], all).await.ok();
}

#[actix_web::test]
async fn names_that_steer_a_path_or_look_like_another_are_refused() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let api = &running.api;
    vouched(api, &alice, "alice/phone").await;
    for name in [".", "..", "-x", "-"] {
        let user = json!({ "user": name });
        refused(&api.post(&Device::new("mallory"), "/devices", user).await, "invalid_name");
        let device = Device::new(&format!("alice/{name}"));
        let voucher = alice.vouches_for(api, &device).await;
        refused(&api.register_with(&device, &voucher).await, "invalid_name");
    }
    for user in ["Alice", "ALICE"] {
        refused(&api.register(&Device::new(user)).await, "name_taken");
    }
    let device = Device::new("alice/Phone");
    let voucher = alice.vouches_for(api, &device).await;
    refused(&api.register_with(&device, &voucher).await, "name_taken");
    api.register(&Device::new("alice2")).await.ok();
}

#[actix_web::test]
async fn a_user_has_32_devices_and_no_more() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let api = &running.api;
    for n in 2..=32 {
        vouched(api, &alice, &format!("alice/d{n}")).await;
    }
    let device = Device::new("alice/d33");
    let voucher = alice.vouches_for(api, &device).await;
    refused(&api.register_with(&device, &voucher).await, "too_many_devices");
    api.remove(&alice, "d2").await.ok();
    vouched(api, &alice, "alice/d33").await;
}

#[actix_web::test]
async fn a_name_whose_only_device_is_lost_is_anyones_by_the_operators_word_alone() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path());
    let (api, alice) = (&process.api, Device::new("alice"));
    let admin = process.greeting[1].trim_start_matches("metrics").trim().replace("/metrics", "");
    let released = |user: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_keypool-server"));
        command.env_clear().args(["release-name", user, "--admin-url", &admin]).output().unwrap()
    };
    api.register(&alice).await.ok();
    let next = alice.impostor();
    refused(&api.register(&next).await, "identity_bound");
    // A page in the operator's browser cannot ask for it, and nobody can where clients connect.
    let form = api.http.post(format!("{admin}/names/release")).body("{\"user\":\"alice\"}");
    assert_eq!(answer(form).await.unwrap().status, 415);
    let body = json!({ "user": "alice" });
    refused(&api.post(&next, "/names/release", body).await, "not_found");

    let output = released("alice");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("the name alice is free"));
    refused(&api.register(&alice).await, "key_retired");
    assert_eq!(api.register(&next).await.status, 201);
    let output = released("nobody");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("nobody"));
}

#[actix_web::test]
async fn a_statement_is_of_one_ledger_one_list_and_one_device_and_ends() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let api = &running.api;
    let phone = Device::new("alice/phone");
    let (key, list) = (phone.keyid(), api.devices_of(&alice).await);
    let mut elsewhere = list.clone();
    elsewhere.ledger = "other.example+00000000".parse().unwrap();
    let tablet = "alice/tablet".parse().unwrap();
    let (soon, later) = (NOW.after(Duration::from_mins(4)), NOW.after(Duration::from_mins(30)));
    let made = |list, subject, until| {
        let mut voucher = alice.states_on(list, subject, Agreement::Vouch(&key), until);
        voucher["keyid"] = json!(alice.keyid());
        voucher
    };
    let mut stretched = made(&list, &phone.pool, soon);
    stretched["until"] = json!(soon.as_secs() + 60);
    let as_rotation = {
        let agreement = Agreement::Rotate(&key);
        let mut rotation = alice.states_on(&list, &phone.pool, agreement, soon);
        rotation["keyid"] = json!(alice.keyid());
        rotation
    };
    for (voucher, code) in [
        (made(&elsewhere, &phone.pool, soon), "not_allowed"),
        (made(&list, &tablet, soon), "not_allowed"),
        (as_rotation, "not_allowed"),
        (stretched, "not_allowed"),
        (made(&list, &phone.pool, NOW.before(Duration::from_secs(1))), "statement_expired"),
        (made(&list, &phone.pool, later), "statement_expired"),
    ] {
        refused(&api.register_with(&phone, &voucher).await, code);
    }
    // The list changes, and what was made on the one before is stale.
    let before = made(&list, &phone.pool, soon);
    vouched(api, &alice, "alice/tablet").await;
    refused(&api.register_with(&phone, &before).await, "statement_stale");
    let now = api.devices_of(&alice).await;
    assert_eq!(api.register_with(&phone, &made(&now, &phone.pool, soon)).await.status, 201);
}

fn p256() -> (SignatureKeyPair, SignatureKey) {
    let pair = SignatureKeyPair::new(SignatureScheme::ECDSA_SECP256R1_SHA256).unwrap();
    let key = SignatureKey::new(pair.public()).unwrap();
    (pair, key)
}

/// The request by which a device declares a leaf key.
async fn declares(api: &Api, device: &Device, leaf: &SignatureKey) -> Value {
    let mut body = device.states(api, &device.pool, Agreement::LeafKey(P256, leaf)).await;
    body["signature_scheme"] = json!(P256);
    body["leaf_keyid"] = json!(leaf);
    body
}

#[actix_web::test]
async fn a_leaf_key_comes_by_a_statement_of_the_devices_key_and_never_by_an_upload() {
    let bob = Device::new("bob");
    let running = Running::start().with(&[&bob], 1).await;
    let api = &running.api;
    let ((pair, key), (other_pair, other)) = (p256(), p256());
    let package = bob.p256_package(NOW, &pair);
    let refusal = api.upload(&bob, std::slice::from_ref(&package)).await;
    assert_eq!((refusal.code(), refusal.text("check")), ("invalid_key_package", "signature_key"));

    let declaration = declares(api, &bob, &key).await;
    api.post(&bob, "/devices/leaf-key", declaration.clone()).await.ok();
    api.upload(&bob, &[package]).await.ok();
    let refusal = api.upload(&bob, &[bob.p256_package(NOW, &other_pair)]).await;
    assert_eq!(refusal.text("check"), "signature_key");
    // While a package of it is live no other takes its place.
    let change = declares(api, &bob, &other).await;
    refused(&api.post(&bob, "/devices/leaf-key", change).await, "not_allowed");
    let revoke = json!({ "all": true, "reason": "withdrawn" });
    api.post(&bob, "/keypackages/revoke", revoke).await.ok();
    let change = declares(api, &bob, &other).await;
    api.post(&bob, "/devices/leaf-key", change).await.ok();
    api.upload(&bob, &[bob.p256_package(NOW, &other_pair)]).await.ok();
    // The first declaration was used.
    let revoke = json!({ "all": true, "reason": "withdrawn" });
    api.post(&bob, "/keypackages/revoke", revoke).await.ok();
    refused(&api.post(&bob, "/devices/leaf-key", declaration).await, "statement_stale");
}

#[actix_web::test]
async fn nobody_declares_a_leaf_key_for_another_device() {
    let (mallory, bob) = (Device::new("mallory"), Device::new("bob"));
    let running = Running::start().with(&[&mallory, &bob], 1).await;
    let api = &running.api;
    let laptop = vouched(api, &bob, "bob/laptop").await;
    let (pair, key) = p256();
    let list = api.devices_of(&bob).await;
    let until = NOW.after(Duration::from_mins(4));
    // A device that may sign requests of its own signs a statement about another one; or it brings the
    // statement of the other.
    for thief in [&mallory, &laptop] {
        let agreement = Agreement::LeafKey(P256, &key);
        let mut forged = thief.states_on(&list, &bob.pool, agreement, until);
        forged["signature_scheme"] = json!(P256);
        forged["leaf_keyid"] = json!(key);
        let genuine = declares(api, &bob, &key).await;
        for body in [forged, genuine] {
            refused(&api.post(thief, "/devices/leaf-key", body).await, "not_allowed");
        }
    }
    // The device's own request, without a statement of its key that fits.
    let mut unsigned = declares(api, &bob, &key).await;
    unsigned["leaf_keyid"] = json!(p256().1);
    refused(&api.post(&bob, "/devices/leaf-key", unsigned).await, "not_allowed");
    let refusal = api.upload(&bob, &[bob.p256_package(NOW, &pair)]).await;
    assert_eq!(refusal.text("check"), "signature_key");
}
