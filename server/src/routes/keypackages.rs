//! The life of packages over HTTP: uploaded, reserved, spent, withdrawn, and looked at.

pub(crate) mod reserve_many;

pub(crate) mod reconciliation;

pub(crate) mod rotate;

pub(crate) mod stream;

pub(crate) mod waiting_list;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header,
    web::{self, Data, Query},
};
use keypool_api::{
    Base64, ClaimRequest, Code, EventView, EventsReply, Outcome, PoolCounts, PoolStatus,
    ReleaseReply, RenewReply, ReportReason, ReportReply, ReportRequest, ReserveReply,
    ReserveRequest, RevokeReply, RevokeRequest, RevokeWord, SpendReply, SpendRequest, UploadItem,
    UploadReply, UploadRequest,
};
use keypool_ledger::{CommandId, KeyPackageRef, PoolId, ReservationId, RevokeReason, Timestamp};
use keypool_projections::{Claim, ItemOutcome, RequiredCapabilities, RevokeScope, Stage};
use serde::{Deserialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::{
    admission::AdmissionError,
    authentication::{AuthenticatedRead, AuthenticatedWrite, ReceivedBody},
    keypackage_store::{ReservationRequest, ReservationTarget, ReservedKeyPackage, StoreError},
    problem::{Failure, check_of, code_of},
    request_log::{about, note_target},
    routes::policy::is_introduced,
    state::State,
};

/// The media type of MLS messages, RFC 9420 section 17.10.
const MESSAGE_MLS: &str = "message/mls";
/// How many events are told at once, unless fewer are asked for.
const EVENTS_DEFAULT: usize = 100;
/// How many events are told at once at most.
const EVENTS_MAX: usize = 1000;

/// Takes packages into the caller's pool.
///
/// Good ones are kept, bad ones refused one by one, in the order of the request. A single package may
/// be sent as it is, as `message/mls`. When none is acceptable the answer is a problem with the same
/// `items`.
#[utoipa::path(
    post, path = "/keypackages/upload", tag = "keypackages",
    request_body(content((UploadRequest = "application/json"), (Vec<u8> = "message/mls"))),
    responses(
        (status = 200, description = "At least one package was acceptable", body = UploadReply),
    ),
)]
pub(crate) async fn upload(
    state: Data<State>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let packages = packages_of(&caller.body, state.batch_packages_max)?;
    let AuthenticatedWrite { pool, idempotency, .. } = caller;
    let saved = state.store()?.save_key_packages(&pool, packages, idempotency).await?;
    let items: Vec<UploadItem> = saved.items.into_iter().map(item).collect();
    let accepted = items.iter().filter(|item| item.outcome == Outcome::Stored).count() as u64;
    state.metrics.uploaded(accepted);
    for check in items.iter().filter_map(|item| item.check.as_deref()) {
        state.metrics.not_admitted(check);
    }
    if items.iter().all(|item| item.outcome == Outcome::Rejected) {
        return Err(Failure::of_upload(items));
    }
    let pool = PoolCounts::from(&saved.health);
    let first = items.iter().find_map(|item| item.keypackage_ref.clone());
    let reply = UploadReply { accepted, items, pool, position: saved.position };
    let mut response = HttpResponse::Ok().json(reply);
    first.inspect(|first| about(&mut response, first));
    Ok(response)
}

fn packages_of(body: &ReceivedBody, packages_max: usize) -> Result<Vec<Vec<u8>>, Failure> {
    if body.media_type == MESSAGE_MLS {
        return Ok(vec![body.bytes.to_vec()]);
    }
    let UploadRequest { keypackages } = body.json()?;
    checked(keypackages, packages_max)
}

/// The packages of a request, if it may hold so many.
fn checked(keypackages: Vec<Base64>, packages_max: usize) -> Result<Vec<Vec<u8>>, Failure> {
    if packages_max < keypackages.len() {
        let count = keypackages.len();
        let detail =
            format!("the request holds {count} packages; at most {packages_max} at a time");
        let hint = "Send fewer packages at a time; the operator sets the limit with \
                    --batch-packages-max.";
        return Err(Failure::new(Code::TooLarge, detail).hinting(Some(hint)));
    }
    if keypackages.is_empty() {
        return Err(Failure::new(Code::BadRequest, "the request holds no package"));
    }
    Ok(keypackages.into_iter().map(|package| package.0).collect())
}

