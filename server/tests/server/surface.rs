//! Every route as it is meant to be used.

use serde_json::json;
use uuid::Uuid;

use crate::harness::{Answer, Device, Draft, GROUP, NOW, Running, answer};

#[actix_web::test]
async fn a_device_registers_and_its_key_has_the_name_from_then_on() {
    let (alice, running) = (Device::new("alice/phone"), Running::start());
    let api = &running.api;

    let first = api.register(&alice).await;
    assert_eq!((first.status, first.body["position"].as_u64()), (201, Some(1)));
    assert_eq!((first.text("user"), first.text("device")), ("alice", "phone"));
    assert_eq!(first.text("keyid"), alice.keyid().to_string());
    assert_eq!(api.register(&alice).await.status, 200);

    let impostor = api.register(&alice.impostor()).await;
    assert_eq!((impostor.status, impostor.code()), (409, "identity_bound"));
}

#[actix_web::test]
async fn a_package_lives_from_upload_to_spend() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 3).await;
    let api = &running.api;

    let reserved = api.reserve(&alice, "bob").await.ok();
    assert_eq!(reserved.body["generation"], 1);
    assert_eq!(reserved.body["reservation_expires_at"], NOW.as_secs() + 60);
    assert_eq!(reserved.body["not_after"], NOW.as_secs() + 14 * 24 * 3600);
    assert_eq!(reserved.body["last_resort"], false);
    assert_eq!(reserved.text("device"), "main");

    running.clock.advance(std::time::Duration::from_secs(30));
    let renewed = api.claim(&alice, "/keypackages/renew", &reserved).await.ok();
    assert_eq!(renewed.body, json!({ "reservation_expires_at": NOW.as_secs() + 90 }));
    let spent = api.claim(&alice, "/keypackages/spend", &reserved).await.ok();
    assert_eq!(spent.body, json!({ "spent": true, "late": false, "replayed": false }));
    let again = api.claim(&alice, "/keypackages/spend", &reserved).await.ok();
    assert_eq!(again.body, json!({ "spent": true, "late": false, "replayed": true }));

    let returned = api.reserve(&alice, "bob").await.ok();
    assert_ne!(returned.body["keypackage_ref"], reserved.body["keypackage_ref"]);
    let released = api.claim(&alice, "/keypackages/release", &returned).await.ok();
    assert_eq!(released.body, json!({ "released": true }));

    let mut status = api.get(&bob, "/keypackages/status").await.ok().body;
    for changing in ["head", "digest", "device_list_head"] {
        assert_eq!(status[changing].take().as_str().unwrap().len(), 64);
    }
    insta::assert_json_snapshot!(status);
    let story: Vec<String> = history(&api.get(&bob, "/keypackages/events").await.ok());
    insta::assert_snapshot!(story.join("\n"), @"
    2 1 registered
    3 2 uploaded
    4 3 uploaded
    5 4 uploaded
    6 5 reserved
    7 6 renewed
    8 7 spent
    9 8 reserved
    10 9 released
    ");
}

fn history(answer: &Answer) -> Vec<String> {
    let events = answer.body["events"].as_array().unwrap();
    let line = |event: &serde_json::Value| {
        let what = event["event"].as_object().unwrap().keys().next().unwrap().clone();
        format!("{} {} {what}", event["position"], event["version"])
    };
    events.iter().map(line).collect()
}

#[actix_web::test]
async fn the_history_is_told_page_by_page_and_each_page_links_to_the_one_before() {
    let bob = Device::new("bob");
    let running = Running::start().with(&[&bob], 5).await;
    let mut told = Vec::new();
    let (mut after, mut more) = (0, true);
    while more {
        let path = format!("/keypackages/events?after={after}&limit=2");
        let page = running.api.get(&bob, &path).await.ok();
        told.extend(page.body["events"].as_array().unwrap().clone());
        more = page.body["more"].as_bool().unwrap();
        after = told.last().unwrap()["version"].as_u64().unwrap();
    }
    assert_eq!(told.len(), 6);
    let mut prev = keypool_ledger::Hash::ZERO;
    for event in told {
        let bytes = data_encoding::BASE64.decode(event["envelope"].as_str().unwrap().as_bytes());
        let bytes = bytes.unwrap();
        let envelope = keypool_ledger::codec::decode(&bytes).unwrap();
        assert_eq!(envelope.prev, prev);
        prev = keypool_ledger::codec::chain_hash(&bytes);
    }
    let status = running.api.get(&bob, "/keypackages/status").await.ok();
    assert_eq!(status.text("head"), prev.to_string());
}

