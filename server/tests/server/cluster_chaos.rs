//! Three real servers over three real NATS nodes, which are killed and paused in turn under load: nothing that was
//! answered is lost, and a request gets the same answer from any of them.
#![expect(clippy::print_stderr, reason = "a skipped test says so, and a long run its figures")]

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_rt::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use keypool_auditor::{source::Source, verify::verify};
use keypool_ledger::{Clock, JournalReader, Record, SystemClock};
use keypool_nats::{NatsReplication, NatsSettings};
use uuid::Uuid;

use crate::{
    durability::{Told, check_history},
    harness::{Answer, Api, Device, Draft, GROUP, Process, claim, command, upload},
};

/// How long a worker waits before it asks the next server.
const PAUSE: Duration = Duration::from_millis(20);
/// How many answers of each round must come before its fault and after it.
const ANSWERS: usize = 40;

/// A nats-server process, which is killed at the end.
struct Nats {
    config: PathBuf,
    program: PathBuf,
    child: Child,
}

impl Nats {
    fn start(program: &Path, config: &Path) -> Self {
        let path = config.with_extension("log");
        let log = fs::File::options().create(true).append(true).open(path).unwrap();
        let mut command = Command::new(program);
        command.arg("-c").arg(config).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        Self { config: config.to_owned(), program: program.to_owned(), child }
    }

