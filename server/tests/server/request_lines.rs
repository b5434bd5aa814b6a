//! The log's lines of requests: one for each that changes something or is refused, with who asked.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    groups::{Group, mailbox},
    harness::{Device, GROUP, Process, answer, claim, command},
};

/// The lines of requests that a server has written, once it has ended.
fn request_lines(process: Process) -> Vec<Value> {
    let pid = process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let (_, said) = process.ended();
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["fields"]["message"] == "request").collect()
}

fn start(data: &std::path::Path, log: &str) -> Process {
    let mut command = command(data);
    command.args(["--log-format", "json", "--log", log, "--no-quotas"]);
    Process::spawn(command.stderr(Stdio::piped()))
}

#[actix_web::test]
async fn a_message_is_a_line_of_its_sender_and_one_of_each_acknowledgement() {
    for (log, polled) in [("info", 0), ("keypool_server=debug", 1)] {
        let dir = tempfile::tempdir().unwrap();
        let process = start(dir.path(), log);
        let (api, alice, bob) = (&process.api, Device::new("alice"), Device::new("bob"));
        for device in [&alice, &bob] {
            api.register(device).await.ok();
        }
        api.upload(&bob, &bob.packages(api.clock.now(), 1)).await.ok();
        let group = Group::new(api, "group-1");
        group.make(&alice).await.ok();
        group.add(&alice, 0, "bob").await.ok();
        group.say(&alice, "hello").await.ok();
        assert_eq!(mailbox(api, &bob, "?wait=30").await, ["welcome", "message: hello"]);
        answer(api.http.get(format!("{}/readyz", api.url))).await.unwrap().ok();
        api.post(&bob, "/mailbox/acknowledge", json!({ "through": 9 })).await.ok();

        let lines = request_lines(process);
        let said =
            lines.iter().position(|line| line["fields"]["route"] == "/groups/{group_id}/messages");
        let since: Vec<String> = lines[said.unwrap()..]
            .iter()
            .map(|line| {
                format!(
                    "{} {} {}",
                    line["level"], line["fields"]["route"], line["fields"]["caller"]
                )
            })
            .collect();
        let info: Vec<&String> = since.iter().filter(|line| line.starts_with("\"INFO")).collect();
        let sent = "\"INFO\" \"/groups/{group_id}/messages\" \"alice/main\"";
        let read = "\"INFO\" \"/mailbox/acknowledge\" \"bob/main\"";
        assert_eq!(info, [sent, read]);
        let polls =
            since.iter().filter(|line| line.starts_with("\"DEBUG\" \"/mailbox\" \"bob")).count();
        assert_eq!(polls, polled, "{since:?}");
    }
}

#[actix_web::test]
async fn a_refusal_has_its_line_with_caller_pool_and_code_however_quiet_the_route() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path(), "info");
    let (api, alice) = (&process.api, Device::new("alice"));
    api.register(&alice).await.ok();
    assert_eq!(api.reserve(&alice, "bob").await.code(), "unknown_user");
    let revoked = json!({ "all": true, "reason": "withdrawn" });
    api.post(&alice, "/keypackages/revoke", revoked).await.ok();
    assert_eq!(api.get(&Device::new("eve"), "/mailbox?wait=30").await.code(), "unauthenticated");

    let lines = request_lines(process);
    let fields = |route: &str| {
        let line = lines.iter().find(|line| line["fields"]["route"] == route).unwrap();
        ["caller", "pool", "code"]
            .map(|name| line["fields"][name].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(fields("/keypackages/reserve"), ["alice/main", "bob", "unknown_user"]);
    assert_eq!(fields("/keypackages/revoke"), ["alice/main", "alice/main", ""]);
    assert_eq!(fields("/mailbox"), ["", "", "unauthenticated"]);
}

#[actix_web::test]
async fn a_line_about_a_package_names_its_pool_and_one_about_many_the_first_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path(), "info");
    let (api, alice, bob) = (&process.api, Device::new("alice"), Device::new("bob/phone"));
    for device in [&alice, &bob] {
        api.register(device).await.ok();
    }
    api.upload(&bob, &bob.packages(api.clock.now(), 4)).await.ok();
    let reserved = api.reserve(&alice, "bob").await.ok();
    api.claim(&alice, "/keypackages/renew", &reserved).await.ok();
    api.claim(&alice, "/keypackages/spend", &reserved).await.ok();
    let reserved = api.reserve(&alice, "bob").await.ok();
    // A refusal names it as well.
    assert_eq!(api.claim(&bob, "/keypackages/release", &reserved).await.status, 409);
    api.claim(&alice, "/keypackages/report", &reserved).await.ok();
    let mut unknown = claim("", &reserved);
    unknown["keypackage_ref"] = json!("0".repeat(64));
    assert_eq!(api.post(&alice, "/keypackages/renew", unknown).await.status, 404);
    let targets = |names: &[&str]| {
        let users: Vec<Value> = names.iter().map(|user| json!({ "user": user })).collect();
        json!({ "targets": users, "group_id": GROUP, "reservation_id": Uuid::new_v4() })
    };
    let two = json!([{ "user": "bob", "device": "phone" }, { "user": "carol" }]);
    let mut named = targets(&[]);
    named["targets"] = two;
    api.post(&alice, "/keypackages/reserve-many", named).await.ok();
    let five = targets(&["bob", "carol", "dave", "eve", "frank"]);
    api.post(&alice, "/keypackages/reserve-many", five).await.ok();

    let lines = request_lines(process);
    let pools = |route: &str| -> Vec<String> {
        let of = lines.iter().filter(|line| line["fields"]["route"] == route);
        of.map(|line| line["fields"]["pool"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(pools("/keypackages/renew"), ["bob/phone", ""]);
    assert_eq!(pools("/keypackages/spend"), ["bob/phone"]);
    assert_eq!(pools("/keypackages/release"), ["bob/phone"]);
    assert_eq!(pools("/keypackages/report"), ["bob/phone"]);
    let many = ["bob/phone, carol", "bob, carol, dave and 2 more"];
    assert_eq!(pools("/keypackages/reserve-many"), many);
}
