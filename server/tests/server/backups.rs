//! Backups of a running server, and payloads that leave its log.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use actix_rt::task::{JoinHandle, spawn_blocking};
use keypool_auditor::{source::Source, verify::verify};
use keypool_ledger::{Clock, SystemClock, restore_backup};
use keypool_server::Server;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    durability::{Load, begin, check_history, check_told},
    groups::{Group, mailbox},
    harness::{
        Answer, Api, Device, Draft, GROUP, Process, Running, answer, command, files,
        local_settings, refusal,
    },
};

/// The files of a data directory that are restored beside the journal.
const FILES: [&str; 3] = ["checkpoint.key", "checkpoint", "webhook"];

/// The operator's listener of a process, from its greeting.
fn admin_url(process: &Process) -> String {
    let line = process.greeting[1].strip_prefix("metrics").unwrap().trim();
    line.strip_suffix("/metrics").unwrap().to_owned()
}

/// Runs `keypool-server backup`, as an operator does: standard output, exit code, standard error.
fn backup<'a>(url: &str, dir: impl Into<Option<&'a Path>>) -> JoinHandle<(String, i32, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keypool-server"));
    command.env_clear().arg("backup").args(dir.into()).args(["--admin-url", url]);
    spawn_blocking(move || {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), output.status.code().unwrap(), text(output.stderr))
    })
}

#[actix_web::test]
async fn twenty_backups_under_load_have_what_was_acknowledged_before_they_began() {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, inviters, bob) = begin(&dir).await;
    let place = tempfile::tempdir().unwrap();
    let (mut made, mut killed) = (0, 0);
    for round in 0..20 {
        let mut load = Load::start(&process.api, &inviters, &bob);
        load.until(8 + round).await;
        let before = load.heard.clone();
        let to = place.path().join(format!("backup-{round}"));
        let making = backup(&admin_url(&process), to.as_path());
        let whole = if round % 4 == 3 {
            // In the middle of it, as far as one can tell.
            load.until(8 + round + round / 4).await;
            process.kill();
            drop(making.await.unwrap());
            drop(load.end().await);
            process = Process::start(dir.path());
            killed += 1;
            to.exists()
        } else {
            let (said, code, error) = making.await.unwrap();
            assert_eq!(code, 0, "{error}");
            assert!(said.contains("has the log up to record "), "{said}");
            process.kill();
            drop(load.end().await);
            process = Process::start(dir.path());
            made += 1;
            true
        };
        if whole {
            let data = place.path().join(format!("data-{round}"));
            restore_backup(&to, &data, &FILES).unwrap();
            let restored = Process::start(&data);
            assert_eq!(restored.greeting[5], process.greeting[5], "it is the same ledger");
            check_told(&restored.api, &before, &[]).await;
            check_history(&restored.api, &bob).await;
        } else {
            let (_, code, error) = backup(&admin_url(&process), to.as_path()).await.unwrap();
            assert_eq!(code, 0, "{error}");
        }
        assert!(!to.with_extension("unfinished").exists());
    }
    assert_eq!((made, killed), (15, 5));
}

#[actix_web::test]
async fn a_backup_that_cannot_be_made_says_why_and_the_server_goes_on() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 3).await;
    let place = tempfile::tempdir().unwrap();
    let url = running.admin_url();
    let (_, code, error) = backup(&url, place.path().join("new").as_path()).await.unwrap();
    assert_eq!(code, 0, "{error}");
    let inside = running.data.path().join("log/backup");
    for (to, why) in [
        (place.path().join("new"), "it is not empty; choose a new directory"),
        (place.path().join("no/such"), "make it first"),
        (inside, "it lies in the directory that is copied"),
    ] {
        let (_, code, error) = backup(&url, to.as_path()).await.unwrap();
        assert!(code == 1 && error.contains(why), "{error}");
    }
    let relative = answer(
        running
            .api
            .http
            .post(format!("{url}/backup"))
            .header("content-type", "application/json")
            .body(json!({ "directory": "backup" }).to_string()),
    );
    assert_eq!(relative.await.unwrap().code(), "bad_request");
    let form = running.api.http.post(format!("{url}/backup")).body("{}");
    assert_eq!(answer(form).await.unwrap().code(), "unsupported_media_type");
    running.api.reserve(&alice, "bob").await.ok();
}

