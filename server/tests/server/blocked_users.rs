//! Users that the operator has blocked, over HTTP: nothing they ask for is carried out, and nobody is handed their
//! packages.

use std::time::Duration;

use actix_rt::time::timeout;
use keypool_ledger::{Event, EventLog, NamedLog, SledLog, SledLogOptions, StreamId};
use keypool_projections::statement::Agreement;
use keypool_server::Server;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    groups::{Group, mailbox},
    harness::{Answer, Api, Device, Draft, GROUP, NOW, Running, answer, local_settings, upload},
    stream::Listener,
};

/// Only a hang reaches it.
const DEADLINE: Duration = Duration::from_mins(1);

/// Asks the operator's listener of a server.
async fn operator(running: &Running, path: &str, body: Value) -> Answer {
    let request = running.api.http.post(format!("{}{path}", running.admin_url()));
    let request = request.header("content-type", "application/json").body(body.to_string());
    answer(request).await.unwrap()
}

async fn block(running: &Running, user: &str) -> Value {
    operator(running, "/names/block", json!({ "user": user })).await.ok().body
}

async fn unblock(running: &Running, user: &str) -> Value {
    operator(running, "/names/unblock", json!({ "user": user })).await.ok().body
}

/// The whole log, as the operator's listener tells it.
async fn events(running: &Running) -> Vec<u8> {
    let request = running.api.http.get(format!("{}/ledger/events", running.admin_url()));
    answer(request).await.unwrap().ok().bytes
}

/// Alice, who has packages, and Bob with a phone and a laptop, each with packages.
async fn alice_and_bob() -> (Running, [Device; 3]) {
    let devices = ["alice", "bob/phone", "bob/laptop"].map(Device::new);
    let [alice, phone, laptop] = &devices;
    let running = Running::start().with(&[phone], 3).await.with(&[alice], 3).await;
    let voucher = phone.vouches_for(&running.api, laptop).await;
    running.api.register_with(laptop, &voucher).await.ok();
    running.api.upload(laptop, &laptop.packages(NOW, 3)).await.ok();
    (running, devices)
}

#[track_caller]
fn refused(answered: &Answer, code: &str) {
    assert_eq!((answered.status, answered.code()), (403, code), "{}", answered.body);
    assert_eq!(answered.body["retryable"], false);
    assert!(answered.text("detail").contains("the operator of this server has blocked user bob"));
}

/// The requests of the API that a signature is asked for, with a body that no route takes.
async fn signed_requests(api: &Api) -> Vec<Draft> {
    let document = answer(api.http.get(format!("{}/openapi.json", api.url))).await.unwrap().body;
    let is_open = |path: &str| {
        let open = ["/openapi.json", "/livez", "/readyz", "/ledger/"];
        path == "/" || open.iter().any(|open| path.contains(open))
    };
    let mut drafts = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let filled = path.replace("{user}", "alice").replace("{group_id}", "Z3JvdXA");
        let filled = filled.replace("{reservation_id}", &Uuid::new_v4().to_string());
        for method in methods.as_object().unwrap().keys().filter(|_| !is_open(path)) {
            drafts.push(match &**method {
                "get" => Draft::get(&filled),
                "post" => Draft::post(&filled, &json!({ "nothing": 1 })),
                other => panic!("{other} {path}"),
            });
        }
    }
    drafts
}

#[actix_web::test]
async fn nothing_that_a_device_of_a_blocked_user_asks_for_is_carried_out() {
    let (running, [_, phone, laptop]) = alice_and_bob().await;
    let drafts = signed_requests(&running.api).await;
    assert!(24 < drafts.len(), "{}", drafts.len());
    block(&running, "bob").await;
    let before = events(&running).await;
    for device in [&phone, &laptop] {
        for draft in &drafts {
            let answered = running.api.send(device, draft).await;
            assert_eq!(answered.code(), "suspended", "{} {}", draft.method, draft.path);
            refused(&answered, "suspended");
            assert!(answered.text("hint").starts_with("Ask the operator of this server"));
        }
    }
    assert_eq!(events(&running).await, before, "nothing was recorded");
}

