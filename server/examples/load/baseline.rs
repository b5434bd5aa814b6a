//! The baselines that the server is measured against: other ways to keep the packages, behind the same
//! HTTP library, with the same settings, requests and answers.
//!
//! They have no history, no repeating of requests, no log line and no counters: the cost of these counts
//! against the server, not for it.

mod door;
mod fsync_file;
mod postgres;
mod redis;
mod sqlite;

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    error::{ErrorBadRequest, ErrorInternalServerError},
    web::{self, Bytes, Data},
};
use clap::{Args, ValueEnum};
use keypool_api::{
    Base64, PoolCounts, PoolStatus, ReserveReply, ReserveRequest, SpendReply, SpendRequest,
};
use keypool_ledger::{Clock, GroupId, Hash, PoolId, SystemClock, Timestamp};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use self::{door::Door, fsync_file::FsyncFile, postgres::Postgres, redis::Redis, sqlite::Sqlite};
use crate::{
    Outcome,
    population::{PACKAGES, facts, package, pool},
};

/// As the server has them.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const RESERVATION_TTL: Duration = Duration::from_mins(1);

/// The storage that a baseline keeps the packages in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Kind {
    /// In nothing: every answer is the same. The ceiling of HTTP.
    Echo,
    /// As echo, but each change is forced to the disk before the answer. The durable ceiling.
    FsyncFile,
    Sqlite,
    Postgres,
    Redis,
}

/// How a baseline is to run.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[arg(long)]
    pub(crate) kind: Kind,
    /// Whether requests are signed
    #[arg(long)]
    pub(crate) signed: bool,
    /// How many pools are stocked
    #[arg(long)]
    pub(crate) stocked: u64,
    /// How many devices there are
    #[arg(long)]
    pub(crate) devices: u64,
    /// Where it may keep files, or finds the socket of its database
    #[arg(long)]
    pub(crate) dir: PathBuf,
}

/// A request for a package.
#[derive(Clone)]
struct Claim {
    pool: String,
    holder: String,
    group: Vec<u8>,
    reservation: Uuid,
    deadline: Timestamp,
}

/// A package that was given out.
struct Given {
    keypackage_ref: Vec<u8>,
    bytes: Vec<u8>,
    generation: u32,
    not_after: u64,
}

/// A package of the stock, as databases are loaded with it.
struct Stocked {
    keypackage_ref: Vec<u8>,
    pool: String,
    bytes: Vec<u8>,
    not_after: u64,
}

/// All packages of so many pools.
fn stock(pools: u64) -> impl Iterator<Item = Outcome<Stocked>> {
    let now = SystemClock.now();
    let all = (0..pools).flat_map(|number| (0..PACKAGES).map(move |nth| (number, nth)));
    all.map(move |(number, nth)| {
        let facts = facts(number, nth, now)?;
        Ok(Stocked {
            keypackage_ref: facts.keypackage_ref.as_bytes().to_vec(),
            pool: pool(number)?.to_string(),
            bytes: package(number, nth),
            not_after: facts.not_after.as_secs(),
        })
    })
}

enum Store {
    Echo,
    FsyncFile(FsyncFile),
    Sqlite(Sqlite),
    Postgres(Postgres),
    Redis(Box<Redis>),
}

impl Store {
    async fn open(options: &Options) -> Outcome<Self> {
        let (dir, pools) = (&options.dir, options.stocked);
        Ok(match options.kind {
            Kind::Echo => Self::Echo,
            Kind::FsyncFile => Self::FsyncFile(FsyncFile::create(&dir.join("file"))?),
            Kind::Sqlite => Self::Sqlite(Sqlite::create(&dir.join("packages.sqlite"), pools)?),
            Kind::Postgres => Self::Postgres(Postgres::connect(dir, pools).await?),
            Kind::Redis => Self::Redis(Box::new(Redis::connect(dir, pools).await?)),
        })
    }

    async fn reserve(&self, claim: Claim) -> Outcome<Given> {
        match self {
            Self::Echo => the_same(),
            Self::FsyncFile(file) => {
                let given = the_same()?;
                file.append(fsync_file::reserved(&claim, &given)?).await?;
                Ok(given)
            }
            Self::Sqlite(sqlite) => sqlite.reserve(claim).await,
            Self::Postgres(postgres) => postgres.reserve(claim).await,
            Self::Redis(redis) => redis.reserve(claim).await,
        }
    }

    async fn spend(&self, keypackage_ref: &[u8], claim: Claim) -> Outcome<()> {
        match self {
            Self::Echo => Ok(()),
            Self::FsyncFile(file) => file.append(fsync_file::spent(keypackage_ref, &claim)?).await,
            Self::Sqlite(sqlite) => sqlite.spend(keypackage_ref.to_vec(), claim).await,
            Self::Postgres(postgres) => postgres.spend(keypackage_ref, claim).await,
            Self::Redis(redis) => redis.spend(keypackage_ref, claim).await,
        }
    }
}