/// The folders of a directory, by name.
fn folders(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[actix_web::test]
async fn a_backup_without_a_directory_gets_a_folder_of_the_servers_own_named_by_the_time() {
    let (place, bob) = (tempfile::tempdir().unwrap(), Device::new("bob"));
    let backups = place.path().join("backups");
    let running = Running::start_with(|settings| settings.backups = Some(backups.clone()));
    let running = running.with(&[&bob], 2).await;
    let (_, code, error) = backup(&running.admin_url(), None).await.unwrap();
    let missing = format!("there is no directory {}; make it first", backups.display());
    assert!(code == 1 && error.contains(&missing), "{error}");
    fs::create_dir(&backups).unwrap();
    // The rest of a backup during which the machine crashed.
    fs::create_dir_all(backups.join("2025-12-21T03-00-00Z.unfinished/journal")).unwrap();
    for seconds in [0, 1] {
        running.clock.advance(Duration::from_secs(seconds));
        let (said, code, error) = backup(&running.admin_url(), None).await.unwrap();
        assert!(code == 0 && said.contains("has the log up to record "), "{said}{error}");
    }
    assert_eq!(folders(&backups), ["2025-12-22T10-40-00Z", "2025-12-22T10-40-01Z"]);

    let running = Running::start();
    let (_, code, error) = backup(&running.admin_url(), None).await.unwrap();
    assert!(code == 1 && error.contains("start the server with --backups DIR"), "{error}");
}

#[actix_web::test]
async fn of_backups_at_once_one_is_made_and_the_others_are_told_to_wait() {
    let (place, bob) = (tempfile::tempdir().unwrap(), Device::new("bob"));
    let backups = place.path().to_owned();
    let running = Running::start_with(|settings| settings.backups = Some(backups.clone()));
    let running = running.with(&[&bob], 3).await;
    let post = || {
        let request = running.api.http.post(format!("{}/backup", running.admin_url()));
        let request = request.header("content-type", "application/json").body("{}");
        actix_rt::spawn(answer(request))
    };
    let (mut made, mut busy) = (0, 0);
    while busy == 0 {
        for asked in [post(), post(), post(), post()] {
            let answered = asked.await.unwrap().unwrap();
            if answered.status == 200 {
                made += 1;
            } else {
                assert_eq!(answered.code(), "busy");
                assert!(answered.text("detail").contains("is being made in"));
                busy += 1;
            }
        }
        assert!(made < 400, "none of them met another one");
    }
    assert_eq!(folders(&backups).len(), made);
}

#[test]
fn a_server_starts_without_its_directory_for_backups_and_not_with_one_in_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let (data, absent) = (dir.path().join("data"), dir.path().join("absent"));
    let mut command = command(&data);
    let mut process =
        Process::spawn(command.arg("--backups").arg(&absent).stderr(std::process::Stdio::piped()));
    let line = process.said("there is no such directory for --backups");
    assert!(line.contains("make it, or mount its disk"), "{line}");
    assert!(process.terminate().success());
    let (said, code) = refusal(self::command(&data).arg("--backups").arg(&data));
    assert!(code == 2 && said.contains("lies in the data directory"), "{said}");
}

/// A server that keeps payloads for a day, and looks for them all the time.
fn retaining() -> Running {
    Running::start_with(|settings| {
        settings.retain = Some(Duration::from_hours(24));
        settings.prune_interval = Duration::from_millis(10);
    })
}