#[actix_web::test]
async fn nobody_is_handed_a_package_of_a_blocked_user() {
    let (running, [alice, phone, _]) = alice_and_bob().await;
    let id = Uuid::new_v4();
    let held = running.api.reserve_as(&alice, "bob", id).await.ok();
    block(&running, "bob").await;

    refused(&running.api.reserve(&alice, "bob").await, "invitee_suspended");
    let laptop = json!({ "target_user": "bob", "target_device": "laptop", "group_id": GROUP });
    refused(&running.api.post(&alice, "/keypackages/reserve", laptop).await, "invitee_suspended");
    let carol = Device::new("carol");
    running.api.register(&carol).await.ok();
    running.api.upload(&carol, &carol.packages(NOW, 1)).await.ok();
    let targets = json!([{ "user": "bob" }, { "user": "carol" }]);
    let body = json!({ "targets": targets, "group_id": GROUP, "reservation_id": Uuid::new_v4() });
    let many = running.api.post(&alice, "/keypackages/reserve-many", body).await.ok();
    assert_eq!(many.body["reservations"][0]["user"], "carol");
    let missing = many.body["missing"].as_array().unwrap();
    let codes = missing.iter().map(|missing| missing["code"].as_str().unwrap());
    assert_eq!(codes.collect::<Vec<_>>(), ["invitee_suspended"; 2]);
    let wait = json!({ "targets": [{ "user": "bob", "device": "phone" }] });
    let awaited = running.api.post(&alice, "/keypackages/await", wait).await.ok();
    let device = &awaited.body["devices"][0];
    assert_eq!(
        (&device["status"], &device["code"]),
        (&json!("refused"), &json!("invitee_suspended"))
    );

    // What was handed out before is the holder's: it is spent, and nothing more is.
    running.api.claim(&alice, "/keypackages/renew", &held).await.ok();
    running.api.claim(&alice, "/keypackages/spend", &held).await.ok();
    unblock(&running, "bob").await;
    running.api.reserve(&alice, "bob").await.ok();
    running.api.get(&phone, "/keypackages/status").await.ok();
}

#[actix_web::test]
async fn reservations_of_a_blocked_user_lapse_as_those_of_any_holder() {
    let (running, [alice, phone, _]) = alice_and_bob().await;
    let held = running.api.reserve(&phone, "alice").await.ok();
    block(&running, "bob").await;
    for path in ["/keypackages/renew", "/keypackages/release", "/keypackages/spend"] {
        refused(&running.api.claim(&phone, path, &held).await, "suspended");
    }
    running.clock.advance(Duration::from_mins(3));
    let status = running.api.get(&alice, "/keypackages/status").await.ok();
    assert_eq!((&status.body["available"], &status.body["reserved"]), (&json!(3), &json!(0)));
}

