//! Hours of a steady load on a thousand pools, with restarts: memory, descriptors, latency and disk must not creep up.

use std::{
    fs,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use actix_rt::time::{Instant, sleep_until};
use clap::Args;
use keypool_api::{Base64, ReserveReply, ReserveRequest, SpendRequest, UploadRequest};
use keypool_auditor::{source::Source, verify::verify};
use keypool_ledger::{GroupId, ReservationId};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    Outcome,
    client::{Connection, Step},
    image::{self, Contents},
    measure::{approx, on_disk, percentile, resident},
    packages::make,
    population::Device,
    request::{Auth, get, post},
    subject::{Running, Subject},
};

/// How many connections the load has.
const CONNECTIONS: u64 = 8;
/// How many packages a turn uploads, hands out and spends.
const PACKAGES: usize = 4;
/// How many requests a turn has: an upload, reservations and spends, the pool's status and its events.
const REQUESTS: u64 = 3 + 2 * PACKAGES as u64;
/// How many bytes a mebibyte has.
const MIB: f64 = 1_048_576.0;

/// The size of the load.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct SoakLoad {
    /// For how many minutes
    #[arg(long, default_value_t = 120)]
    minutes: u64,
    /// After how many minutes the server is restarted: in its order, and killed, in turn
    #[arg(long, default_value_t = 10)]
    restart_minutes: u64,
    /// How many pools there are
    #[arg(long, default_value_t = 1000)]
    pools: u64,
    /// How many requests a second there are
    #[arg(long, default_value_t = 50)]
    rate: u64,
}

/// The figures of the time between two restarts.
struct Slice {
    start_ms: u64,
    requests: u64,
    p50_ms: f64,
    p99_ms: f64,
    most_ms: f64,
    memory: u64,
    descriptors: usize,
    disk: u64,
}

/// Puts the load on a server, says the figures of each slice, and has its log audited in the end.
pub(crate) async fn soak(work: &Path, load: SoakLoad) -> Outcome<()> {
    let (data, mut out) = (work.join("soak"), io::stdout());
    let contents = Contents { devices: load.pools, ..Contents::default() };
    image::write(&data, contents, false)?;
    writeln!(
        out,
        "| minute | start (ms) | requests | p50 (ms) | p99 | longest | memory (MiB) | descriptors | disk (MiB) | bytes a request |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|---|")?;
    let (mut disk, mut turns) = (on_disk(&data)?, 0);
    for slice in 0..load.minutes.div_ceil(load.restart_minutes) {
        let begun = Instant::now();
        let running = Running::start(Subject::Keypool, Auth::Signed, &data, Contents::default())?;
        let start_ms = u64::try_from(begun.elapsed().as_millis())?;
        let until = Instant::now() + Duration::from_mins(load.restart_minutes);
        let latencies = play(&running, load, &mut turns, until).await?;
        let found = Slice::of(&running, &data, start_ms, latencies)?;
        if slice % 2 == 0 {
            running.stop()?;
        } else {
            running.kill()?;
        }
        let grown = found.disk.saturating_sub(std::mem::replace(&mut disk, found.disk));
        found.say(&mut out, (slice + 1) * load.restart_minutes, grown)?;
    }
    // A killed server leaves its log as it is: a start makes it whole.
    Running::start(Subject::Keypool, Auth::Signed, &data, Contents::default())?.stop()?;
    let report = verify(&Source::open(&data)?, &[], &mut |_| {});
    if report.findings.is_empty() {
        return Ok(writeln!(out, "the audit of the log finds nothing wrong")?);
    }
    Err(format!("the audit finds {:?}", report.findings).into())
}

