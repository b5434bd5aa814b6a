//! Packages of many devices in one request, and packages that could not be used.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use keypool_ledger::{
    CommandId, EventLog, Fault, Faulty, GroupId, Hash, ManualClock, MemoryLog, ReservationId,
};
use keypool_projections::Limits;
use keypool_server::pools::Pools;
use keypool_server::{
    AdmissionRules, Idempotency, KeyPackageStore, ManyReservations, ReservationTarget, StoreError,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Answer, Api, Device, Draft, GROUP, NOW, Running};

const PATH: &str = "/keypackages/reserve-many";

fn many(targets: &Value) -> Draft {
    let id = Uuid::new_v4();
    Draft::post(PATH, &json!({ "group_id": GROUP, "reservation_id": id, "targets": targets }))
}

/// Another device of a user, for which the first one has vouched, with a pool.
async fn add_device(api: &Api, first: &Device, name: &str, packages: usize) -> Device {
    let device = Device::new(name);
    let voucher = first.vouches_for(api, &device).await;
    api.register_with(&device, &voucher).await.ok();
    if packages > 0 {
        api.upload(&device, &device.packages(NOW, packages)).await.ok();
    }
    device
}

/// Whose packages were reserved, and who has none.
fn told(answer: &Answer) -> (Vec<String>, Vec<String>) {
    let text = |value: &Value| value.as_str().unwrap_or("*").to_owned();
    let name = |item: &Value| format!("{}/{}", text(&item["user"]), text(&item["device"]));
    let list = |name: &str| answer.body[name].as_array().unwrap().clone();
    let missing = |item: &Value| format!("{}: {}", name(item), text(&item["code"]));
    (list("reservations").iter().map(name).collect(), list("missing").iter().map(missing).collect())
}

async fn position(api: &Api, owner: &Device) -> u64 {
    api.get(owner, "/keypackages/status").await.ok().body["position"].as_u64().unwrap()
}

