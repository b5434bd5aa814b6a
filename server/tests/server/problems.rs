//! Every refusal as the caller sees it, one snapshot for each.

use std::time::Duration;

use keypool_api::Code;
use keypool_projections::quota::Quotas;
use keypool_server::Settings;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Answer, Device, Draft, GROUP, NOW, Running, answer, claim, upload};

const UNKNOWN_REF: &str = "00000000000000000000000000000000000000000000000000000000000000ff";

/// Compares a refusal with its snapshot. Parts that differ from run to run are cut out first.
#[track_caller]
fn check_problem(name: &str, answer: &Answer, changing: &[&Value]) {
    assert_eq!(answer.header("content-type"), "application/problem+json", "{name}");
    assert_eq!(answer.body["status"], answer.status, "{name}");
    let code: Code = answer.code().parse().unwrap();
    assert_eq!(answer.body["retryable"], code.retryable(), "{name}");
    let waits = answer.body["retry_after_s"].as_u64().map(|wait| wait.to_string());
    assert_eq!(answer.header("retry-after"), waits.unwrap_or_default(), "{name}");
    assert_eq!(answer.body["request_id"], answer.header("x-request-id"), "{name}");
    let mut body = answer.body.clone();
    body.as_object_mut().unwrap().remove("request_id");
    let mut text = serde_json::to_string_pretty(&body).unwrap();
    for value in changing.iter().filter_map(|value| value.as_str()) {
        text = text.replace(value, "…").replace(&value[..8], "…");
    }
    insta::assert_snapshot!(name, text);
}

async fn two_devices(packages: usize, change: fn(&mut Settings)) -> (Running, Device, Device) {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start_with(change).with(&[&alice, &bob], packages).await;
    (running, alice, bob)
}

#[actix_web::test]
async fn requests_that_cannot_be_read() {
    let (running, alice, _) = two_devices(0, |_| {}).await;
    let api = &running.api;
    let raw = |path: &str, body: &str| {
        let mut draft = Draft::post(path, &Value::Null);
        draft.body = Some(body.as_bytes().to_vec());
        draft
    };
    let bodies = [
        ("malformed_json", raw("/keypackages/reserve", "{\"target_user\": ")),
        ("wrong_type", raw("/keypackages/reserve", "[1, 2]")),
        ("missing_field", raw("/keypackages/reserve", "{\"target_user\": \"bob\"}")),
        ("unknown_field", raw("/devices", "{\"user\": \"bob\", \"admin\": true}")),
        ("not_base64", raw("/keypackages/upload", "{\"keypackages\": [\"%%\"]}")),
        ("no_package", raw("/keypackages/upload", "{\"keypackages\": []}")),
        (
            "not_a_ref",
            raw(
                "/keypackages/revoke",
                "{\"keypackage_refs\": [\"zz\"], \"reason\": \"withdrawn\"}",
            ),
        ),
        ("which_packages", raw("/keypackages/revoke", "{\"reason\": \"withdrawn\"}")),
        ("post_with_query", raw("/keypackages/reserve?x=1", "{}")),
    ];
    for (name, draft) in bodies {
        let answer = api.send(&alice, &draft).await;
        assert_eq!(answer.code(), "bad_request", "{name}");
        check_problem(name, &answer, &[]);
    }
    for (name, path) in [
        ("bad_query", "/keypackages/events?after=-1"),
        ("unknown_query", "/keypackages/status?pool=bob"),
    ] {
        check_problem(name, &api.get(&alice, path).await, &[]);
    }
    let mut draft = Draft::post("/keypackages/reserve", &json!({}));
    draft.content_type = "text/plain".to_owned();
    check_problem("text_plain", &api.send(&alice, &draft).await, &[]);
}

#[actix_web::test]
async fn names_that_are_none() {
    let (running, alice, _) = two_devices(0, |_| {}).await;
    let long = "x".repeat(129);
    for (name, user) in [("empty_user", ""), ("user_with_slash", "a/b"), ("long_user", &long)] {
        let answer = running.api.post(&alice, "/devices", json!({ "user": user })).await;
        check_problem(name, &answer, &[]);
    }
    let body = json!({ "target_user": "bob", "target_device": "é", "group_id": GROUP });
    let answer = running.api.post(&alice, "/keypackages/reserve", body).await;
    check_problem("strange_device", &answer, &[]);
}

