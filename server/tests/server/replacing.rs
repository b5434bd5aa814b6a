//! New packages in the place of the old ones, alone or with the next key; devices that are removed.

use std::time::Duration;

use keypool_ledger::KeyPackageRef;
use keypool_projections::statement::Agreement;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Answer, Api, Device, Draft, GROUP, NOW, Running, upload};

const ROTATE: &str = "/keypackages/rotate";

fn removal(device: &str) -> Draft {
    Draft::post("/devices/remove", &json!({ "device": device }))
}

async fn with_key(api: &Api, previous: &Device, next: &Device, packages: &[Vec<u8>]) -> Value {
    let mut body = upload(packages);
    body["key"] = previous.agrees_to(api, next).await;
    body
}

fn counts(answer: &Answer) -> (u64, u64) {
    let pool = if answer.body["pool"].is_object() { &answer.body["pool"] } else { &answer.body };
    (pool["available"].as_u64().unwrap(), pool["revoked"].as_u64().unwrap())
}

#[actix_web::test]
async fn new_packages_take_the_place_of_the_old_ones_in_one_batch() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 3).await;
    let api = &running.api;
    let reserved = api.reserve(&alice, "bob").await.ok();
    let fresh = bob.packages(NOW, 2);
    let draft = Draft::post(ROTATE, &upload(&fresh)).key(Uuid::new_v4());
    let rotated = api.send(&bob, &draft).await.ok();
    assert_eq!((&rotated.body["accepted"], counts(&rotated)), (&json!(2), (2, 3)));
    let revoked: Vec<KeyPackageRef> =
        serde_json::from_value(rotated.body["revoked"].clone()).unwrap();
    assert_eq!(revoked.len(), 3);
    assert!(revoked.iter().any(|gone| gone.to_string() == reserved.text("keypackage_ref")));

    // Asked again, by the same request or by a new one, nothing more happens.
    assert_eq!(api.send(&bob, &draft).await.ok().body, rotated.body);
    let again = api.post(&bob, ROTATE, upload(&fresh)).await.ok();
    assert_eq!((&again.body["accepted"], &again.body["revoked"]), (&json!(0), &json!([])));
    // What was handed out before can still be spent; nobody is given an old one.
    assert_eq!(api.claim(&alice, "/keypackages/spend", &reserved).await.status, 200);
    let next = api.reserve(&alice, "bob").await.ok();
    assert!(!revoked.iter().any(|gone| gone.to_string() == next.text("keypackage_ref")));
}

#[actix_web::test]
async fn where_no_new_package_is_acceptable_the_old_ones_stay() {
    let bob = Device::new("bob");
    let next = bob.impostor();
    let running = Running::start().with(&[&bob], 2).await;
    let api = &running.api;
    let junk = upload(&[vec![7; 100], next.package(NOW)]);
    let refused = api.post(&bob, ROTATE, junk).await;
    assert_eq!((refused.status, refused.code()), (400, "invalid_key_package"));
    assert_eq!(refused.body["items"][1]["check"], "signature_key");
    // Nor does the key change: these packages are the key's before.
    let keyed = with_key(api, &bob, &next, &[bob.package(NOW)]).await;
    let refused = api.post(&next, ROTATE, keyed).await;
    assert_eq!(refused.code(), "invalid_key_package");
    assert_eq!(api.post(&bob, ROTATE, upload(&[])).await.code(), "bad_request");
    assert_eq!(counts(&api.get(&bob, "/keypackages/status").await.ok()), (2, 0));
    // One good one among bad ones is enough.
    let some = api.post(&bob, ROTATE, upload(&[vec![7; 100], bob.package(NOW)])).await.ok();
    assert_eq!((&some.body["accepted"], counts(&some)), (&json!(1), (1, 2)));
}

