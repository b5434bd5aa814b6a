//! The record of refusals: its content, floods, kills, and disks that do not take it.

use std::{fs, os::unix::fs::symlink, path::Path, process::Stdio};

use keypool_api::{RefusalLine, RefusedRequest, read_refusals};
use keypool_projections::quota::Quotas;
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Device, Draft, GROUP, NOW, Process, Running, answer, command};

/// The day at which clocks that are set by hand begin.
const DAY: &str = "2025-12-22";

/// The lines of a day, as the operator's listener has them; none if there is no record.
async fn lines(admin: &str, day: &str) -> Vec<RefusalLine> {
    let asked = reqwest::Client::new().get(format!("{admin}/ledger/refusals/{day}"));
    let found = answer(asked).await.unwrap();
    if found.status == 404 {
        return Vec::new();
    }
    assert_eq!((found.status, found.header("content-type")), (200, "application/jsonl"));
    let (lines, unreadable) = read_refusals(&found.bytes);
    assert_eq!(unreadable, 0);
    lines
}

/// The refusals of the day at which clocks begin, one after the other.
async fn refusals(running: &Running) -> Vec<RefusedRequest> {
    let refused = |line| match line {
        RefusalLine::Refused(refused) => Some(refused),
        RefusalLine::Counted(_) => None,
    };
    lines(&running.admin_url(), DAY).await.into_iter().filter_map(refused).collect()
}

/// A refusal on one line, without the id of its request.
fn told(refused: &RefusedRequest) -> String {
    let RefusedRequest { route, caller, target, group_id, code, limit, retry_after_s, .. } =
        refused;
    let caller = caller.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    let group = group_id.as_ref().map(ToString::to_string);
    format!("{caller} {route} {target:?} {group:?}: {code} {limit:?} {retry_after_s:?}")
}

#[actix_web::test]
async fn each_refusal_is_recorded_with_its_caller_pool_code_and_limit() {
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(Device::new);
    let quotas = Quotas { pair_held_max: 1, ..Quotas::STANDARD };
    let running = Running::start_with(|settings| settings.quotas = Some(quotas));
    let running = running.with(&[&alice, &bob, &carol], 2).await;
    let api = &running.api;
    api.upload(&bob, &bob.packages(NOW, 2)).await.ok();
    api.reserve(&alice, "bob").await.ok();
    let held = api.reserve(&alice, "bob").await;
    assert_eq!(held.code(), "too_many_reservations");
    api.reserve(&alice, "nobody").await;
    let many = json!({
        "group_id": GROUP, "reservation_id": Uuid::new_v4(),
        "targets": [{ "user": "bob" }, { "user": "dora" }, { "user": "carol", "device": "main" }],
    });
    let many = api.post(&alice, "/keypackages/reserve-many", many).await.ok();
    assert_eq!(many.body["missing"].as_array().unwrap().len(), 2, "{}", many.body);
    api.upload(&bob, &[vec![7; 100]]).await;
    let contacts = json!({ "reserve": "contacts" });
    api.post(&bob, "/keypackages/policy", contacts).await.ok();
    api.reserve(&carol, "bob").await;
    let blocked = json!({ "blocked": ["carol"] });
    api.post(&bob, "/keypackages/policy", blocked).await.ok();
    api.reserve(&carol, "bob").await;
    api.reserve(&Device::new("stranger"), "bob").await;
    let commit = json!({ "epoch": 0, "commit": "AAAA" });
    api.post(&alice, "/groups/Z3JvdXAtMQ/commits", commit).await;
    // Not these: what is read, what is registered, and what succeeds.
    api.get(&bob, "/keypackages/nowhere").await;
    api.register(&bob.impostor()).await;

    let found = refusals(&running).await;
    insta::assert_snapshot!(found.iter().map(told).collect::<Vec<_>>().join("\n"));
    assert_eq!(found[0].request_id, held.header("x-request-id"));
    assert!(found.iter().all(|refused| refused.at_ms == NOW.as_millis()), "{found:?}");
}

