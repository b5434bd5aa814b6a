//! The operator's word that a user is to be forgotten.

use std::io;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Bytes, Data},
};
use keypool_api::Code;
use keypool_ledger::{PoolId, SubjectId};
use keypool_projections::Rejection;
use serde::{Deserialize, Serialize};

use super::operator::json_body;
use crate::{
    keypackage_store::{Idempotency, StoreError},
    problem::Failure,
    state::State,
};

/// The user to erase.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ErasureRequest {
    user: String,
}

/// The answer to it.
#[derive(Debug, Serialize)]
struct ErasureReply {
    user: String,
    /// The id that stands for the user in the log from now on.
    pseudonym: SubjectId,
    /// The devices there were: each is removed.
    devices: Vec<String>,
}

/// Erases a user, on the operator's listener only: every device is removed and the name released; then the server
/// stops, and overwrites the user's names and payloads before it opens its log again.
pub(crate) async fn erase(
    request: HttpRequest,
    state: Data<State>,
    body: Bytes,
) -> Result<HttpResponse, Failure> {
    let ErasureRequest { user } = json_body(&request, &body)?;
    let user = PoolId::of(&user, None)?.user().to_owned();
    let store = state.store()?;
    if state.replica.get().is_some() {
        let detail = "this server is one of a cluster, and the replicated log keeps every byte: nobody can be erased \
                      from it";
        return Err(Failure::new(Code::BadRequest, detail));
    }
    if !store.pools().log().hides() {
        let detail = "the records of this log have the names of users in them, which no record may lose: copy the \
                      log with `keypool-ledger hide-names`, and erase the user in the copy";
        return Err(Failure::new(Code::BadRequest, detail));
    }
    let asked = user.clone();
    let known = store.read(move |pools| pools.log().user(&asked)).await?;
    let Some(known) = known else { return Err(Rejection::UnknownUser(user).into()) };
    let pseudonym = known.id();
    state.erasures.hold(&user, true);
    let asked = ask(&state, &user, pseudonym).await;
    if asked.is_err() {
        state.erasures.hold(&user, false);
    }
    let devices = asked?;
    tracing::warn!(%pseudonym, devices = devices.len(), "the operator erases a user; the server begins anew");
    let devices = devices.iter().map(|device| device.device().to_owned()).collect();
    state.erasing.send_replace(true);
    Ok(HttpResponse::Ok().json(ErasureReply { user, pseudonym, devices }))
}

/// Removes the devices of a user, and notes that the user is to be erased. The note has its room on the disk before
/// anything is removed.
async fn ask(state: &Data<State>, user: &str, id: SubjectId) -> Result<Vec<PoolId>, Failure> {
    let making_room = state.clone();
    let room = on_disk(move || making_room.erasures.make_room(id)).await?;
    let devices = state.store()?.release_name(user, Idempotency::fresh()).await?;
    on_disk(move || room.note()).await?;
    Ok(devices)
}

/// Writes to the file of users that are to be erased, where it keeps no requests waiting.
async fn on_disk<T: Send + 'static>(
    write: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let written = web::block(write).await.map_err(|_| StoreError::Cancelled)?;
    written.map_err(|error| {
        tracing::error!(%error, "the file of users that are to be erased cannot be written");
        let detail = format!(
            "the server's disk refuses to note the erasure ({error}): mend that, or free some space, and ask again"
        );
        Failure::new(Code::Internal, detail)
    })
}

/// Refuses to register a name that is being erased: its next user would be erased with the one before.
pub(super) async fn check_name(state: &State, user: &str) -> Result<(), Failure> {
    if state.erasures.holds(user) || is_left(state, user).await? {
        let detail = "the name is being erased: register it once the server has begun anew";
        return Err(Failure::new(Code::NotReady, detail));
    }
    Ok(())
}

/// Decides whether a name belongs to a user that the last start could not erase.
async fn is_left(state: &State, user: &str) -> Result<bool, Failure> {
    if !state.erasures.has_left() {
        return Ok(false);
    }
    let asked = user.to_owned();
    let known = state.store()?.read(move |pools| pools.log().user(&asked)).await?;
    Ok(known.is_some_and(|known| state.erasures.is_left(known.id())))
}
