//! The operator's side: the admin listener, the counters, readiness, the disk.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use keypool_ledger::SystemClock;
use keypool_server::{LowWater, Server};
use serde_json::json;

use crate::{
    connections::connect,
    groups::Group,
    harness::{
        Answer, Api, Device, Draft, NOW, Process, Running, answer, command, local_settings,
        refusal, upload,
    },
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

async fn fetch(running: &Running, path: &str, host: &str, authorization: Option<&str>) -> Answer {
    let url = format!("{}{path}", running.admin_url());
    let mut request = running.api.http.get(url).header("host", host);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    answer(request).await.unwrap()
}

async fn counters(running: &Running) -> String {
    let answered = fetch(running, "/metrics", "localhost", None).await.ok();
    String::from_utf8(answered.bytes).unwrap()
}

#[actix_web::test]
async fn a_page_that_lets_its_name_stand_for_loopback_reads_nothing_of_the_operators() {
    let running = Running::start().with(&[&Device::new("alice")], 0).await;
    let port = running.server.admin_address().port();
    for path in ["/metrics", "/ledger/events", "/", "/page/pools", "/livez", "/readyz", "/nowhere"]
    {
        for host in ["evil.example", "evil.example:8081", "127.0.0.1.evil.example"] {
            let refused = fetch(&running, path, host, None).await;
            assert_eq!((refused.status, refused.code()), (403, "not_allowed"), "{path} {host}");
            assert!(!String::from_utf8_lossy(&refused.bytes).contains("alice"));
        }
    }
    for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "[::1]".to_owned()] {
        assert_eq!(fetch(&running, "/ledger/events", &host, None).await.status, 200, "{host}");
    }
}

#[actix_web::test]
async fn the_address_of_the_server_says_what_it_is_and_where_the_api_document_is() {
    let running = Running::start();
    let index = answer(running.api.http.get(format!("{}/", running.api.url))).await.unwrap().ok();
    assert_eq!(index.header("content-type"), "text/plain; charset=utf-8");
    let text = String::from_utf8(index.bytes).unwrap();
    assert!(text.contains(concat!("keypool-server ", env!("CARGO_PKG_VERSION"))), "{text}");
    let named = text.split_whitespace().filter(|word| word.starts_with('/'));
    let named: Vec<&str> = named.map(|word| word.trim_end_matches(['.', ','])).collect();
    assert_eq!(named, ["/docs", "/openapi.json"]);
    for path in named {
        answer(running.api.http.get(format!("{}{path}", running.api.url))).await.unwrap().ok();
    }
}

#[actix_web::test]
async fn an_unknown_path_of_the_operators_listener_points_to_paths_that_exist_there() {
    let running = Running::start();
    let refused = fetch(&running, "/openapi.json", "localhost", None).await;
    assert_eq!((refused.status, refused.code()), (404, "not_found"));
    let hint = refused.text("hint").to_owned();
    let (here, _) = hint.split_once("The API").unwrap();
    let words = here.split([' ', ',', '.']);
    let paths: Vec<&str> = words.filter(|word| word.starts_with('/')).collect();
    assert!(1 < paths.len(), "{hint}");
    for path in paths {
        fetch(&running, path, "localhost", None).await.ok();
    }
}

#[actix_web::test]
async fn with_a_token_the_operators_listener_asks_for_it_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let running = Running::start_with(|settings| {
        settings.admin_listen = "0.0.0.0:0".parse().unwrap();
        settings.admin_token_file = Some(file.clone());
    });
    let port = running.server.admin_address().port();
    let get = async |path: &str, authorization: Option<String>| {
        let mut request = running.api.http.get(format!("http://127.0.0.1:{port}{path}"));
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        answer(request).await.unwrap()
    };
    let wrong = [None, Some("Bearer wrong".to_owned()), Some(TOKEN.to_owned())];
    for authorization in wrong {
        for path in ["/metrics", "/ledger/events"] {
            let refused = get(path, authorization.clone()).await;
            assert_eq!((refused.status, refused.code()), (401, "unauthenticated"));
            assert_eq!(refused.header("www-authenticate"), "Bearer");
        }
    }
    assert_eq!(get("/ledger/events", Some(format!("Bearer {TOKEN}"))).await.status, 200);
    assert_eq!(get("/readyz", None).await.status, 200);
}

#[test]
fn records_are_not_read_by_others_without_a_token_and_a_short_one_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    fs::write(&token, "short\n").unwrap();
    let bare = || {
        let mut bare = Command::new(env!("CARGO_BIN_EXE_keypool-server"));
        bare.env_clear().arg("--data").arg(dir.path().join("data"));
        bare.args(["--listen", "127.0.0.1:0", "--admin-listen", "0.0.0.0:0"]);
        bare
    };
    let (said, code) = refusal(&mut bare());
    assert_eq!(code, 2);
    assert!(said.contains("0.0.0.0:0") && said.contains("--admin-token-file"), "{said}");
    let (said, code) = refusal(bare().arg("--admin-token-file").arg(&token));
    assert_eq!(code, 2);
    assert!(said.contains("holds no token"), "{said}");
}