#[actix_web::test]
async fn each_device_of_each_target_gives_one_package_or_is_named_with_its_reason() {
    let (alice, bob, carol) = (Device::new("alice"), Device::new("bob"), Device::new("carol"));
    let running = Running::start().with(&[&alice, &carol, &bob], 2).await;
    let api = &running.api;
    add_device(api, &bob, "bob/phone", 2).await;
    add_device(api, &alice, "alice/laptop", 1).await;
    let targets = json!([
        { "user": "bob" }, { "user": "carol" }, { "user": "nobody" }, { "user": "bob" },
        { "user": "bob", "device": "phone" }, { "user": "bob", "device": "tablet" },
        { "user": "alice" }, { "user": "alice", "device": "main" }, { "user": "nobody" },
    ]);
    let request = many(&targets);
    let answer = api.send(&alice, &request).await.ok();
    let (reserved, missing) = told(&answer);
    assert_eq!(reserved, ["bob/main", "bob/phone", "alice/laptop"]);
    let expected = [
        "nobody/*: unknown_user",
        "carol/main: pool_exhausted",
        "bob/tablet: unknown_user",
        "alice/main: not_allowed",
    ];
    assert_eq!(missing, expected);
    let ids: HashSet<String> = answer.body["reservations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["reservation_id"].to_string())
        .collect();
    assert_eq!(ids.len(), 3, "each claim has an id of its own");
    for owner in [&bob, &Device::new("bob/phone")] {
        let status = api.get(owner, "/keypackages/status").await.ok();
        assert_eq!((&status.body["reserved"], &status.body["available"]), (&json!(1), &json!(1)));
    }
}

#[actix_web::test]
async fn a_repeated_request_has_the_same_answer_and_no_new_event() {
    let (alice, bob, carol) = (Device::new("alice"), Device::new("bob"), Device::new("carol"));
    let running = Running::start().with(&[&alice, &carol, &bob], 2).await;
    let api = &running.api;
    let request = many(&json!([{ "user": "carol" }, { "user": "bob" }]));
    let first = api.send(&alice, &request).await.ok();
    assert_eq!(told(&first), (vec!["bob/main".into()], vec!["carol/main: pool_exhausted".into()]));

    // A device that was registered since is not asked for; one that sorts before all others.
    let later = add_device(api, &bob, "bob/a", 1).await;
    let before = position(api, &bob).await;
    for key in [request.key, Uuid::new_v4()] {
        let again = api.send(&alice, &request.clone().key(key)).await.ok();
        assert_eq!(again.body, first.body);
    }
    assert_eq!(position(api, &bob).await, before);
    let status = api.get(&later, "/keypackages/status").await.ok();
    assert_eq!(status.body["reserved"], 0);

    // Who was missing is tried again.
    api.upload(&carol, &carol.packages(NOW, 1)).await.ok();
    let again = api.send(&alice, &request).await.ok();
    assert_eq!(told(&again).0, ["carol/main", "bob/main"]);
    assert_eq!(again.body["reservations"][1], first.body["reservations"][0]);
    let all = api.send(&alice, &many(&json!([{ "user": "bob" }]))).await.ok();
    assert_eq!(told(&all).0, ["bob/a", "bob/main"]);
}

#[actix_web::test]
async fn ids_of_another_request_are_refused_and_nothing_is_reserved() {
    let (alice, bob, carol) = (Device::new("alice"), Device::new("bob"), Device::new("carol"));
    let running = Running::start().with(&[&alice, &carol, &bob], 4).await;
    let api = &running.api;
    let request = many(&json!([{ "user": "bob" }]));
    api.send(&alice, &request).await.ok();
    let before = position(api, &bob).await;
    let other = many(&json!([{ "user": "carol" }, { "user": "bob" }])).key(request.key);
    let refused = api.send(&alice, &other).await;
    assert_eq!((refused.status, refused.code()), (409, "idempotency_mismatch"));
    let release = json!({ "keypackage_ref": "ab".repeat(32), "reservation_id": Uuid::new_v4() });
    let elsewhere = Draft::post("/keypackages/release", &release).key(request.key);
    let refused = api.send(&alice, &elsewhere).await;
    assert!(["idempotency_mismatch", "unknown_key_package"].contains(&refused.code()));

    let sent: Value = serde_json::from_slice(request.body.as_ref().unwrap()).unwrap();
    let mut moved = sent.clone();
    moved["group_id"] = "b3RoZXI=".into();
    for (who, body) in [(&alice, moved), (&carol, sent)] {
        let refused = api.post(who, PATH, body).await;
        assert_eq!((refused.status, refused.code()), (409, "reservation_mismatch"));
    }
    assert_eq!(position(api, &bob).await, before);
}

#[actix_web::test]
async fn two_hundred_and_fifty_six_targets_are_taken_and_no_more() {
    let alice = Device::new("alice");
    let running = Running::start_with(|settings| settings.target_devices_max = 300);
    let running = running.with(&[&alice], 0).await;
    let api = &running.api;
    let people: Vec<Device> = (0..256).map(|n| Device::new(&format!("u{n:03}"))).collect();
    for person in &people {
        api.register(person).await.ok();
        api.upload(person, &person.packages(NOW, 1)).await.ok();
    }
    let named = |count: usize| -> Value {
        (0..count).map(|n| json!({ "user": format!("u{n:03}") })).collect()
    };
    let request = many(&named(256));
    let answer = api.send(&alice, &request).await.ok();
    let (reserved, missing) = told(&answer);
    assert_eq!((reserved.len(), missing.len()), (256, 0));
    assert_eq!(reserved.first().unwrap(), "u000/main");
    assert_eq!(api.send(&alice, &request).await.ok().body, answer.body);
    for count in [0, 257] {
        let refused = api.send(&alice, &many(&named(count))).await;
        assert_eq!((refused.status, refused.code()), (400, "bad_request"));
        assert!(refused.text("detail").contains("1 to 256"), "{}", refused.body);
    }
}

#[actix_web::test]
async fn a_user_with_too_many_devices_is_left_out_and_the_others_are_not() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start_with(|settings| settings.target_devices_max = 1);
    let carol = Device::new("carol");
    let running = running.with(&[&alice, &bob, &carol], 2).await;
    add_device(&running.api, &bob, "bob/phone", 1).await;
    let both = json!([{ "user": "bob" }, { "user": "carol" }]);
    let answer = running.api.send(&alice, &many(&both)).await.ok();
    assert_eq!(told(&answer).0, ["carol/main"]);
    assert_eq!(answer.body["missing"], json!([{ "user": "bob", "code": "too_large" }]));
    let named = json!([{ "user": "bob", "device": "main" }, { "user": "bob", "device": "phone" }]);
    let refused = running.api.send(&alice, &many(&named)).await;
    assert_eq!((refused.status, refused.code()), (400, "bad_request"));
    assert_eq!(
        refused.text("detail"),
        "the targets have 2 devices; one request reserves packages of 1 at most"
    );
}

#[actix_web::test]
async fn a_repeated_request_is_answered_alike_although_there_are_too_many_devices_now() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start_with(|settings| settings.target_devices_max = 2);
    let carol = Device::new("carol");
    let running = running.with(&[&alice, &carol, &bob], 2).await;
    let draft = many(&json!([{ "user": "bob" }, { "user": "carol" }]));
    let first = running.api.send(&alice, &draft).await.ok();
    assert_eq!(told(&first).0, ["bob/main"]);
    for name in ["bob/phone", "bob/tablet"] {
        add_device(&running.api, &bob, name, 1).await;
    }
    let again = running.api.send(&alice, &draft).await.ok();
    assert_eq!(again.body, first.body);
}

type Shared = Arc<Faulty<MemoryLog>>;

fn store(log: &Shared) -> KeyPackageStore<Shared> {
    let clock = Arc::new(ManualClock::at(NOW));
    let pools = Pools::open(Arc::clone(log), clock, Limits::STANDARD).unwrap();
    KeyPackageStore::new(pools, AdmissionRules::default())
}

