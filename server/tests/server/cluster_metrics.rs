//! The figures of a cluster's stream at the operator's listener, by real servers over real NATS nodes.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use actix_rt::time::{sleep, timeout};
use keypool_ledger::{
    Batch, Clock, CommandId, Event, EventLog, Hash, KeyPackageRef, NewEvent, PackageFacts,
    ReplicatedLog, ReplicatedLogOptions, SledLog, SledLogOptions, StreamId, StreamWrite,
    SystemClock,
};
use keypool_nats::NatsReplication;
use uuid::Uuid;

use crate::{
    cluster_chaos::{connect, leader_of},
    cluster_load::start_servers,
    harness::{Device, NOW, Process, answer, files},
    nats_nodes::{NatsNodes, Place, nats_program},
};

/// How long a wait may take that only a fault ends.
const DEADLINE: Duration = Duration::from_mins(2);
/// How long a wait rests before it asks again.
const PAUSE: Duration = Duration::from_millis(100);
/// How many frames a stream has before it is damaged, and how many bytes each: several files of messages.
const FRAMES: u64 = 110;
const FRAME_BYTES: usize = 200_000;

/// Fetches a text from a server's operator listener.
async fn fetch(server: &Process, path: &str) -> (u16, String) {
    let url = server.greeting[1].split_whitespace().last().unwrap().replace("/metrics", path);
    let answer = answer(server.api.http.get(url)).await.unwrap();
    (answer.status, String::from_utf8(answer.bytes).unwrap())
}

/// Registers a device, once the log can be written to.
async fn register(server: &Process) {
    let device = Device::new("alice");
    let registering = async { while server.api.register(&device).await.status != 200 {} };
    timeout(DEADLINE, registering).await.unwrap();
}

/// The value of a figure of the stream, without a fraction; `None` if it has none.
async fn figure(server: &Process, name: &str) -> Option<u64> {
    let metrics = fetch(server, "/metrics").await.1;
    let value = |line: &str| {
        let value = line.strip_prefix(&format!("keypool_stream_{name} "))?;
        value.split('.').next()?.parse().ok()
    };
    metrics.lines().find_map(value)
}

/// Waits until a figure of the stream has a value.
async fn until(server: &Process, name: &str, is_it: impl Fn(u64) -> bool) {
    let waiting = async {
        while !figure(server, name).await.is_some_and(&is_it) {
            sleep(PAUSE).await;
        }
    };
    let is_over = timeout(DEADLINE, waiting).await.is_err();
    assert!(!is_over, "{name} in\n{}", fetch(server, "/metrics").await.1);
}

/// Waits until a server is ready with a fault of the stream as a further line.
async fn until_told(server: &Process, fault: &str) {
    let told = async {
        loop {
            let (status, text) = fetch(server, "/readyz").await;
            if status == 200 && text.contains(fault) {
                break;
            }
            sleep(PAUSE).await;
        }
    };
    assert!(timeout(DEADLINE, told).await.is_ok(), "{}", fetch(server, "/readyz").await.1);
}

#[actix_web::test]
async fn the_state_of_the_stream_is_told_and_no_scrape_waits_for_nodes_that_are_away() {
    let Some(program) = nats_program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = NatsNodes::start(&program, dir.path());
    let (_, servers) = start_servers(&[Place::here()], dir.path(), &nodes.addresses);
    let server = &servers[0];
    register(server).await;
    until(server, "current_replicas", |current| current == 3).await;
    for (name, value) in [("replicas", 3), ("lost_frames", 0), ("has_leader", 1)] {
        assert_eq!(figure(server, name).await, Some(value), "{name}");
    }
    let last = figure(server, "last_frame").await.unwrap();
    assert!(1 <= last && figure(server, "taken_in_frames").await == Some(last), "{last}");
    assert_eq!(fetch(server, "/readyz").await, (200, "ready\n".to_owned()));
    let leader = leader_of(&connect(&nodes.addresses).await).await;
    nodes.kill((leader + 1) % 3);
    until(server, "current_replicas", |current| current == 2).await;
    until_told(server, "2 of 3 copies of the stream are up to date").await;
    nodes.kill((leader + 2) % 3);
    nodes.kill(leader);
    until(server, "has_leader", |has_leader| has_leader == 0).await;
    until(server, "status_age_seconds", |age| 10 < age).await;
    let mut fastest = DEADLINE;
    for _ in 0..5 {
        let begun = SystemClock.monotonic();
        assert_eq!(figure(server, "replicas").await, Some(3), "the last answer is kept");
        fastest = fastest.min(SystemClock.monotonic().saturating_sub(begun));
    }
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
    (0..3).for_each(|node| nodes.run(node));
    until(server, "has_leader", |has_leader| has_leader == 1).await;
    until(server, "current_replicas", |current| current == 3).await;
    until(server, "status_age_seconds", |age| age < 10).await;
}