#[actix_web::test]
async fn every_counter_is_there_from_the_start_and_spends_inside_commits_count() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start();
    let text = counters(&running).await;
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md"));
    let page = page.unwrap();
    let rows = page.lines().filter(|line| line.contains("| counter |"));
    let names = rows.filter_map(|line| line.strip_prefix("| `")?.split(['{', '`']).next());
    let absent: Vec<&str> =
        names.filter(|name| !text.contains(&format!("# TYPE {name} counter\n"))).collect();
    assert!(absent.is_empty(), "{absent:?} in {text}");
    assert!(text.contains("keypool_spends_total{late=\"false\"} 0\n"), "{text}");
    assert!(text.contains("keypool_problems_total{code=\"pool_exhausted\"} 0\n"), "{text}");

    let running = running.with(&[&alice, &bob], 2).await;
    let group = Group::new(&running.api, "group-1");
    group.make(&alice).await.ok();
    group.add(&alice, 0, "bob").await.ok();
    let text = counters(&running).await;
    assert!(text.contains("keypool_spends_total{late=\"false\"} 1\n"), "{text}");
}

#[actix_web::test]
async fn while_the_clock_is_behind_the_log_the_server_is_not_ready_and_says_why() {
    let running = Running::start().with(&[&Device::new("alice")], 1).await;
    let ready = async || fetch(&running, "/readyz", "localhost", None).await;
    assert_eq!(ready().await.status, 200);
    let hour_back = keypool_ledger::Timestamp::from_secs(NOW.as_secs() - 3540);
    running.clock.set(hour_back);
    let refused = ready().await;
    assert_eq!((refused.status, refused.code()), (503, "clock_regressed"));
    assert!(counters(&running).await.contains("keypool_ready 0\n"));
    running.clock.set(NOW);
    assert_eq!(ready().await.status, 200);
    assert!(counters(&running).await.contains("keypool_ready 1\n"));
}

/// The free bytes on the disk of a directory, as often as is asked for.
fn free_bytes(dir: &std::path::Path, tenths: u64) -> u64 {
    let found = rustix::fs::statvfs(dir).unwrap();
    found.f_bavail * found.f_frsize / 10 * tenths
}

#[actix_web::test]
async fn a_disk_that_is_low_refuses_the_delivery_first_then_uploads_and_last_reserving() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let data = tempfile::tempdir().unwrap();
    // The mark is so many tenths of what is free; in each round one thing more is refused.
    for (round, tenths) in [(0, 1), (1, 15), (2, 30), (3, 80)] {
        let disk_low_water = LowWater::Bytes(free_bytes(data.path(), tenths));
        let settings = keypool_server::Settings { disk_low_water, ..local_settings(data.path()) };
        let clock = std::sync::Arc::new(SystemClock);
        let server = Server::start(settings, clock.clone()).unwrap();
        let api = Api::new(server.url(), clock.clone());
        let now = api.clock.now();
        if round == 0 {
            for device in [&alice, &bob] {
                api.register(device).await.ok();
            }
            api.upload(&bob, &bob.packages(now, 9)).await.ok();
            Group::new(&api, "group-1").make(&alice).await.ok();
        }
        let group = Group::new(&api, "group-1");
        let commit = group.commit(&alice, group.changing_nothing(round as u64)).await;
        let upload = api.upload(&bob, &bob.packages(now, 1)).await;
        let reserve = api.reserve(&alice, "bob").await;
        let answers = [commit, upload, reserve];
        for (place, answered) in answers.iter().enumerate() {
            let status = if place < round { 503 } else { 200 };
            assert_eq!(answered.status, status, "{round} {place}: {}", answered.body);
            if status == 503 {
                assert_eq!(answered.code(), "log_unavailable");
                assert!(answered.text("detail").contains("disk"), "{}", answered.body);
                assert_eq!(answered.header("retry-after"), "10");
            }
        }
        // Reading and giving back are never refused for that.
        api.get(&bob, "/keypackages/status").await.ok();
        let revoking = json!({ "all": true, "reason": "withdrawn" });
        api.post(&alice, "/keypackages/revoke", revoking).await.ok();
        let ready = answer(api.http.get(format!("{}/readyz", api.url))).await.unwrap();
        assert_eq!(ready.status, if round < 3 { 200 } else { 503 });
        assert_eq!(String::from_utf8_lossy(&ready.bytes).contains("disk"), round > 0);
        server.stop().await;
    }
}

#[actix_web::test]
async fn a_device_that_reads_its_history_again_and_again_reads_it_once_at_a_time() {
    let bob = Device::new("bob");
    let running = Running::start().with(&[&bob], 30).await;
    let mut reads = Vec::new();
    for _ in 0..64 {
        let (api, bob) = (running.api.clone(), bob.clone());
        let draft = Draft::get("/keypackages/events?limit=1000");
        reads.push(actix_rt::spawn(async move { api.send(&bob, &draft).await }));
    }
    let mut served = 0;
    for read in reads {
        let answered = read.await.unwrap();
        match answered.status {
            200 => served += 1,
            _ => assert_eq!((answered.status, answered.code()), (503, "busy")),
        }
    }
    assert!((1..64).contains(&served), "{served} of 64 at once");
    // Afterwards it is read as ever.
    let events = running.api.get(&bob, "/keypackages/events?limit=1000").await.ok();
    assert_eq!(events.body["events"].as_array().unwrap().len(), 31);
}

