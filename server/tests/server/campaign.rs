//! The crash campaign: a server's files damaged, and its power cut. `just campaign` runs it large.
#![expect(clippy::print_stderr, reason = "a long run says its figures")]

#[path = "campaign/damage.rs"]
mod damage;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use actix_rt::time::timeout;
use tempfile::TempDir;

use self::damage::{Draw, damage};
use crate::{
    disk::Disk,
    durability::{Load, Told, begin, check_history, check_told},
    harness::{Api, Device, Process, command, size},
};

/// How long a server may take to start or to refuse, and to answer all it is asked.
const DEADLINE: Duration = Duration::from_mins(2);

fn copied(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    let mut copy = Command::new("cp");
    let done = copy.args(["-a", "--sparse=always"]).arg(from.join(".")).arg(to.path()).status();
    assert!(done.unwrap().success());
    to
}

/// Starts a server, and returns its standard error if it does not start.
async fn start(data: &Path) -> Result<Process, String> {
    let said = data.with_extension("stderr");
    let mut command = command(data);
    command.stderr(fs::File::create(&said).unwrap());
    let started = actix_web::web::block(move || Process::try_spawn(&mut command));
    let started = timeout(DEADLINE, started).await.unwrap().unwrap();
    let said = fs::read_to_string(said).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    started.map_err(|_| said)
}

/// A directory at three moments, and the answers to its clients.
struct Past {
    older: TempDir,
    ended: TempDir,
    killed: TempDir,
    told: Vec<Told>,
    bob: Device,
}

/// A server that was stopped, started, and killed, under load.
async fn lived_through() -> Past {
    let dir = tempfile::tempdir().unwrap();
    let (process, inviters, bob) = begin(&dir).await;
    let mut told = Vec::new();
    let mut stops = Vec::new();
    let mut process = Some(process);
    for stop in 0..3 {
        let running = process.take().unwrap_or_else(|| Process::start(dir.path()));
        let mut load = Load::start(&running.api, &inviters, &bob);
        load.until(40).await;
        if stop == 2 {
            running.kill();
        } else {
            assert!(actix_web::web::block(|| running.terminate()).await.unwrap().success());
        }
        told.push(load.end().await.0);
        stops.push(copied(dir.path()));
    }
    // Of the answers only those before the clean end hold for its copy.
    let (killed, ended, older) = (stops.pop().unwrap(), stops.pop().unwrap(), stops.pop().unwrap());
    told.pop();
    Past { older, ended, killed, told: told.concat(), bob }
}

/// Waits until a server that makes its index anew answers a read.
async fn is_ready(api: &Api, bob: &Device) {
    let asked = async {
        while api.get(bob, "/keypackages/status").await.status == 503 {
            actix_rt::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(DEADLINE, asked).await.unwrap();
}

#[actix_web::test]
async fn a_damaged_file_is_made_good_or_named_and_nothing_answered_is_lost() {
    let (count, first) = (size("KEYPOOL_DAMAGES", 24), size("KEYPOOL_SEED", 1));
    let past = lived_through().await;
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in first..first + count {
        let mut draw = Draw::new(seed as u64);
        let of = [&past.ended, &past.killed][draw.below(2)];
        let dir = copied(of.path());
        let done = damage(dir.path(), past.older.path(), &mut draw);
        let what = format!("KEYPOOL_SEED={seed}: {}, {}", done.file.display(), done.kind);
        let outcome = match start(dir.path()).await {
            Ok(process) => {
                is_ready(&process.api, &past.bob).await;
                let checked = async {
                    check_told(&process.api, &past.told, &[]).await;
                    check_history(&process.api, &past.bob).await;
                };
                timeout(DEADLINE, checked).await.unwrap_or_else(|_| panic!("{what}: it hangs"));
                "served"
            }
            Err(said) => {
                let name = done.file.file_name().unwrap().to_string_lossy();
                // A lost end has no file any more: then the record is named that it should have.
                let names = said.contains(&*name) || said.contains("was acknowledged");
                assert!(names, "{what}: {said}");
                "refused"
            }
        };
        let said = dir.path().with_extension("stderr");
        drop(fs::remove_file(said));
        *outcomes.entry(outcome).or_default() += 1;
    }
    eprintln!("{count} damages: {outcomes:?}");
}

#[actix_web::test]
#[ignore = "it mounts disks, which needs root"]
async fn after_a_power_cut_everything_that_was_answered_is_there() {
    let cuts = size("KEYPOOL_POWER_CUTS", 10);
    let disk = Disk::new(256);
    // The control: bytes that nobody synchronized are cut off.
    fs::write(disk.mount().join("control"), [1; 4096]).unwrap();
    let control = fs::read(disk.cut_off().mount().join("control")).unwrap_or_default();
    assert!(!control.contains(&1), "the copy has bytes that were in memory only");
    let data = |disk: &Disk| -> PathBuf { disk.mount().join("data") };
    let process = Process::spawn(command(&data(&disk)).stderr(Stdio::null()));
    let inviters: Vec<Device> = (0..4).map(|n| Device::new(&format!("inviter-{n}"))).collect();
    let bob = Device::new("bob");
    for device in inviters.iter().chain([&bob]) {
        process.api.register(device).await.ok();
    }
    let mut load = Load::start(&process.api, &inviters, &bob);
    for cut in 1..=cuts {
        load.until(5 * cut).await;
        signal(&process, "-STOP");
        load.take_answers();
        let left = disk.cut_off();
        signal(&process, "-CONT");
        let started = start(&data(&left)).await.unwrap();
        let last = load.heard.len().saturating_sub(60);
        check_told(&started.api, &load.heard[last..], &[]).await;
        check_history(&started.api, &bob).await;
        started.kill();
    }
    eprintln!("{cuts} power cuts, {} answers", load.heard.len());
    assert!(process.terminate().success());
    let (heard, _) = load.end().await;
    assert!(5 * cuts <= heard.len());
}

fn signal(process: &Process, signal: &str) {
    let pid = process.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}