fn item(saved: Result<ItemOutcome, AdmissionError>) -> UploadItem {
    let (keypackage_ref, outcome, refusal) = match saved {
        Err(error) => return error.into(),
        Ok(ItemOutcome::Stored(stored)) => (stored, Outcome::Stored, None),
        Ok(ItemOutcome::Known(known, stage)) => (known, outcome_of(stage), None),
        Ok(ItemOutcome::Refused(refused, why)) => (refused, Outcome::Rejected, Some(why)),
    };
    UploadItem {
        keypackage_ref: Some(keypackage_ref),
        outcome,
        code: refusal.map(code_of),
        check: refusal.map(|why| check_of(why).name().to_owned()),
        detail: refusal.map(|why| why.to_string()),
    }
}

const fn outcome_of(stage: Stage) -> Outcome {
    match stage {
        Stage::Created | Stage::Available => Outcome::Duplicate,
        Stage::Reserved => Outcome::Reserved,
        Stage::Spent => Outcome::Spent,
        Stage::Expired => Outcome::Expired,
        Stage::Revoked => Outcome::Revoked,
    }
}

/// Sets one package of another user aside for the caller.
///
/// With `Accept: message/mls` the answer is the package's bytes, and the rest stands in headers.
#[utoipa::path(
    post, path = "/keypackages/reserve", tag = "keypackages",
    request_body = ReserveRequest,
    responses(
        (status = 200, description = "The package", content((ReserveReply = "application/json"), (Vec<u8> = "message/mls"))),
    ),
)]
pub(crate) async fn reserve(
    request: HttpRequest,
    state: Data<State>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let asked: ReserveRequest = caller.body.json()?;
    let device = PoolId::of(&asked.target_user, asked.target_device.as_deref())?;
    note_target(&request, device.user(), asked.target_device.as_deref());
    let introduced = is_introduced(&state, device.user(), asked.contact_token.as_ref())?;
    let target = asked
        .target_device
        .as_ref()
        .map_or_else(|| device.user().to_owned(), |_| device.to_string());
    let reservation = ReservationRequest {
        invitee: match asked.target_device {
            Some(_) => ReservationTarget::Device(device),
            None => ReservationTarget::User(asked.target_user),
        },
        holder: caller.pool,
        group: asked.group_id,
        id: asked.reservation_id.unwrap_or(ReservationId(caller.idempotency.key.0)),
        ciphersuites: asked.ciphersuites,
        required: required(asked.required)?,
        introduced,
    };
    let reserved = state.store()?.reserve_key_package(reservation, caller.idempotency).await;
    let reserved = reserved.map_err(|error| Failure::from(error).naming_target(&target))?;
    state.metrics.reserved(1);
    let keypackage_ref = reserved.facts.keypackage_ref.clone();
    let mut response =
        if wants_raw(&request) { raw(reserved) } else { HttpResponse::Ok().json(reply(reserved)) };
    about(&mut response, &keypackage_ref);
    Ok(response)
}

/// The capabilities that a request names; none if it names none.
fn required(asked: Option<RequiredCapabilities>) -> Result<RequiredCapabilities, Failure> {
    let (asked, max) = (asked.unwrap_or_default(), RequiredCapabilities::NUMBERS_MAX);
    if max < asked.len() {
        let detail = format!("`required` names {} capabilities; {max} at most", asked.len());
        return Err(Failure::new(Code::BadRequest, detail));
    }
    Ok(asked)
}

fn wants_raw(request: &HttpRequest) -> bool {
    let accepted = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let mut types = accepted.unwrap_or_default().split(',');
    types.any(|one| one.split(';').next().unwrap_or_default().trim() == MESSAGE_MLS)
}