/// Appends large records to the stream, as one server more.
fn fill(dir: &Path, stream: Arc<NatsReplication>) {
    let local = Arc::new(SledLog::open(dir, SledLogOptions::default()).unwrap());
    let log = ReplicatedLog::open(local, stream, ReplicatedLogOptions::default(), &|_, _| true);
    let (log, pool) = (log.unwrap(), StreamId::Pool("ann/main".parse().unwrap()));
    for n in 0..FRAMES {
        let facts = PackageFacts {
            keypackage_ref: KeyPackageRef::new(Hash::of(&n.to_be_bytes()).as_bytes()).unwrap(),
            not_before: NOW,
            not_after: NOW.after(Duration::from_hours(24)),
            ciphersuite: 1,
            credential: Hash::of(b"credential"),
            init_key: Hash::of(&n.to_le_bytes()),
            last_resort: false,
            capabilities: None,
        };
        let (command, request) = (CommandId(Uuid::new_v4()), Hash::ZERO);
        let (at, event, payload) = (NOW, Event::Uploaded(facts), vec![7; FRAME_BYTES]);
        let events = vec![NewEvent { at, command, request, event, payload }];
        let head = log.head().unwrap();
        let expected = log.stream_head(&pool).unwrap().version;
        let writes = vec![StreamWrite { stream: pool.clone(), expected, events }];
        log.append(head, vec![Batch { writes }]).pop().unwrap().unwrap();
    }
}

/// Turns one bit in the middle of a node's first file of messages.
fn turn_a_bit(dir: &Path) {
    let is_block = |path: &PathBuf| {
        path.extension() == Some(OsStr::new("blk"))
            && path.components().any(|part| part.as_os_str() == "KP-chaos")
    };
    let mut blocks: Vec<_> = files(dir).into_iter().filter(is_block).collect();
    blocks.sort_by_key(|path| path.file_name().map(OsStr::to_owned));
    assert!(2 < blocks.len(), "the last file alone would be taken for a torn one");
    let mut bytes = fs::read(&blocks[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blocks[0], bytes).unwrap();
}

#[actix_web::test]
async fn frames_that_the_leader_of_the_stream_has_lost_are_counted_and_told() {
    let Some(program) = nats_program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = NatsNodes::start(&program, dir.path());
    let places = [Place::here(), Place::here()];
    let (data, mut servers) = start_servers(&places, dir.path(), &nodes.addresses);
    assert!(servers.pop().unwrap().terminate().success());
    let (server, stream) = (&servers[0], connect(&nodes.addresses).await);
    let (copy, filled) = (data[1].clone(), Arc::clone(&stream));
    actix_web::web::block(move || fill(&copy, filled)).await.unwrap();
    until(server, "taken_in_frames", |taken_in| FRAMES <= taken_in).await;
    // Stopped once, no node has the messages in its Raft log any more, from which it would mend itself.
    (0..3).for_each(|node| nodes.stop(node));
    (0..3).for_each(|node| nodes.run(node));
    until(server, "has_leader", |has_leader| has_leader == 1).await;
    until(server, "current_replicas", |current| current == 3).await;
    // Killed after a frame more, they read all files again at their start.
    register(server).await;
    (0..3).for_each(|node| nodes.kill(node));
    // All nodes have the damage, so that any may lead.
    (0..3).for_each(|node| turn_a_bit(&nodes.files(node)));
    (0..3).for_each(|node| nodes.run(node));
    until(server, "lost_frames", |lost| 0 < lost).await;
    until_told(server, "frames on n").await;
}
