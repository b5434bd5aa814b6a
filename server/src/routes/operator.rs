//! The operator's routes: pools that run dry, the devices of a user, and the removal of one of them.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::CONTENT_TYPE,
    web::{Bytes, Data, Path},
};
use keypool_api::Code;
use keypool_ledger::{PoolId, SignatureKey, Timestamp};
use keypool_projections::{Level, Rejection, Suspension};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::keypackages::query;
use crate::{
    keypackage_store::Idempotency,
    problem::Failure,
    state::{State, Store},
};

/// Pools in an answer unless more are asked for.
const POOLS_USUAL: usize = 100;
/// Pools in an answer at most.
const POOLS_MAX: usize = 1000;

/// The pools that are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolsQuery {
    /// Whether healthy pools are left out.
    #[serde(default)]
    low: bool,
    limit: Option<usize>,
}

/// A pool of a registered device.
#[derive(Debug, Serialize)]
struct OperatorPool {
    user: String,
    device: String,
    /// The registered key.
    keyid: Option<SignatureKey>,
    /// `healthy`, `low`, `critical` or `empty`.
    level: &'static str,
    /// Packages that can be handed out now.
    available: u64,
    /// Packages that an inviter holds.
    reserved: u64,
    /// Live packages of last resort.
    last_resort: u64,
    /// When packages were last uploaded, in Unix seconds.
    last_upload: Option<u64>,
    /// How long the available packages last at the pace of the last 24 hours, in seconds.
    seconds_to_empty: Option<u64>,
}

/// Pools, the emptiest first.
#[derive(Debug, Serialize)]
struct OperatorPoolsReply {
    pools: Vec<OperatorPool>,
    /// How many there are in all.
    total: usize,
}

/// A user and the devices that are registered.
#[derive(Debug, Serialize)]
struct OperatorUserReply {
    user: String,
    /// The operator's block of the user, if there is one.
    blocked: Option<BlockedUser>,
    devices: Vec<OperatorPool>,
}

/// A user that is blocked.
#[derive(Debug, Serialize)]
pub(super) struct BlockedUser {
    user: String,
    /// When the operator decided it, in Unix seconds.
    since: u64,
    /// The position of that in the log.
    position: u64,
    /// Why, as the operator wrote it.
    reason: Option<String>,
}

impl From<(String, Suspension)> for BlockedUser {
    fn from((user, Suspension { since, position, reason }): (String, Suspension)) -> Self {
        Self { user, since: since.as_secs(), position, reason }
    }
}

/// The device to remove.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceRemoval {
    user: String,
    device: String,
}

/// The device that was removed, and the place of its removal in the log.
#[derive(Debug, Serialize)]
struct DeviceRemovalReply {
    user: String,
    device: String,
    position: u64,
}

/// Lists the pools of registered devices, the emptiest level first, by the level that the last change of each has
/// left.
pub(crate) async fn pools(
    request: HttpRequest,
    state: Data<State>,
) -> Result<HttpResponse, Failure> {
    let PoolsQuery { low, limit } = query(&request)?;
    let limit = limit.unwrap_or(POOLS_USUAL).min(POOLS_MAX);
    let store = state.store()?;
    let found = store.pools().pools_by_level().into_iter();
    let found: Vec<PoolId> =
        found.filter(|(level, _)| !low || *level != Level::Healthy).map(|(_, pool)| pool).collect();
    let mut pools = Vec::new();
    for pool in found.iter().take(limit) {
        pools.push(described(store, pool).await);
    }
    Ok(HttpResponse::Ok().json(OperatorPoolsReply { pools, total: found.len() }))
}

/// Shows the devices of a user.
pub(crate) async fn user(state: Data<State>, user: Path<String>) -> Result<HttpResponse, Failure> {
    let user = PoolId::of(&user, None)?.user().to_owned();
    let store = state.store()?;
    if store.pools().devices_of(&user).is_empty() {
        return Err(Rejection::UnknownUser(user).into());
    }
    let mut devices = Vec::new();
    for pool in store.pools().registered_devices(&user) {
        devices.push(described(store, &pool).await);
    }
    Ok(HttpResponse::Ok().json(OperatorUserReply {
        blocked: block_of(store, &user),
        user,
        devices,
    }))
}

/// The block of a user, if there is one.
fn block_of(store: &Store, user: &str) -> Option<BlockedUser> {
    let known = store.pools().suspension_of(user)?;
    Some(BlockedUser::from((user.to_owned(), known)))
}

/// Removes a device, as another device of its user could: its key is dead and its packages are withdrawn.
pub(crate) async fn remove_device(
    request: HttpRequest,
    state: Data<State>,
    body: Bytes,
) -> Result<HttpResponse, Failure> {
    let DeviceRemoval { user, device } = json_body(&request, &body)?;
    let pool = PoolId::of(&user, Some(&device))?;
    let position = remove(&state, &pool).await?;
    Ok(HttpResponse::Ok().json(DeviceRemovalReply { user, device, position }))
}

/// Removes a device, and returns the position of its removal in the log.
pub(crate) async fn remove(state: &State, pool: &PoolId) -> Result<u64, Failure> {
    let store = state.store()?;
    let position = store.remove_device_for_operator(pool, Idempotency::fresh()).await?;
    tracing::warn!(%pool, "the operator removed a device");
    Ok(position)
}

async fn described(store: &Store, pool: &PoolId) -> OperatorPool {
    let (view, health) = store.load_status(pool).await;
    OperatorPool {
        user: pool.user().to_owned(),
        device: pool.device().to_owned(),
        keyid: store.pools().registered_key(pool),
        level: health.level.word(),
        available: health.available,
        reserved: health.reserved,
        last_resort: health.last_resort,
        last_upload: view.state.last_upload().map(Timestamp::as_secs),
        seconds_to_empty: health.seconds_to_empty,
    }
}

/// Reads the body of an operator's request.
///
/// It must be declared as JSON: a page in the operator's browser cannot do that to another address without being
/// asked first.
pub(super) fn json_body<T: DeserializeOwned>(
    request: &HttpRequest,
    body: &Bytes,
) -> Result<T, Failure> {
    let declared = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if declared != Some("application/json") {
        return Err(Failure::new(Code::UnsupportedMediaType, "the body must be application/json"));
    }
    let asked = serde_json::from_slice(body);
    asked.map_err(|error| Failure::new(Code::BadRequest, error.to_string()))
}
