//! Sixty-four workers on a few packages while the server is killed: an order of all requests explains the answers of
//! each package, and it is the order of the log.
#![expect(clippy::print_stderr, reason = "a long run says its figures")]

#[path = "linearizable/broken.rs"]
mod broken;

#[path = "linearizable/checker.rs"]
mod checker;

use std::{
    collections::BTreeMap,
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_rt::time::{sleep, timeout};
use keypool_auditor::{source::Source, verify::verify};
use keypool_ledger::{Clock, JournalReader, SystemClock};
use uuid::Uuid;

use self::checker::{Asked, Call, Told};
use crate::harness::{Answer, Api, Device, Draft, GROUP, Process, claim, command, size, upload};

const WORKERS: usize = 64;
const OWNERS: usize = 4;
/// How many calls must be noted before each kill.
const CALLS: usize = 200;
/// How long a worker waits before it asks again.
const PAUSE: Duration = Duration::from_millis(20);

/// The server as it is now, and the calls that were answered.
struct Run {
    api: Mutex<Api>,
    turn: AtomicU64,
    calls: Mutex<Vec<Call>>,
}

impl Run {
    fn turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::SeqCst)
    }

    /// Sends a request until it is answered, always with the same id.
    async fn send(&self, device: &Device, draft: &Draft) -> Answer {
        loop {
            let api = self.api.lock().unwrap().clone();
            let sent = timeout(Duration::from_secs(30), api.try_send(device, draft)).await;
            match sent {
                Ok(Ok(answer)) if answer.status < 500 => return answer,
                _ => sleep(PAUSE).await,
            }
        }
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
    let run = Arc::new(Run {
        api: Mutex::new(process.api.clone()),
        turn: AtomicU64::new(0),
        calls: Mutex::default(),
    });
    let owners: Vec<Device> = (0..OWNERS).map(|n| Device::new(&format!("owner-{n}"))).collect();
    let inviters = (0..WORKERS).map(|n| Device::new(&format!("inviter-{n}")));
    for device in inviters.chain(owners.iter().cloned()) {
        process.api.register(&device).await.ok();
    }
    let workers: Vec<_> = (0..WORKERS)
        .map(|n| actix_rt::spawn(work(Arc::clone(&run), n, owners.clone(), rounds)))
        .collect();
    for kill in 1..=kills {
        run.until(kill * CALLS).await;
        process.kill();
        process = start(dir.path());
        *run.api.lock().unwrap() = process.api.clone();
    }
    for worker in workers {
        worker.await.unwrap();
    }
    assert!(process.terminate().success());

    let calls = std::mem::take(&mut *run.calls.lock().unwrap());
    let packages = checker::by_package(&calls);
    eprintln!("{} calls about {} packages, {kills} kills", calls.len(), packages.len());
    for (package, calls) in &packages {
        assert!(checker::is_linearizable(calls), "no order explains {package}: {calls:#?}");
    }
    let records = JournalReader::open(&dir.path().join("journal")).unwrap().map(Result::unwrap);
    let positions = records.map(|record| (record.envelope.command.0, record.seq));
    let positions: BTreeMap<Uuid, u64> = positions.collect();
    let changes = calls.iter().filter(|call| positions.contains_key(&call.command)).count();
    assert!(WORKERS < changes, "the log has the commands of {changes} calls alone");
    checker::agrees_with_log(&calls, &positions).unwrap();
    assert_eq!(verify(&Source::open(dir.path()).unwrap(), &[], &mut |_| {}).findings, []);

    let broken = packages.values().flat_map(|calls| broken::broken(calls));
    let broken: Vec<_> = broken.take(100).collect();
    assert_eq!(broken.len(), 100);
    for calls in broken {
        assert!(!checker::is_linearizable(&calls), "a broken history was taken: {calls:#?}");
    }
}