fn asked(people: &[Device], id: ReservationId) -> ManyReservations {
    ManyReservations {
        invitees: people
            .iter()
            .map(|person| ReservationTarget::Device(person.pool.clone()))
            .collect(),
        holder: "alice".parse().unwrap(),
        group: GroupId::new(b"g").unwrap(),
        id,
        ciphersuites: Vec::new(),
        required: keypool_projections::RequiredCapabilities::default(),
        devices_max: 100,
        introduced: BTreeSet::new(),
    }
}

/// The repetition completes a request of which the log has taken any part before it failed.
#[actix_web::test]
async fn a_request_that_was_cut_off_in_the_middle_is_completed_by_its_repetition() {
    for fault in [Fault::NotWritten, Fault::UnknownApplied, Fault::UnknownNotApplied] {
        let log: Shared = Arc::new(Faulty::new(MemoryLog::default()));
        let people: Vec<Device> = (0..40).map(|n| Device::new(&format!("u{n}"))).collect();
        let before = store(&log);
        for person in &people {
            let packages = person.packages(NOW, 2);
            let saved = before.save_key_packages(&person.pool, packages, Idempotency::fresh());
            saved.await.unwrap();
        }
        let (key, id) = (CommandId(Uuid::new_v4()), ReservationId(Uuid::new_v4()));
        let idempotency = Idempotency { key, digest: Hash::of(b"the request") };
        // As if the server had died after the first half.
        let half = before.reserve_many(asked(&people[..20], id), idempotency).await.unwrap();
        log.fail_append(log.n_appends() + 1, fault);
        let cut_off = before.reserve_many(asked(&people, id), idempotency).await;
        // What was written and not said so is found in the log, and answered after all; but the rest is not
        // written, if the committer had not taken all of it into the one group that failed.
        let is_cut_off = matches!(cut_off, Err(StoreError::Execute(_)));
        let is_whole = cut_off.is_ok() && fault == Fault::UnknownApplied;
        assert!(is_cut_off || is_whole, "{fault:?}");
        drop(before);

        let after = store(&log);
        let whole = after.reserve_many(asked(&people, id), idempotency).await.unwrap();
        assert_eq!((whole.reserved.len(), whole.missing.len()), (40, 0), "{fault:?}");
        for (one, again) in half.reserved.iter().zip(&whole.reserved) {
            assert_eq!((&one.facts, one.reservation), (&again.facts, again.reservation));
        }
        let head = log.head().unwrap();
        let again = after.reserve_many(asked(&people, id), idempotency).await.unwrap();
        assert_eq!(again.reserved.len(), 40);
        assert_eq!(log.head().unwrap(), head, "no new event");
        for person in &people {
            assert_eq!(after.view(&person.pool).state.counts().reserved, 1, "{fault:?}");
        }
    }
}

#[actix_web::test]
async fn a_clock_that_is_behind_spoils_no_package_that_is_reported() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 1).await;
    let reserved = running.api.reserve(&alice, "bob").await.ok();
    // By this clock the lifetime of the package has not begun.
    running.clock.set(NOW.before(Duration::from_hours(48)));
    running.api.claim(&alice, "/keypackages/report", &reserved).await.ok();
    let status = running.api.get(&bob, "/keypackages/status").await.ok();
    assert_eq!((&status.body["revoked"], &status.body["available"]), (&json!(0), &json!(1)));
}

#[actix_web::test]
async fn a_good_package_that_is_reported_stays_and_its_owner_sees_why() {
    let (alice, bob, carol) = (Device::new("alice"), Device::new("bob"), Device::new("carol"));
    let running = Running::start().with(&[&alice, &carol, &bob], 2).await;
    let api = &running.api;
    let reserved = api.reserve(&alice, "bob").await.ok();
    let mut body = crate::harness::claim("/keypackages/report", &reserved);
    body["reason"] = "keys".into();
    let refused = api.post(&carol, "/keypackages/report", body.clone()).await;
    assert_eq!((refused.status, refused.code()), (409, "reservation_mismatch"));

    let report = Draft::post("/keypackages/report", &body);
    let told = api.send(&alice, &report).await.ok();
    assert_eq!(told.body, json!({ "reported": true }));
    let before = position(api, &bob).await;
    assert_eq!(api.send(&alice, &report).await.ok().body, told.body);
    assert_eq!(api.post(&alice, "/keypackages/report", body).await.ok().body, told.body);
    assert_eq!(position(api, &bob).await, before);

    let status = api.get(&bob, "/keypackages/status").await.ok();
    assert_eq!((&status.body["revoked"], &status.body["available"]), (&json!(0), &json!(2)));
    let events = api.get(&bob, "/keypackages/events?after=4").await.ok();
    let reported = &events.body["events"][0]["event"]["reported"];
    assert_eq!(reported["check"], json!("keys"));
    let spent = api.claim(&alice, "/keypackages/spend", &reserved).await;
    assert_eq!(spent.code(), "reservation_lost");

    let other = api.reserve(&alice, "bob").await.ok();
    assert_ne!(other.body["keypackage_ref"], reserved.body["keypackage_ref"]);
    api.claim(&alice, "/keypackages/spend", &other).await.ok();
    let refused = api.claim(&alice, "/keypackages/report", &other).await;
    assert_eq!((refused.status, refused.code()), (409, "already_spent"));
}