#[actix_web::test]
async fn the_next_key_brings_its_packages_along() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let (next, thief) = (bob.impostor(), bob.impostor().impostor());
    let running = Running::start().with(&[&alice, &bob], 3).await;
    let api = &running.api;
    let late = with_key(api, &bob, &thief, &[thief.package(NOW)]).await;
    let mut stolen = late.clone();
    let list = api.devices_of(&bob).await;
    let until = NOW.after(Duration::from_mins(4));
    let own_word = thief.states_on(&list, &bob.pool, Agreement::Rotate(&thief.keyid()), until);
    stolen["key"]["proof"] = own_word["proof"].clone();
    assert_eq!(api.post(&thief, ROTATE, stolen).await.code(), "not_allowed");
    assert_eq!(
        api.post(&thief, ROTATE, upload(&[thief.package(NOW)])).await.code(),
        "unauthenticated"
    );

    let draft = Draft::post(ROTATE, &with_key(api, &bob, &next, &next.packages(NOW, 4)).await);
    let rotated = api.send(&next, &draft).await.ok();
    assert_eq!((&rotated.body["accepted"], counts(&rotated)), (&json!(4), (4, 3)));
    assert_eq!(api.send(&next, &draft).await.ok().body, rotated.body, "repeated");
    assert_eq!(api.get(&bob, "/keypackages/status").await.code(), "unauthenticated");
    let events = api.get(&next, "/keypackages/events?after=4").await.ok();
    let names: Vec<String> = events.body["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["event"].as_object().unwrap().keys().next().unwrap().clone())
        .collect();
    let mut expected = vec!["key_rotated"];
    expected.extend(["revoked"; 3]);
    expected.extend(["uploaded"; 4]);
    assert_eq!(names, expected);
    let commands = events.body["events"].as_array().unwrap();
    assert!(commands.iter().all(|event| event["command"] == commands[0]["command"]), "one batch");

    // A key that is no longer the device's brings nothing, and one of another device neither.
    assert_eq!(api.post(&thief, ROTATE, late).await.code(), "statement_stale");
    let both = with_key(api, &next, &alice, &[alice.package(NOW)]).await;
    let both = api.post(&alice, ROTATE, both).await;
    assert_ne!(both.status, 200, "{}", both.body);
}

#[actix_web::test]
async fn a_device_is_removed_by_itself_or_by_another_of_its_user() {
    let (carol, alice) = (Device::new("carol"), Device::new("alice"));
    let phone = Device::new("alice/phone");
    let running = Running::start().with(&[&carol, &alice], 1).await;
    let api = &running.api;
    let voucher = alice.vouches_for(api, &phone).await;
    api.register_with(&phone, &voucher).await.ok();
    api.upload(&phone, &phone.packages(NOW, 2)).await.ok();
    let held = api.reserve(&phone, "carol").await;
    assert_eq!(held.code(), "pool_exhausted");
    let body = json!({ "target_user": "alice", "target_device": "phone", "group_id": GROUP });
    let reserved = api.post(&carol, "/keypackages/reserve", body.clone()).await.ok();

    // A stranger removes a device of theirs, which they have not; a name that is none is said.
    assert_eq!(api.remove(&carol, "phone").await.code(), "unknown_user");
    assert_eq!(api.remove(&alice, "a~b").await.code(), "invalid_name");
    assert_eq!(api.remove(&Device::new("mallory"), "main").await.code(), "unauthenticated");

    let draft = removal("phone");
    let removed = api.send(&alice, &draft).await.ok();
    let position = removed.body["position"].clone();
    let expected = json!({
        "user": "alice", "device": "phone", "removed": true, "introduced": [], "position": position,
    });
    assert_eq!(removed.body, expected);
    assert_eq!(api.send(&alice, &draft).await.ok().body, removed.body, "repeated");
    assert_eq!(api.remove(&alice, "phone").await.code(), "unknown_user");

    // It can do nothing any more, and nobody is given a package of it: but of its user's other device.
    assert_eq!(api.get(&phone, "/keypackages/status").await.code(), "unauthenticated");
    assert_eq!(api.upload(&phone, &phone.packages(NOW, 1)).await.code(), "unauthenticated");
    assert_eq!(api.post(&carol, "/keypackages/reserve", body).await.code(), "unknown_user");
    let listed = api.get(&carol, "/users/alice/devices").await.ok();
    assert_eq!(listed.body["devices"], json!(["main"]));
    let many = json!({
        "group_id": GROUP, "reservation_id": Uuid::new_v4(),
        "targets": [{ "user": "alice" }, { "user": "alice", "device": "phone" }],
    });
    let many = api.post(&carol, "/keypackages/reserve-many", many).await.ok();
    assert_eq!(many.body["reservations"][0]["device"], "main");
    assert_eq!(
        many.body["missing"],
        json!([{ "user": "alice", "device": "phone", "code": "unknown_user" }])
    );
    // What was reserved before can still be spent: its Commit may be posted already.
    assert_eq!(api.claim(&carol, "/keypackages/spend", &reserved).await.status, 200);

    // The name is the user's still; the key is nobody's.
    let next = phone.impostor();
    assert_eq!(api.register(&next).await.code(), "identity_bound");
    let voucher = alice.vouches_for(api, &phone).await;
    assert_eq!(api.register_with(&phone, &voucher).await.code(), "key_retired");
    let voucher = alice.vouches_for(api, &next).await;
    assert_eq!(api.register_with(&next, &voucher).await.status, 201);

    // A device removes itself; its answer is there for it although its key speaks for nothing now.
    let draft = removal("phone");
    let gone = api.send(&next, &draft).await.ok();
    assert_eq!(api.send(&next, &draft).await.ok().body, gone.body);
    assert_eq!(api.remove(&next, "phone").await.code(), "unauthenticated");
    // The last one leaves the name bound to nobody, and to nobody else.
    api.remove(&alice, "main").await.ok();
    for device in [alice.impostor(), Device::new("alice/new")] {
        assert_eq!(api.register(&device).await.code(), "identity_bound");
    }
    // It has no device any more, and its history stays.
    let left = api.get(&carol, "/users/alice/devices").await.ok();
    assert_eq!(left.body["devices"], json!([]));
    assert!(!left.body["history"].as_array().unwrap().is_empty());
    assert_eq!(api.get(&carol, "/users/nobody/devices").await.code(), "unknown_user");
}