fn reply(reserved: ReservedKeyPackage) -> ReserveReply {
    let ReservedKeyPackage { pool, facts, bytes, reservation, generation, deadline } = reserved;
    ReserveReply {
        keypackage_ref: facts.keypackage_ref,
        keypackage: Base64(bytes),
        reservation_id: reservation,
        generation,
        reservation_expires_at: deadline.as_secs(),
        not_after: facts.not_after.as_secs(),
        last_resort: facts.last_resort,
        device: pool.device().to_owned(),
    }
}

fn raw(reserved: ReservedKeyPackage) -> HttpResponse {
    let ReservedKeyPackage { pool, facts, bytes, reservation, generation, deadline } = reserved;
    HttpResponse::Ok()
        .content_type(MESSAGE_MLS)
        .insert_header(("Keypool-KeyPackage-Ref", facts.keypackage_ref.to_string()))
        .insert_header(("Keypool-Reservation-Id", reservation.to_string()))
        .insert_header(("Keypool-Generation", generation.to_string()))
        .insert_header(("Keypool-Reservation-Expires-At", deadline.as_secs().to_string()))
        .insert_header(("Keypool-Not-After", facts.not_after.as_secs().to_string()))
        .insert_header(("Keypool-Last-Resort", facts.last_resort.to_string()))
        .insert_header(("Keypool-Device", pool.device()))
        .body(bytes)
}

/// Gives the caller more time with a package. To be called right before the Commit is posted.
#[utoipa::path(
    post, path = "/keypackages/renew", tag = "keypackages",
    request_body = ClaimRequest,
    responses((status = 200, description = "The claim has more time", body = RenewReply)),
)]
pub(crate) async fn renew(
    request: HttpRequest,
    state: Data<State>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let claim = claim(caller.body.json()?, caller.pool);
    let keypackage_ref = claim.keypackage_ref.clone();
    let renewed = state.store()?.renew(claim, caller.idempotency).await;
    note_owner(&request, &state, &keypackage_ref);
    let deadline = renewed?;
    let reply = RenewReply { reservation_expires_at: deadline.as_secs() };
    let mut response = HttpResponse::Ok().json(reply);
    about(&mut response, &keypackage_ref);
    Ok(response)
}

/// Gives a package back that the caller holds and will not use.
#[utoipa::path(
    post, path = "/keypackages/release", tag = "keypackages",
    request_body = ClaimRequest,
    responses(
        (status = 200, description = "The package is not held by this claim", body = ReleaseReply),
    ),
)]
pub(crate) async fn release(
    request: HttpRequest,
    state: Data<State>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let claim = claim(caller.body.json()?, caller.pool);
    let keypackage_ref = claim.keypackage_ref.clone();
    let released = state.store()?.release(claim, caller.idempotency).await;
    note_owner(&request, &state, &keypackage_ref);
    released?;
    let mut response = HttpResponse::Ok().json(ReleaseReply { released: true });
    about(&mut response, &keypackage_ref);
    Ok(response)
}

/// Notes whose package a request was about, where the store has come across it.
fn note_owner(request: &HttpRequest, state: &State, keypackage_ref: &KeyPackageRef) {
    let owner = state.store().ok().and_then(|store| store.pools().cached_owner(keypackage_ref));
    if let Some(owner) = owner {
        note_target(request, owner.user(), Some(owner.device()));
    }
}

fn claim(asked: ClaimRequest, holder: PoolId) -> Claim {
    let ClaimRequest { keypackage_ref, reservation_id: reservation } = asked;
    Claim { keypackage_ref, reservation, holder }
}

/// Says that a package which the caller holds cannot be used: it is never offered again, and its owner
/// sees why.
#[utoipa::path(
    post, path = "/keypackages/report", tag = "keypackages",
    request_body = ReportRequest,
    responses((status = 200, description = "The package is quarantined", body = ReportReply)),
)]
pub(crate) async fn report(
    request: HttpRequest,
    state: Data<State>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let ReportRequest { keypackage_ref, reservation_id, reason } = caller.body.json()?;
    let claim = claim(ClaimRequest { keypackage_ref, reservation_id }, caller.pool);
    let keypackage_ref = claim.keypackage_ref.clone();
    let check = reason.map(|reason| reason.word().to_owned());
    let reported = state.store()?.report(claim, check, caller.idempotency).await;
    note_owner(&request, &state, &keypackage_ref);
    reported?;
    state.metrics.reported(reason.unwrap_or(ReportReason::Other).word());
    let mut response = HttpResponse::Ok().json(ReportReply { reported: true });
    about(&mut response, &keypackage_ref);
    Ok(response)
}

