//! The real binary on a real disk: killed, stopped, robbed of its index, and damaged.

use std::{collections::HashSet, fs, sync::mpsc, time::Duration};

use actix_rt::task::JoinHandle;
use keypool_ledger::{Clock, SystemClock, codec};
use keypool_projections::PoolState;
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use crate::harness::{
    Answer, Api, Device, Draft, GROUP, Process, claim, command, files, refusal, size, upload,
};

/// A request and the answer it got.
pub(crate) type Told = (Device, Draft, Answer);

/// Sends one request after the other until the server is gone; returns the unanswered ones.
async fn work(api: Api, alice: Device, bob: Device, told: mpsc::Sender<Told>) -> (Device, Draft) {
    for turn in 0_u32.. {
        let reserving = Draft::post("/keypackages/reserve", &reservation_of("bob"));
        let Ok(reserved) = api.try_send(&alice, &reserving).await else {
            return (alice, reserving);
        };
        told.send((alice.clone(), reserving, reserved.clone())).unwrap();
        if reserved.status != 200 || turn % 4 == 3 {
            let packages = bob.packages(SystemClock.now(), 2);
            let uploading = Draft::post("/keypackages/upload", &upload(&packages));
            let Ok(answer) = api.try_send(&bob, &uploading).await else { return (bob, uploading) };
            told.send((bob.clone(), uploading, answer)).unwrap();
        }
        if reserved.status == 200 {
            let path = ["/keypackages/spend", "/keypackages/release"][turn as usize % 2];
            let acting = Draft::post(path, &claim(path, &reserved));
            let Ok(answer) = api.try_send(&alice, &acting).await else { return (alice, acting) };
            told.send((alice.clone(), acting, answer)).unwrap();
        }
    }
    unreachable!("the server is stopped before that")
}

/// Workers on a server, and the answers they get.
pub(crate) struct Load {
    workers: Vec<JoinHandle<(Device, Draft)>>,
    told: mpsc::Receiver<Told>,
    pub(crate) heard: Vec<Told>,
}

impl Load {
    pub(crate) fn start(api: &Api, inviters: &[Device], bob: &Device) -> Self {
        let (sender, told) = mpsc::channel();
        let start = |inviter: &Device| {
            actix_rt::spawn(work(api.clone(), inviter.clone(), bob.clone(), sender.clone()))
        };
        Self { workers: inviters.iter().map(start).collect(), told, heard: Vec::new() }
    }

    /// Lets the workers go on until so many answers have come.
    pub(crate) async fn until(&mut self, count: usize) {
        while self.heard.len() < count {
            self.take_answers();
            actix_rt::task::yield_now().await;
        }
    }

    /// Notes the answers that have come.
    pub(crate) fn take_answers(&mut self) {
        self.heard.extend(self.told.try_iter());
    }

    /// Everything that was answered, and everything that was not.
    pub(crate) async fn end(mut self) -> (Vec<Told>, Vec<(Device, Draft)>) {
        let mut unanswered = Vec::new();
        for worker in std::mem::take(&mut self.workers) {
            unanswered.push(worker.await.unwrap());
        }
        self.take_answers();
        (self.heard, unanswered)
    }
}

pub(crate) async fn begin(dir: &TempDir) -> (Process, Vec<Device>, Device) {
    let process = Process::start(dir.path());
    let inviters: Vec<Device> = (0..4).map(|n| Device::new(&format!("inviter-{n}"))).collect();
    let bob = Device::new("bob");
    for device in inviters.iter().chain([&bob]) {
        process.api.register(device).await.ok();
    }
    process.api.upload(&bob, &bob.packages(SystemClock.now(), 32)).await.ok();
    (process, inviters, bob)
}