/// Lets all connections take their turns at the load's rate. Returns how long each request took, in nanoseconds.
async fn play(
    running: &Running,
    load: SoakLoad,
    turns: &mut u64,
    until: Instant,
) -> Outcome<Vec<u64>> {
    let every = Duration::from_secs(CONNECTIONS * REQUESTS) / u32::try_from(load.rate)?;
    let mut tasks = Vec::new();
    for number in 0..CONNECTIONS {
        let mut connection = Connection::open(running.address).await?;
        let first = *turns + number;
        tasks.push(actix_rt::spawn(async move {
            let (mut due, mut turn, mut took) = (Instant::now(), first, Vec::new());
            while due < until {
                sleep_until(due).await;
                exchange(&mut connection, turn % load.pools, load.pools, &mut took).await?;
                due += every;
                turn += CONNECTIONS;
            }
            Ok::<_, Box<dyn std::error::Error>>((turn, took))
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        let (turn, took) = task.await??;
        *turns = turn.max(*turns);
        all.extend(took);
    }
    Ok(all)
}

/// A turn of a pool: its device uploads, another one reserves and spends, and the device looks.
async fn exchange(
    connection: &mut Connection,
    number: u64,
    pools: u64,
    took: &mut Vec<u64>,
) -> Outcome<()> {
    let (owner, inviter) = (Device::new(number)?, Device::new((number + 1) % pools)?);
    let packages = (0..PACKAGES).map(|_| make(&owner)).collect::<Outcome<Vec<_>>>()?;
    let upload = UploadRequest { keypackages: packages.into_iter().map(Base64).collect() };
    ask(connection, command(&owner, "/keypackages/upload", &upload)?, took).await?;
    for _ in 0..PACKAGES {
        let group_id = GroupId::new(b"a group of some friends")?;
        let reservation_id = ReservationId(Uuid::new_v4());
        let reserve = ReserveRequest {
            target_user: owner.pool.user().to_owned(),
            target_device: Some(owner.pool.device().to_owned()),
            group_id: group_id.clone(),
            reservation_id: Some(reservation_id),
            ciphersuites: Vec::new(),
            required: None,
            contact_token: None,
        };
        ask(connection, command(&inviter, "/keypackages/reserve", &reserve)?, took).await?;
        let reply: ReserveReply = serde_json::from_slice(connection.body())?;
        let keypackage_ref = reply.keypackage_ref;
        let spend = SpendRequest { keypackage_ref, reservation_id, group_id, added_by: None };
        ask(connection, command(&inviter, "/keypackages/spend", &spend)?, took).await?;
    }
    for (path, query) in [("/keypackages/status", ""), ("/keypackages/events", "?limit=20")] {
        let request = get(Auth::Signed, &owner, path, query)?;
        ask(connection, Step { request, expect: None }, took).await?;
    }
    Ok(())
}

fn command(caller: &Device, path: &str, body: &impl Serialize) -> Outcome<Step> {
    Ok(Step { request: post(Auth::Signed, caller, path, body)?, expect: None })
}

async fn ask(connection: &mut Connection, step: Step, took: &mut Vec<u64>) -> Outcome<()> {
    let begun = Instant::now();
    connection.ask(&step).await?;
    took.push(u64::try_from(begun.elapsed().as_nanos())?);
    Ok(())
}

impl Slice {
    fn of(running: &Running, data: &Path, start_ms: u64, mut took: Vec<u64>) -> Outcome<Self> {
        took.sort_unstable();
        let ms = |thousandths| approx(percentile(&took, thousandths)) / 1e6;
        Ok(Self {
            start_ms,
            requests: took.len() as u64,
            p50_ms: ms(500),
            p99_ms: ms(990),
            most_ms: ms(1000),
            memory: resident(running.pid())?,
            descriptors: fs::read_dir(format!("/proc/{}/fd", running.pid()))?.count(),
            disk: on_disk(data)?,
        })
    }

    fn say(&self, out: &mut impl Write, minute: u64, grown: u64) -> Outcome<()> {
        let Self { start_ms, requests, p50_ms, p99_ms, most_ms, memory, descriptors, disk } = self;
        let [memory, disk] = [*memory, *disk].map(|bytes| approx(bytes) / MIB);
        let each = grown / requests.max(&1);
        writeln!(
            out,
            "| {minute} | {start_ms} | {requests} | {p50_ms:.2} | {p99_ms:.1} | {most_ms:.0} | {memory:.1} | {descriptors} | {disk:.1} | {each} |"
        )?;
        Ok(out.flush()?)
    }
}