#[actix_web::test]
async fn addresses_and_methods_that_are_none() {
    let running = Running::start();
    let api = &running.api;
    let fetch = |method: &str, path: &str| {
        let request = api.http.request(method.parse().unwrap(), format!("{}{path}", api.url));
        async { answer(request).await.unwrap() }
    };
    check_problem("unknown_path", &fetch("GET", "/keypackages").await, &[]);
    check_problem("odd_path", &fetch("POST", "/%ff%00/../x").await, &[]);
    let wrong = fetch("GET", "/keypackages/reserve").await;
    assert_eq!(wrong.header("allow"), "POST");
    check_problem("wrong_method", &wrong, &[]);
    for (method, path) in
        [("DELETE", "/devices"), ("PUT", "/keypackages/status"), ("BREW", "/livez")]
    {
        let answer = fetch(method, path).await;
        assert_eq!((answer.status, answer.code()), (405, "method_not_allowed"));
    }
}

#[actix_web::test]
async fn packages_that_are_not_admitted() {
    let (running, alice, bob) = two_devices(0, |settings| settings.batch_packages_max = 3).await;
    let api = &running.api;

    let foreign = api.upload(&bob, &[alice.package(NOW)]).await;
    check_problem("one_bad_package", &foreign, &[&foreign.body["keypackage_ref"]]);
    let junk = vec![b"junk".to_vec(), alice.package(NOW)];
    let all_bad = api.upload(&bob, &junk).await;
    check_problem("all_packages_bad", &all_bad, &[&all_bad.body["items"][1]["keypackage_ref"]]);
    let many = api.upload(&bob, &bob.packages(NOW, 4)).await;
    check_problem("too_many_packages", &many, &[]);

    // Another package of the same init_key: the same bytes but for a new signature cannot be made
    // here, so a last-resort package stands for what the pool's own rules refuse.
    api.upload(&bob, &[bob.package_with(NOW, 3600, true)]).await.ok();
    let second = api.upload(&bob, &[bob.package_with(NOW, 3600, true)]).await;
    check_problem("second_last_resort", &second, &[&second.body["keypackage_ref"]]);
}

#[actix_web::test]
async fn a_pool_that_is_full() {
    let (running, _, bob) = two_devices(3, |settings| settings.limits.packages_max = 4).await;
    let api = &running.api;
    let partly = api.upload(&bob, &bob.packages(NOW, 2)).await.ok();
    assert_eq!(partly.body["accepted"], 1);
    assert_eq!(partly.body["items"][1]["code"], "pool_full");
    assert_eq!(partly.body["items"][1]["check"], "cap");
    let full = api.upload(&bob, &bob.packages(NOW, 1)).await;
    check_problem("pool_full", &full, &[&full.body["keypackage_ref"]]);
}

#[actix_web::test]
async fn reservations_that_find_nothing() {
    let (running, alice, bob) = two_devices(0, |_| {}).await;
    let api = &running.api;
    check_problem("pool_exhausted", &api.reserve(&alice, "bob").await, &[]);
    check_problem("unknown_user", &api.reserve(&alice, "carol").await, &[]);
    check_problem("own_pool", &api.reserve(&bob, "bob").await, &[]);
    api.upload(&bob, &bob.packages(NOW, 1)).await.ok();
    let body = json!({ "target_user": "bob", "group_id": GROUP, "ciphersuites": [2, 3] });
    let answer = api.post(&alice, "/keypackages/reserve", body).await;
    check_problem("nothing_compatible", &answer, &[]);
}