    fn again(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        *self = Self::start(&self.program, &self.config);
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(process: u32, signal: &str) {
    let pid = process.to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

/// The path of nats-server; `None` if the test is to be skipped.
fn program() -> Option<PathBuf> {
    let found = env::var_os("KEYPOOL_NATS_SERVER").map(PathBuf::from);
    if found.is_none() {
        let is_required = env::var_os("KEYPOOL_NATS_REQUIRED").is_some();
        assert!(!is_required, "KEYPOOL_NATS_SERVER must be the path of nats-server");
        eprintln!("skipped: KEYPOOL_NATS_SERVER is not the path of nats-server");
    }
    found
}

/// Starts three nodes, and returns them with their addresses.
fn start_nats(program: &Path, dir: &Path) -> (Vec<Nats>, String) {
    let listeners: Vec<_> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<_> = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
    drop(listeners);
    let route = |port: &u16| format!("nats-route://127.0.0.1:{port}");
    let routes = ports[3..].iter().map(route).collect::<Vec<_>>().join(", ");
    let nodes = (0..3).map(|n| {
        let store = dir.join(format!("nats-{n}"));
        let text = format!(
            "server_name: n{n}\nlisten: 127.0.0.1:{}\nmax_payload: 8MB\n\
             jetstream {{ store_dir: \"{}\", sync_interval: always }}\n\
             cluster {{ name: chaos, listen: \"127.0.0.1:{}\", routes: [{routes}] }}\n",
            ports[n],
            store.display(),
            ports[3 + n],
        );
        let config = dir.join(format!("nats-{n}.conf"));
        fs::write(&config, text).unwrap();
        Nats::start(program, &config)
    });
    let nodes = nodes.collect();
    let url = |port: &u16| format!("nats://127.0.0.1:{port}");
    (nodes, ports[..3].iter().map(url).collect::<Vec<_>>().join(","))
}

/// The servers as they are now, and the answers that workers got.
struct Shared {
    apis: Mutex<Vec<Api>>,
    next: AtomicUsize,
    ends: AtomicBool,
    told: Mutex<Vec<Told>>,
}

impl Shared {
    /// The next server in turn.
    fn api(&self) -> Api {
        let apis = self.apis.lock().unwrap();
        apis[self.next.fetch_add(1, Ordering::SeqCst) % apis.len()].clone()
    }

    /// Sends a request to one server after the other until one has answered it.
    async fn send(&self, device: &Device, draft: &Draft) -> Answer {
        loop {
            let api = self.api();
            let sent = timeout(Duration::from_secs(20), api.try_send(device, draft));
            if let Ok(Ok(answer)) = sent.await
                && answer.status < 500
            {
                return answer;
            }
            sleep(PAUSE).await;
        }
    }

    async fn work(&self, inviter: Device, owner: Device) {
        while !self.ends.load(Ordering::SeqCst) {
            let body = serde_json::json!({
                "target_user": owner.pool.user(), "group_id": GROUP, "reservation_id": Uuid::new_v4(),
            });
            let reserving = Draft::post("/keypackages/reserve", &body);
            let reserved = self.noted(&inviter, reserving).await;
            if reserved.status == 200 {
                let path = "/keypackages/spend";
                self.noted(&inviter, Draft::post(path, &claim(path, &reserved))).await;
            } else {
                let packages = upload(&owner.packages(SystemClock.now(), 2));
                self.noted(&owner, Draft::post("/keypackages/upload", &packages)).await;
            }
        }
    }

    async fn noted(&self, device: &Device, draft: Draft) -> Answer {
        let answer = self.send(device, &draft).await;
        self.told.lock().unwrap().push((device.clone(), draft, answer.clone()));
        answer
    }

    /// Waits until so many more answers came.
    async fn until(&self, more: usize) {
        let before = self.told.lock().unwrap().len();
        while self.told.lock().unwrap().len() < before + more {
            sleep(PAUSE).await;
        }
    }
}

fn start_server(data: &Path, cluster: &str) -> Process {
    let mut command = command(data);
    command.args(["--cluster", cluster, "--cluster-name", "chaos", "--no-quotas"]);
    Process::spawn(command.stderr(Stdio::null()))
}

/// The records of a server that was stopped.
fn records(data: &Path) -> Vec<Record> {
    JournalReader::open(&data.join("journal")).unwrap().map(Result::unwrap).collect()
}

/// Starts the servers from copies of the directory of one that has run alone.
fn start_servers(dir: &Path, cluster: &str) -> (Vec<PathBuf>, Vec<Process>) {
    let data: Vec<_> = (0..3).map(|n| dir.join(format!("server-{n}"))).collect();
    Process::spawn(command(&data[0]).arg("--no-quotas").stderr(Stdio::null())).terminate();
    let mut publish = Command::new(env!("CARGO_BIN_EXE_keypool-server"));
    publish.args(["publish", "--cluster", cluster, "--cluster-name", "chaos", "--data"]);
    let published = publish.arg(&data[0]).output().unwrap();
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    for to in &data[1..] {
        assert!(Command::new("cp").arg("-a").arg(&data[0]).arg(to).status().unwrap().success());
    }
    let servers = data.iter().map(|data| start_server(data, cluster)).collect();
    (data, servers)
}

#[actix_web::test]
async fn nothing_that_was_answered_is_lost_when_nodes_and_servers_die() {
    let Some(program) = program() else { return };
    let rounds = env::var("KEYPOOL_CHAOS_ROUNDS").map_or(4, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let (mut nodes, cluster) = start_nats(&program, dir.path());
    let (data, mut servers) = start_servers(dir.path(), &cluster);
    let asking = NatsSettings::new(&cluster, "chaos").unwrap();
    let stream = actix_web::web::block(move || NatsReplication::connect(&asking).unwrap());
    let stream = Arc::new(stream.await.unwrap());
    let shared = Arc::new(Shared {
        apis: Mutex::new(servers.iter().map(|server| server.api.clone()).collect()),
        next: AtomicUsize::new(0),
        ends: AtomicBool::new(false),
        told: Mutex::default(),
    });
    let mut owners = Vec::new();
    let mut workers: Vec<JoinHandle<()>> = Vec::new();
    for n in 0..6 {
        let (inviter, owner) = (Device::new(&format!("i{n}")), Device::new(&format!("o{n}")));
        for device in [&inviter, &owner] {
            let body = serde_json::json!({ "user": device.pool.user(), "device": "main" });
            let registered = shared.send(device, &Draft::post("/devices", &body)).await;
            assert!(registered.status < 300, "{}", registered.body);
        }
        owners.push(owner.clone());
        let shared = Arc::clone(&shared);
        workers.push(actix_rt::spawn(async move { shared.work(inviter, owner).await }));
    }
    for round in 0..rounds {
        shared.until(ANSWERS).await;
        let begun = SystemClock.monotonic();
        let asked = Arc::clone(&stream);
        let leader = actix_web::web::block(move || asked.status(Duration::from_secs(5)));
        let leader = leader.await.unwrap().ok().and_then(|status| status.leader);
        let leader = leader.and_then(|name| name.strip_prefix('n')?.parse().ok()).unwrap_or(0);
        let fault =
            ["kill the leader", "kill a server", "pause the leader", "pause a server"][round % 4];
        match round % 4 {
            0 => nodes[leader].again(),
            1 => {
                let index = round / 4 % 3;
                servers.remove(index).kill();
                servers.insert(index, start_server(&data[index], &cluster));
                shared.apis.lock().unwrap()[index] = servers[index].api.clone();
            }
            kind => {
                let id =
                    if kind == 2 { nodes[leader].child.id() } else { servers[round / 4 % 3].id() };
                signal(id, "-STOP");
                sleep(Duration::from_secs(3)).await;
                signal(id, "-CONT");
            }
        }
        shared.until(ANSWERS).await;
        let took = SystemClock.monotonic().saturating_sub(begun);
        eprintln!("round {round}: {fault}, {ANSWERS} answers after {took:?}");
    }
    shared.ends.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.unwrap();
    }
    let told = std::mem::take(&mut *shared.told.lock().unwrap());
    let good: Vec<_> = told.iter().filter(|(_, _, first)| first.status == 200).collect();
    eprintln!("{} answers, {} of them with an effect", told.len(), good.len());
    for (device, draft, first) in good {
        let again = shared.send(device, draft).await;
        assert_eq!((again.status, &again.body), (200, &first.body), "{}", draft.path);
    }
    let api = servers[0].api.clone();
    for owner in &owners {
        check_history(&api, owner).await;
    }
    for server in servers {
        assert!(server.terminate().success());
    }
    let all = records(&data[0]);
    for data in &data {
        let stored = records(data);
        // The last frames may not have come to a server that was stopped first.
        assert!(all.iter().zip(&stored).all(|(one, other)| one == other), "copies differ");
        assert_eq!(verify(&Source::open(data).unwrap(), &[], &mut |_| {}).findings, []);
    }
}
