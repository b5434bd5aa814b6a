//! Sixty-four workers on a few packages while servers are killed: an order of all requests explains the answers of each
//! package, and it is the order of the log. One server alone, and three over a log that NATS nodes replicate.
#![expect(clippy::print_stderr, reason = "a long run says its figures")]

#[path = "linearizable/broken.rs"]
mod broken;

#[path = "linearizable/checker.rs"]
mod checker;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_rt::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use keypool_auditor::{source::Source, verify::verify};
use keypool_ledger::{Clock, JournalReader, PoolId, SystemClock};
use uuid::Uuid;

use self::checker::{Asked, Call, Told};
use crate::harness::{
    Answer, Api, Device, Draft, GROUP, Process, answer, claim, command, size, upload,
};
#[cfg(feature = "cluster")]
use crate::{
    cluster_load::{start_server, start_servers},
    nats_nodes::{NatsNodes, Place, nats_program},
};

const WORKERS: usize = 64;
const OWNERS: usize = 4;
/// How many calls must be noted before each kill.
const CALLS: usize = 200;
/// How long a worker waits before it asks again.
const PAUSE: Duration = Duration::from_millis(20);

/// The servers as they are now, and the calls that were answered.
#[derive(Default)]
struct Run {
    apis: Mutex<Vec<Api>>,
    turn: AtomicU64,
    /// The last record that a device knows of: no server of a cluster tells it less.
    known: Mutex<HashMap<PoolId, u64>>,
    calls: Mutex<Vec<Call>>,
}

impl Run {
    fn turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::SeqCst)
    }

    /// Sends a request to one server after the other until it is answered, always with the same id.
    async fn send(&self, device: &Device, draft: &Draft) -> Answer {
        loop {
            if let Some(answer) = self.try_send(device, draft).await {
                return answer;
            }
            sleep(PAUSE).await;
        }
    }

    async fn try_send(&self, device: &Device, draft: &Draft) -> Option<Answer> {
        let turn = usize::try_from(self.turn()).unwrap();
        let api = {
            let apis = self.apis.lock().unwrap();
            apis[turn % apis.len()].clone()
        };
        let known = self.known.lock().unwrap().get(&device.pool).copied();
        let mut request = api.signed(device, draft);
        if let Some(known) = known {
            request = request.header("keypool-after", known);
        }
        let sent = timeout(Duration::from_secs(30), answer(request)).await;
        let answer = sent.ok()?.ok().filter(|answer| answer.status < 500)?;
        if let Ok(position) = answer.header("keypool-position").parse::<u64>() {
            let mut known = self.known.lock().unwrap();
            let known = known.entry(device.pool.clone()).or_default();
            *known = position.max(*known);
        }
        Some(answer)
    }

    /// Sends a request about a package, and notes it.
    async fn call(&self, worker: usize, by: &Device, asked: Asked, draft: Draft) -> Answer {
        let begun = self.turn();
        let answer = self.send(by, &draft).await;
        let ended = self.turn();
        let told = match (answer.status, answer.code()) {
            (200, _) => match asked {
                Asked::Reserve(_) => Told::Reserved,
                Asked::Renew(_) => Told::Renewed,
                Asked::Release(_) => Told::Released,
                Asked::Spend(_) => Told::Spent { replayed: answer.body["replayed"] == true },
            },
            (_, "already_spent") => Told::AlreadySpent,
            (_, "reservation_lost") => Told::Lost,
            (_, "pool_exhausted") => return answer,
            _ => panic!("{asked:?}: {} {}", answer.status, answer.body),
        };
        let package = match asked {
            Asked::Reserve(_) => answer.text("keypackage_ref").to_owned(),
            _ => serde_json::from_slice::<serde_json::Value>(draft.body.as_deref().unwrap())
                .unwrap()["keypackage_ref"]
                .as_str()
                .unwrap()
                .to_owned(),
        };
        let command = draft.key;
        let call = Call { worker, begun, ended, command, package, asked, told };
        self.calls.lock().unwrap().push(call);
        answer
    }

    /// Waits until so many calls are noted in all.
    async fn until(&self, count: usize) {
        while self.calls.lock().unwrap().len() < count {
            sleep(PAUSE).await;
        }
    }
}

/// Reserves packages, and spends, renews and releases them, also two of it at once; an owner whose pool is empty
/// uploads.
async fn work(run: Arc<Run>, n: usize, owners: Vec<Device>, rounds: usize) {
    let by = Device::new(&format!("inviter-{n}"));
    let (worker, beside) = (2 * n, 2 * n + 1);
    for round in 0..rounds {
        let (owner, id) = (&owners[(n + round) % OWNERS], Uuid::new_v4());
        let body = serde_json::json!({
            "target_user": owner.pool.user(), "group_id": GROUP, "reservation_id": id,
        });
        let reserving = Draft::post("/keypackages/reserve", &body);
        let reserved = run.call(worker, &by, Asked::Reserve(id), reserving).await;
        if reserved.status != 200 {
            let packages = upload(&owner.packages(SystemClock.now(), 2));
            run.send(owner, &Draft::post("/keypackages/upload", &packages)).await;
            continue;
        }
        let draft = |what: &str| {
            let path = format!("/keypackages/{what}");
            Draft::post(&path, &claim(&path, &reserved))
        };
        if round % 3 == 0 {
            run.call(worker, &by, Asked::Renew(id), draft("renew")).await;
        }
        match (n + round) % 4 {
            0 | 1 => {
                let (run_beside, by_beside, release) = (run.clone(), by.clone(), draft("release"));
                let released = actix_rt::spawn(async move {
                    run_beside.call(beside, &by_beside, Asked::Release(id), release).await
                });
                run.call(worker, &by, Asked::Spend(id), draft("spend")).await;
                released.await.unwrap();
            }
            2 => drop(run.call(worker, &by, Asked::Release(id), draft("release")).await),
            _ => drop(run.call(worker, &by, Asked::Spend(id), draft("spend")).await),
        }
        run.call(worker, &by, Asked::Spend(id), draft("spend")).await;
    }
}

