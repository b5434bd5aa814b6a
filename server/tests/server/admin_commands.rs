//! The operator's commands to a running server, as an operator types them.

use std::{fs, process::Command};

use keypool_server::{LowWater, Settings};
use serde_json::{Value, json};

use crate::harness::{Device, Draft, Running, answer};

/// Standard output, the exit code and standard error of `keypool-server admin` with some words.
async fn admin(running: &Running, words: &[&str]) -> (String, i32, String) {
    let url = running.admin_url();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keypool-server"));
    command.env_clear().arg("admin").args(words).args(["--admin", &url]);
    let output = actix_rt::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), output.status.code().unwrap(), text(output.stderr))
}

async fn json(running: &Running, words: &[&str]) -> Value {
    let (text, code, said) = admin(running, &[words, &["--json"]].concat()).await;
    assert_eq!(code, 0, "{said}");
    serde_json::from_str(&text).unwrap()
}

/// Alice without packages, Bob with two, and Carol with nine.
async fn three_pools() -> Running {
    let [alice, bob, carol] = ["alice", "bob/phone", "carol"].map(Device::new);
    let running = Running::start().with(&[&alice, &carol], 9).await.with(&[&bob], 2).await;
    running.api.reserve(&alice, "bob").await.ok();
    running
}

#[actix_web::test]
async fn pools_at_risk_are_listed_with_the_emptiest_first() {
    let running = three_pools().await;
    let (text, code, _) = admin(&running, &["pools", "--low"]).await;
    assert_eq!(code, 0);
    insta::assert_snapshot!(text, @r"
    device      level     available  reserved  empty in
    alice/main  empty             0         0  -
    bob/phone   critical          1         1  -
    ");
    let all = json(&running, &["pools", "--limit", "2"]).await;
    assert_eq!((all["total"].clone(), all["pools"].as_array().unwrap().len()), (3.into(), 2));
    let (text, _, _) = admin(&running, &["pools", "--limit", "2"]).await;
    assert!(text.ends_with("1 more: raise --limit\n"), "{text}");
}

#[actix_web::test]
async fn a_health_check_ends_with_0_while_requests_are_taken_and_with_1_otherwise() {
    let running = Running::start();
    assert_eq!(admin(&running, &["ready"]).await, ("ready\n".into(), 0, String::new()));
    assert_eq!(json(&running, &["ready"]).await, json!({ "ready": true, "refused": null }));
    let full = |settings: &mut Settings| settings.disk_low_water = LowWater::Bytes(u64::MAX);
    let running = Running::start_with(full);
    let (text, code, said) = admin(&running, &["ready"]).await;
    assert!(text.is_empty() && code == 1 && said.contains("disk"), "{text}{said}");
}

#[actix_web::test]
async fn a_user_is_shown_with_each_registered_device() {
    let running = three_pools().await;
    let shown = json(&running, &["show", "bob"]).await;
    let device = &shown["devices"][0];
    assert_eq!(device["device"], "phone");
    assert_eq!(device["keyid"], Device::new("bob/phone").keyid().to_string());
    assert_eq!((&device["available"], &device["reserved"]), (&1.into(), &1.into()));
    for odd in ["two words", "bob/phone", "b\u{f6}b", "../metrics", ""] {
        let (_, code, said) = admin(&running, &["show", odd]).await;
        assert!(code == 1 && said.contains("1 to 128 characters"), "{odd:?}: {said}");
    }
    let (_, code, said) = admin(&running, &["show", "nobody"]).await;
    assert!(code == 1 && said.contains("the server refused") && said.contains("nobody"), "{said}");
}

#[actix_web::test]
async fn the_operator_removes_a_device_and_its_key_is_dead() {
    let (running, bob) = (three_pools().await, Device::new("bob/phone"));
    let (text, code, said) = admin(&running, &["remove-device", "bob", "phone"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(text.starts_with("bob/phone is removed (record "), "{text}");
    let refused = running.api.send(&bob, &Draft::get("/keypackages/status")).await;
    assert_eq!(refused.code(), "unauthenticated");
    assert_eq!(running.api.register(&bob).await.code(), "key_retired");
    let (text, _, _) = admin(&running, &["show", "bob"]).await;
    assert_eq!(text, "bob has no registered device\n");
    assert!(
        !admin(&running, &["pools"]).await.0.contains("bob"),
        "a removed device has no pool at risk"
    );
    let (_, code, said) = admin(&running, &["remove-device", "bob", "phone"]).await;
    assert!(code == 1 && said.contains("the server refused"), "{said}");

    let released = json(&running, &["release-name", "bob"]).await;
    assert_eq!(released["devices"][0], "phone");
    assert_eq!(running.api.register(&bob.impostor()).await.status, 201);
}

#[actix_web::test]
async fn the_operators_routes_ask_for_the_token_and_are_not_where_clients_connect() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "0123456789abcdef0123456789abcdef\n").unwrap();
    let running = Running::start_with(|settings| settings.admin_token_file = Some(token.clone()));
    let (_, code, said) = admin(&running, &["pools"]).await;
    assert!(code == 1 && said.contains("asks for its token"), "{said}");
    let token = token.to_str().unwrap();
    assert_eq!(admin(&running, &["pools", "--admin-token-file", token]).await.1, 0);
    let alice = Device::new("alice");
    running.api.register(&alice).await.ok();
    for path in ["/pools", "/users/alice"] {
        let public = answer(running.api.http.get(format!("{}{path}", running.api.url))).await;
        assert_eq!(public.unwrap().status, 404, "{path}");
    }
    let form = running.api.http.post(format!("{}/devices/remove", running.admin_url()));
    let body = "{\"user\":\"alice\",\"device\":\"main\"}";
    let form = form.bearer_auth("0123456789abcdef0123456789abcdef").body(body);
    assert_eq!(answer(form).await.unwrap().status, 415);
}

#[actix_web::test]
async fn the_operator_blocks_a_user_says_why_and_unblocks_the_user() {
    let (running, bob) = (three_pools().await, Device::new("bob/phone"));
    assert_eq!(admin(&running, &["blocked"]).await.0, "no user is blocked\n");
    let (text, code, said) = admin(&running, &["block", "bob", "--reason", "sells spam"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(text.starts_with("bob is blocked (record "), "{text}");
    let refused = running.api.send(&bob, &Draft::get("/keypackages/status")).await;
    assert_eq!(refused.code(), "suspended");
    assert!(!refused.body.to_string().contains("sells spam"), "the reason is the operator's");
    let (text, code, _) = admin(&running, &["block", "bob"]).await;
    assert!(code == 0 && text.starts_with("bob was blocked already (record "), "{text}");

    let (text, _, _) = admin(&running, &["show", "bob"]).await;
    assert!(text.starts_with("bob is blocked since 2025-12-22T10:40:00.000Z (record "), "{text}");
    assert!(text.contains("): sells spam\n") && text.contains("bob/phone"), "{text}");
    assert_eq!(
        admin(&running, &["blocked"]).await.0,
        text.lines().next().unwrap().to_owned() + "\n"
    );
    assert_eq!(json(&running, &["blocked"]).await["users"][0]["reason"], "sells spam");
    let released = admin(&running, &["release-name", "bob"]).await.0;
    assert!(released.contains("nobody registers the name until `admin unblock bob`"), "{released}");

    let unblocked = json(&running, &["unblock", "bob"]).await;
    assert_eq!((&unblocked["blocked"], &unblocked["changed"]), (&false.into(), &true.into()));
    assert_eq!(admin(&running, &["unblock", "bob"]).await.0, "bob was not blocked\n");
    for wrong in ["nobody", "b ob", "bob/phone", "-", ""] {
        let (_, code, said) = admin(&running, &["block", wrong]).await;
        assert!(code == 1 && said.contains("the server refused"), "{wrong:?}: {said}");
    }
}

#[actix_web::test]
async fn the_operator_withdraws_one_package() {
    let (running, alice) = (three_pools().await, Device::new("alice"));
    let reserved = running.api.reserve(&alice, "carol").await.ok();
    let package = reserved.text("keypackage_ref").to_owned();
    let (text, code, said) = admin(&running, &["revoke-package", &package]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(text, format!("package {package} of carol/main is withdrawn\n"));
    let again = json(&running, &["revoke-package", &package]).await;
    assert_eq!((&again["changed"], &again["user"]), (&false.into(), &"carol".into()));
    let status = running.api.get(&Device::new("carol"), "/keypackages/status").await.ok();
    assert_eq!((&status.body["revoked"], &status.body["total"]), (&1.into(), &9.into()));
    let history = running.api.get(&Device::new("carol"), "/keypackages/events").await.ok();
    let revoked = history.body["events"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(revoked["event"]["revoked"]["reason"], "operator", "{revoked}");

    // The holder may have posted its Commit already.
    running.api.claim(&alice, "/keypackages/spend", &reserved).await.ok();
    let (_, code, said) = admin(&running, &["revoke-package", &package]).await;
    assert!(code == 1 && said.contains("is spent"), "{said}");
    for (wrong, exit, why) in [
        (&*"0".repeat(64), 1, "is not known here"),
        (&package[..8], 2, "the hex of 16 to 64 bytes"),
    ] {
        let (_, code, said) = admin(&running, &["revoke-package", wrong]).await;
        assert!(code == exit && said.contains(why), "{said}");
    }
}