/// How many bytes of payloads have left the log by the server's own count.
pub(crate) async fn pruned_bytes(running: &Running) -> u64 {
    let url = format!("{}/metrics", running.admin_url());
    let metrics = answer(running.api.http.get(url)).await.unwrap().ok();
    let metrics = String::from_utf8(metrics.bytes).unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("keypool_pruned_bytes_total "));
    line.unwrap().parse().unwrap()
}

/// Whether any file of a directory holds some bytes.
fn holds(dir: &Path, bytes: &[u8]) -> bool {
    let has = |path: PathBuf| {
        let found = fs::read(path).unwrap();
        found.windows(bytes.len()).any(|part| part == bytes)
    };
    files(&dir.join("journal")).into_iter().any(has)
}

/// Lets the server believe its clock after a leap: each device signs a request at the new time.
pub(crate) async fn confirm_clock(running: &Running, devices: &[&Device]) {
    for device in devices {
        running.api.get(device, "/keypackages/status").await.ok();
    }
}

/// Lets records come in until something is so; after a minute the test has failed.
async fn appending_until(running: &Running, device: &Device, is_so: impl Fn() -> bool) {
    let deadline = SystemClock.now().after(Duration::from_mins(1));
    while !is_so() {
        assert!(SystemClock.now() < deadline, "it takes longer than a minute");
        Group::new(&running.api, &Uuid::new_v4().to_string()).make(device).await.ok();
    }
}

#[actix_web::test]
async fn payloads_leave_the_log_after_their_time_and_nobody_misses_them() {
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(Device::new);
    let running = retaining().with(&[&alice, &carol, &bob], 3).await;
    let data = running.data.path().join("log");
    let group = Group::new(&running.api, "talk");
    group.make(&alice).await.ok();
    group.add(&alice, 0, "bob").await.ok();
    group.say(&alice, "bob has read this").await.ok();
    group.say(&bob, "alice has not read this").await.ok();
    let received = running.api.get(&bob, "/mailbox").await.ok();
    let items = received.body["items"].as_array().unwrap().clone();
    let bytes_of = |item: &Value| {
        data_encoding::BASE64.decode(item["bytes"].as_str().unwrap().as_bytes()).unwrap()
    };
    let through = items.last().unwrap()["position"].clone();
    running.api.post(&bob, "/mailbox/acknowledge", json!({ "through": through })).await.ok();
    let waiting = running.api.get(&alice, "/mailbox").await.ok().body["items"][0].clone();
    let id = Uuid::from_u128(7);
    let reserving = json!({ "target_user": "bob", "group_id": GROUP, "reservation_id": id });
    let reserving = Draft::post("/keypackages/reserve", &reserving);
    let reserved = running.api.send(&carol, &reserving).await.ok();
    let package = data_encoding::BASE64.decode(reserved.text("keypackage").as_bytes()).unwrap();
    running.api.claim(&carol, "/keypackages/spend", &reserved).await.ok();
    assert!(holds(&data, &package) && holds(&data, &bytes_of(&items[1])));
    assert_eq!(pruned_bytes(&running).await, 0);

    running.clock.advance(Duration::from_hours(25));
    let gone = [package.clone(), bytes_of(&items[0]), bytes_of(&items[1])];
    confirm_clock(&running, &[&alice, &bob, &carol]).await;
    appending_until(&running, &carol, || !gone.iter().any(|bytes| holds(&data, bytes))).await;
    // The bytes are counted a moment after they have left.
    let lens: usize = gone.iter().map(Vec::len).sum();
    let deadline = SystemClock.now().after(Duration::from_mins(1));
    while pruned_bytes(&running).await < lens as u64 {
        assert!(SystemClock.now() < deadline, "they are not counted");
    }

    assert_eq!(mailbox(&running.api, &alice, "").await, ["message: alice has not read this"]);
    assert!(holds(&data, &bytes_of(&waiting)), "it waits for alice");
    let again: Answer = running.api.get(&bob, "/mailbox").await.ok();
    assert_eq!(again.body["items"], json!([]));
    let status = running.api.get(&bob, "/keypackages/status").await.ok();
    assert_eq!(status.body["spent"], 2);
    running.api.reserve(&carol, "bob").await.ok();
    let Running { server, clock, data: dir, .. } = running;
    server.stop().await;

    let report = verify(&Source::open(&data).unwrap(), &[], &mut |_| {});
    assert_eq!(report.findings, []);
    assert!(gone.len() as u64 <= report.pruned, "{report:?}");
    // Nothing has the bytes any more, so that a repeated request is told that its reservation is over.
    let server = Server::start(local_settings(dir.path()), clock.clone()).unwrap();
    let repeated = Api::new(server.url(), clock).send(&carol, &reserving).await;
    assert_eq!((repeated.status, repeated.code()), (409, "reservation_lost"));
}

