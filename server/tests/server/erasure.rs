//! The operator has a user erased: nothing in the data directory names the user, and all proofs hold.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use actix_rt::task::spawn_blocking;
use keypool_auditor::{
    invariants::{Auditor, InvariantParams},
    source::Source,
    verify::verify,
};
use keypool_ledger::{Clock, Event, StreamId, SystemClock, codec};
use keypool_transparency::{NoteKey, ReceiptFile};
use serde_json::json;
use uuid::Uuid;

use crate::{
    disk::Disk,
    groups::{Group, mailbox},
    harness::{Answer, Api, Device, Draft, Process, answer, command, files, refusal},
};

/// A name that stands nowhere by chance.
pub(crate) const ERASED: &str = "zacharias.quince@example.org";

/// The files of a directory that hold some bytes.
pub(crate) fn holding(dir: &Path, bytes: &[u8]) -> Vec<String> {
    let has = |path: &PathBuf| {
        // The server may put another file in the place of one.
        let found = fs::read(path).unwrap_or_default();
        found.windows(bytes.len()).any(|part| part == bytes)
    };
    files(dir).into_iter().filter(has).map(|path| path.display().to_string()).collect()
}

/// A server whose log hides names.
fn start(data: &Path) -> Process {
    Process::spawn(command(data).env("KEYPOOL_HIDE_NAMES", "true"))
}

pub(crate) fn admin_url(process: &Process) -> String {
    let line = process.greeting[1].strip_prefix("metrics").unwrap().trim();
    line.strip_suffix("/metrics").unwrap().to_owned()
}

/// Runs a command of the operator: standard output, exit code, standard error.
pub(crate) async fn admin(url: &str, words: &[&str]) -> (String, i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keypool-server"));
    command.env_clear().arg("admin").args(words).args(["--admin-url", url]);
    let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), output.status.code().unwrap(), text(output.stderr))
}

/// Waits until the server answers again, with its log open and everything erased that waits for nobody.
pub(crate) async fn answers(data: &Path, api: &Api) {
    let deadline = SystemClock.now().after(std::time::Duration::from_mins(2));
    loop {
        let ready = answer(api.http.get(format!("http://{}/readyz", api.authority()))).await;
        let asked = fs::read_to_string(data.join("erasing")).unwrap_or_default();
        let is_erased = asked.lines().all(|line| line.ends_with(" waits"));
        if is_erased && ready.is_ok_and(|ready| ready.status == 200) {
            return;
        }
        assert!(SystemClock.now() < deadline, "the server does not come back");
    }
}

/// The past before the erasure: alice has talked with the user, and holds a receipt of an invitation.
pub(crate) struct Past {
    pub(crate) alice: Device,
    pub(crate) carol: Device,
    pub(crate) erased: Device,
    receipt: String,
    pub(crate) group: Group,
}

pub(crate) async fn live_through(process: &Process) -> Past {
    let api = &process.api;
    let [alice, carol, erased] = ["alice", "carol", ERASED].map(Device::new);
    for device in [&alice, &carol, &erased] {
        api.register(device).await.ok();
        api.upload(device, &device.packages(SystemClock.now(), 16)).await.ok();
    }
    let group = Group::new(api, "talk");
    group.make(&alice).await.ok();
    let reserved = group.reserve(&alice, ERASED).await.ok();
    group.commit(&alice, group.adding(0, &reserved)).await.ok();
    group.add(&alice, 1, "carol").await.ok();
    let path = format!("/keypackages/receipt/{}", reserved.text("reservation_id"));
    let receipt = String::from_utf8(api.get(&alice, &path).await.ok().bytes).unwrap();
    group.say(&erased, &format!("{ERASED} says hello")).await.ok();
    // Held by the user, and a refusal that names the user.
    api.reserve(&erased, "carol").await.ok();
    let contacts = json!({ "reserve": "contacts" });
    api.post(&carol, "/keypackages/policy", contacts).await.ok();
    let refused = api.reserve(&erased, "carol").await;
    assert_eq!(refused.status, 403, "{:?}", refused.body);
    Past { alice, carol, erased, receipt, group }
}

pub(crate) async fn take_everything(api: &Api, device: &Device) {
    let received = api.get(device, "/mailbox").await.ok();
    let Some(last) = received.body["items"].as_array().unwrap().last() else { return };
    let through = last["position"].clone();
    api.post(device, "/mailbox/acknowledge", json!({ "through": through })).await.ok();
}

