//! The operator's word on names: a name whose user has lost every key is anyone's again.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Bytes, Data},
};
use keypool_ledger::PoolId;
use keypool_projections::Rejection;
use serde::{Deserialize, Serialize};

use super::operator::json_body;
use crate::{keypackage_store::Idempotency, problem::Failure, state::State};

/// A request to release a name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseRequest {
    user: String,
}

/// The answer to it.
#[derive(Debug, Serialize)]
struct NameReleaseReply {
    user: String,
    /// The devices there were: each is removed, and its history says that the name was released.
    devices: Vec<String>,
    /// Whether the operator has blocked the user: then nobody registers the name until it is unblocked.
    blocked: bool,
}

/// Releases a user's name, on the operator's listener only: every device of the user is removed, and anyone
/// may register the name, with a new key. The keys there were stay dead, and a block of the user stays too.
pub(crate) async fn release(
    request: HttpRequest,
    state: Data<State>,
    body: Bytes,
) -> Result<HttpResponse, Failure> {
    let ReleaseRequest { user } = json_body(&request, &body)?;
    let user = PoolId::of(&user, None)?.user().to_owned();
    let devices = release_name(&state, &user).await?;
    let devices = devices.iter().map(|device| device.device().to_owned()).collect();
    let blocked = state.store()?.pools().suspension_of(&user).is_some();
    Ok(HttpResponse::Ok().json(NameReleaseReply { user, devices, blocked }))
}

/// Releases a user's name, and returns the devices that were removed.
pub(crate) async fn release_name(state: &State, user: &str) -> Result<Vec<PoolId>, Failure> {
    let devices = state.store()?.release_name(user, Idempotency::fresh()).await?;
    if devices.is_empty() {
        return Err(Rejection::UnknownUser(user.to_owned()).into());
    }
    tracing::warn!(user, devices = devices.len(), "the operator released a name");
    Ok(devices)
}
