//! The directory: the devices of users, and how each came to be the user's.

use actix_web::{
    HttpResponse,
    web::{self, Data, Path, Query},
};
use keypool_api::{
    Code, DevicesReply, KnownUser, USERS_MAX, UserDevices, UsersDevicesReply, UsersDevicesRequest,
};
use keypool_ledger::PoolId;
use keypool_projections::Rejection;
use serde::Deserialize;

use crate::{
    authentication::{AuthenticatedWrite, DeviceListRead},
    keypackage_store::StoreError,
    pools::DeviceChanges,
    problem::Failure,
    state::{State, Store},
};

/// How many changes one answer has of one user.
const CHANGES_MAX: usize = 1024;
/// How many changes one answer has in all.
const CHANGES_TOTAL_MAX: usize = 8192;

/// The part of a user's history that is asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HistoryQuery {
    /// The position of the last change that the caller knows.
    #[serde(default)]
    after: u64,
}

/// Lists the registered devices of a user, with the chain of changes that led to them.
///
/// The changes are those of the keys of all the user's devices, in the order of the log. Each carries the
/// statement by which a key of the user agreed to it, so that a reader who folds them from the first on finds
/// each change that was left out, added, or put elsewhere. New statements name the head and the ledger. The
/// user's recovery key may sign this request too, so that somebody who has no device left can make the
/// statement that `POST /devices/recover` needs.
#[utoipa::path(
    get, path = "/users/{user}/devices", tag = "devices",
    params(
        ("user" = String, Path, description = "The user"),
        ("after" = Option<u64>, Query, description = "The position of the last change that is known"),
    ),
    responses((status = 200, description = "The devices", body = DevicesReply)),
)]
pub(crate) async fn of_user(
    state: Data<State>,
    user: Path<String>,
    query: Query<HistoryQuery>,
    caller: DeviceListRead,
) -> Result<HttpResponse, Failure> {
    let user = PoolId::of(&user, None)?.user().to_owned();
    caller.may_read(&user)?;
    let ledger = state.ledger_id()?;
    let asked = KnownUser { user: user.clone(), after: query.after };
    let devices = read(&state, vec![asked]).await?.pop().flatten();
    let devices = devices.ok_or(Rejection::UnknownUser(user))?;
    let earlier_ledgers = state.earlier_ledgers();
    Ok(HttpResponse::Ok().json(DevicesReply { devices, ledger, earlier_ledgers }))
}

/// Lists the devices of several users, as `GET /users/{user}/devices` does of one.
#[utoipa::path(
    post, path = "/users/devices", tag = "devices",
    request_body = UsersDevicesRequest,
    responses((status = 200, description = "The devices of each user", body = UsersDevicesReply)),
)]
pub(crate) async fn of_users(
    state: Data<State>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let UsersDevicesRequest { users: asked } = caller.body.json()?;
    if USERS_MAX < asked.len() {
        let detail =
            format!("{} users are named; one request names {USERS_MAX} at most", asked.len());
        return Err(Failure::new(Code::TooLarge, detail).hinting(Some("Ask for fewer at a time.")));
    }
    for KnownUser { user, .. } in &asked {
        PoolId::of(user, None)?;
    }
    let ledger = state.ledger_id()?;
    let found = read(&state, asked.clone()).await?;
    let (mut users, mut unknown) = (Vec::new(), Vec::new());
    for (asked, found) in asked.into_iter().zip(found) {
        match found {
            Some(found) => users.push(found),
            None => unknown.push(asked.user),
        }
    }
    let earlier_ledgers = state.earlier_ledgers();
    Ok(HttpResponse::Ok().json(UsersDevicesReply { ledger, earlier_ledgers, users, unknown }))
}

/// Reads the devices of users, on a thread that may wait for the disk.
async fn read(
    state: &Data<State>,
    asked: Vec<KnownUser>,
) -> Result<Vec<Option<UserDevices>>, Failure> {
    let state = Data::clone(state);
    let read = move || {
        let store = state.store()?;
        let mut left = CHANGES_TOTAL_MAX;
        let of = |asked: &KnownUser| {
            let found = devices_of(store, asked, left.min(CHANGES_MAX))?;
            left -= found.as_ref().map_or(0, |found| found.history.len());
            Ok(found)
        };
        asked.iter().map(of).collect::<Result<Vec<_>, Failure>>()
    };
    web::block(read).await.map_err(|_| StoreError::Cancelled)?
}

fn devices_of(
    store: &Store,
    asked: &KnownUser,
    limit: usize,
) -> Result<Option<UserDevices>, Failure> {
    let pools = store.pools();
    let devices = pools.registered_devices(&asked.user);
    let changes = pools.device_changes(&asked.user, asked.after, limit);
    let Some(changes) = changes.map_err(crate::pools::ExecuteError::from)? else { return Ok(None) };
    let DeviceChanges { head, position, changes: history, more } = changes;
    Ok(Some(UserDevices {
        user: asked.user.clone(),
        devices: devices.iter().map(|pool| pool.device().to_owned()).collect(),
        head,
        position,
        history,
        more,
    }))
}
