//! The reserve policy of an owner: contacts, introduced users, and strangers with their limits.

use std::{sync::Arc, time::Duration};

use keypool_ledger::ManualClock;
use keypool_server::{Server, Settings};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Answer, Api, Device, Draft, GROUP, NOW, Running, local_settings};

const PATH: &str = "/keypackages/policy";
const DAY: Duration = Duration::from_hours(24);

fn asking(user: &str, token: &Value) -> Value {
    let id = Uuid::new_v4();
    json!({ "target_user": user, "group_id": GROUP, "reservation_id": id, "contact_token": token })
}

async fn reserve_with(api: &Api, by: &Device, user: &str, token: &str) -> Answer {
    api.post(by, "/keypackages/reserve", asking(user, &token.into())).await
}

/// Makes a user a contact of an owner: reserved, spent, and joined.
async fn acquaint(api: &Api, by: &Device, owner: &Device) {
    let reserved = api.reserve(by, owner.pool.user()).await.ok();
    api.claim(by, "/keypackages/spend", &reserved).await.ok();
    let joined = json!({ "joined": [reserved.text("reservation_id")] });
    let told = api.post(owner, PATH, joined).await.ok();
    let contacts: Vec<Value> = told.body["contacts"].as_array().unwrap().clone();
    assert!(contacts.contains(&by.pool.user().into()), "{}", told.body);
}

#[actix_web::test]
async fn an_owner_who_lets_contacts_reserve_only_refuses_strangers() {
    let [alice, bob, mallory] = ["alice", "bob", "mallory"].map(Device::new);
    let running = Running::start().with(&[&alice, &mallory, &bob], 20).await;
    let api = &running.api;
    let usual = api.get(&bob, PATH).await.ok();
    assert_eq!((&usual.body["reserve"], &usual.body["contacts"]), (&json!("open"), &json!([])));
    acquaint(api, &alice, &bob).await;
    // Who has spent without being joined is as strange as before.
    let reserved = api.reserve(&mallory, "bob").await.ok();
    let unspent = json!({ "joined": [reserved.text("reservation_id")] });
    let refused = api.post(&bob, PATH, unspent).await;
    assert_eq!((refused.status, refused.code()), (409, "reservation_mismatch"));
    api.claim(&mallory, "/keypackages/spend", &reserved).await.ok();

    let close = Draft::post(PATH, &json!({ "reserve": "contacts" }));
    let closed = api.send(&bob, &close).await.ok();
    assert_eq!(closed.body["reserve"], "contacts");
    assert_eq!(closed.body["contacts"], json!(["alice"]));
    let refused = api.reserve(&mallory, "bob").await;
    assert_eq!((refused.status, refused.code()), (403, "not_allowed"));
    assert!(refused.text("detail").contains("contact token"), "{}", refused.body);
    api.reserve(&alice, "bob").await.ok();
    // Saying it again, with the same key or another, changes nothing.
    let position = closed.body["position"].clone();
    assert_eq!(api.send(&bob, &close).await.ok().body["position"], position);

    let removed = api.post(&bob, PATH, json!({ "removed": ["alice"] })).await.ok();
    assert_eq!(removed.body["contacts"], json!([]));
    assert_eq!(api.reserve(&alice, "bob").await.code(), "not_allowed");
    api.post(&bob, PATH, json!({ "reserve": "open" })).await.ok();
    api.reserve(&mallory, "bob").await.ok();
}

/// A refusal that time lifts is told before one that only the owner lifts, in whichever order the devices
/// stand.
#[actix_web::test]
async fn a_user_with_a_closed_and_an_empty_device_is_told_of_as_exhausted() {
    let alice = Device::new("alice");
    let running = Running::start().with(&[&alice], 0).await;
    let api = &running.api;
    for (user, closed) in [("bob", "laptop"), ("carol", "phone")] {
        let laptop = Device::new(&format!("{user}/laptop"));
        let phone = Device::new(&format!("{user}/phone"));
        api.register(&laptop).await.ok();
        let voucher = laptop.vouches_for(api, &phone).await;
        api.register_with(&phone, &voucher).await.ok();
        let closed = if closed == "laptop" { &laptop } else { &phone };
        api.upload(closed, &closed.packages(NOW, 1)).await.ok();
        api.post(closed, PATH, json!({ "reserve": "contacts" })).await.ok();
        let refused = api.reserve(&alice, user).await;
        assert_eq!((refused.status, refused.code()), (404, "pool_exhausted"), "{user}");
        api.post(closed, PATH, json!({ "reserve": "open" })).await.ok();
        assert_eq!(api.reserve(&alice, user).await.ok().body["device"], closed.pool.device());
    }
}