/// Uses up a package that the caller holds: the Commit that adds its owner has been posted.
#[utoipa::path(
    post, path = "/keypackages/spend", tag = "keypackages",
    request_body = SpendRequest,
    responses((status = 200, description = "The package is used up", body = SpendReply)),
)]
pub(crate) async fn spend(
    request: HttpRequest,
    state: Data<State>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let SpendRequest { keypackage_ref, reservation_id: reservation, group_id, added_by } =
        caller.body.json()?;
    let holder = caller.pool;
    let is_caller = |name: &String| *name == holder.user() || *name == holder.to_string();
    if !added_by.as_ref().is_none_or(is_caller) {
        let detail = "added_by names somebody else: who spends is who asks";
        return Err(Failure::new(Code::NotAllowed, detail));
    }
    let claim = Claim { keypackage_ref: keypackage_ref.clone(), reservation, holder };
    let spent = state.store()?.spend_key_package(claim, group_id, caller.idempotency).await;
    note_owner(&request, &state, &keypackage_ref);
    let spent = spent.map_err(Failure::from).inspect_err(|failure| {
        if failure.code() == Code::ReservationLost {
            state.metrics.conflict();
        }
    })?;
    state.metrics.spent(spent.late);
    let reply = SpendReply { spent: true, late: spent.late, replayed: spent.replayed };
    let mut response = HttpResponse::Ok().json(reply);
    about(&mut response, &keypackage_ref);
    Ok(response)
}

/// Withdraws packages of the caller's pool: they are never offered again.
#[utoipa::path(
    post, path = "/keypackages/revoke", tag = "keypackages",
    request_body = RevokeRequest,
    responses((status = 200, description = "They are withdrawn", body = RevokeReply)),
)]
pub(crate) async fn revoke(
    state: Data<State>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let RevokeRequest { keypackage_refs, credential_hash, all, reason } = caller.body.json()?;
    let which = match (keypackage_refs, credential_hash, all) {
        (Some(refs), None, None) => RevokeScope::Refs(refs),
        (None, Some(credential), None) => RevokeScope::Credential(credential),
        (None, None, Some(true)) => RevokeScope::All,
        _ => {
            let detail = "exactly one of keypackage_refs, credential_hash and all: true says which";
            return Err(Failure::new(Code::BadRequest, detail));
        }
    };
    let reason = match reason {
        RevokeWord::Rotated => RevokeReason::Rotated,
        RevokeWord::Withdrawn => RevokeReason::Withdrawn,
    };
    let withdrawn = state.store()?.revoke(&caller.pool, which, reason, caller.idempotency).await?;
    let pool = PoolCounts::from(&withdrawn.health);
    let reply = RevokeReply { revoked: withdrawn.refs, pool, position: withdrawn.position };
    Ok(HttpResponse::Ok().json(reply))
}

/// The pool to look at, of which only the caller's own may be named, and the refresh that asks.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusQuery {
    user: Option<String>,
    device: Option<String>,
    refresh: Option<u64>,
    refresh_id: Option<Uuid>,
}