/// The log verifies and keeps its promises; and says once who was erased.
pub(crate) fn check_log(data: &Path) {
    let source = Source::open(data).unwrap();
    let report = verify(&source, &[], &mut |_| {});
    assert_eq!(report.findings, []);
    assert!(0 < report.pruned);
    let mut auditor = Auditor::new(InvariantParams::STANDARD);
    let mut n_erased = 0;
    let read = source.read(&mut |raw, envelope| {
        auditor.see(raw.seq, &envelope);
        if let (StreamId::Names(_), Event::UserErased {}) = (&envelope.stream, &envelope.event) {
            n_erased += 1;
        }
        std::ops::ControlFlow::Continue(())
    });
    read.unwrap();
    assert_eq!(auditor.finish(), []);
    assert_eq!(n_erased, 1);
}

#[actix_web::test]
async fn nothing_in_the_data_directory_names_an_erased_user() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path());
    let api = &process.api;
    let Past { alice, carol, erased, receipt, group } = live_through(&process).await;
    take_everything(api, &alice).await;
    take_everything(api, &carol).await;
    let key: NoteKey = process.greeting[5].split_whitespace().last().unwrap().parse().unwrap();
    let (said, code, error) = admin(&admin_url(&process), &["show", ERASED]).await;
    assert!(code == 0 && said.contains(ERASED), "{said}{error}");
    let found = holding(dir.path(), ERASED.as_bytes());
    let journal = |path: &String| path.contains("/journal/");
    assert!(found.iter().any(journal), "the search finds the name before: {found:?}");
    assert!(found.iter().any(|path| path.contains("refusals")), "{found:?}");

    let (said, code, error) = admin(&admin_url(&process), &["erase-user", ERASED]).await;
    assert_eq!(code, 0, "{error}");
    assert!(said.starts_with(&format!("{ERASED} is erased: 1 device removed, ")), "{said}");
    answers(dir.path(), api).await;

    assert_eq!(holding(dir.path(), ERASED.as_bytes()), [] as [&str; 0]);
    // The others go on, and meet the user under the pseudonym alone.
    let pseudonym = said.split_whitespace().find(|word| word.starts_with('~')).unwrap();
    assert_eq!(mailbox(api, &carol, "").await, [] as [&str; 0]);
    group.post(&alice, &group.framed(2, 1, "still here")).await.ok();
    assert_eq!(mailbox(api, &carol, "").await, ["message: still here"]);
    api.reserve(&alice, "carol").await;
    let unknown = api.reserve(&alice, ERASED).await;
    assert_eq!(unknown.status, 404, "{:?}", unknown.body);
    let gone = api.get(&erased, "/keypackages/status").await;
    assert!([401, 403].contains(&gone.status), "{:?}", gone.body);
    let by_pseudonym = api.reserve(&alice, pseudonym).await;
    assert_ne!(by_pseudonym.status, 200, "{:?}", by_pseudonym.body);
    // The receipt from before holds.
    let receipt: ReceiptFile = receipt.parse().unwrap();
    let told = receipt.check(&key).unwrap();
    assert_eq!(told.hand_out.pool.user(), ERASED);
    // The name is free, and is another one's.
    let next = erased.impostor();
    api.register(&next).await.ok();
    api.upload(&next, &next.packages(SystemClock.now(), 2)).await.ok();
    let status = api.get(&next, "/keypackages/status").await.ok();
    assert_eq!(status.body["available"], 2);
    assert!(process.terminate().success());
    check_log(dir.path());

    let again = start(dir.path());
    let status = again.api.get(&next, "/keypackages/status").await.ok();
    assert_eq!(status.body["available"], 2);
}

#[actix_web::test]
async fn messages_that_name_an_erased_user_stay_until_others_have_come_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path());
    let Past { alice, carol, .. } = live_through(&process).await;
    let words = format!("{ERASED} says hello");
    let (_, code, error) = admin(&admin_url(&process), &["erase-user", ERASED]).await;
    assert_eq!(code, 0, "{error}");
    answers(dir.path(), &process.api).await;
    assert_ne!(holding(dir.path(), words.as_bytes()), [] as [&str; 0]);
    let waiting = mailbox(&process.api, &alice, "").await;
    assert!(waiting.iter().any(|item| item.contains(&words)), "{waiting:?}");
    // A start in between finds nothing to remove.
    assert!(process.terminate().success());
    let process = start(dir.path());
    assert_ne!(holding(dir.path(), words.as_bytes()), [] as [&str; 0]);
    take_everything(&process.api, &alice).await;
    take_everything(&process.api, &carol).await;
    assert!(process.terminate().success());
    let process = start(dir.path());
    assert_eq!(holding(dir.path(), ERASED.as_bytes()), [] as [&str; 0]);
    assert!(!dir.path().join("erasing").exists());
    assert!(process.terminate().success());
    check_log(dir.path());
}

