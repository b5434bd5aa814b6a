//! Servers of a cluster: they share one log, and each answers for all of it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use actix_rt::time::timeout;
use keypool_auditor::{source::Source, verify::verify};
use keypool_ledger::{
    JournalReader, ManualClock, StreamFrame,
    log::conformance::{MemoryStream, MemoryStreamConnection, StreamFaults},
    publish_journal,
};
use keypool_projections::quota::Quotas;
use keypool_server::{Server, Settings};
use serde_json::json;
use uuid::Uuid;

use crate::{
    harness::{Answer, Api, Device, Draft, NOW, answer, claim, files, local_settings, upload},
    stream::Listener,
};

/// The name by which devices reach every server of the cluster.
const NAME: &str = "pool.example";

/// A server of a cluster.
struct Member {
    server: Server,
    connection: Arc<MemoryStreamConnection>,
    api: Api,
    data: PathBuf,
}

impl Member {
    async fn readiness(&self) -> Answer {
        let url = format!("http://{}/readyz", self.server.admin_address());
        answer(self.api.http.get(url)).await.unwrap()
    }

    /// Waits until the server is not ready, and returns the reason.
    async fn unready(&self) -> Answer {
        let waiting = async {
            loop {
                let answer = self.readiness().await;
                if answer.status == 503 {
                    return answer;
                }
                actix_rt::task::yield_now().await;
            }
        };
        timeout(Duration::from_mins(1), waiting).await.unwrap()
    }
}

/// A cluster in the test's own process.
struct Cluster {
    stream: Arc<MemoryStream>,
    members: Vec<Member>,
    clock: Arc<ManualClock>,
    dir: tempfile::TempDir,
}

fn settings(dir: &Path) -> Settings {
    Settings { ledger_name: Some(NAME.to_owned()), ..local_settings(dir) }
}

impl Cluster {
    /// Starts servers from copies of the directory of one that has run alone.
    fn start(count: usize) -> Self {
        Self::start_with(count, |_| {})
    }