#[actix_web::test]
async fn whoever_shows_a_contact_token_of_the_owner_is_let_in_until_it_ends() {
    let [alice, bob, mallory] = ["alice", "bob", "mallory"].map(Device::new);
    let running = Running::start().with(&[&alice, &mallory, &bob], 20).await;
    let api = &running.api;
    api.post(&bob, PATH, json!({ "reserve": "contacts" })).await.ok();
    let token = bob.introduces(api, NOW.after(Duration::from_mins(30))).await.to_string();
    let draft = Draft::post("/keypackages/reserve", &asking("bob", &token.as_str().into()));
    let first = api.send(&alice, &draft).await.ok();

    // A token of somebody else for themselves introduces nobody here, nor does one for ever.
    let own = mallory.introduces(api, NOW.after(DAY)).await.to_string();
    let refused = reserve_with(api, &mallory, "bob", &own).await;
    assert_eq!((refused.status, refused.code()), (403, "not_allowed"));
    assert!(refused.text("detail").contains("not a signature for this user"), "{}", refused.body);
    let for_ever = bob.introduces(api, NOW.after(800 * DAY)).await.to_string();
    assert_eq!(reserve_with(api, &mallory, "bob", &for_ever).await.code(), "not_allowed");
    let target = json!({ "user": "bob", "contact_token": token });
    let many = json!({ "group_id": GROUP, "reservation_id": Uuid::new_v4(), "targets": [target] });
    let many = api.post(&alice, "/keypackages/reserve-many", many).await.ok();
    assert_eq!(many.body["reservations"][0]["user"], "bob");

    running.clock.advance(Duration::from_mins(30));
    assert_eq!(reserve_with(api, &alice, "bob", &token).await.code(), "not_allowed");
    assert_eq!(api.send(&alice, &draft).await.ok().body, first.body);
    let nothing = reserve_with(api, &alice, "bob", "x").await;
    assert_eq!((nothing.status, nothing.code()), (400, "bad_request"));
    // The token is in no record.
    let events = api.get(&bob, "/keypackages/events").await.ok();
    assert!(!String::from_utf8(events.bytes).unwrap().contains(&token));
}

#[actix_web::test]
async fn a_users_own_devices_are_no_strangers_to_each_other() {
    let (bob, laptop) = (Device::new("bob"), Device::new("bob/laptop"));
    let running = Running::start().with(&[&bob], 4).await;
    let api = &running.api;
    let voucher = bob.vouches_for(api, &laptop).await;
    api.register_with(&laptop, &voucher).await.ok();
    api.post(&bob, PATH, json!({ "reserve": "contacts" })).await.ok();
    api.reserve(&laptop, "bob").await.ok();
}

#[actix_web::test]
async fn strangers_are_never_given_the_last_fresh_packages_and_contacts_are() {
    let [alice, bob, mallory] = ["alice", "bob", "mallory"].map(Device::new);
    let running = Running::start_with(|settings| settings.limits.strangers_floor = 8);
    let running = running.with(&[&alice, &mallory, &bob], 11).await;
    let api = &running.api;
    acquaint(api, &alice, &bob).await;
    for _ in 0..2 {
        let reserved = api.reserve(&mallory, "bob").await.ok();
        api.claim(&mallory, "/keypackages/spend", &reserved).await.ok();
    }
    let refused = api.reserve(&mallory, "bob").await;
    assert_eq!((refused.status, refused.code()), (404, "pool_exhausted"));
    assert!(refused.text("detail").contains("kept for the owner's contacts"), "{}", refused.body);
    let fresh = api.reserve(&alice, "bob").await.ok();
    assert_eq!(fresh.body["generation"], 1);
    // What came back is for everybody, and so is the last resort.
    api.claim(&alice, "/keypackages/release", &fresh).await.ok();
    assert_eq!(api.reserve(&mallory, "bob").await.ok().body["generation"], 2);
    let last_resort = bob.package_with(NOW, 3600 * 24, true);
    api.upload(&bob, &[last_resort]).await.ok();
    assert_eq!(api.reserve(&mallory, "bob").await.ok().body["last_resort"], true);
    assert_eq!(api.reserve(&alice, "bob").await.ok().body["last_resort"], false);
}

#[actix_web::test]
async fn what_an_owner_has_said_is_so_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(NOW));
    let [alice, bob, mallory] = ["alice", "bob", "mallory"].map(Device::new);
    let start = || {
        let settings = Settings { ..local_settings(data.path()) };
        let server = Server::start(settings, clock.clone()).unwrap();
        let api = Api::new(server.url(), clock.clone());
        (server, api)
    };
    let (server, api) = start();
    for device in [&alice, &bob, &mallory] {
        api.register(device).await.ok();
    }
    api.upload(&bob, &bob.packages(NOW, 40)).await.ok();
    acquaint(&api, &alice, &bob).await;
    let told = api.post(&bob, PATH, json!({ "reserve": "contacts" })).await.ok();
    server.stop().await;
    let (_server, api) = start();
    assert_eq!(api.get(&bob, PATH).await.ok().body, told.body);
    assert_eq!(api.reserve(&mallory, "bob").await.code(), "not_allowed");
    api.reserve(&alice, "bob").await.ok();
}
