//! A load on the servers of a cluster whose nodes fail, and the checks of its answers at the end.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
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
use keypool_auditor::{
    invariants::{Auditor, InvariantParams},
    source::Source,
    verify::verify,
};
use keypool_ledger::{Clock, JournalReader, Record, SystemClock};
use uuid::Uuid;

use crate::{
    durability::{Told, check_history},
    harness::{Answer, Api, Device, Draft, GROUP, Process, claim, command, upload},
    nats_nodes::Place,
};

/// How long a worker waits before it asks the next server.
const PAUSE: Duration = Duration::from_millis(20);
/// The number of inviters, each with the owner of a pool.
const WORKERS: usize = 6;
/// How long the answers after a fault may take.
const DEADLINE: Duration = Duration::from_mins(5);

/// The servers as they are now, and the answers that workers got.
pub(crate) struct ClusterLoad {
    pub(crate) apis: Mutex<Vec<Api>>,
    /// How long a worker waits for an answer until it asks another server.
    patience: Duration,
    next: AtomicUsize,
    ends: AtomicBool,
    told: Mutex<Vec<Told>>,
}

/// The workers on a cluster.
pub(crate) struct ClusterWorkers {
    pub(crate) load: Arc<ClusterLoad>,
    owners: Vec<Device>,
    workers: Vec<JoinHandle<()>>,
}

impl ClusterLoad {
    /// The next server in turn.
    fn api(&self) -> Api {
        let apis = self.apis.lock().unwrap();
        apis[self.next.fetch_add(1, Ordering::SeqCst) % apis.len()].clone()
    }

    /// Sends a request to one server after the other until one has answered it.
    async fn send(&self, device: &Device, draft: &Draft) -> Answer {
        loop {
            if let Some(answer) = self.send_to(&self.api(), device, draft).await {
                return answer;
            }
            sleep(PAUSE).await;
        }
    }

    /// Sends a request to one server; `None` if it has not answered, or cannot.
    async fn send_to(&self, api: &Api, device: &Device, draft: &Draft) -> Option<Answer> {
        let sent = timeout(self.patience, api.try_send(device, draft)).await;
        sent.ok()?.ok().filter(|answer| answer.status < 500)
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
    pub(crate) async fn until(&self, more: usize) {
        let count = || self.told.lock().unwrap().len();
        let before = count();
        let coming = async {
            while count() < before + more {
                sleep(PAUSE).await;
            }
        };
        let came = timeout(DEADLINE, coming).await;
        assert!(came.is_ok(), "{} of {more} answers came in {DEADLINE:?}", count() - before);
    }
}

impl ClusterWorkers {
    /// Starts workers on servers. One that gets no answer for `patience` asks another server.
    pub(crate) async fn start(servers: &[Process], patience: Duration) -> Self {
        let load = Arc::new(ClusterLoad {
            apis: Mutex::new(servers.iter().map(|server| server.api.clone()).collect()),
            patience,
            next: AtomicUsize::new(0),
            ends: AtomicBool::new(false),
            told: Mutex::default(),
        });
        let (mut owners, mut workers) = (Vec::new(), Vec::new());
        for n in 0..WORKERS {
            let (inviter, owner) = (Device::new(&format!("i{n}")), Device::new(&format!("o{n}")));
            for device in [&inviter, &owner] {
                let body = serde_json::json!({ "user": device.pool.user(), "device": "main" });
                let registered = load.send(device, &Draft::post("/devices", &body)).await;
                assert!(registered.status < 300, "{}", registered.body);
            }
            owners.push(owner.clone());
            let load = Arc::clone(&load);
            workers.push(actix_rt::spawn(async move { load.work(inviter, owner).await }));
        }
        Self { load, owners, workers }
    }

    /// Ends the workers and checks that each answer with an effect is the same at each server again, that a device's
    /// history has each of them once, that the servers have the same records, and that no audit finds a fault.
    #[expect(clippy::print_stderr, reason = "a long run says its figures")]
    pub(crate) async fn check(self, servers: Vec<Process>, data: &[PathBuf]) {
        let load = self.load;
        load.ends.store(true, Ordering::SeqCst);
        for worker in self.workers {
            worker.await.unwrap();
        }
        let told = std::mem::take(&mut *load.told.lock().unwrap());
        let good: Vec<_> = told.iter().filter(|(_, _, first)| first.status == 200).collect();
        eprintln!("{} answers, {} of them with an effect", told.len(), good.len());
        for (device, draft, first) in good {
            for server in &servers {
                let again = loop {
                    if let Some(again) = load.send_to(&server.api, device, draft).await {
                        break again;
                    }
                    sleep(PAUSE).await;
                };
                assert_eq!((again.status, &again.body), (200, &first.body), "{}", draft.path);
            }
        }
        let api = servers[0].api.clone();
        for owner in &self.owners {
            check_history(&api, owner).await;
        }
        for server in servers {
            assert!(server.terminate().success());
        }
        check_copies(data);
    }
}

/// Checks the directories of servers that were stopped: they have the same records, and no audit finds a fault.
fn check_copies(data: &[PathBuf]) {
    let copies: Vec<Vec<Record>> = data.iter().map(|data| records(data)).collect();
    let longest = copies.iter().max_by_key(|records| records.len()).unwrap();
    for (data, stored) in data.iter().zip(&copies) {
        // The last frames may not have come to a server that was stopped first.
        assert!(longest.starts_with(stored), "copies differ");
        assert_eq!(verify(&Source::open(data).unwrap(), &[], &mut |_| {}).findings, []);
        let mut auditor = Auditor::new(InvariantParams::STANDARD);
        for record in stored {
            auditor.see(record.seq, &record.envelope);
        }
        assert_eq!(auditor.finish(), []);
    }
}

/// The records of a server that was stopped.
fn records(data: &Path) -> Vec<Record> {
    JournalReader::open(&data.join("journal")).unwrap().map(Result::unwrap).collect()
}

/// Starts a server of the cluster at a place.
pub(crate) fn start_server(place: &Place, data: &Path, cluster: &str) -> Process {
    let mut command = command(data);
    command.args(["--cluster", cluster, "--cluster-name", "chaos", "--no-quotas"]);
    // However long a fault takes, no reservation lapses.
    command.args(["--reservation-ttl", "1h"]);
    let mut command = match place.namespace {
        Some(_) => place.moved(&command),
        None => command,
    };
    Process::spawn(command.stderr(Stdio::null()))
}

/// Starts three servers from copies of the directory of one that has run alone, and returns the directories too.
pub(crate) fn start_servers(
    places: &[Place],
    dir: &Path,
    cluster: &str,
) -> (Vec<PathBuf>, Vec<Process>) {
    let data: Vec<_> = (0..places.len()).map(|n| dir.join(format!("server-{n}"))).collect();
    Process::spawn(command(&data[0]).arg("--no-quotas").stderr(Stdio::null())).terminate();
    let mut publish = Command::new(env!("CARGO_BIN_EXE_keypool-server"));
    publish.args(["publish", "--cluster", cluster, "--cluster-name", "chaos", "--data"]);
    let published = publish.arg(&data[0]).output().unwrap();
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    for to in &data[1..] {
        assert!(Command::new("cp").arg("-a").arg(&data[0]).arg(to).status().unwrap().success());
    }
    let start = |(place, data): (&Place, &PathBuf)| start_server(place, data, cluster);
    let servers = places.iter().zip(&data).map(start).collect();
    (data, servers)
}
