//! The user's recovery key: how it is set, and how it brings a name back.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use keypool_api::{Code, DeclaredReply, RecoverReply, RecoverRequest, RecoveryKeyRequest};
use keypool_ledger::PoolId;

use super::{
    devices::{check_proof, is_settled, refuse_frontend},
    erasure,
};
use crate::{
    authentication::{UnregisteredCaller, is_public_key},
    keypackage_store::Recovered,
    problem::Failure,
    state::State,
};

/// Sets the recovery key of the caller's user, or another one in its place.
///
/// Any device of a user without a recovery key sets the first. Another one takes its place by a statement of
/// the recovery key before: so a thief who has a device cannot change it. All recovery keys of a user stand in
/// the history of the device that set the first, which is the subject of each statement.
#[utoipa::path(
    post, path = "/devices/recovery-key", tag = "devices",
    request_body = RecoveryKeyRequest,
    responses((status = 200, description = "It is the user's recovery key", body = DeclaredReply)),
)]
pub(crate) async fn recovery_key(
    state: Data<State>,
    caller: UnregisteredCaller,
) -> Result<HttpResponse, Failure> {
    let asked: RecoveryKeyRequest = caller.body.json()?;
    let (caller_pool, _) = caller.signer.device(&state)?;
    let store = state.store()?;
    if !is_public_key(&asked.recovery_keyid) {
        return Err(Failure::new(Code::BadRequest, "recovery_keyid is not an Ed25519 public key"));
    }
    refuse_frontend(&state, &asked.recovery_keyid)?;
    let known = store.pools().recovery_key_of(caller_pool.user());
    let pool = known.map_or(caller_pool, |(device, _)| device);
    let statement = asked.statement(&state.ledger_id()?, &pool);
    check_proof(&asked.keyid, &statement, &asked.proof, "statement about the recovery key")?;
    let stated = (asked.signed(), asked.recovery_keyid);
    let position = store.set_recovery_key(&pool, stated, caller.idempotency).await?;
    Ok(HttpResponse::Ok().json(DeclaredReply { position }))
}

/// Lets the key that signs this request speak for a device, by the word of the user's recovery key, and
/// removes every other device of the user, all at once.
///
/// It needs nobody's leave but the recovery key's: no voucher, no device that is left, and no token or list of
/// the operator's. The other devices end as by `POST /devices/remove`, and so does the device itself if
/// another key speaks for it. Repeating it changes nothing.
#[utoipa::path(
    post, path = "/devices/recover", tag = "devices",
    request_body = RecoverRequest,
    responses(
        (status = 201, description = "The key speaks for the device, and no other device is left", body = RecoverReply),
        (status = 200, description = "It was so before", body = RecoverReply),
    ),
)]
pub(crate) async fn recover(
    request: HttpRequest,
    state: Data<State>,
    caller: UnregisteredCaller,
) -> Result<HttpResponse, Failure> {
    let asked: RecoverRequest = caller.body.json()?;
    let pool = PoolId::of(&asked.user, asked.device.as_deref())?;
    erasure::check_name(&state, pool.user()).await?;
    let (keyid, idempotency) = (caller.signer.own_key()?, caller.idempotency);
    let statement = asked.statement(&state.ledger_id()?, &pool, &keyid);
    check_proof(&asked.recovery_keyid, &statement, &asked.proof, "recovery")?;
    if !is_settled(&state, &pool, &keyid, idempotency).await? {
        state.addresses.register(state.addresses.of(&request), state.clock.now())?;
    }
    let keys = (asked.signed(), keyid.clone());
    let recovered = state.store()?.recover(&pool, keys, idempotency).await?;
    let Recovered { known, removed, position } = recovered;
    let removed = removed.iter().map(|device| device.device().to_owned()).collect();
    let (user, device) = (pool.user().to_owned(), pool.device().to_owned());
    let reply = RecoverReply { user, device, keyid, removed, position };
    Ok(if known { HttpResponse::Ok().json(reply) } else { HttpResponse::Created().json(reply) })
}