#[actix_web::test]
async fn a_blocked_name_is_registered_by_nobody() {
    let (running, [_, phone, laptop]) = alice_and_bob().await;
    let api = &running.api;
    let [tablet, next, words] = ["bob/tablet", "bob/next", "bob/words"].map(Device::new);
    let key = words.keyid();
    let mut setting = phone.states(api, &phone.pool, Agreement::RecoveryKey(&key)).await;
    setting["recovery_keyid"] = json!(key);
    setting["keyid"] = json!(phone.keyid());
    api.post(&phone, "/devices/recovery-key", setting).await.ok();
    // All are signed on the device list as it is when the user is blocked.
    let voucher = phone.vouches_for(api, &tablet).await;
    let rotation = laptop.agrees_to(api, &next).await;
    let list = api.devices_of(&words).await;
    let (key, until) = (next.keyid(), NOW.after(Duration::from_mins(4)));
    let mut recovery = words.states_on(&list, &next.pool, Agreement::Recover(&key), until);
    recovery["user"] = json!("bob");
    recovery["device"] = json!("next");
    recovery["recovery_keyid"] = json!(words.keyid());
    block(&running, "bob").await;

    refused(&api.register_with(&tablet, &voucher).await, "suspended");
    refused(&api.register(&tablet).await, "suspended");
    refused(&api.post(&next, "/devices/rotate", rotation.clone()).await, "suspended");
    let packages =
        json!({ "packages": upload(&[next.package(NOW)])["keypackages"], "key": rotation });
    let rotated = api.post(&laptop, "/keypackages/rotate", packages).await;
    refused(&rotated, "suspended");
    refused(&api.post(&next, "/devices/recover", recovery.clone()).await, "suspended");
    refused(&api.get(&words, "/users/bob/devices").await, "suspended");

    unblock(&running, "bob").await;
    let recovered = api.post(&next, "/devices/recover", recovery).await.ok();
    assert_eq!(recovered.body["removed"], json!(["laptop", "phone"]));
}

#[actix_web::test]
async fn a_released_name_stays_blocked_until_it_is_unblocked() {
    let (running, [_, phone, _]) = alice_and_bob().await;
    block(&running, "bob").await;
    let released = operator(&running, "/names/release", json!({ "user": "bob" })).await.ok();
    assert_eq!(released.body["blocked"], true);
    let stranger = phone.impostor();
    refused(&running.api.register(&stranger).await, "suspended");
    unblock(&running, "bob").await;
    running.api.register(&stranger).await.ok();
}

#[actix_web::test]
async fn a_block_ends_the_streams_and_the_waiting_of_the_users_devices() {
    let (running, [alice, _, laptop]) = alice_and_bob().await;
    let group = Group::new(&running.api, "group-1");
    group.make(&alice).await.ok();
    group.add(&alice, 0, "bob").await.ok();
    let mut listener = Listener::of(&running.api, &laptop, None).await;
    let after = running.api.get(&laptop, "/mailbox").await.ok();
    let after = after.body["items"][0]["position"].as_u64().unwrap();
    let (api, waiter) = (running.api.clone(), laptop.clone());
    let draft = Draft::get(&format!("/mailbox?after={after}&wait=30"));
    let waits = actix_rt::spawn(async move { api.send(&waiter, &draft).await });
    block(&running, "bob").await;
    while timeout(DEADLINE, listener.next()).await.unwrap().is_some() {}
    let waited = timeout(DEADLINE, waits).await.unwrap().unwrap();
    refused(&waited, "suspended");

    // The group goes on without asking, and its messages wait.
    group.say(&alice, "are you there").await.ok();
    refused(&running.api.get(&laptop, "/mailbox").await, "suspended");
    let through = json!({ "through": after });
    refused(&running.api.post(&laptop, "/mailbox/acknowledge", through).await, "suspended");
    unblock(&running, "bob").await;
    let told = mailbox(&running.api, &laptop, "").await;
    assert_eq!(told, ["welcome", "message: are you there"]);
}

#[actix_web::test]
async fn a_commit_adds_no_device_of_a_blocked_user() {
    let (running, [alice, ..]) = alice_and_bob().await;
    let group = Group::new(&running.api, "group-1");
    group.make(&alice).await.ok();
    let reserved = group.reserve(&alice, "bob").await.ok();
    let commit = Draft::post(&group.path("commits"), &group.adding(0, &reserved));
    block(&running, "bob").await;
    let answered = running.api.send(&alice, &commit).await;
    refused(&answered, "invitee_suspended");
    assert!(!answered.text("keypackage_ref").is_empty());
    unblock(&running, "bob").await;
    running.api.send(&alice, &commit).await.ok();
    let device = Device::new(&format!("bob/{}", reserved.text("device")));
    assert_eq!(mailbox(&running.api, &device, "").await, ["welcome"]);
}