#[actix_web::test]
async fn an_erasure_that_is_killed_is_gone_on_with_at_the_next_start() {
    for round in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let process = start(dir.path());
        let Past { alice, carol, .. } = live_through(&process).await;
        take_everything(&process.api, &alice).await;
        take_everything(&process.api, &carol).await;
        let url = admin_url(&process);
        let erasing = actix_rt::spawn(async move { admin(&url, &["erase-user", ERASED]).await.1 });
        // At another moment of it in each round, as far as one can tell.
        let looks = 1_u32 << (round * 3);
        for _ in 0..looks {
            if dir.path().join("erasing").exists() {
                break;
            }
            actix_rt::task::yield_now().await;
        }
        process.kill();
        let answered = erasing.await.unwrap() == 0;
        let again = start(dir.path());
        let found = holding(dir.path(), ERASED.as_bytes());
        if answered || found.is_empty() {
            assert_eq!(found, [] as [&str; 0]);
            assert!(again.terminate().success());
            check_log(dir.path());
        } else {
            // It was not asked for as far as the log knows: asking again does it.
            let (_, code, error) = admin(&admin_url(&again), &["erase-user", ERASED]).await;
            assert_eq!(code, 0, "{error}");
            answers(dir.path(), &again.api).await;
            assert_eq!(holding(dir.path(), ERASED.as_bytes()), [] as [&str; 0]);
        }
    }
}

#[actix_web::test]
async fn an_erasure_that_fails_keeps_nobody_waiting_and_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path());
    let Past { alice, carol, erased, .. } = live_through(&process).await;
    take_everything(&process.api, &alice).await;
    take_everything(&process.api, &carol).await;
    // A record of refusals that cannot be read.
    let obstacle = dir.path().join("refusals/2000-01-01.jsonl");
    fs::create_dir(&obstacle).unwrap();
    let url = admin_url(&process);
    let erasing = actix_rt::spawn(async move { admin(&url, &["erase-user", ERASED]).await });
    let again = erased.impostor();
    // Somebody else takes the name as soon as it is free: the erasure is not of them.
    let deadline = SystemClock.now().after(std::time::Duration::from_mins(2));
    let (user, device) = (again.pool.user(), again.pool.device());
    let registering = Draft::post("/devices", &json!({ "user": user, "device": device }));
    while !process.api.try_send(&again, &registering).await.is_ok_and(|answer| answer.status == 201)
    {
        assert!(SystemClock.now() < deadline, "the server does not come back");
    }
    let (_, code, error) = erasing.await.unwrap();
    assert_eq!(code, 0, "{error}");
    answers_at_all(&process.api).await;
    process.api.upload(&again, &again.packages(SystemClock.now(), 2)).await.ok();
    assert!(dir.path().join("erasing").exists());
    assert_ne!(holding(dir.path(), ERASED.as_bytes()), [] as [&str; 0]);
    assert!(process.terminate().success());
    fs::remove_dir(&obstacle).unwrap();
    let process = start(dir.path());
    assert!(!dir.path().join("erasing").exists());
    let status = process.api.get(&again, "/keypackages/status").await.ok();
    assert_eq!(status.body["available"], 2);
    let name = process.api.get(&alice, &format!("/users/{ERASED}/devices")).await.ok();
    assert_eq!(name.body["devices"].as_array().unwrap().len(), 1, "{:?}", name.body);
    assert!(process.terminate().success());
    check_log(dir.path());
}

/// Waits until the server is ready, with users left to erase or without.
pub(crate) async fn answers_at_all(api: &Api) {
    let deadline = SystemClock.now().after(std::time::Duration::from_mins(2));
    let url = format!("http://{}/readyz", api.authority());
    while !answer(api.http.get(&url)).await.is_ok_and(|ready| ready.status == 200) {
        assert!(SystemClock.now() < deadline, "the server does not come back");
    }
}

#[actix_web::test]
async fn a_log_with_names_forgets_nobody_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut plain = command(dir.path());
    plain.env_remove("KEYPOOL_HIDE_NAMES");
    let process = Process::spawn(&mut plain);
    let bob = Device::new("bob");
    process.api.register(&bob).await.ok();
    let (_, code, error) = admin(&admin_url(&process), &["erase-user", "bob"]).await;
    assert!(code == 1 && error.contains("keypool-ledger hide-names"), "{error}");
    process.api.get(&bob, "/keypackages/status").await.ok();
    assert!(process.terminate().success());
    let (said, code) = refusal(command(dir.path()).env("KEYPOOL_HIDE_NAMES", "true"));
    assert!(code == 1 && said.contains("was begun with names"), "{said}");
}

