//! The ledger over HTTP: checkpoints, tiles and proofs for everyone, receipts for holders and owners,
//! and the records themselves for the operator.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, ContentType},
    web::{self, Data, Path},
};
use data_encoding::HEXLOWER;
use keypool_api::{
    Code, ConsistencyReply, InclusionReply, LedgerEvent, LedgerEventsReply, Problem,
};
use keypool_ledger::{Event, EventLog, Record, ReservationId, log::find_reservation};
use keypool_projections::ReservationStatus;
use keypool_transparency::{ReceiptStanding, Tile};
use serde::Deserialize;

use crate::{
    authentication::AuthenticatedRead,
    keypackage_store::StoreError,
    pools::ExecuteError,
    problem::Failure,
    routes::keypackages::query,
    state::State,
    transparency::{Ledger, ProveError},
};

/// How long a receipt waits for a checkpoint that covers its record.
const CHECKPOINT_WAIT: Duration = Duration::from_secs(5);
/// How many records the operator gets at once, unless it is said.
const EVENTS_DEFAULT: u16 = 100;
/// How many records the operator gets at once at most.
const EVENTS_MAX: u16 = 1000;
/// How many bytes of payloads the operator gets at once, but for the first record.
const EVENTS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The key that verifies this server's signatures, by its own word.
///
/// The form is C2SP's: `NAME+HASH+BASE64`. A verifier that has it from elsewhere need not believe the server.
#[utoipa::path(
    get, path = "/ledger/key", tag = "ledger",
    responses((status = 200, description = "The key", body = String, content_type = "text/plain")),
)]
pub(crate) async fn key(state: Data<State>) -> Result<HttpResponse, Failure> {
    let text = format!("{}\n", state.ledger()?.key());
    Ok(HttpResponse::Ok().content_type(ContentType::plaintext()).body(text))
}

/// The signed state of the log: its name, how many records it has, and the tree hash over them.
///
/// A signed note (C2SP tlog-checkpoint). It was on the server's disk before anyone saw it.
#[utoipa::path(
    get, path = "/ledger/checkpoint", tag = "ledger",
    responses(
        (status = 200, description = "The last checkpoint", body = String, content_type = "text/plain"),
    ),
)]
pub(crate) async fn checkpoint(state: Data<State>) -> Result<HttpResponse, Failure> {
    let text = state.ledger()?.published().text();
    let mut reply = HttpResponse::Ok();
    reply.content_type(ContentType::plaintext()).insert_header((CACHE_CONTROL, "no-cache"));
    Ok(reply.body(text))
}

/// The question that a time is stated for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeQuery {
    nonce: String,
}

/// The server's time, signed with the ledger's key for one question.
///
/// A signed note of three lines: `keypool-time-v1`, the nonce, and Unix milliseconds. A device whose clock is
/// off by more than a day asks for it: the unsigned header `keypool-time` of each answer is not enough then.
#[utoipa::path(
    get, path = "/ledger/time", tag = "ledger",
    params(("nonce" = String, Query, description = "16 random bytes, as 32 lower-case hexadecimal digits")),
    responses((status = 200, description = "The time", body = String, content_type = "text/plain")),
)]
pub(crate) async fn time(
    request: HttpRequest,
    state: Data<State>,
) -> Result<HttpResponse, Failure> {
    let TimeQuery { nonce } = query(&request)?;
    let nonce = HEXLOWER.decode(nonce.as_bytes()).ok().and_then(|it| it.try_into().ok());
    let nonce = nonce.ok_or_else(|| {
        Failure::new(Code::BadRequest, "nonce is not 32 lower-case hexadecimal digits")
    })?;
    let note = state.ledger()?.state_time(nonce, state.clock.now());
    let note = note.map_err(|_| Failure::new(Code::Internal, "the time cannot be signed"))?;
    let mut reply = HttpResponse::Ok();
    reply.content_type(ContentType::plaintext()).insert_header((CACHE_CONTROL, "no-store"));
    Ok(reply.body(note.to_string()))
}

