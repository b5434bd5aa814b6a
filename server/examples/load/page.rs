//! The operator's page on a large log: how long each of its views takes, and a steady load while a browser looks.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use actix_rt::time::{Instant, sleep, sleep_until};
use clap::Args;
use keypool_ledger::{Clock, SystemClock};

use crate::{
    Outcome,
    client::{self, Connection, Operation, Step, Until},
    image::{self, Contents},
    large::Size,
    measure::{Spread, Usage, approx},
    packages::Packages,
    population::{Device, PACKAGES, command, facts},
    request::Auth,
    subject::{Running, Subject},
    workload::{Cell, Stock, Workload},
};

/// How often each view is asked for.
const TURNS: u64 = 9;
/// How many connections the load has.
const CONNECTIONS: u64 = 16;
/// How many events a reservation and its spend leave.
const PAIR_EVENTS: u64 = 2;
/// How long a view, or the reading of the log for the page, may take.
const TIME_MAX: Duration = Duration::from_mins(10);

/// The load while a browser looks at the page.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct PageLoad {
    #[command(flatten)]
    size: Size,
    /// How many events a second the load makes
    #[arg(long, default_value_t = 5000)]
    rate: u64,
    /// For how many seconds; 0 leaves the load out
    #[arg(long, default_value_t = 0)]
    seconds: u64,
}

/// Makes a large log in a directory, and says how long each view of the page takes on it.
pub(crate) async fn page(work: &Path, load: PageLoad) -> Outcome<()> {
    let (data, mut out) = (work.join("large"), io::stdout());
    let Size { events, pools, one_pool_events: first_pool_events } = load.size;
    let contents = Contents { stocked: pools, devices: pools + 1, events, first_pool_events };
    let written = image::write(&data, contents, false)?;
    let mut running = Running::start(Subject::Keypool, Auth::Named, &data, Contents::default())?;
    let admin = running.admin()?;
    let begun = Instant::now();
    until_read(admin).await?;
    let seconds = begun.elapsed().as_secs_f64();
    writeln!(out, "{} events, read for the page in {seconds:.1} s", written.events)?;
    for (name, path) in views(contents)? {
        let before = running.usage()?;
        let taken = time_of(admin, &path).await?.ok_or("no view was answered")?;
        let cpu = approx(Usage::since(running.usage()?, before).cpu_ns) / 1e6 / approx(TURNS);
        let Spread { median, least, most } = taken;
        writeln!(out, "{name}: {median:.1} ms ({least:.1} to {most:.1}), processor {cpu:.1} ms")?;
    }
    if 0 < load.seconds {
        writeln!(out, "the page is at http://{admin}; the load begins")?;
        steady(&running, contents, load).await?;
    }
    running.stop()
}

/// The views of the page: a name, and a path.
fn views(contents: Contents) -> Outcome<Vec<(&'static str, String)>> {
    let other = contents.stocked / 2;
    let fresh = facts(other, 3, SystemClock.now())?.keypackage_ref;
    let used = facts(0, PACKAGES + contents.first_pool_events / 6, SystemClock.now())?;
    let reservation = command(contents.devices);
    let (long, usual) = ("user0/phone", format!("user{other}/phone"));
    let middle = contents.first_pool_events / 2;
    Ok(vec![
        ("overview", "/".into()),
        ("pools at risk", "/page/pools".into()),
        ("pools of a level", "/page/pools?level=healthy".into()),
        ("the last of them", format!("/page/pools?level=healthy&skip={}", contents.stocked - 60)),
        ("pools of users by name", "/page/pools?user=user1".into()),
        ("a pool", format!("/page/pool?name={usual}")),
        ("a pool with a long history", format!("/page/pool?name={long}")),
        ("time travel", format!("/page/history?name={usual}&at=20")),
        ("time travel in a long history", format!("/page/history?name={long}&at={middle}")),
        ("search: a package", format!("/page/search?q={fresh}")),
        ("search: a package of a long history", format!("/page/search?q={}", used.keypackage_ref)),
        ("search: a reservation", format!("/page/search?q={reservation}")),
        ("search: a request", format!("/page/search?q={}", command(contents.events / 2))),
        ("search: a position", format!("/page/search?q={}", contents.events / 2)),
        ("search: a user", "/page/search?q=user77".into()),
    ])
}

/// A request of the page.
fn view(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").into_bytes()
}

/// Opens the page, which makes the server read the log for it, and waits until it has read all.
async fn until_read(admin: SocketAddr) -> Outcome<()> {
    let overview = Step { request: view("/"), expect: Some("data-live=\"reading\"></".into()) };
    let begun = Instant::now();
    let mut connection = Connection::open(admin).await?;
    while let Err(error) = connection.ask(&overview).await {
        if TIME_MAX < begun.elapsed() {
            return Err(error);
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// How long a view takes, in milliseconds.
async fn time_of(admin: SocketAddr, path: &str) -> Outcome<Option<Spread>> {
    let step = || Step { request: view(path), expect: None };
    let script = (0..TURNS).map(|_| Operation { steps: vec![step()] }).collect();
    let taken = client::run(&[admin], vec![script], Until::Through(TIME_MAX)).await?;
    Ok(Spread::of(taken.latencies_ns.into_iter().map(|ns| approx(ns) / 1e6)))
}

/// Reservations and spends at a steady rate.
async fn steady(running: &Running, contents: Contents, load: PageLoad) -> Outcome<()> {
    let pairs = load.rate * load.seconds / PAIR_EVENTS;
    let pools = (pairs / PACKAGES + 2 * CONNECTIONS + 1).min(contents.devices);
    let devices = (0..pools).map(Device::new).collect::<Outcome<Vec<_>>>()?;
    let (operations, concurrency) = (usize::try_from(pairs)?, usize::try_from(CONNECTIONS)?);
    let cell = Cell { workload: Workload::Pair, concurrency, operations };
    let mut packages = Packages::default();
    let scripts = Stock::new(contents, &devices, &mut packages).scripts(cell, Auth::Named, true)?;
    let every = Duration::from_secs(PAIR_EVENTS * CONNECTIONS) / u32::try_from(load.rate)?;
    let (begun, before) = (Instant::now(), running.usage()?);
    let mut tasks = Vec::new();
    for script in scripts {
        let connection = Connection::open(running.address).await?;
        tasks.push(actix_rt::spawn(paced(connection, script, every)));
    }
    for task in tasks {
        task.await??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let cpu = Usage::since(running.usage()?, before).processors(seconds);
    let rate = approx(pairs * PAIR_EVENTS) / seconds;
    Ok(writeln!(io::stdout(), "{rate:.0} events/s for {seconds:.0} s, server CPU {cpu:.2}")?)
}

/// One connection, with an operation each so often.
async fn paced(mut connection: Connection, script: Vec<Operation>, every: Duration) -> Outcome<()> {
    let mut due = Instant::now();
    for operation in script {
        sleep_until(due).await;
        for step in &operation.steps {
            connection.ask(step).await?;
        }
        due += every;
    }
    Ok(())
}
