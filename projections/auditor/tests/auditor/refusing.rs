//! Why somebody was refused: the record of refusals beside a log, and that of a running server.

use std::{fs, path::Path, sync::Arc};

use insta::assert_snapshot;
use keypool_api::{CountedRefusals, REFUSALS_DIR, RefusalLine, RefusedRequest};
use keypool_ledger::{ManualClock, Timestamp};
use keypool_server::{Server, Settings};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    fixtures::fixtures,
    tool::{copy, tool_in},
};

/// The day of the histories' first records.
const DAY: &str = "2027-01-15";
/// Their first moment, 2027-01-15T08:00:00Z.
const START_MS: u64 = 1_800_000_000_000;

fn refused(second: u64, caller: &str, target: &str) -> RefusedRequest {
    RefusedRequest {
        at_ms: START_MS + second * 1000,
        route: "/keypackages/reserve".to_owned(),
        caller: Some(caller.parse().unwrap()),
        target: Some(target.to_owned()),
        group_id: None,
        keypackage_ref: None,
        code: "pool_exhausted".to_owned(),
        limit: None,
        retry_after_s: None,
        request_id: format!("request-{second}"),
    }
}

/// Makes a data directory with the clean history and a record of refusals, one line of which is damaged.
pub(crate) fn home_with_refusals(home: &Path) {
    copy(&fixtures().join("journal-clean"), &home.join("journal"));
    let limited = RefusedRequest {
        code: "rate_limited".to_owned(),
        limit: Some("pair".to_owned()),
        retry_after_s: Some(600),
        ..refused(55, "carol/phone", "bob")
    };
    let of_a_package = RefusedRequest {
        route: "/groups/{group_id}/commits".to_owned(),
        target: None,
        group_id: Some("Zw==".parse().unwrap()),
        keypackage_ref: Some(
            "17762fddd969a453925d65717ac3eea21320b66b54342fde15128d6caf21215f".parse().unwrap(),
        ),
        code: "already_spent".to_owned(),
        ..refused(260, "carol/main", "")
    };
    let count = |count| CountedRefusals {
        caller: Some("carol/main".parse().unwrap()),
        from_ms: START_MS,
        count,
    };
    let lines = [
        RefusalLine::Refused(refused(50, "carol/main", "bob/main")),
        RefusalLine::Refused(limited),
        RefusalLine::Refused(refused(56, "carol/main", "dave")),
        RefusalLine::Refused(refused(57, "mallory/main", "bob")),
        RefusalLine::Refused(refused(58, "carol/main", "bob/tablet")),
        RefusalLine::Refused(RefusedRequest { caller: None, ..refused(59, "carol/main", "bob") }),
        RefusalLine::Refused(of_a_package),
        RefusalLine::Refused(refused(2 * 3600, "carol/main", "bob")),
        RefusalLine::Counted(count(256)),
        RefusalLine::Counted(count(512)),
    ];
    let mut text: String =
        lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
    text.push_str("{\"refused\":{\"at_ms\":18000");
    fs::create_dir_all(home.join(REFUSALS_DIR)).unwrap();
    fs::write(home.join(REFUSALS_DIR).join(format!("{DAY}.jsonl")), text).unwrap();
}

fn explained(dir: &Path, line: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    let (said, code) = tool_in(dir, &args);
    format!("$ keypool-ledger {line}\n{said}[{code}]\n")
}

#[test]
fn a_refusal_is_explained_by_the_record_and_by_the_log() {
    let dir = TempDir::new().unwrap();
    home_with_refusals(&dir.path().join("home"));
    copy(&fixtures().join("journal-clean"), &dir.path().join("bare/journal"));
    fs::copy(fixtures().join("clean.export"), dir.path().join("clean.export")).unwrap();
    let at = "--at 2027-01-15T08:01:00Z";
    let lines = [
        format!("explain home bob --for carol {at}"),
        format!("explain home bob/main --for carol/phone {at}"),
        format!("--json explain home bob --for carol {at}"),
        "explain home dave --for carol --at 30".to_owned(),
        format!("explain home bob --for nobody {at}"),
        format!("explain home somebody --for carol {at}"),
        format!("explain bare bob --for carol {at}"),
        format!("explain clean.export bob --for carol {at}"),
        "explain home bob --for carol".to_owned(),
        format!("explain home bob --for a~b {at}"),
    ];
    assert_snapshot!(lines.map(|line| explained(dir.path(), &line)).join("\n"));
}

/// Sends a request in the name of a device, and returns the status.
fn ask(url: &str, caller: &str, path: &str, body: &Value) -> u16 {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let request = agent
        .post(format!("{url}{path}"))
        .header("x-keypool-caller", caller)
        .header("content-type", "application/json")
        .header("idempotency-key", uuid::Uuid::new_v4().to_string());
    request.send(body.to_string()).unwrap().status().as_u16()
}

#[test]
fn a_running_server_tells_the_refusals_that_it_has_just_answered() {
    let dir = TempDir::new().unwrap();
    let settings = Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: "127.0.0.1:0".parse().unwrap(),
        data: dir.path().to_owned(),
        ballast_bytes: 0,
        insecure_no_auth: true,
        ..Settings::default()
    };
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(START_MS)));
    let server = Server::start(settings, clock).unwrap();
    let body = json!({ "target_user": "bob", "group_id": "Zw==" });
    assert_eq!(ask(&server.url(), "carol/main", "/keypackages/reserve", &body), 404);
    let admin = format!("http://{}", server.admin_address());
    let question = ["explain", &admin, "bob", "--for", "carol", "--at", "2027-01-15T08:00:00Z"];
    let (said, code) = tool_in(dir.path(), &question);
    assert!(code == 0 && said.contains("was refused once about bob"), "{said}");
    assert!(
        said.contains("asked /keypackages/reserve about bob and was answered unknown_user"),
        "{said}"
    );
    assert!(said.contains("this log had no event of bob"), "{said}");
    // The directory itself is the server's while it runs, and has the same once it has ended.
    drop(server);
    let home = dir.path().display().to_string();
    let (offline, _) = tool_in(dir.path(), &[&["explain", &home], &question[2..]].concat());
    assert_eq!(offline, said);
}
