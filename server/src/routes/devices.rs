//! Registration: which key speaks for which device.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path},
};
use keypool_ledger::PoolId;
use keypool_projections::{
    Rejection,
    signing::{rotation_statement, voucher_statement},
    wire::{
        Base64, Code, DevicesReply, Problem, RegisterReply, RegisterRequest, RotateRequest, Voucher,
    },
};

use crate::{
    authentication::{Newcomer, Reader, has_signed},
    problem::Failure,
    state::State,
};

/// Lets the key that signs this request speak for a device.
///
/// The first key to register a name has it; another device of the user needs a voucher of one that is
/// registered. Registering again with the same key changes nothing.
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
    request: HttpRequest,
    state: Data<State>,
    newcomer: Newcomer,
) -> Result<HttpResponse, Failure> {
    let RegisterRequest { user, device, voucher } = newcomer.body.json()?;
    let pool = PoolId::of(&user, device.as_deref())?;
    let keyid = newcomer.key;
    if let Some(Voucher { keyid: by, proof: Base64(proof) }) = &voucher
        && !has_signed(by, &voucher_statement(&pool, by, &keyid), proof)
    {
        let detail = "the voucher is not a signature for this device by the key it names";
        return Err(Failure::new(Code::NotAllowed, detail));
    }
    let store = state.store()?;
    if store.pools().pool_of_key(&keyid).as_ref() != Some(&pool) {
        state.addresses.register(state.addresses.of(&request), state.clock.now())?;
    }
    let keys = (keyid.clone(), voucher.map(|voucher| voucher.keyid));
    let (known, position) = store.register(&pool, keys, newcomer.idempotency).await?;
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

/// The registered devices of a user: whoever invites them invites all of these.
#[utoipa::path(
    get, path = "/users/{user}/devices", tag = "devices",
    params(("user" = String, Path, description = "The user")),
    responses(
        (status = 200, description = "The devices", body = DevicesReply),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn of_user(
    state: Data<State>,
    user: Path<String>,
    _caller: Reader,
) -> Result<HttpResponse, Failure> {
    let user = PoolId::of(&user, None)?.user().to_owned();
    let devices = state.store()?.pools().registered_devices(&user);
    if devices.is_empty() {
        return Err(Rejection::UnknownUser(user).into());
    }
    let devices = devices.iter().map(|pool| pool.device().to_owned()).collect();
    Ok(HttpResponse::Ok().json(DevicesReply { user, devices }))
}