#[actix_web::test]
async fn an_upload_keeps_what_is_good_and_names_what_is_not_in_order() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 0).await;
    let good = bob.packages(NOW, 2);
    let old = bob.package_with(NOW, 100, false);
    let batch = [
        b"no package".to_vec(),
        good[0].clone(),
        alice.package(NOW),
        good[0].clone(),
        old,
        good[1].clone(),
    ];

    let reply = running.api.upload(&bob, &batch).await.ok();

    let lines: Vec<String> = reply.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| format!("{} {} {}", item["outcome"], item["check"], item["detail"]))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    "rejected" "decode" "the bytes are not exactly one KeyPackage or one MLSMessage with one"
    "stored" null null
    "rejected" "identity" "the credential's identity is neither bob nor bob/main; declare another credential with POST /devices/credential before the upload"
    "duplicate" null null
    "rejected" "lifetime" "it ends at 1766400100, before or too soon after now (1766400000)"
    "stored" null null
    "#);
    assert_eq!(reply.body["accepted"], 2);
    assert_eq!(reply.body["pool"]["available"], 2);
    assert_eq!(reply.body["position"], 4);

    let again = running.api.upload(&bob, &good).await.ok();
    assert_eq!(again.body["accepted"], 0);
    assert_eq!(again.body["items"][0]["outcome"], "duplicate");
}

#[actix_web::test]
async fn a_single_package_travels_as_it_is() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 0).await;
    let api = &running.api;
    let package = bob.package(NOW);

    let mut draft = Draft::post("/keypackages/upload", &json!({}));
    draft.body = Some(package.clone());
    draft.content_type = "message/mls".to_owned();
    let uploaded = api.send(&bob, &draft).await.ok();
    assert_eq!(uploaded.body["accepted"], 1);

    let body = json!({ "target_user": "bob", "group_id": GROUP });
    let draft = Draft::post("/keypackages/reserve", &body);
    let request = api.signed(&alice, &draft).header("accept", "message/mls, */*;q=0.1");
    let reserved = answer(request).await.unwrap().ok();
    assert_eq!(reserved.bytes, package);
    assert_eq!(reserved.header("content-type"), "message/mls");
    // Without an id of its own, the reservation has the request's.
    assert_eq!(reserved.header("keypool-reservation-id"), draft.key.to_string());
    let uploaded_ref = uploaded.body["items"][0]["keypackage_ref"].as_str().unwrap();
    assert_eq!(reserved.header("keypool-keypackage-ref"), uploaded_ref);
    assert_eq!(reserved.header("keypool-generation"), "1");
    assert_eq!(reserved.header("keypool-last-resort"), "false");
    assert_eq!(reserved.header("keypool-device"), "main");
    assert_eq!(reserved.header("keypool-reservation-expires-at"), "1766400060");
    assert_eq!(reserved.header("keypool-not-after"), "1767609600");
}

#[actix_web::test]
async fn an_owner_withdraws_packages_by_name_by_credential_or_all() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 4).await;
    let api = &running.api;
    let reserved = api.reserve(&alice, "bob").await.ok();
    let revoke = |body| api.post(&bob, "/keypackages/revoke", body);

    let one =
        json!({ "keypackage_refs": [reserved.body["keypackage_ref"]], "reason": "withdrawn" });
    let one = revoke(one).await.ok();
    assert_eq!(one.body["revoked"].as_array().unwrap().len(), 1);
    assert_eq!(one.body["pool"]["revoked"], 1);
    let events = api.get(&bob, "/keypackages/events").await.ok();
    let credential = events.body["events"][1]["event"]["uploaded"]["credential"].clone();
    let rest = revoke(json!({ "credential_hash": credential, "reason": "rotated" })).await.ok();
    assert_eq!(rest.body["revoked"].as_array().unwrap().len(), 3);
    let all = revoke(json!({ "all": true, "reason": "withdrawn" })).await.ok();
    assert_eq!(all.body["revoked"], json!([]));

    // Whoever held one at that moment may still spend it: the Commit may be posted.
    let spent = api.claim(&alice, "/keypackages/spend", &reserved).await.ok();
    assert_eq!(spent.body["spent"], true);
}