#[actix_web::test]
async fn claims_that_do_not_hold() {
    let (running, alice, bob) = two_devices(3, |settings| settings.limits.renewals_max = 1).await;
    let (api, carol) = (&running.api, Device::new("carol"));
    api.register(&carol).await.ok();
    let id = Uuid::new_v4();
    let reserved = api.reserve_as(&alice, "bob", id).await.ok();
    let changing = [&reserved.body["keypackage_ref"], &reserved.body["reservation_id"]];
    let spend = "/keypackages/spend";

    let body = json!({ "target_user": "bob", "group_id": "b3RoZXI=", "reservation_id": id });
    let other_group = api.post(&alice, "/keypackages/reserve", body).await;
    check_problem("reservation_mismatch", &other_group, &changing);
    let not_holder = api.claim(&carol, spend, &reserved).await;
    check_problem("not_the_holder", &not_holder, &changing);
    let mut body = claim(spend, &reserved);
    body["added_by"] = "carol".into();
    check_problem("added_by_another", &api.post(&alice, spend, body).await, &[]);
    let mut body = claim(spend, &reserved);
    body["keypackage_ref"] = UNKNOWN_REF.into();
    check_problem("unknown_key_package", &api.post(&alice, spend, body).await, &[]);

    api.claim(&alice, "/keypackages/renew", &reserved).await.ok();
    let again = api.claim(&alice, "/keypackages/renew", &reserved).await;
    check_problem("renewal_limit", &again, &changing);

    let mut body = claim(spend, &reserved);
    body["added_by"] = "alice".into();
    api.post(&alice, spend, body).await.ok();
    let other = api.claim(&carol, spend, &reserved).await;
    check_problem("already_spent", &other, &changing);
    let returned = api.claim(&alice, "/keypackages/release", &reserved).await;
    assert_eq!(returned.code(), "already_spent");

    let second = api.reserve(&alice, "bob").await.ok();
    let revoke = json!({ "all": true, "reason": "withdrawn" });
    api.post(&bob, "/keypackages/revoke", revoke).await.ok();
    let renewed = api.claim(&alice, "/keypackages/renew", &second).await;
    check_problem("revoked", &renewed, &[&second.body["keypackage_ref"]]);
}

#[actix_web::test]
async fn a_lapsed_reservation_is_lost_when_its_package_was_handed_on() {
    let (running, alice, bob) = two_devices(1, |_| {}).await;
    let (api, carol) = (&running.api, Device::new("carol"));
    api.register(&carol).await.ok();
    let lapsed = api.reserve(&alice, "bob").await.ok();
    // A server that has just started gives open reservations a full TTL again, and then the grace.
    running.clock.advance(Duration::from_mins(3));
    let handed_on = api.reserve(&carol, "bob").await.ok();
    assert_eq!(handed_on.body["generation"], 2);
    let late = api.claim(&alice, "/keypackages/spend", &lapsed).await;
    check_problem("reservation_lost", &late, &[&lapsed.body["reservation_id"]]);
    let events = api.get(&bob, "/keypackages/events?after=2").await.ok();
    let last = events.body["events"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["event"]["conflict"]["lost"], lapsed.body["reservation_id"]);
}

#[actix_web::test]
async fn a_lifetime_that_is_over() {
    let (running, alice, bob) = two_devices(0, |_| {}).await;
    let api = &running.api;
    api.upload(&bob, &[bob.package_with(NOW, 150, false)]).await.ok();
    let reserved = api.reserve(&alice, "bob").await.ok();
    running.clock.advance(Duration::from_secs(50));
    api.claim(&alice, "/keypackages/renew", &reserved).await.ok();
    running.clock.advance(Duration::from_secs(101));
    let renewed = api.claim(&alice, "/keypackages/renew", &reserved).await;
    check_problem("expired", &renewed, &[&reserved.body["keypackage_ref"]]);
    // The Commit may have been posted in time.
    let spent = api.claim(&alice, "/keypackages/spend", &reserved).await.ok();
    assert_eq!(spent.body["late"], true);
}

#[actix_web::test]
async fn a_clock_that_has_stepped_back() {
    let (running, alice, _) = two_devices(1, |_| {}).await;
    running.clock.set(NOW.before(Duration::from_secs(10)));
    check_problem("clock_regressed", &running.api.reserve(&alice, "bob").await, &[]);
    let status = running.api.get(&alice, "/keypackages/status").await;
    assert_eq!(status.status, 200);
}

