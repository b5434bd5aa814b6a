//! A large log: how long the server takes to start on it, the memory and the disk it takes, and whether
//! it is slower for it.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use actix_rt::time::Instant;
use clap::Args;
use keypool_api::{ClaimRequest, ReserveRequest};
use keypool_ledger::{Clock, GroupId, ReservationId, SystemClock};
use uuid::Uuid;

use crate::{
    Outcome,
    client::{Operation, Step, Until},
    image::{self, Contents, Written},
    measure::{Spread, on_disk, resident},
    packages::Packages,
    population::{Device, PACKAGES, facts},
    request::{Auth, get, post},
    session::{Figures, measure},
    subject::{Running, Subject},
    workload::{Cell, Stock, Workload, contents},
};

/// The load whose throughput is compared with and without a large log.
const CELL: Cell = Cell { workload: Workload::Reserve, concurrency: 64, operations: 8000 };
/// How often it is compared.
const ROUNDS: usize = 5;
/// How many pools are looked into, to measure the memory of that.
const TOUCHED: u64 = 20_000;
/// How often a package is reserved and given back in a pool with a long history, and in another one.
const LONG_ROUNDS: u64 = 320;
/// How long a measurement takes at most.
const TIME_MAX: Duration = Duration::from_secs(10);

/// How large the large log is.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Size {
    /// How many events the large log has; 0 leaves it out
    #[arg(long = "large-events", default_value_t = 10_000_000)]
    pub(crate) events: u64,
    /// How many pools it has, of 32 packages each
    #[arg(long = "large-pools", default_value_t = 200_000)]
    pub(crate) pools: u64,
    /// How many of the events are of one pool
    #[arg(long = "large-pool-events", default_value_t = 100_000)]
    pub(crate) one_pool_events: u64,
}

/// The results.
#[derive(Clone, Debug)]
pub(crate) struct Large {
    pub(crate) size: Size,
    pub(crate) written: Written,
    pub(crate) first_start_s: f64,
    pub(crate) clean_start_s: f64,
    pub(crate) killed_start_s: f64,
    /// Bytes on the disk.
    pub(crate) disk: u64,
    /// Memory of a server with an empty log, and with the large one: at its start, and when some pools
    /// have been looked into; in bytes.
    pub(crate) memory: Memory,
    /// Reservations in a second, against those with a small log.
    pub(crate) reserve: Option<Spread>,
    /// How long a package takes to be reserved and given back in the pool with the long history, against
    /// another pool.
    pub(crate) long_pool: Option<Spread>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) empty: u64,
    pub(crate) started: u64,
    pub(crate) touched: u64,
    pub(crate) touched_pools: u64,
}

/// Makes a large log in a directory, and measures the server on it.
pub(crate) async fn large(work: &Path, size: Size) -> Outcome<Large> {
    let empty = memory_with_empty_log(work)?;
    let small = small_log(work)?;
    let data = work.join("large");
    let contents = Contents {
        stocked: size.pools,
        devices: size.pools + 1,
        events: size.events,
        first_pool_events: size.one_pool_events,
    };
    let written = image::write(&data, contents, false)?;
    let (first_start_s, running) = timed_start(&data)?;
    running.stop()?;
    let disk = on_disk(&data)?;
    // What was written to make the log is not the next start's.
    Command::new("sync").status()?;
    let (clean_start_s, running) = timed_start(&data)?;
    thread::sleep(Duration::from_secs(1));
    let started = resident(running.pid())?;
    let touched_pools = touch(&running, size.pools, work).await?;
    let touched = resident(running.pid())?;
    let reserve = compare_reserve(&running, contents, work, small).await?;
    let long_pool = compare_long_pool(&running, work, size.pools - 1).await?;
    running.kill()?;
    let (killed_start_s, running) = timed_start(&data)?;
    running.stop()?;
    fs::remove_dir_all(&data)?;
    Ok(Large {
        size,
        written,
        first_start_s,
        clean_start_s,
        killed_start_s,
        disk,
        memory: Memory { empty, started, touched, touched_pools },
        reserve,
        long_pool,
    })
}

fn timed_start(data: &Path) -> Outcome<(f64, Running)> {
    let begun = Instant::now();
    let running = Running::start(Subject::Keypool, Auth::Named, data, Contents::default())?;
    Ok((begun.elapsed().as_secs_f64(), running))
}

fn memory_with_empty_log(work: &Path) -> Outcome<u64> {
    let data = work.join("empty");
    let (_, running) = timed_start(&data)?;
    thread::sleep(Duration::from_secs(1));
    let memory = resident(running.pid())?;
    running.stop()?;
    fs::remove_dir_all(&data)?;
    Ok(memory)
}