#[actix_web::test]
async fn a_removal_names_the_devices_that_the_removed_one_had_brought_in() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let api = &running.api;
    let [phone, tablet, watch, laptop] =
        ["phone", "tablet", "watch", "laptop"].map(|name| Device::new(&format!("alice/{name}")));
    let next = tablet.impostor();
    for (by, device) in [(&alice, &phone), (&alice, &laptop), (&phone, &tablet)] {
        let voucher = by.vouches_for(api, device).await;
        api.register_with(device, &voucher).await.ok();
    }
    // The tablet's next key has vouched for the watch.
    let agreed = tablet.agrees_to(api, &next).await;
    api.post(&next, "/devices/rotate", agreed).await.ok();
    let voucher = next.vouches_for(api, &watch).await;
    api.register_with(&watch, &voucher).await.ok();
    let removed = api.remove(&alice, "phone").await.ok();
    assert_eq!(removed.body["introduced"], json!(["tablet", "watch"]));
}

#[actix_web::test]
async fn a_removal_cannot_be_repeated_under_another_idempotency_key() {
    let (bob, alice) = (Device::new("bob"), Device::new("alice"));
    let running = Running::start().with(&[&bob, &alice], 0).await;
    let draft = removal("main");
    let mut headers = draft.headers(&alice, running.api.authority(), NOW);
    for (name, value) in &mut headers {
        if *name == "idempotency-key" {
            *value = Uuid::new_v4().to_string();
        }
    }
    let forged = crate::harness::answer(running.api.with_headers(&draft, &headers)).await.unwrap();
    assert_eq!((forged.status, forged.code()), (401, "unauthenticated"));
}

#[actix_web::test]
async fn packages_of_another_ciphersuite_stay_unless_the_key_is_replaced() {
    let bob = Device::new("bob");
    let next = bob.impostor();
    let running = Running::start().with(&[&bob], 2).await;
    let api = &running.api;
    let other = [bob.chacha_package(NOW), bob.chacha_package(NOW)];
    api.upload(&bob, &other).await.ok();
    let left = |answer: &Answer| answer.body["pool"]["suites"].clone();
    let both = |first: u64, third: u64| {
        json!([
            { "ciphersuite": 1, "available": first, "reserved": 0, "last_resort": 0 },
            { "ciphersuite": 3, "available": third, "reserved": 0, "last_resort": 0 },
        ])
    };

    let first = api.post(&bob, ROTATE, upload(&bob.packages(NOW, 3))).await.ok();
    assert_eq!((left(&first), counts(&first)), (both(3, 2), (5, 2)));
    let third = api.post(&bob, ROTATE, upload(&[bob.chacha_package(NOW)])).await.ok();
    assert_eq!((left(&third), counts(&third)), (both(3, 1), (4, 4)));
    // A ciphersuite whose new packages are all refused keeps its old ones.
    let mixed = upload(&[bob.package(NOW), next.chacha_package(NOW)]);
    let mixed = api.post(&bob, ROTATE, mixed).await.ok();
    assert_eq!(
        (left(&mixed), &mixed.body["items"][1]["check"]),
        (both(1, 1), &json!("signature_key"))
    );

    let keyed = with_key(api, &bob, &next, &[next.package(NOW)]).await;
    let keyed = api.post(&next, ROTATE, keyed).await.ok();
    let alone = json!([{ "ciphersuite": 1, "available": 1, "reserved": 0, "last_resort": 0 }]);
    assert_eq!(left(&keyed), alone);
}