#[actix_web::test]
async fn the_last_resort_answers_when_nothing_else_does_and_is_never_used_up() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 1).await;
    let api = &running.api;
    api.upload(&bob, &[bob.package_with(NOW, 24 * 3600, true)]).await.ok();
    let marks = [false, true, true];
    for last_resort in marks {
        let reserved = api.reserve(&alice, "bob").await.ok();
        assert_eq!(reserved.body["last_resort"], last_resort);
        api.claim(&alice, "/keypackages/spend", &reserved).await.ok();
    }
    let status = api.get(&bob, "/keypackages/status").await.ok();
    assert_eq!((&status.body["last_resort"], &status.body["spent"]), (&json!(1), &json!(1)));
}

#[actix_web::test]
async fn any_device_of_a_user_answers_or_the_one_that_is_named() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob/phone"));
    let running = Running::start().with(&[&alice, &bob], 2).await;
    let api = &running.api;
    assert_eq!(api.reserve(&alice, "bob").await.ok().text("device"), "phone");
    let named = |device: &str| {
        let body = json!({
            "target_user": "bob", "target_device": device, "group_id": GROUP, "reservation_id": Uuid::new_v4(),
        });
        api.post(&alice, "/keypackages/reserve", body)
    };
    assert_eq!(named("phone").await.ok().text("device"), "phone");
    assert_eq!(named("laptop").await.code(), "unknown_user");
}

#[actix_web::test]
async fn operators_see_that_it_lives_and_what_it_counts() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 2).await;
    let api = &running.api;
    let reserved = api.reserve(&alice, "bob").await.ok();
    api.claim(&alice, "/keypackages/spend", &reserved).await.ok();
    api.upload(&bob, &[alice.package(NOW)]).await;
    let fetch = |url: String| async { answer(api.http.get(url)).await.unwrap() };

    for base in [api.url.clone(), running.admin_url()] {
        assert_eq!(fetch(format!("{base}/livez")).await.bytes, b"alive\n");
        assert_eq!(fetch(format!("{base}/readyz")).await.bytes, b"ready\n");
    }
    assert_eq!(fetch(format!("{}/metrics", api.url)).await.status, 404);
    let metrics = fetch(format!("{}/metrics", running.admin_url())).await;
    assert!(metrics.header("content-type").starts_with("text/plain"));
    let text = String::from_utf8(metrics.bytes).unwrap();
    let mut stable: Vec<&str> = text
        .lines()
        .filter(|line| {
            !line.contains("_seconds_") && !line.contains("livez") && !line.contains("readyz")
        })
        .filter(|line| !line.is_empty() && !line.contains("queue_commands "))
        .filter(|line| !line.starts_with("keypool_checkpoint_position "))
        .filter(|line| !line.starts_with("keypool_disk_free_bytes "))
        .filter(|line| !line.starts_with("keypool_connections "))
        .collect();
    stable.sort_unstable();
    insta::assert_snapshot!(stable.join("\n"));
    for secret in ["alice", "bob", &alice.keyid().to_string()] {
        assert!(!text.contains(secret), "{secret} is in the metrics");
    }
}

#[actix_web::test]
async fn a_request_has_an_id_of_the_callers_or_a_new_one() {
    let running = Running::start();
    let url = format!("{}/livez", running.api.url);
    let sent = running.api.http.get(&url).header("x-request-id", "trace-7");
    assert_eq!(answer(sent).await.unwrap().header("x-request-id"), "trace-7");
    let new = answer(running.api.http.get(&url)).await.unwrap();
    assert!(new.header("x-request-id").parse::<Uuid>().is_ok());
    let head = running.api.http.head(&url);
    assert_eq!(answer(head).await.unwrap().status, 200);
}