    fn start_with(count: usize, change: impl Fn(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        let mut first = settings(&dir.path().join("0"));
        change(&mut first);
        drop(Server::start(first.clone(), clock.clone()).unwrap());
        let stream = MemoryStream::with_seed(1);
        let records = JournalReader::open(&first.data.join("journal")).unwrap();
        let connection = stream.connect(StreamFaults::Never);
        publish_journal(records, &*connection, &|_| {}).unwrap();
        let mut cluster = Self { stream, members: Vec::new(), clock, dir };
        for n in 0..count {
            let to = cluster.dir.path().join(n.to_string());
            if 0 < n {
                copy(&cluster.dir.path().join("0"), &to);
            }
        }
        for n in 0..count {
            let mut settings = settings(&cluster.dir.path().join(n.to_string()));
            change(&mut settings);
            cluster.join(settings);
        }
        cluster
    }

    fn join(&mut self, settings: Settings) {
        self.join_at(settings, self.clock.clone());
    }

    /// The same for a server with a clock of its own.
    fn join_at(&mut self, settings: Settings, clock: Arc<ManualClock>) {
        let (connection, data) = (self.stream.connect(StreamFaults::Never), settings.data.clone());
        let server = Server::start_in_cluster(settings, clock.clone(), connection.clone()).unwrap();
        let api = Api::new(server.url(), clock);
        self.members.push(Member { server, connection, api, data });
    }

    /// The APIs of all servers, in turn.
    fn apis(&self) -> Vec<&Api> {
        self.members.iter().map(|member| &member.api).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    for path in files(from) {
        let to = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    }
}

/// The metrics of a server of a cluster, once the state of its stream is among them.
pub(crate) async fn metrics_of_a_member() -> String {
    let cluster = Cluster::start(1);
    let member = &cluster.members[0];
    let url = format!("http://{}/metrics", member.server.admin_address());
    loop {
        let told = answer(member.api.http.get(&url)).await.unwrap().ok();
        let metrics = String::from_utf8(told.bytes).unwrap();
        if metrics.contains("\nkeypool_stream_replicas ") {
            return metrics;
        }
    }
}

/// The position that an answer tells.
fn position(answer: &Answer) -> u64 {
    answer.header("keypool-position").parse().unwrap()
}

/// Sends a request that rests on records which another server has told.
async fn send_after(api: &Api, device: &Device, draft: &Draft, after: &str) -> Answer {
    answer(api.signed(device, draft).header("keypool-after", after)).await.unwrap()
}

#[actix_web::test]
async fn a_device_may_use_any_server_for_each_request() {
    let cluster = Cluster::start(3);
    let [a, b, c] = cluster.apis()[..] else { panic!() };
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let mut after = position(&a.register(&alice).await.ok());
    let draft = Draft::post("/devices", &json!({ "user": "bob", "device": "main" }));
    after = position(&send_after(b, &bob, &draft, &after.to_string()).await.ok());
    let draft = Draft::post("/keypackages/upload", &upload(&bob.packages(NOW, 3)));
    after = position(&send_after(c, &bob, &draft, &after.to_string()).await.ok());
    let reserve = Draft::post(
        "/keypackages/reserve",
        &json!({ "target_user": "bob", "group_id": "Z3JvdXAtMQ==", "reservation_id": Uuid::new_v4() }),
    );
    let reserved = send_after(a, &alice, &reserve, &after.to_string()).await.ok();
    after = position(&reserved);
    let counts = send_after(b, &bob, &Draft::get("/keypackages/status"), &after.to_string()).await;
    assert_eq!(counts.ok().body["available"], 2);
    // The same request at another server gets its first answer.
    let spend = Draft::post(
        "/keypackages/spend",
        &json!({
            "keypackage_ref": reserved.body["keypackage_ref"],
            "reservation_id": reserved.body["reservation_id"],
            "group_id": "Z3JvdXAtMQ==",
        }),
    );
    let first = send_after(c, &alice, &spend, &after.to_string()).await.ok();
    after = position(&first);
    let again = send_after(a, &alice, &spend, &after.to_string()).await.ok();
    assert_eq!(again.body, first.body);
    assert_eq!(again.bytes, first.bytes);
}

#[actix_web::test]
async fn each_package_is_handed_out_once_over_all_servers() {
    let cluster = Cluster::start(3);
    let apis: Vec<Api> = cluster.apis().into_iter().cloned().collect();
    let bob = Device::new("bob");
    apis[0].register(&bob).await.ok();
    let packages = bob.packages(NOW, 40);
    let after = apis[0].upload(&bob, &packages).await.ok().header("keypool-position").to_owned();
    let mut asking = Vec::new();
    for n in 0..12 {
        let (api, after) = (apis[n % 3].clone(), after.clone());
        asking.push(actix_rt::spawn(async move {
            let inviter = Device::new(&format!("inviter-{n}"));
            let (user, device) = (inviter.pool.user(), inviter.pool.device());
            let draft = Draft::post("/devices", &json!({ "user": user, "device": device }));
            send_after(&api, &inviter, &draft, &after).await.ok();
            let mut refs = Vec::new();
            for _ in 0..3 {
                let reserved = api.reserve(&inviter, "bob").await.ok();
                refs.push(reserved.text("keypackage_ref").to_owned());
            }
            refs
        }));
    }
    let mut handed_out = Vec::new();
    for asked in asking {
        handed_out.extend(asked.await.unwrap());
    }
    assert_eq!(handed_out.len(), 36);
    handed_out.sort();
    handed_out.dedup();
    assert_eq!(handed_out.len(), 36, "no package was handed out twice");
    let data: Vec<_> = cluster.members.iter().map(|member| member.data.clone()).collect();
    for member in cluster.members {
        member.server.stop().await;
    }
    for data in data {
        let report = verify(&Source::open(&data).unwrap(), &[], &mut |_| {});
        assert_eq!(report.findings, []);
    }
}

#[actix_web::test]
async fn listeners_hear_on_one_server_of_events_at_another() {
    let cluster = Cluster::start(2);
    let [a, b] = cluster.apis()[..] else { panic!() };
    let bob = Device::new("bob");
    let after = a.register(&bob).await.ok().header("keypool-position").to_owned();
    send_after(b, &bob, &Draft::get("/keypackages/status"), &after).await.ok();
    let mut listener = Listener::of(b, &bob, Some(1)).await;
    a.upload(&bob, &bob.packages(NOW, 1)).await.ok();
    loop {
        let (_, name, _) = listener.next().await.unwrap();
        if name == "uploaded" {
            break;
        }
    }
}

#[actix_web::test]
async fn a_server_without_the_stream_reads_and_is_not_ready_and_goes_on() {
    let cluster = Cluster::start(2);
    let [a, b] = cluster.apis()[..] else { panic!() };
    let bob = Device::new("bob");
    let registered = a.register(&bob).await.ok();
    let after = registered.header("keypool-position");
    send_after(b, &bob, &Draft::get("/keypackages/status"), after).await.ok();
    cluster.members[1].connection.cut(true);
    let refused = cluster.members[1].unready().await;
    assert_eq!(refused.code(), "log_unavailable");
    assert!(
        refused.text("detail").contains("cannot be followed at the moment"),
        "{}",
        refused.body
    );
    b.get(&bob, "/keypackages/status").await.ok();
    let written = a.upload(&bob, &bob.packages(NOW, 1)).await.ok();
    let status = Draft::get("/keypackages/status");
    let late = send_after(b, &bob, &status, written.header("keypool-position")).await;
    assert_eq!((late.status, late.code()), (503, "not_ready"), "{}", late.body);
    assert!(late.header("retry-after") == "1", "{:?}", late.headers);
    cluster.members[1].connection.cut(false);
    let back = send_after(b, &bob, &status, written.header("keypool-position")).await.ok();
    assert_eq!(back.body["available"], 1);
    b.upload(&bob, &bob.packages(NOW, 1)).await.ok();
    assert_eq!(cluster.members[1].readiness().await.status, 200);
}

#[actix_web::test]
async fn a_position_that_the_stream_does_not_have_is_not_waited_for() {
    let cluster = Cluster::start(1);
    let [a] = cluster.apis()[..] else { panic!() };
    let bob = Device::new("bob");
    a.register(&bob).await.ok();
    let status = Draft::get("/keypackages/status");
    send_after(a, &bob, &status, "1000000").await.ok();
    let refused = send_after(a, &bob, &status, "yesterday").await;
    assert_eq!((refused.status, refused.code()), (400, "bad_request"));
    assert!(refused.text("detail").contains("keypool-after is no position"), "{}", refused.body);
}

#[actix_web::test]
async fn a_stream_that_contradicts_the_journal_is_said_and_not_followed() {
    let cluster = Cluster::start(2);
    let [a, b] = cluster.apis()[..] else { panic!() };
    let bob = Device::new("bob");
    let after = a.register(&bob).await.ok().header("keypool-position").to_owned();
    send_after(b, &bob, &Draft::get("/keypackages/status"), &after).await.ok();
    cluster.stream.tamper(|frames| {
        let sequence = frames.last().unwrap().sequence + 1;
        frames.push(StreamFrame { sequence, bytes: b"\x02 is no frame".to_vec() });
    });
    let refused = a.upload(&bob, &bob.packages(NOW, 1)).await;
    assert_eq!((refused.status, refused.code()), (503, "log_unavailable"), "{}", refused.body);
    for member in &cluster.members {
        let readiness = member.unready().await;
        assert!(readiness.text("detail").contains("contradicts"), "{}", readiness.body);
        member.api.get(&bob, "/keypackages/status").await.ok();
    }
}

#[actix_web::test]
async fn a_server_starts_from_a_copy_or_not_at_all() {
    let cluster = Cluster::start(1);
    let dir = tempfile::tempdir().unwrap();
    let connection = cluster.stream.connect(StreamFaults::Never);
    let start = |dir: &Path, connection: Arc<MemoryStreamConnection>| {
        let clock = cluster.clock.clone();
        Server::start_in_cluster(settings(dir), clock, connection).unwrap_err().to_string()
    };
    let error = start(dir.path(), connection);
    assert!(error.contains("has no checkpoint.key"), "{error}");
    copy(&cluster.dir.path().join("0"), dir.path());
    let bob = Device::new("bob");
    let alice = Device::new("alice");
    cluster.apis()[0].register(&alice).await.ok();
    let alone = Server::start(settings(dir.path()), cluster.clock.clone()).unwrap();
    let api = Api::new(alone.url(), cluster.clock.clone());
    for device in [&alice, &bob] {
        api.register(device).await.ok();
    }
    alone.stop().await;
    let error = start(dir.path(), cluster.stream.connect(StreamFaults::Never));
    assert!(error.starts_with("the stream ends at record 1, and this directory has 2"), "{error}");
}

#[actix_web::test]
async fn the_operators_word_at_one_server_holds_at_all_and_nobody_is_erased() {
    let cluster = Cluster::start(2);
    let [a, b] = cluster.apis()[..] else { panic!() };
    let bob = Device::new("bob");
    a.register(&bob).await.ok();
    let admin = |path: &str| {
        let url = format!("http://{}{path}", cluster.members[0].server.admin_address());
        answer(a.http.post(url).json(&json!({ "user": "bob" })))
    };
    let blocked = admin("/names/block").await.unwrap().ok();
    let draft = Draft::post("/keypackages/upload", &upload(&bob.packages(NOW, 1)));
    let refused = send_after(b, &bob, &draft, blocked.header("keypool-position")).await;
    assert_eq!((refused.status, refused.code()), (403, "suspended"), "{}", refused.body);
    let refused = admin("/names/erase").await.unwrap();
    assert_eq!((refused.status, refused.code()), (400, "bad_request"));
    assert!(refused.text("detail").contains("one of a cluster"), "{}", refused.body);
}

#[actix_web::test]
async fn no_event_is_dated_before_one_that_another_server_has_written() {
    let mut cluster = Cluster::start(1);
    let dir = cluster.dir.path().join("behind");
    copy(&cluster.dir.path().join("0"), &dir);
    let late = Arc::new(ManualClock::at(NOW.before(Duration::from_millis(1500))));
    cluster.join_at(settings(&dir), late.clone());
    let [a, b] = cluster.apis()[..] else { panic!() };
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    a.register(&alice).await.ok();
    let mut after = position(&a.register(&bob).await.ok());
    let draft = Draft::post("/keypackages/upload", &upload(&bob.packages(NOW, 2)));
    after = position(&send_after(b, &bob, &draft, &after.to_string()).await.ok());
    let reserve = Draft::post(
        "/keypackages/reserve",
        &json!({ "target_user": "bob", "group_id": "Z3JvdXAtMQ==", "reservation_id": Uuid::new_v4() }),
    );
    send_after(b, &alice, &reserve, &after.to_string()).await.ok();
    // Ten seconds are too many: that server hands nothing out, the other one does.
    late.set(NOW.before(Duration::from_secs(10)));
    let refused = b.reserve(&alice, "bob").await;
    assert_eq!((refused.status, refused.code()), (503, "clock_regressed"), "{}", refused.body);
    a.reserve(&alice, "bob").await.ok();
    let data = cluster.members[0].data.clone();
    for member in cluster.members {
        member.server.stop().await;
    }
    let times: Vec<_> = JournalReader::open(&data.join("journal"))
        .unwrap()
        .map(|record| record.unwrap().envelope.at)
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(times.contains(&NOW), "{times:?}");
}

#[actix_web::test]
async fn a_limit_holds_over_all_servers() {
    let quotas = Quotas { pair_held_max: 1000, held_max: 3, ..Quotas::STANDARD };
    let cluster = Cluster::start_with(3, |settings| settings.quotas = Some(quotas));
    let [a, b, _] = cluster.apis()[..] else { panic!() };
    let carol = Device::new("carol");
    let mut after = a.register(&carol).await.ok().header("keypool-position").to_owned();
    for name in ["u1", "u2", "u3", "u4"] {
        let owner = Device::new(name);
        let draft = Draft::post("/devices", &json!({ "user": name, "device": "main" }));
        send_after(a, &owner, &draft, &after).await.ok();
        after =
            a.upload(&owner, &owner.packages(NOW, 2)).await.ok().header("keypool-position").into();
    }
    let reserve = async |api: &Api, user: &str, after: &str| {
        let id = Uuid::new_v4();
        let body = json!({ "target_user": user, "group_id": "Z3JvdXAtMQ==", "reservation_id": id });
        send_after(api, &carol, &Draft::post("/keypackages/reserve", &body), after).await
    };
    let mut reserved = Vec::new();
    for (n, user) in ["u1", "u2", "u3"].into_iter().enumerate() {
        let answer = reserve(cluster.apis()[n], user, &after).await.ok();
        answer.header("keypool-position").clone_into(&mut after);
        reserved.push(answer);
    }
    for api in cluster.apis() {
        let refused = reserve(api, "u4", &after).await;
        assert_eq!(refused.status, 429, "{}", refused.body);
    }
    // One that is given back at a server counts no more at any.
    let release = Draft::post("/keypackages/release", &claim("/keypackages/release", &reserved[2]));
    let released = send_after(a, &carol, &release, &after).await.ok();
    reserve(b, "u4", released.header("keypool-position")).await.ok();
}

#[actix_web::test]
async fn a_checkpoint_has_the_records_that_its_asker_has_seen() {
    let pause = Duration::from_secs(1);
    let cluster = Cluster::start_with(2, |settings| settings.checkpoint_interval = pause);
    let [a, b] = cluster.apis()[..] else { panic!() };
    for name in ["alice", "bob", "carol", "dora"] {
        let seen = position(&a.register(&Device::new(name)).await.ok());
        let url = format!("{}/ledger/checkpoint", b.url);
        let asked = answer(b.http.get(url).header("keypool-after", seen)).await.unwrap().ok();
        let text = String::from_utf8(asked.bytes).unwrap();
        let size: u64 = text.lines().nth(1).unwrap().parse().unwrap();
        assert!(seen <= size, "{seen} records were seen, and the checkpoint has {size}");
    }
}

#[actix_web::test]
async fn all_servers_sign_the_same_ledger() {
    let cluster = Cluster::start(2);
    let [a, b] = cluster.apis()[..] else { panic!() };
    a.register(&Device::new("alice")).await.ok();
    let after = a.register(&Device::new("bob")).await.ok().header("keypool-position").to_owned();
    assert_eq!(cluster.members[0].server.ledger_key(), cluster.members[1].server.ledger_key());
    let bob = Device::new("bob");
    send_after(b, &bob, &Draft::get("/keypackages/status"), &after).await.ok();
    let checkpoint = async |api: &Api| loop {
        let signed = answer(api.http.get(format!("{}/ledger/checkpoint", api.url))).await.unwrap();
        let text = String::from_utf8(signed.bytes).unwrap();
        if text.lines().nth(1) == Some(&after) {
            return text;
        }
        actix_rt::task::yield_now().await;
    };
    assert_eq!(checkpoint(a).await, checkpoint(b).await);
}