/// The counts of the caller's pool, as the next reservation would find them.
#[utoipa::path(
    get, path = "/keypackages/status", tag = "keypackages",
    params(
        ("user" = Option<String>, Query, description = "The caller's own user, if it is named at all"),
        ("device" = Option<String>, Query, description = "The caller's own device, if it is named at all"),
        ("refresh" = Option<u64>, Query, description = "The number of the refresh that asks: one more for each \
            that the device's home has begun. A number that is not above the last one shows another copy of the home"),
        ("refresh_id" = Option<Uuid>, Query, description = "The refresh, by a random id; given with `refresh`"),
    ),
    responses((status = 200, description = "The pool", body = PoolStatus)),
)]
pub(crate) async fn status(
    request: HttpRequest,
    state: Data<State>,
    caller: AuthenticatedRead,
) -> Result<HttpResponse, Failure> {
    let StatusQuery { user, device, refresh, refresh_id } = query(&request)?;
    let AuthenticatedRead { pool, key } = caller;
    let own = user.is_none_or(|user| user == pool.user())
        && device.is_none_or(|device| device == pool.device());
    if !own {
        let detail = "a device sees the status of its own pool only";
        return Err(Failure::new(Code::NotAllowed, detail));
    }
    let other_copy_at = refresh.zip(refresh_id).and_then(|(number, id)| {
        let home = (pool.clone(), key);
        state.home_copies.note(home, (number, CommandId(id)), state.clock.now())
    });
    let store = state.store()?;
    let (view, health) = store.load_status(&pool).await;
    Ok(HttpResponse::Ok().json(PoolStatus {
        user: pool.user().to_owned(),
        device: pool.device().to_owned(),
        counts: PoolCounts::from(&health),
        expiring_soon: health.expiring_soon,
        last_upload: view.state.last_upload().map(Timestamp::as_secs),
        pool_health: health.level.word().to_owned(),
        recommended_upload: health.recommended_upload(),
        recommended_action: health.recommended_action(),
        spent_24h: health.spent_24h,
        seconds_to_empty: health.seconds_to_empty,
        version: view.head.version,
        position: view.position,
        head: view.head.hash,
        digest: view.state.digest(),
        device_list_head: store.pools().device_list_head(pool.user()),
        other_copy_at_ms: other_copy_at.map(Timestamp::as_millis),
    }))
}

/// The part of the history to tell.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    #[serde(default)]
    after: u64,
    limit: Option<u64>,
}

/// The history of the caller's pool, event by event.
#[utoipa::path(
    get, path = "/keypackages/events", tag = "keypackages",
    params(
        ("after" = Option<u64>, Query, description = "Tell what comes after this version; 0 for all"),
        ("limit" = Option<u64>, Query, description = "How many events at most: 100 unless said, 1000 at most"),
    ),
    responses((status = 200, description = "The events, in order", body = EventsReply)),
)]
pub(crate) async fn events(
    request: HttpRequest,
    state: Data<State>,
    caller: AuthenticatedRead,
) -> Result<HttpResponse, Failure> {
    let EventsQuery { after, limit } = query(&request)?;
    let limit = limit.map_or(EVENTS_DEFAULT, |limit| {
        usize::try_from(limit).unwrap_or(EVENTS_MAX).clamp(1, EVENTS_MAX)
    });
    let turn = state.history_reads.enter(&caller.pool).await.ok_or_else(|| {
        Failure::new(Code::Busy, "this device reads its history already; ask again when it has it")
    })?;
    let read = web::block(move || {
        let _turn = turn;
        page(&state, &caller.pool, after, limit)
    });
    let page = read.await.map_err(|_| StoreError::Cancelled)??;
    Ok(HttpResponse::Ok().content_type(header::ContentType::json()).body(page))
}

/// A page of a history, as JSON.
fn page(state: &State, pool: &PoolId, after: u64, limit: usize) -> Result<Vec<u8>, Failure> {
    let records = state.store()?.history(pool, after, limit + 1)?;
    let more = limit < records.len();
    let events = records.iter().take(limit).map(EventView::from).collect();
    let page = serde_json::to_vec(&EventsReply { events, more });
    page.map_err(|_| Failure::new(Code::Internal, "the history cannot be written as JSON"))
}

/// Parses a query. Its errors are problems, as all are.
pub(crate) fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, Failure> {
    let query = Query::from_query(request.query_string());
    query.map(Query::into_inner).map_err(|err| {
        let why = err.to_string();
        let why = why.strip_prefix("Query deserialize error: ").unwrap_or(&why);
        Failure::new(Code::BadRequest, format!("the query: {why}"))
    })
}