/// Every request that was answered well gets the same answer again, and every other gets one.
pub(crate) async fn check_told(api: &Api, heard: &[Told], unanswered: &[(Device, Draft)]) {
    for (device, draft, first) in heard.iter().filter(|(_, _, first)| first.status == 200) {
        let again = api.send(device, draft).await;
        assert_eq!((again.status, &again.body), (200, &first.body), "{}", draft.path);
    }
    for (device, draft) in unanswered {
        let answer = api.send(device, draft).await;
        assert!(answer.status < 500, "{} {}", draft.path, answer.body);
    }
}

/// The history folds, its chain holds, and nothing was spent twice.
pub(crate) async fn check_history(api: &Api, bob: &Device) {
    let (mut events, mut after, mut prev) = (Vec::new(), 0, keypool_ledger::Hash::ZERO);
    loop {
        let path = format!("/keypackages/events?after={after}&limit=1000");
        let page = api.get(bob, &path).await.ok();
        for event in page.body["events"].as_array().unwrap() {
            let bytes = event["envelope"].as_str().unwrap().as_bytes();
            let bytes = data_encoding::BASE64.decode(bytes).unwrap();
            let envelope = codec::decode(&bytes).unwrap();
            assert_eq!((envelope.prev, envelope.version), (prev, after + 1));
            (prev, after) = (codec::chain_hash(&bytes), envelope.version);
            events.push((envelope.event, envelope.at));
        }
        if page.body["more"] == false {
            break;
        }
    }
    PoolState::replay(events.iter().map(|(event, at)| (event, *at))).unwrap();
    let spent: Vec<_> = events
        .iter()
        .filter(|(event, _)| event.name() == "spent")
        .map(|(event, _)| event.keypackage_ref())
        .collect();
    assert_eq!(spent.iter().collect::<HashSet<_>>().len(), spent.len());
}

#[actix_web::test]
async fn killed_again_and_again_under_load_the_server_has_lost_nothing_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, inviters, bob) = begin(&dir).await;
    for round in 0..size("KEYPOOL_KILLS", 20) {
        let mut load = Load::start(&process.api, &inviters, &bob);
        load.until(8 + 3 * (round % 20)).await;
        process.kill();
        let (heard, unanswered) = load.end().await;
        process = Process::start(dir.path());
        check_told(&process.api, &heard, &unanswered).await;
    }
    check_history(&process.api, &bob).await;
}

#[actix_web::test]
async fn asked_to_stop_under_load_the_server_ends_well_and_has_lost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (process, inviters, bob) = begin(&dir).await;
    let mut load = Load::start(&process.api, &inviters, &bob);
    load.until(40).await;
    let ended = actix_web::web::block(move || process.terminate()).await.unwrap();
    assert_eq!(ended.code(), Some(0));
    let (heard, unanswered) = load.end().await;
    let process = Process::start(dir.path());
    check_told(&process.api, &heard, &unanswered).await;
    check_history(&process.api, &bob).await;
}

#[actix_web::test]
async fn a_write_that_fails_ends_the_server_and_nothing_it_said_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (process, inviters, bob) = begin(&dir).await;
    let carol = Device::new("carol");
    process.api.register(&carol).await.ok();
    process.terminate();
    // 600 KiB: room for the index, and in the journal, which has its length already, for a little.
    let process = Process::start_limited(dir.path(), 1200);
    let alice = &inviters[0];
    let reserving = Draft::post("/keypackages/reserve", &reservation_of("bob"));
    let reserved = process.api.send(alice, &reserving).await.ok();
    let packages: Vec<_> = (0..64).map(|_| carol.large_package(SystemClock.now())).collect();
    let uploading = Draft::post("/keypackages/upload", &upload(&packages));

    let failed = process.api.send(&carol, &uploading).await;

    assert_eq!((failed.status, failed.code()), (503, "log_unavailable"));
    assert_eq!((failed.header("retry-after"), &failed.body["retryable"]), ("10", &true.into()));
    let late = Draft::post("/keypackages/reserve", &reservation_of("bob"));
    match process.api.try_send(alice, &late).await {
        Ok(refused) => assert_eq!((refused.status, refused.code()), (503, "log_unavailable")),
        Err(gone) => assert!(gone.is_request(), "{gone:?}"),
    }
    let (ended, said) = actix_web::web::block(move || process.ended()).await.unwrap();
    assert_eq!(ended.code(), Some(1), "{said}");
    let cause = said.lines().find(|line| line.contains("ERROR")).unwrap();
    assert!(cause.contains("write failed for") && cause.contains("File too large"), "{said}");
    assert_eq!(
        said.lines().last().unwrap(),
        "keypool-server: the log or a listener failed, and the server has ended; nothing that was acknowledged is lost. The error above says what failed: mend it (is the disk full?) and start again"
    );

    let process = Process::start(dir.path());
    let unanswered = [(carol, uploading), (alice.clone(), late)];
    check_told(&process.api, &[(alice.clone(), reserving, reserved)], &unanswered).await;
    check_history(&process.api, &bob).await;
}