#[actix_web::test]
async fn a_name_that_is_bound_and_a_look_into_another_pool() {
    let (running, alice, bob) = two_devices(0, |_| {}).await;
    let body = json!({ "user": "alice", "device": "laptop" });
    let squatter = Device::new("squatter");
    check_problem("identity_bound", &running.api.post(&squatter, "/devices", body).await, &[]);
    let second_name = running.api.post(&bob, "/devices", json!({ "user": "robert" })).await;
    assert_eq!(second_name.code(), "identity_bound");
    let status = running.api.get(&alice, "/keypackages/status?user=bob").await;
    check_problem("not_allowed", &status, &[]);
    let own = running.api.get(&alice, "/keypackages/status?user=alice&device=main").await;
    assert_eq!(own.status, 200);
}

/// The detail and the hint of a refusal, on one line each.
fn told(name: &str, answer: &Answer) -> String {
    assert_eq!(answer.body["request_id"], answer.header("x-request-id"), "{name}");
    format!("{name}: {}: {}\n    {}", answer.code(), answer.text("detail"), answer.text("hint"))
}

#[actix_web::test]
async fn each_hint_names_the_setting_or_the_next_step_of_its_reason() {
    let change = |settings: &mut Settings| {
        settings.public_names = vec!["keypool.example".to_owned()];
        settings.limits.strangers_floor = 8;
        settings.admission.package_bytes_max = 15_000;
        settings.batch_packages_max = 3;
        settings.body_bytes_max = 100_000;
        settings.quotas = Some(Quotas { pair_held_max: 1, ..Quotas::STANDARD });
    };
    let running = Running::start_with(change);
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(Device::new);
    let api = &running.api;
    let sent_to = async |host: &str, device: &Device, draft: Draft| {
        let headers = draft.headers(device, host, api.clock.now());
        answer(api.with_headers(&draft, &headers).header("host", host)).await.unwrap()
    };
    let ask = async |device: &Device, draft: Draft| sent_to("keypool.example", device, draft).await;
    let post = async |device: &Device, path: &str, body: Value| {
        ask(device, Draft::post(path, &body)).await
    };
    for device in [&alice, &bob, &carol] {
        post(device, "/devices", json!({ "user": device.pool.user() })).await.ok();
    }
    post(&bob, "/keypackages/upload", upload(&bob.packages(NOW, 2))).await.ok();
    let reserve = json!({ "target_user": "bob", "group_id": GROUP });
    let get = || Draft::get("/keypackages/status");
    let unsigned = api.http.get(format!("{}/keypackages/status", api.url));
    let unsigned = unsigned.header("host", "keypool.example");
    let large = post(&bob, "/keypackages/upload", upload(&[bob.large_package(NOW)])).await;
    let old = get().headers(&alice, "keypool.example", NOW.before(Duration::from_hours(1)));
    let old = api.with_headers(&get(), &old).header("host", "keypool.example");
    let contacts = json!({ "reserve": "contacts" });
    let mut told_all = vec![
        told("authority", &sent_to("other.example:8443", &alice, get()).await),
        told("no signature", &answer(unsigned).await.unwrap()),
        told("clock", &answer(old).await.unwrap()),
        told("floor", &post(&alice, "/keypackages/reserve", reserve.clone()).await),
        told("package size", &large),
        told("batch", &post(&bob, "/keypackages/upload", upload(&bob.packages(NOW, 4))).await),
        told("body", &post(&bob, "/keypackages/reserve", json!({ "x": "y".repeat(70_000) })).await),
        told(
            "large body",
            &post(&bob, "/keypackages/upload", json!({ "x": "y".repeat(120_000) })).await,
        ),
    ];
    post(&bob, "/keypackages/upload", upload(&[bob.package_with(NOW, 3600, true)])).await.ok();
    post(&alice, "/keypackages/reserve", reserve.clone()).await.ok();
    told_all.push(told("held", &post(&alice, "/keypackages/reserve", reserve.clone()).await));
    post(&bob, "/keypackages/policy", contacts).await.ok();
    told_all.push(told("contacts", &post(&carol, "/keypackages/reserve", reserve.clone()).await));
    post(&bob, "/keypackages/policy", json!({ "blocked": ["carol"] })).await.ok();
    told_all.push(told("blocked", &post(&carol, "/keypackages/reserve", reserve).await));
    insta::assert_snapshot!(told_all.join("\n"));
}