/// A part of the tree that never changes: up to 256 hashes, one after the other (C2SP tlog-tiles).
#[utoipa::path(
    get, path = "/ledger/tile/{path}", tag = "ledger",
    params((
        "path" = String, Path,
        description = "The level and the index, as in 0/x001/234, with .p/WIDTH behind it for a part of a tile",
    )),
    responses(
        (status = 200, description = "The hashes", body = String, content_type = "application/octet-stream"),
        (status = "4XX", description = "There is no such tile", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn tile(state: Data<State>, path: Path<String>) -> Result<HttpResponse, Failure> {
    let shown: String = path.chars().take(100).collect();
    let missing = || Failure::new(Code::NotFound, format!("there is no tile at {shown:?}"));
    let tile = Tile::from_path(&format!("tile/{path}")).map_err(|_| missing())?;
    let bytes = prove(&state, move |ledger| ledger.tile(tile)).await?.ok_or_else(missing)?;
    let mut reply = HttpResponse::Ok();
    reply.content_type(ContentType::octet_stream());
    reply.insert_header((CACHE_CONTROL, "public, max-age=31536000, immutable"));
    Ok(reply.body(bytes))
}

/// The record, and the size of the tree.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InclusionQuery {
    seq: u64,
    size: u64,
}

/// Shows that a record is in the tree of a checkpoint.
#[utoipa::path(
    get, path = "/ledger/proof/inclusion", tag = "ledger",
    params(
        ("seq" = u64, Query, description = "The record's place in the log, from 1"),
        ("size" = u64, Query, description = "How many records the checkpoint has"),
    ),
    responses((status = 200, description = "The hashes", body = InclusionReply)),
)]
pub(crate) async fn inclusion(
    request: HttpRequest,
    state: Data<State>,
) -> Result<HttpResponse, Failure> {
    let InclusionQuery { seq, size } = query(&request)?;
    let reply: InclusionReply = prove(&state, move |ledger| ledger.inclusion(seq, size)).await?;
    Ok(HttpResponse::Ok().json(reply))
}

/// From which size to which.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsistencyQuery {
    from: u64,
    to: u64,
}

/// Shows that the log of one checkpoint is the beginning of that of another.
#[utoipa::path(
    get, path = "/ledger/proof/consistency", tag = "ledger",
    params(
        ("from" = u64, Query, description = "How many records the older checkpoint has"),
        ("to" = u64, Query, description = "How many records the newer checkpoint has"),
    ),
    responses((status = 200, description = "The hashes", body = ConsistencyReply)),
)]
pub(crate) async fn consistency(
    request: HttpRequest,
    state: Data<State>,
) -> Result<HttpResponse, Failure> {
    let ConsistencyQuery { from, to } = query(&request)?;
    let reply: ConsistencyReply = prove(&state, move |ledger| ledger.consistency(from, to)).await?;
    Ok(HttpResponse::Ok().json(reply))
}

/// The signed receipt of a reservation, with the proof that it is in the log.
///
/// A file of text that can be checked offline (docs/api.md). For the holder of the reservation and the
/// owner of the package.
#[utoipa::path(
    get, path = "/keypackages/receipt/{reservation_id}", tag = "ledger",
    params(("reservation_id" = uuid::Uuid, Path, description = "The reservation")),
    responses(
        (status = 200, description = "The receipt and its proof", body = String, content_type = "text/plain"),
    ),
)]
pub(crate) async fn receipt(
    state: Data<State>,
    reservation: Path<String>,
    caller: AuthenticatedRead,
) -> Result<HttpResponse, Failure> {
    let id: ReservationId = reservation.parse()?;
    // Who may not know of a reservation is told the same as where there is none.
    let record = of_concern(&state, id, &caller).await?.ok_or_else(|| {
        Failure::new(Code::NotFound, "no reservation of yours, or in your pool, has this id")
    })?;
    let mut published = state.ledger()?.watch();
    let covered = published.wait_for(|published| record.seq <= published.size());
    match actix_rt::time::timeout(CHECKPOINT_WAIT, covered).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => {
            return Err(Failure::new(Code::NotReady, "no checkpoint covers the reservation yet"));
        }
    }
    let (last_resort, standing) = standing(&state, &record, id).await?;
    let file = prove(&state, move |ledger| ledger.receipt(record, last_resort, standing)).await?;
    Ok(HttpResponse::Ok().content_type(ContentType::plaintext()).body(file.to_string()))
}