#[actix_web::test]
async fn a_package_of_last_resort_may_live_for_84_days_and_another_for_14() {
    let bob = Device::new("bob");
    let running = Running::start().with(&[&bob], 0).await;
    let api = &running.api;
    let of_days = |days: u64, last_resort| bob.package_with(NOW, days * 24 * 3600, last_resort);
    api.upload(&bob, &[of_days(84, true)]).await.ok();
    for (days, last_resort) in [(85, true), (15, false)] {
        let refused = api.upload(&bob, &[of_days(days, last_resort)]).await;
        assert_eq!((refused.status, refused.text("check")), (400, "lifetime"));
        let setting = if last_resort { "(--last-resort-lifetime-max)" } else { "(--lifetime-max)" };
        let detail = refused.text("detail");
        assert!(detail.contains(setting) && detail.contains("mls-rs of 365 days"), "{detail}");
    }
}

#[actix_web::test]
async fn one_flipped_bit_in_the_checkpoint_says_that_an_older_copy_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path());
    process.api.register(&Device::new("alice")).await.ok();
    assert!(process.terminate().success());
    let file = dir.path().join("checkpoint");
    let older = fs::read(&file).unwrap();
    let process = Process::start(dir.path());
    process.api.register(&Device::new("bob")).await.ok();
    assert!(process.terminate().success());
    let newer = fs::read(&file).unwrap();
    assert_ne!(older, newer);
    for place in [0, newer.len() / 2, newer.len() - 2] {
        let mut damaged = newer.clone();
        damaged[place] ^= 1;
        fs::write(&file, damaged).unwrap();
        let (said, code) = refusal(&mut command(dir.path()));
        assert_eq!(code, 1);
        assert!(said.contains("an older copy of the checkpoint will do"), "{said}");
    }
    fs::write(&file, older).unwrap();
    assert!(Process::start(dir.path()).terminate().success());
}

/// Takes the place of the C library's `fdatasync`, and never returns once a file is there.
const HANG: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int fd) {
    if (access(getenv("HANG_WHEN"), F_OK) == 0) {
        int told = open(getenv("HANG_TELL"), O_WRONLY);
        write(told, "x", 1);
        close(told);
        for (;;) pause();
    }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"#;

#[actix_web::test]
async fn a_server_whose_disk_hangs_ends_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("hang.c"), HANG).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([at("hang.so"), at("hang.c")])
        .arg("-ldl")
        .stderr(Stdio::null())
        .status();
    assert!(compiled.unwrap().success());
    assert!(Command::new("mkfifo").arg(at("told")).status().unwrap().success());
    let mut command = command(&at("data"));
    command.env("LD_PRELOAD", at("hang.so")).env("HANG_WHEN", at("hang"));
    command.env("HANG_TELL", at("told")).stderr(Stdio::piped());
    let process = Process::spawn(&mut command);
    let bob = Device::new("bob");
    process.api.register(&bob).await.ok();
    fs::write(at("hang"), "").unwrap();
    let now = process.api.clock.now();
    let (api, draft) =
        (process.api.clone(), Draft::post("/keypackages/upload", &upload(&bob.packages(now, 1))));
    let hanging = actix_rt::spawn(async move { api.try_send(&bob, &draft).await });
    let told = at("told");
    let read = move || fs::File::open(told).unwrap().read_exact(&mut [0]).unwrap();
    actix_rt::task::spawn_blocking(read).await.unwrap();
    let pid = process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = actix_rt::task::spawn_blocking(|| process.ended());
    // Before a minute, after which a service manager would kill it.
    let ended = actix_rt::time::timeout(Duration::from_secs(55), ended).await.unwrap();
    let (status, said) = ended.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("the disk does not answer"), "{said}");
    drop(hanging.await);
}

/// Sends requests, and takes nothing of their answers but the beginning of the first.
fn asks_and_reads_nothing(address: SocketAddr, request: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    stream.set_nonblocking(true).unwrap();
    // As many as the buffers take.
    while stream.write(&request.repeat(100)).is_ok() {}
    stream.set_nonblocking(false).unwrap();
    stream.read_exact(&mut [0; 15]).unwrap();
    stream
}

#[actix_web::test]
async fn a_reader_that_blocks_at_each_listener_does_not_keep_a_server_from_closing_its_log() {
    let data = tempfile::tempdir().unwrap();
    let mut command = command(data.path());
    let process = Process::spawn(command.stderr(Stdio::piped()));
    let public = process.api.authority().parse().unwrap();
    let admin = process.greeting[1].split_whitespace().nth(1).unwrap();
    let admin = admin.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    let admin = admin.parse().unwrap();
    let openapi = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let metrics = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let _blocked =
        [asks_and_reads_nothing(public, openapi), asks_and_reads_nothing(admin, metrics)];
    let pid = process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let (status, said) = process.ended();
    assert!(status.success(), "{said}");
}
