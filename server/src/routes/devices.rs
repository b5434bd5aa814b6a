//! Registration: which key speaks for which device.

use actix_web::{HttpResponse, web::Data};
use keypool_ledger::PoolId;
use keypool_projections::wire::{Problem, RegisterReply, RegisterRequest};

use crate::{authentication::Newcomer, problem::Failure, state::State};

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