fn reservation_of(user: &str) -> serde_json::Value {
    json!({ "target_user": user, "group_id": GROUP, "reservation_id": Uuid::new_v4() })
}

#[actix_web::test]
async fn an_index_that_was_deleted_is_built_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (process, _, bob) = begin(&dir).await;
    let before = process.api.get(&bob, "/keypackages/status").await.ok();
    process.terminate();
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    let process = Process::start(dir.path());
    assert_eq!(process.api.get(&bob, "/keypackages/status").await.ok().body, before.body);
}

#[actix_web::test]
async fn a_flipped_byte_in_the_journal_is_named_and_nothing_starts() {
    let dir = tempfile::tempdir().unwrap();
    let (process, _, bob) = begin(&dir).await;
    for _ in 0..3 {
        process.api.upload(&bob, &bob.packages(SystemClock.now(), 4)).await.ok();
    }
    process.terminate();
    let size = |path: &std::path::PathBuf| fs::metadata(path).unwrap().len();
    let journal = files(&dir.path().join("journal")).into_iter().max_by_key(size).unwrap();
    let mut bytes = fs::read(&journal).unwrap();
    bytes[2000] ^= 1;
    fs::write(&journal, &bytes).unwrap();

    let (said, code) = refusal(&mut command(dir.path()));

    assert_eq!(code, 1);
    let named = format!("keypool-server: {} is damaged at byte ", journal.display());
    assert!(said.starts_with(&named), "{said}");
    assert!(said.contains("restore it from a backup") && !said.contains("panicked"), "{said}");
    assert_eq!(fs::read(&journal).unwrap(), bytes);
}

#[actix_web::test]
async fn a_second_server_on_the_same_directory_is_told_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path());
    let (said, code) = refusal(&mut command(dir.path()));
    assert_eq!(code, 1);
    let expected = format!(
        "keypool-server: {} is in use by process {}; stop that process or choose another directory",
        dir.path().display(),
        process.id(),
    );
    assert_eq!(said, expected);
}

#[actix_web::test]
async fn only_its_owner_may_enter_the_directory() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let process = Process::start(&data);
    let mode = fs::metadata(&data).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);
    drop(process);
}

#[actix_web::test]
async fn the_sweep_records_what_time_has_done() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = crate::harness::Running::start_with(|settings| {
        settings.sweep_interval = Duration::from_millis(20);
    });
    let running = running.with(&[&alice, &bob], 1).await;
    running.api.reserve(&alice, "bob").await.ok();
    running.clock.advance(Duration::from_mins(3));
    // The sweep comes by itself; this waits for it, and only a failing test waits long.
    let swept = async {
        loop {
            let events = running.api.get(&bob, "/keypackages/events?after=3").await.ok();
            let events = events.body["events"].as_array().unwrap().clone();
            if let Some(last) = events.last() {
                return last["event"]["released"]["reason"].clone();
            }
        }
    };
    let reason = actix_rt::time::timeout(Duration::from_secs(30), swept).await.unwrap();
    assert_eq!(reason, "lapsed");
}