/// Makes the log that is just large enough for [`CELL`].
fn small_log(work: &Path) -> Outcome<Contents> {
    let data = work.join("small");
    let contents = contents(&[CELL]);
    image::write(&data, contents, false)?;
    timed_start(&data)?.1.stop()?;
    Ok(contents)
}

/// Has many pools looked into, and says how many.
async fn touch(running: &Running, pools: u64, work: &Path) -> Outcome<u64> {
    let touched = pools.min(TOUCHED);
    let look = |number| -> Outcome<Operation> {
        let request = get(Auth::Named, &Device::new(number)?, "/keypackages/status", "")?;
        Ok(Operation { steps: vec![Step { request, expect: None }] })
    };
    let script = (0..touched).map(look).collect::<Outcome<_>>()?;
    measure(running, vec![script], Until::Through(TIME_MAX), work).await?;
    Ok(touched)
}

/// Reservations in a second with the large log, against those with the small one.
async fn compare_reserve(
    running: &Running,
    contents: Contents,
    work: &Path,
    small: Contents,
) -> Outcome<Option<Spread>> {
    let mut packages = Packages::default();
    let pools = u64::try_from(ROUNDS)? * (small.stocked + 1) + 1;
    let devices = (0..pools.min(contents.devices)).map(Device::new).collect::<Outcome<Vec<_>>>()?;
    let mut stock = Stock::new(contents, &devices, &mut packages);
    // The pool with the long history is for another comparison.
    stock.pass(Cell { workload: Workload::Status, concurrency: 1, operations: 1 });
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let scripts = stock.scripts(CELL, Auth::Named, true)?;
        let with = measure(running, scripts, Until::Through(TIME_MAX), work).await?;
        let without = reserve_with_small_log(work, small).await?;
        ratios.push(with.throughput / without.throughput);
    }
    Ok(Spread::of(ratios))
}

async fn reserve_with_small_log(work: &Path, small: Contents) -> Outcome<Figures> {
    let data = work.join("run");
    image::copy(&work.join("small"), &data)?;
    let (_, running) = timed_start(&data)?;
    let mut packages = Packages::default();
    let devices = (0..small.devices).map(Device::new).collect::<Outcome<Vec<_>>>()?;
    let scripts = Stock::new(small, &devices, &mut packages).scripts(CELL, Auth::Named, true)?;
    let figures = measure(&running, scripts, Until::Through(TIME_MAX), work).await?;
    running.stop()?;
    fs::remove_dir_all(&data)?;
    Ok(figures)
}

/// How long a reservation that is given back takes in the first pool, against the last one.
async fn compare_long_pool(running: &Running, work: &Path, last: u64) -> Outcome<Option<Spread>> {
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let mut took = Vec::new();
        for number in [0, last] {
            let script = reserve_and_release(number, round == 0)?;
            let until = Until::Through(TIME_MAX);
            took.push(measure(running, vec![script], until, work).await?.p50_ms());
        }
        if let [long, other] = took.as_slice() {
            ratios.push(long / other);
        }
    }
    Ok(Spread::of(ratios))
}

/// Packages of a pool, reserved and given back one by one: those that are fresh in their order, and then
/// the first one again and again.
fn reserve_and_release(number: u64, fresh: bool) -> Outcome<Vec<Operation>> {
    let (owner, caller) = (Device::new(number)?, Device::new(number + 1)?);
    let mut script = Vec::new();
    for turn in 0..LONG_ROUNDS {
        let nth = if fresh && turn < PACKAGES { turn } else { 0 };
        let keypackage_ref = facts(number, nth, SystemClock.now())?.keypackage_ref;
        let reservation_id = ReservationId(Uuid::new_v4());
        let reserve = ReserveRequest {
            target_user: owner.pool.user().to_owned(),
            target_device: Some(owner.pool.device().to_owned()),
            group_id: GroupId::new(b"a group of some friends")?,
            reservation_id: Some(reservation_id),
            ciphersuites: Vec::new(),
            required: None,
            contact_token: None,
        };
        let expect = Some(keypackage_ref.to_string());
        let release = ClaimRequest { keypackage_ref, reservation_id };
        let reserve = post(Auth::Named, &caller, "/keypackages/reserve", &reserve)?;
        let release = post(Auth::Named, &caller, "/keypackages/release", &release)?;
        let steps =
            vec![Step { request: reserve, expect }, Step { request: release, expect: None }];
        script.push(Operation { steps });
    }
    Ok(script)
}