/// The workers on servers.
struct Workers {
    run: Arc<Run>,
    workers: Vec<JoinHandle<()>>,
}

impl Workers {
    async fn start(apis: Vec<Api>, rounds: usize) -> Self {
        let run = Arc::new(Run { apis: Mutex::new(apis), ..Run::default() });
        let owners: Vec<Device> = (0..OWNERS).map(|n| Device::new(&format!("owner-{n}"))).collect();
        let inviters = (0..WORKERS).map(|n| Device::new(&format!("inviter-{n}")));
        for device in inviters.chain(owners.iter().cloned()) {
            let body = serde_json::json!({ "user": device.pool.user(), "device": "main" });
            run.send(&device, &Draft::post("/devices", &body)).await.ok();
        }
        // Each server of a cluster that a worker asks knows all owners, also one that follows late.
        {
            let mut known = run.known.lock().unwrap();
            let last = known.values().copied().max().unwrap_or_default();
            known.values_mut().for_each(|position| *position = last);
        }
        let worker = |n| actix_rt::spawn(work(Arc::clone(&run), n, owners.clone(), rounds));
        Self { workers: (0..WORKERS).map(worker).collect(), run }
    }

    /// Waits until the workers are done, and returns their calls.
    async fn end(self) -> Vec<Call> {
        for worker in self.workers {
            worker.await.unwrap();
        }
        std::mem::take(&mut *self.run.calls.lock().unwrap())
    }
}

/// Checks that an order of the requests explains the answers about each package, and that it is the order of the log in
/// a directory; and that the checker refuses a hundred histories that are broken on purpose.
fn check(calls: &[Call], data: &Path) {
    let packages = checker::by_package(calls);
    eprintln!("{} calls about {} packages", calls.len(), packages.len());
    for (package, calls) in &packages {
        assert!(checker::is_linearizable(calls), "no order explains {package}: {calls:#?}");
    }
    let records = JournalReader::open(&data.join("journal")).unwrap().map(Result::unwrap);
    let positions = records.map(|record| (record.envelope.command.0, record.seq));
    let positions: BTreeMap<Uuid, u64> = positions.collect();
    let changes = calls.iter().filter(|call| positions.contains_key(&call.command)).count();
    assert!(WORKERS < changes, "the log has the commands of {changes} calls alone");
    checker::agrees_with_log(calls, &positions).unwrap();
    assert_eq!(verify(&Source::open(data).unwrap(), &[], &mut |_| {}).findings, []);

    let broken = packages.values().flat_map(|calls| broken::broken(calls));
    let broken: Vec<_> = broken.take(100).collect();
    assert_eq!(broken.len(), 100);
    for calls in broken {
        assert!(!checker::is_linearizable(&calls), "a broken history was taken: {calls:#?}");
    }
}

fn start(data: &Path) -> Process {
    let mut command = command(data);
    command.args(["--no-quotas", "--reservation-ttl", "1h"]);
    Process::spawn(command.stderr(Stdio::null()))
}

#[actix_web::test]
async fn an_order_of_all_requests_explains_each_answer_although_the_server_is_killed() {
    let (rounds, kills) = (size("KEYPOOL_LINEAR_ROUNDS", 6), size("KEYPOOL_LINEAR_KILLS", 2));
    let dir = tempfile::tempdir().unwrap();
    let mut process = start(dir.path());
    let load = Workers::start(vec![process.api.clone()], rounds).await;
    for kill in 1..=kills {
        load.run.until(kill * CALLS).await;
        process.kill();
        process = start(dir.path());
        *load.run.apis.lock().unwrap() = vec![process.api.clone()];
    }
    let calls = load.end().await;
    assert!(process.terminate().success());
    check(&calls, dir.path());
}

#[cfg(feature = "cluster")]
#[actix_web::test]
async fn an_order_of_all_requests_explains_each_answer_of_three_servers() {
    let Some(program) = nats_program() else { return };
    let (rounds, kills) = (size("KEYPOOL_LINEAR_ROUNDS", 6), size("KEYPOOL_LINEAR_KILLS", 2));
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = NatsNodes::start(&program, dir.path());
    let places = [Place::here(), Place::here(), Place::here()];
    let (data, mut servers) = start_servers(&places, dir.path(), &nodes.addresses);
    let load = Workers::start(servers.iter().map(|one| one.api.clone()).collect(), rounds).await;
    for kill in 1..=kills {
        load.run.until(kill * CALLS).await;
        let killed = kill % 3;
        if kill % 2 == 0 {
            nodes.kill(killed);
            nodes.run(killed);
        } else {
            servers.remove(killed).kill();
            servers.insert(killed, start_server(&places[killed], &data[killed], &nodes.addresses));
            load.run.apis.lock().unwrap()[killed] = servers[killed].api.clone();
        }
    }
    let calls = load.end().await;
    for server in servers {
        assert!(server.terminate().success());
    }
    // The last frames may not have come to the server that was stopped first.
    check(&calls, &data[2]);
}
