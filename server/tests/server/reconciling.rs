//! Whether the owner and the server know the same of a pool, as the server tells it.

use keypool_ledger::{Hash, KeyPackageRef};
use keypool_projections::{Stage, reconcile::digest};
use serde_json::{Value, json};

use crate::harness::{Answer, Device, NOW, Running};

async fn reconcile(running: &Running, owner: &Device, body: Value) -> Answer {
    running.api.post(owner, "/keypackages/reconcile", body).await
}

/// Bob with packages: the first is reserved, the second spent, the third withdrawn, the fourth
/// available. Their references, in that order.
async fn bob_with_four() -> (Running, Device, Device, Vec<String>) {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 0).await;
    let api = &running.api;
    let uploaded = api.upload(&bob, &bob.packages(NOW, 4)).await.ok();
    let items = uploaded.body["items"].as_array().unwrap();
    let text = |item: &Value| item["keypackage_ref"].as_str().unwrap().to_owned();
    let refs: Vec<String> = items.iter().map(text).collect();
    let first = api.reserve(&alice, "bob").await.ok();
    assert_eq!(first.text("keypackage_ref"), refs[0]);
    let second = api.reserve(&alice, "bob").await.ok();
    api.claim(&alice, "/keypackages/spend", &second).await.ok();
    let withdrawn = json!({ "keypackage_refs": [refs[2]], "reason": "withdrawn" });
    api.post(&bob, "/keypackages/revoke", withdrawn).await.ok();
    (running, alice, bob, refs)
}

#[actix_web::test]
async fn what_each_side_alone_takes_to_be_live_is_told_with_what_became_of_it() {
    let (running, _, bob, refs) = bob_with_four().await;
    let before = running.api.get(&bob, "/keypackages/status").await.ok().body;
    let agreed = json!({ "keypackage_refs": [refs[3], refs[0]] });
    let told = reconcile(&running, &bob, agreed).await.ok().body;
    let nothing = json!({
        "agrees": true, "digest": before["digest"], "version": before["version"],
        "only_here": [], "only_there": [],
    });
    assert_eq!(told, nothing);

    let stranger = "77".repeat(32);
    let named = json!({ "keypackage_refs": [refs[1], refs[2], refs[3], stranger] });
    let told = reconcile(&running, &bob, named).await.ok().body;
    assert_eq!(told["agrees"], false);
    let unnamed = json!([{ "keypackage_ref": refs[0], "state": "reserved" }]);
    assert_eq!(told["only_here"], unnamed);
    let mut missing = told["only_there"].as_array().unwrap().clone();
    missing.sort_by_key(|package| package["state"].as_str().unwrap().to_owned());
    let expected = json!([
        { "keypackage_ref": refs[2], "state": "revoked" },
        { "keypackage_ref": refs[1], "state": "spent" },
        { "keypackage_ref": stranger, "state": "unknown" },
    ]);
    assert_eq!(Value::from(missing), expected);
    // Nothing is changed by looking.
    assert_eq!(running.api.get(&bob, "/keypackages/status").await.ok().body, before);
}

#[actix_web::test]
async fn a_digest_says_whether_anything_differs() {
    let (running, _, bob, refs) = bob_with_four().await;
    let parsed: Vec<KeyPackageRef> = refs.iter().map(|text| text.parse().unwrap()).collect();
    let ours = digest([(&parsed[0], Stage::Reserved), (&parsed[3], Stage::Available)]);
    let status = running.api.get(&bob, "/keypackages/status").await.ok().body;
    assert_eq!(status["digest"], ours.to_string());
    let told = reconcile(&running, &bob, json!({ "digest": ours })).await.ok().body;
    assert_eq!((&told["agrees"], &told["only_here"]), (&json!(true), &json!([])));

    let told = reconcile(&running, &bob, json!({ "digest": Hash::ZERO })).await.ok().body;
    assert_eq!(told["agrees"], false);
    let mut live = [(&refs[0], "reserved"), (&refs[3], "available")];
    live.sort();
    let live: Vec<Value> = live
        .iter()
        .map(|(name, state)| json!({ "keypackage_ref": name, "state": state }))
        .collect();
    assert_eq!(told["only_here"], Value::from(live));

    // A pool without packages agrees with nothing but its own digest.
    let all = json!({ "all": true, "reason": "withdrawn" });
    running.api.post(&bob, "/keypackages/revoke", all).await.ok();
    let told = reconcile(&running, &bob, json!({ "digest": ours })).await.ok().body;
    assert_eq!((&told["agrees"], &told["only_here"]), (&json!(false), &json!([])));
}

#[actix_web::test]
async fn nobody_learns_of_another_pool() {
    let (running, alice, _, refs) = bob_with_four().await;
    let told = reconcile(&running, &alice, json!({ "keypackage_refs": [refs[3]] })).await.ok().body;
    let unknown = json!([{ "keypackage_ref": refs[3], "state": "unknown" }]);
    assert_eq!((&told["only_here"], &told["only_there"]), (&json!([]), &unknown));
}

#[actix_web::test]
async fn what_is_held_is_said_in_one_way_and_within_limits() {
    let (running, _, bob, refs) = bob_with_four().await;
    let ways = [json!({}), json!({ "digest": Hash::ZERO, "keypackage_refs": [refs[0]] })];
    for neither_or_both in ways {
        assert_eq!(reconcile(&running, &bob, neither_or_both).await.code(), "bad_request");
    }
    let many: Vec<&String> = refs.iter().cycle().take(257).collect();
    let refused = reconcile(&running, &bob, json!({ "keypackage_refs": many })).await;
    assert_eq!((refused.status, refused.code()), (413, "too_large"));
    let none = reconcile(&running, &bob, json!({ "keypackage_refs": [] })).await.ok();
    assert_eq!(none.body["only_here"].as_array().unwrap().len(), 2);
}