fn the_same() -> Outcome<Given> {
    let facts = facts(0, 0, SystemClock.now())?;
    Ok(Given {
        keypackage_ref: facts.keypackage_ref.as_bytes().to_vec(),
        bytes: package(0, 0),
        generation: 1,
        not_after: facts.not_after.as_secs(),
    })
}

struct State {
    store: Store,
    door: Door,
}

/// Serves until it is told to end, and says where as the server does.
pub(crate) async fn serve(options: Options) -> Outcome<()> {
    let store = Store::open(&options).await?;
    let state = Data::new(State { store, door: Door::new(options.signed, options.devices)? });
    let app = move || {
        App::new()
            .app_data(state.clone())
            .route("/keypackages/reserve", web::post().to(reserve))
            .route("/keypackages/spend", web::post().to(spend))
            .route("/keypackages/status", web::get().to(status))
    };
    let server = HttpServer::new(app)
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .shutdown_timeout(1)
        .bind(("127.0.0.1", 0))?;
    let address = server.addrs().first().copied().ok_or("no address")?;
    writeln!(io::stdout(), "listening on http://{address}")?;
    server.run().await?;
    Ok(())
}

async fn reserve(
    request: HttpRequest,
    body: Bytes,
    state: Data<State>,
) -> actix_web::Result<HttpResponse> {
    let (holder, key) = state.door.writer(&request, &body).map_err(ErrorBadRequest)?;
    let asked: ReserveRequest = json(&body)?;
    let device = asked.target_device.as_deref();
    let pool = PoolId::of(&asked.target_user, device).map_err(ErrorBadRequest)?;
    let reservation = asked.reservation_id.map_or(key, |id| id.0);
    let deadline = SystemClock.now().after(RESERVATION_TTL);
    let group = asked.group_id.as_bytes().to_vec();
    let claim = Claim { pool: pool.to_string(), holder, group, reservation, deadline };
    let given = state.store.reserve(claim).await.map_err(ErrorInternalServerError)?;
    let keypackage_ref = keypool_ledger::KeyPackageRef::new(&given.keypackage_ref);
    Ok(HttpResponse::Ok().json(ReserveReply {
        keypackage_ref: keypackage_ref.map_err(ErrorInternalServerError)?,
        keypackage: Base64(given.bytes),
        reservation_id: keypool_ledger::ReservationId(reservation),
        generation: given.generation,
        reservation_expires_at: deadline.as_secs(),
        not_after: given.not_after,
        last_resort: false,
        device: pool.device().to_owned(),
    }))
}

async fn spend(
    request: HttpRequest,
    body: Bytes,
    state: Data<State>,
) -> actix_web::Result<HttpResponse> {
    let (holder, _) = state.door.writer(&request, &body).map_err(ErrorBadRequest)?;
    let asked: SpendRequest = json(&body)?;
    let claim = Claim {
        pool: String::new(),
        holder,
        group: asked.group_id.as_bytes().to_vec(),
        reservation: asked.reservation_id.0,
        deadline: SystemClock.now(),
    };
    let spent = state.store.spend(asked.keypackage_ref.as_bytes(), claim).await;
    spent.map_err(ErrorInternalServerError)?;
    Ok(HttpResponse::Ok().json(SpendReply { spent: true, late: false, replayed: false }))
}

/// The same answer always: only the echo is asked this.
async fn status(request: HttpRequest, state: Data<State>) -> actix_web::Result<HttpResponse> {
    let caller = state.door.reader(&request).map_err(ErrorBadRequest)?;
    let pool: PoolId = caller.parse().map_err(ErrorBadRequest)?;
    Ok(HttpResponse::Ok().json(PoolStatus {
        user: pool.user().to_owned(),
        device: pool.device().to_owned(),
        counts: PoolCounts { available: 32, fresh: 32, total: 32, ..PoolCounts::default() },
        expiring_soon: 0,
        last_upload: Some(SystemClock.now().as_secs()),
        pool_health: "healthy".to_owned(),
        recommended_upload: 0,
        recommended_action: "nothing: the pool is full enough".to_owned(),
        spent_24h: 0,
        seconds_to_empty: None,
        version: 33,
        position: 33,
        head: Hash::ZERO,
        digest: Hash::ZERO,
        device_list_head: Hash::ZERO,
        other_copy_at_ms: None,
    }))
}

fn json<T: DeserializeOwned>(body: &[u8]) -> actix_web::Result<T> {
    serde_json::from_slice(body).map_err(ErrorBadRequest)
}

/// The group a claim is for, as the log has it.
fn group_of(claim: &Claim) -> Outcome<GroupId> {
    Ok(GroupId::new(&claim.group)?)
}