#[actix_web::test]
async fn the_operator_is_told_what_was_so_already_and_who_is_unknown() {
    let (running, _) = alice_and_bob().await;
    let first =
        operator(&running, "/names/block", json!({ "user": "bob", "reason": "spam" })).await;
    let again = operator(&running, "/names/block", json!({ "user": "bob" })).await.ok();
    assert_eq!((&first.body["changed"], &again.body["changed"]), (&json!(true), &json!(false)));
    assert_eq!(first.body["position"], again.body["position"]);
    let listed = running.api.http.get(format!("{}/names/blocked", running.admin_url()));
    let listed = answer(listed).await.unwrap().ok().body;
    assert_eq!(listed["users"][0]["user"], "bob");
    assert_eq!(listed["users"][0]["reason"], "spam");
    let shown = running.api.http.get(format!("{}/users/bob", running.admin_url()));
    assert_eq!(
        answer(shown).await.unwrap().ok().body["blocked"]["position"],
        first.body["position"]
    );
    assert_eq!(unblock(&running, "bob").await["changed"], true);
    let idle = unblock(&running, "bob").await;
    assert_eq!((&idle["changed"], &idle["position"]), (&json!(false), &Value::Null));

    let wrong = [
        (json!({ "user": "nobody" }), "unknown_user"),
        (json!({ "user": "Bob" }), "unknown_user"),
        (json!({ "user": "bob/phone" }), "invalid_name"),
        (json!({ "user": "b\u{202e}ob" }), "invalid_name"),
        (json!({ "user": "" }), "invalid_name"),
        (json!({ "user": "bob", "reason": "two\nlines" }), "bad_request"),
        (json!({ "user": "bob", "reason": "\u{1b}[2J" }), "bad_request"),
        (json!({ "user": "bob", "reason": " " }), "bad_request"),
        (json!({ "user": "bob", "reason": "x".repeat(201) }), "bad_request"),
        (json!({ "user": "bob", "because": "spam" }), "bad_request"),
        (json!({}), "bad_request"),
    ];
    for (body, code) in wrong {
        let answered = operator(&running, "/names/block", body.clone()).await;
        assert_eq!(answered.code(), code, "{body}");
    }
    for path in ["/names/block", "/names/unblock"] {
        let public = running.api.http.post(format!("{}{path}", running.api.url));
        let public = public.header("content-type", "application/json").body("{\"user\":\"bob\"}");
        assert_eq!(answer(public).await.unwrap().status, 404);
        let form = running.api.http.post(format!("{}{path}", running.admin_url()));
        assert_eq!(answer(form.body("{\"user\":\"bob\"}")).await.unwrap().status, 415);
    }
}

#[actix_web::test]
async fn a_block_outlives_a_restart_with_snapshots_and_without() {
    let (running, [alice, phone, _]) = alice_and_bob().await;
    block(&running, "bob").await;
    let Running { server, clock, data, .. } = running;
    server.stop().await;
    for keeps_snapshots in [true, false] {
        let settings = local_settings(data.path());
        if !keeps_snapshots {
            // Without its index and its snapshots, everything is folded from the journal.
            std::fs::remove_dir_all(settings.data.join("sled")).unwrap();
        }
        let server = Server::start(settings, clock.clone()).unwrap();
        let api = Api::new(server.url(), clock.clone());
        refused(&api.reserve(&alice, "bob").await, "invitee_suspended");
        refused(&api.get(&phone, "/keypackages/status").await, "suspended");
        server.stop().await;
    }
    let log = SledLog::open(&data.path().join("log"), SledLogOptions::default()).unwrap();
    let log = NamedLog::open(log, false).unwrap();
    let records = log.read_stream(&StreamId::Server, 0, usize::MAX).unwrap();
    let suspended =
        |event: &Event| matches!(event, Event::UserSuspended { user, .. } if user == "bob");
    assert!(records.iter().any(|record| suspended(&record.envelope.event)));
}
