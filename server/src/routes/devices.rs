//! Registration: which key speaks for which device.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Data, Path},
};
use keypool_ledger::{EventLog, PoolId, SignatureKey};
use keypool_projections::{
    ExecuteError, Rejection,
    signing::{rotation_statement, voucher_statement},
    wire::{
        Base64, Code, DevicesReply, Problem, RegisterReply, RegisterRequest, RemoveReply,
        RotateRequest, Voucher,
    },
};

use crate::{
    authentication::{AuthenticationError, Newcomer, Reader, has_signed},
    keypackage_store::Idempotency,
    problem::Failure,
    registration::Admission,
    state::State,
};

/// Lets the key that signs this request speak for a device.
///
/// Who may is the operator's to say (`--registration`). By default the first key to register a name has it,
/// and another device of the user needs a voucher of one that is registered. Registering again with the
/// same key changes nothing.
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
    let (store, idempotency) = (state.store()?, newcomer.idempotency);
    let authorization = newcomer.authorization.as_deref();
    let admission = if is_settled(&state, &pool, &keyid, idempotency)? {
        Admission::OfItself
    } else {
        let judged = state.registrar.judge(&pool, &keyid, authorization, state.clock.now());
        let judged = judged.map_err(|error| Failure::of_registration(&error))?;
        state.addresses.register(state.addresses.of(&request), state.clock.now())?;
        judged
    };
    let (known, position) = match admission {
        Admission::OfItself => {
            let keys = (keyid.clone(), voucher.map(|voucher| voucher.keyid));
            store.register(&pool, keys, idempotency).await?
        }
        Admission::ByOperator => store.admit_device(&pool, keyid.clone(), idempotency).await?,
    };
    let (user, device) = (pool.user().to_owned(), pool.device().to_owned());
    let reply = RegisterReply { user, device, keyid, position };
    Ok(if known { HttpResponse::Ok().json(reply) } else { HttpResponse::Created().json(reply) })
}

/// Whether a registration is answered by what is recorded: the key speaks for the device already, or this
/// very request was carried out before.
fn is_settled(
    state: &State,
    pool: &PoolId,
    key: &SignatureKey,
    idempotency: Idempotency,
) -> Result<bool, Failure> {
    let pools = state.store()?.pools();
    Ok(pools.pool_of_key(key).as_ref() == Some(pool)
        || carried_out_on(state, idempotency)?.is_some())
}

/// Removes a device of the caller's user: no key speaks for it any more, its packages are withdrawn, and what
/// is reserved of them can still be spent.
///
/// Its name stays the user's: it is registered again with a voucher by another of their devices. The
/// request has no body, and is signed as one with an empty body.
#[utoipa::path(
    delete, path = "/devices/{device}", tag = "devices",
    params(
        ("device" = String, Path, description = "The device: the caller's own, or another one of its user"),
        ("Idempotency-Key" = uuid::Uuid, Header, description = "A new UUID for each new request"),
    ),
    responses(
        (status = 200, description = "It is removed", body = RemoveReply),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn remove(
    state: Data<State>,
    device: Path<String>,
    newcomer: Newcomer,
) -> Result<HttpResponse, Failure> {
    if !newcomer.body.bytes.is_empty() {
        return Err(Failure::new(Code::BadRequest, "this request has no body"));
    }
    let (store, by) = (state.store()?, newcomer.key);
    let pool = match store.pools().pool_of_key(&by) {
        Some(caller) => PoolId::new(caller.user(), &device)?,
        // A device that has removed itself, and has not heard of it.
        None => match carried_out_on(&state, newcomer.idempotency)? {
            Some(pool) => pool,
            None => return Err(AuthenticationError::Unregistered(by).into()),
        },
    };
    let position = store.remove_device(&pool, by, newcomer.idempotency).await?;
    let (user, device) = (pool.user().to_owned(), pool.device().to_owned());
    Ok(HttpResponse::Ok().json(RemoveReply { user, device, removed: true, position }))
}

/// The pool that a request with this idempotency key was carried out on. If that was another request, the
/// pools refuse this one.
fn carried_out_on(state: &State, idempotency: Idempotency) -> Result<Option<PoolId>, Failure> {
    let recorded = state.store()?.pools().log().find(idempotency.key);
    let recorded = recorded.map_err(ExecuteError::from)?;
    Ok(recorded.first().and_then(|first| first.envelope.stream.pool().cloned()))
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
    let asked: RotateRequest = newcomer.body.json()?;
    let (pool, keyid) = (agreed(&asked, &newcomer.key)?, newcomer.key);
    let keys = (asked.previous_keyid, keyid.clone());
    let (_, position) = state.store()?.rotate(&pool, keys, newcomer.idempotency).await?;
    let (user, device) = (pool.user().to_owned(), pool.device().to_owned());
    Ok(HttpResponse::Ok().json(RegisterReply { user, device, keyid, position }))
}

/// The device for which the previous key has agreed to be followed by this one.
pub(crate) fn agreed(asked: &RotateRequest, key: &SignatureKey) -> Result<PoolId, Failure> {
    let RotateRequest { user, device, previous_keyid, proof: Base64(proof) } = asked;
    let pool = PoolId::of(user, device.as_deref())?;
    if !has_signed(previous_keyid, &rotation_statement(&pool, previous_keyid, key), proof) {
        let detail = "the proof is not a signature of the rotation by the previous key";
        return Err(Failure::new(Code::NotAllowed, detail));
    }
    Ok(pool)
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
