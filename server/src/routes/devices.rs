//! Registration: which key speaks for which device.

use actix_web::{HttpResponse, web::Data};
use keypool_ledger::PoolId;
use keypool_projections::{
    signing::rotation_statement,
    wire::{Base64, Code, Problem, RegisterReply, RegisterRequest, RotateRequest},
};

use crate::{
    authentication::{Newcomer, has_signed},
    problem::Failure,
    state::State,
};

/// Lets the key that signs this request speak for a device.
///
/// The first key to register a name has it. Registering again with the same key changes nothing.
#[utoipa::path(
    post, path = "/devices", tag = "devices",
    params(("Idempotency-Key" = uuid::Uuid, Header, description = "A new UUID for each new request")),
    request_body = RegisterRequest,
    responses(
        (status = 201, description = "Registered", body = RegisterReply),
        (status = 200, description = "Was registered before", body = RegisterReply),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn register(
    state: Data<State>,
    newcomer: Newcomer,
) -> Result<HttpResponse, Failure> {
    let RegisterRequest { user, device } = newcomer.body.json()?;
    let pool = PoolId::of(&user, device.as_deref())?;
    let keyid = newcomer.key;
    let (known, position) =
        state.store()?.register(&pool, keyid.clone(), newcomer.idempotency).await?;
    let (user, device) = (pool.user().to_owned(), pool.device().to_owned());
    let reply = RegisterReply { user, device, keyid, position };
    Ok(if known { HttpResponse::Ok().json(reply) } else { HttpResponse::Created().json(reply) })
}

/// Lets the key that signs this request speak for a device, in place of the one before, which has agreed.
///
/// The packages that the one before has signed are withdrawn with it; those that are reserved can still be
/// spent. Asking again changes nothing.
#[utoipa::path(
    post, path = "/devices/rotate", tag = "devices",
    params(("Idempotency-Key" = uuid::Uuid, Header, description = "A new UUID for each new request")),
    request_body = RotateRequest,
    responses(
        (status = 200, description = "The key speaks for the device", body = RegisterReply),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn rotate(
    state: Data<State>,
    newcomer: Newcomer,
) -> Result<HttpResponse, Failure> {
    let RotateRequest { user, device, previous_keyid, proof } = newcomer.body.json()?;
    let pool = PoolId::of(&user, device.as_deref())?;
    let (keyid, Base64(proof)) = (newcomer.key, proof);
    if !has_signed(&previous_keyid, &rotation_statement(&pool, &previous_keyid, &keyid), &proof) {
        let detail = "the proof is not a signature of the rotation by the previous key";
        return Err(Failure::new(Code::NotAllowed, detail));
    }
    let keys = (previous_keyid, keyid.clone());
    let (_, position) = state.store()?.rotate(&pool, keys, newcomer.idempotency).await?;
    let (user, device) = (pool.user().to_owned(), pool.device().to_owned());
    Ok(HttpResponse::Ok().json(RegisterReply { user, device, keyid, position }))
}