#[actix_web::test]
async fn addresses_tokens_and_bodies_are_not_recorded() {
    let [alice, bob] = ["alice", "bob"].map(Device::new);
    let running = Running::start().with(&[&alice, &bob], 0).await;
    let api = &running.api;
    let token =
        bob.introduces(api, NOW.after(std::time::Duration::from_hours(1))).await.to_string();
    let body = json!({ "target_user": "bob", "group_id": GROUP, "contact_token": token });
    let draft = Draft::post("/keypackages/reserve", &body).with_token("a-secret-of-the-house");
    let asked = api.signed(&alice, &draft).header("x-forwarded-for", "203.0.113.7");
    assert_eq!(answer(asked).await.unwrap().code(), "pool_exhausted");
    let text = serde_json::to_string(&lines(&running.admin_url(), DAY).await).unwrap();
    assert!(text.contains("pool_exhausted"), "{text}");
    for secret in [token.as_str(), "house", "203.0.113.7", "127.0.0.1", &alice.keyid().to_string()]
    {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[actix_web::test]
async fn ten_thousand_refusals_of_one_caller_leave_room_for_one_of_another() {
    const FLOOD: u64 = 10_000;
    let [mallory, carol] = ["mallory", "carol"].map(Device::new);
    let running = Running::start().with(&[&mallory, &carol], 0).await;
    let api = &running.api;
    for _ in 0..FLOOD / 50 {
        let ask = |_| {
            let (api, mallory) = (api.clone(), mallory.clone());
            actix_rt::spawn(async move { api.reserve(&mallory, "nobody").await })
        };
        for task in (0..50).map(ask).collect::<Vec<_>>() {
            let refused = task.await.unwrap();
            assert!((400..500).contains(&refused.status), "{}", refused.body);
        }
    }
    assert_eq!(api.reserve(&carol, "nobody").await.code(), "unknown_user");
    let admin = running.admin_url();
    let (mut of_mallory, mut of_carol, mut counted) = (0, 0, 0);
    for line in lines(&admin, DAY).await {
        match line {
            RefusalLine::Refused(refused) if refused.caller.as_ref() == Some(&carol.pool) => {
                of_carol += 1;
            }
            RefusalLine::Refused(_) => of_mallory += 1,
            RefusalLine::Counted(count) => counted = counted.max(count.count),
        }
    }
    assert_eq!((of_mallory, of_carol), (256, 1));
    assert!((FLOOD - 256) / 2 <= counted, "{counted}");
    // The end of the server tells the whole count.
    let Running { server, data, .. } = running;
    server.stop().await;
    let bytes = fs::read(data.path().join(format!("log/refusals/{DAY}.jsonl"))).unwrap();
    let count = |line| match line {
        RefusalLine::Counted(count) => Some(count.count),
        RefusalLine::Refused(_) => None,
    };
    let largest = read_refusals(&bytes).0.into_iter().filter_map(count).max();
    assert_eq!(largest, Some(FLOOD - 256));
    assert!(bytes.len() < 128 * 1024, "{}", bytes.len());
}

/// The name of the file that a server on the machine's clock writes: the only one there.
fn recorded_day(data: &Path) -> String {
    let listed = fs::read_dir(data.join("refusals")).unwrap();
    let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.max().unwrap().trim_end_matches(".jsonl").to_owned()
}

#[actix_web::test]
async fn refusals_outlive_a_kill_and_a_torn_line_is_the_only_one_lost() {
    let dir = tempfile::tempdir().unwrap();
    let alice = Device::new("alice");
    let admin = |process: &Process| {
        let line = process.greeting[1].trim_start_matches("metrics").trim();
        line.trim_end_matches("/metrics").to_owned()
    };
    let process = Process::start(dir.path());
    process.api.register(&alice).await.ok();
    assert_eq!(process.api.reserve(&alice, "bob").await.code(), "unknown_user");
    // An answer of this route has all that was refused before.
    lines(&admin(&process), "2025-01-01").await;
    let day = recorded_day(dir.path());
    process.kill();
    let file = dir.path().join(format!("refusals/{day}.jsonl"));
    let mut bytes = fs::read(&file).unwrap();
    bytes.extend(b"{\"refused\":{\"at_ms\":17");
    fs::write(&file, &bytes).unwrap();

    let mut process = Process::spawn(command(dir.path()).stderr(Stdio::piped()));
    assert_eq!(process.api.reserve(&alice, "carol").await.code(), "unknown_user");
    let line = process.said("unknown_user");
    assert!(line.contains("caller=alice/main") && line.contains("pool=\"carol\""), "{line}");
    lines(&admin(&process), "2025-01-01").await;
    process.kill();
    let mut found = Vec::new();
    for entry in fs::read_dir(dir.path().join("refusals")).unwrap() {
        let (lines, unreadable) = read_refusals(&fs::read(entry.unwrap().path()).unwrap());
        found.extend(lines.into_iter().filter_map(|line| match line {
            RefusalLine::Refused(refused) => refused.target,
            RefusalLine::Counted(_) => None,
        }));
        assert!(unreadable <= 1);
    }
    found.sort();
    assert_eq!(found, ["bob", "carol"]);
}

#[actix_web::test]
async fn a_disk_that_takes_no_record_costs_the_record_alone() {
    // A disk that is full, a folder that is none, and a file that cannot be written.
    let full = |data: &Path| {
        fs::create_dir_all(data.join("refusals")).unwrap();
        symlink("/dev/full", data.join(format!("refusals/{DAY}.jsonl"))).unwrap();
    };
    let no_folder = |data: &Path| {
        fs::create_dir_all(data).unwrap();
        fs::write(data.join("refusals"), "").unwrap();
    };
    let no_file =
        |data: &Path| fs::create_dir_all(data.join(format!("refusals/{DAY}.jsonl"))).unwrap();
    let [alice, bob] = ["alice", "bob"].map(Device::new);
    for spoil in [&full as &dyn Fn(&Path), &no_folder, &no_file] {
        let running = Running::start_with(|settings| spoil(&settings.data));
        let running = running.with(&[&alice, &bob], 1).await;
        let api = &running.api;
        assert_eq!(api.reserve(&alice, "nobody").await.code(), "unknown_user");
        api.reserve(&alice, "bob").await.ok();
        assert_eq!(api.reserve(&alice, "nobody").await.code(), "unknown_user");
        let ready = answer(api.http.get(format!("{}/readyz", api.url))).await.unwrap();
        assert_eq!(ready.status, 200, "{}", ready.body);
    }
}

#[actix_web::test]
async fn with_no_days_nothing_is_recorded_and_the_record_of_before_is_removed() {
    let alice = Device::new("alice");
    let before = |data: &Path| {
        fs::create_dir_all(data.join("refusals")).unwrap();
        fs::write(data.join("refusals/2025-12-21.jsonl"), "{}\n").unwrap();
    };
    let running = Running::start_with(|settings| {
        before(&settings.data);
        settings.refusals_days = 0;
    });
    let running = running.with(&[&alice], 0).await;
    assert_eq!(running.api.reserve(&alice, "nobody").await.code(), "unknown_user");
    assert!(lines(&running.admin_url(), DAY).await.is_empty());
    assert!(lines(&running.admin_url(), "2025-12-21").await.is_empty());
    let outside =
        running.api.http.get(format!("{}/ledger/refusals/..%2fjournal", running.admin_url()));
    assert_eq!(answer(outside).await.unwrap().status, 404);
}
