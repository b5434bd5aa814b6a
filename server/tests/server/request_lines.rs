//! The log's lines of requests: one for each that changes something or is refused, with who asked.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::{
    groups::{Group, mailbox},
    harness::{Device, Process, answer, command},
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