#[actix_web::test]
async fn a_user_that_nobody_knows_is_not_erased() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path());
    let (_, code, error) = admin(&admin_url(&process), &["erase-user", "nobody"]).await;
    assert!(code == 1 && error.contains("nobody"), "{error}");
    let url = format!("{}/names/erase", admin_url(&process));
    let body = json!({ "user": "~AAAAAAAAAAAAAAAAAAAAAA" }).to_string();
    let asked = process.api.http.post(url).header("content-type", "application/json").body(body);
    let refused: Answer = answer(asked).await.unwrap();
    assert_eq!(refused.status, 400, "{:?}", refused.body);
}

#[actix_web::test]
async fn nobody_is_spoken_to_by_a_pseudonym() {
    let dir = tempfile::tempdir().unwrap();
    let process = start(dir.path());
    let api = &process.api;
    let [alice, bob] = ["alice", "bob"].map(Device::new);
    for device in [&alice, &bob] {
        api.register(device).await.ok();
        api.upload(device, &device.packages(SystemClock.now(), 16)).await.ok();
    }
    // Alice reads it in the bytes of her own history.
    api.reserve(&bob, "alice").await.ok();
    let told = api.get(&alice, "/keypackages/events?after=0").await.ok();
    let events = told.body["events"].as_array().unwrap().iter();
    let bytes = events.map(|event| event["envelope"].as_str().unwrap().as_bytes());
    let bytes = bytes.map(|bytes| data_encoding::BASE64.decode(bytes).unwrap());
    let mut holders = bytes.filter_map(|bytes| match codec::decode(&bytes).unwrap().event {
        Event::Reserved { holder, .. } => Some(holder),
        _ => None,
    });
    let holder = holders.next_back().unwrap();
    assert!(holder.is_pseudonym(), "{holder}");
    let target = json!({ "user": holder.user(), "device": holder.device() });
    let group = Group::new(api, "talk");
    group.make(&alice).await.ok();
    let mut commit = group.changing_nothing(0);
    commit["removed"] = json!([holder]);
    let mut reserving = json!({ "target_user": holder.user(), "target_device": holder.device() });
    (reserving["group_id"], reserving["reservation_id"]) =
        (json!(group.id()), json!(Uuid::new_v4()));
    let many = json!({ "targets": [target], "group_id": group.id() });
    let awaiting = json!({ "targets": [target] });
    let stopping = json!({ "targets": [], "stop": [holder] });
    for (path, body) in [
        ("/keypackages/reserve".to_owned(), reserving),
        ("/keypackages/reserve-many".to_owned(), many),
        ("/keypackages/await".to_owned(), awaiting),
        ("/keypackages/await".to_owned(), stopping),
        (group.path("commits"), commit),
        ("/keypackages/policy".to_owned(), json!({ "block": [holder.user()] })),
    ] {
        let answer = api.post(&alice, &path, body).await;
        assert!(answer.status < 500, "{path}: {:?}", answer.body);
        let ready = answer_of(api, "/readyz").await;
        assert_eq!(ready.status, 200, "{path}: {:?}", ready.body);
    }
    let beneath = Source::open(dir.path());
    assert!(beneath.is_err(), "the server has it open");
    assert!(process.terminate().success());
    let mut spoken_of = 0;
    let source = Source::open(dir.path()).unwrap();
    source
        .read(&mut |_, envelope| {
            spoken_of += usize::from(envelope.stream.pool() == Some(&holder));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(spoken_of, 0);
}

async fn answer_of(api: &Api, path: &str) -> Answer {
    answer(api.http.get(format!("http://{}{path}", api.authority()))).await.unwrap()
}

#[actix_web::test]
#[ignore = "it mounts a disk, which needs root"]
async fn nothing_on_the_whole_disk_names_an_erased_user() {
    let disk = Disk::new(256);
    let data = disk.mount().join("data");
    let process = start(&data);
    let Past { alice, carol, .. } = live_through(&process).await;
    take_everything(&process.api, &alice).await;
    take_everything(&process.api, &carol).await;
    assert!(disk.holds(ERASED.as_bytes()), "the search finds the name before");
    let (_, code, error) = admin(&admin_url(&process), &["erase-user", ERASED]).await;
    assert_eq!(code, 0, "{error}");
    answers(&data, &process.api).await;
    assert!(!disk.holds(ERASED.as_bytes()));
    assert!(process.terminate().success());
    assert!(!disk.holds(ERASED.as_bytes()));
    check_log(&data);
}