/// The record of a reservation, if the caller holds it or owns the pool.
async fn of_concern(
    state: &State,
    id: ReservationId,
    caller: &AuthenticatedRead,
) -> Result<Option<Record>, Failure> {
    let found = state.store()?.read(move |pools| find_reservation(pools.log(), id, 0)).await?;
    Ok(found.filter(|record| {
        let holds = matches!(
            &record.envelope.event,
            Event::Reserved { holder, .. } if *holder == caller.pool
        );
        holds || record.envelope.stream.pool() == Some(&caller.pool)
    }))
}

/// Tells whether the package of a reservation is a last resort, the standing of the reservation, and the
/// record up to which that was looked at.
async fn standing(
    state: &State,
    record: &Record,
    id: ReservationId,
) -> Result<(bool, (ReceiptStanding, u64)), Failure> {
    let found = state.store()?.read(move |pools| pools.reservation(id)).await?;
    Ok(found.map_or(
        (false, (ReceiptStanding::Open, record.seq)),
        |(package, reservation, as_of)| {
            (package.facts.last_resort, (receipt_standing(reservation.status), as_of))
        },
    ))
}

/// Reads tiles where reading keeps nobody waiting.
async fn prove<T: Send + 'static>(
    state: &State,
    read: impl FnOnce(&Ledger) -> Result<T, ProveError> + Send + 'static,
) -> Result<T, Failure> {
    let ledger = Arc::clone(state.ledger()?);
    let read = web::block(move || read(&ledger)).await;
    Ok(read.map_err(|_| StoreError::Cancelled)??)
}

/// The part of the log to tell.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LedgerEventsQuery {
    #[serde(default)]
    after: u64,
    limit: Option<u16>,
}

/// The records of the log, whole: for the operator alone.
pub(crate) async fn events(
    request: HttpRequest,
    state: Data<State>,
) -> Result<HttpResponse, Failure> {
    let LedgerEventsQuery { after, limit } = query(&request)?;
    let limit = usize::from(limit.unwrap_or(EVENTS_DEFAULT).clamp(1, EVENTS_MAX));
    let read = web::block(move || page(&state, after, limit)).await;
    Ok(HttpResponse::Ok().json(read.map_err(|_| StoreError::Cancelled)??))
}

/// The refusals of a day, in lines of JSON: for the operator alone.
pub(crate) async fn refusals(
    state: Data<State>,
    day: Path<String>,
) -> Result<HttpResponse, Failure> {
    let (asked, record) = (day.clone(), state.clone());
    let read = move || record.refusals.get().map(|refusals| refusals.read_day(&asked)).transpose();
    let read = web::block(read).await.map_err(|_| StoreError::Cancelled)?;
    let found = read.map_err(|error| {
        tracing::error!(%error, "the record of refusals cannot be read");
        Failure::new(Code::Internal, "the record of refusals cannot be read")
    })?;
    let lines = found.flatten().ok_or_else(|| {
        let day: String = day.chars().take(20).collect();
        Failure::new(Code::NotFound, format!("no refusal of the day {day:?} is recorded"))
    })?;
    Ok(HttpResponse::Ok().content_type("application/jsonl").body(lines))
}

fn page(state: &State, after: u64, limit: usize) -> Result<LedgerEventsReply, Failure> {
    let log = state.store()?.pools().log();
    let (mut events, mut bytes, mut next) = (Vec::new(), 0, after.saturating_add(1));
    while let Some(record) = log.read(next, 1).map_err(ExecuteError::from)?.pop() {
        bytes += record.payload.len();
        if events.len() == limit || (EVENTS_BYTES_MAX < bytes && !events.is_empty()) {
            return Ok(LedgerEventsReply { events, more: true });
        }
        events.push(LedgerEvent::from(&record));
        next = next.saturating_add(1);
    }
    Ok(LedgerEventsReply { events, more: false })
}

/// The word of a receipt for the status of a reservation.
const fn receipt_standing(status: ReservationStatus) -> ReceiptStanding {
    match status {
        ReservationStatus::Open => ReceiptStanding::Open,
        ReservationStatus::Cancelled => ReceiptStanding::Cancelled,
        ReservationStatus::Lapsed => ReceiptStanding::Lapsed,
        ReservationStatus::Spent { .. } => ReceiptStanding::Spent,
        ReservationStatus::Lost => ReceiptStanding::Lost,
    }
}