/// The answer of the operator's listener to a request to prune.
pub(crate) async fn prune(running: &Running) -> Answer {
    let request = running.api.http.post(format!("{}/prune", running.admin_url()));
    answer(request.header("content-type", "application/json").body("{}")).await.unwrap()
}

#[actix_web::test]
async fn the_operator_has_payloads_leave_the_log_at_once() {
    let [alice, bob] = ["alice", "bob"].map(Device::new);
    let running = Running::start_with(|settings| {
        settings.retain = Some(Duration::from_hours(24));
        settings.prune_interval = Duration::from_hours(24);
    });
    let running = running.with(&[&alice, &bob], 3).await;
    let data = running.data.path().join("log");
    let reserved = running.api.reserve(&alice, "bob").await.ok();
    let package = data_encoding::BASE64.decode(reserved.text("keypackage").as_bytes()).unwrap();
    running.api.claim(&alice, "/keypackages/spend", &reserved).await.ok();
    assert_eq!(prune(&running).await.ok().body["payload_bytes"], 0, "it is not over for a day");
    running.clock.advance(Duration::from_hours(25));
    confirm_clock(&running, &[&alice, &bob]).await;
    // The segment that is written now is not pruned.
    let deadline = SystemClock.now().after(Duration::from_mins(1));
    while holds(&data, &package) {
        assert!(SystemClock.now() < deadline, "it takes longer than a minute");
        Group::new(&running.api, &Uuid::new_v4().to_string()).make(&alice).await.ok();
        prune(&running).await.ok();
    }
    assert!(package.len() as u64 <= pruned_bytes(&running).await);
    running.api.reserve(&alice, "bob").await.ok();
    let (url, form) = (format!("{}/prune", running.admin_url()), running.api.http.clone());
    assert_eq!(answer(form.post(url).body("{}")).await.unwrap().status, 415);
}

#[actix_web::test]
async fn without_the_setting_nothing_leaves_the_log() {
    let bob = Device::new("bob");
    let running =
        Running::start_with(|settings| settings.prune_interval = Duration::from_millis(1));
    let running = running.with(&[&bob], 3).await;
    running.clock.advance(Duration::from_hours(24 * 30));
    confirm_clock(&running, &[&bob]).await;
    running.api.upload(&bob, &bob.packages(running.clock.now(), 2)).await.ok();
    let url = format!("{}/ledger/events?after=0", running.admin_url());
    let events = answer(running.api.http.get(url)).await.unwrap().ok();
    assert!(!events.bytes.is_empty());
    assert_eq!(pruned_bytes(&running).await, 0);
    let refused = prune(&running).await;
    assert_eq!((refused.status, refused.code()), (403, "not_allowed"));
    assert!(
        refused.text("detail").contains("--retain") && refused.text("hint").contains("--retain")
    );
    let too_short = keypool_server::Settings {
        retain: Some(Duration::from_hours(23)),
        ..keypool_server::Settings::default()
    };
    let refused = too_short.check().unwrap_err().to_string();
    assert_eq!(refused, "--retain 23h is too short: payloads stay for 24h at least");
}
