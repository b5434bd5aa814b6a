//! The reserve policy of a pool over HTTP, and contact tokens.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse, Resource, guard,
    web::{self, Data},
};
use keypool_api::{Code, ContactToken, PolicyReply, PolicyRequest, has_signed};
use keypool_ledger::{PoolId, Signature};
use keypool_projections::{PolicyStatus, statement::contact_statement};

use crate::{
    authentication::{AuthenticatedRead, AuthenticatedWrite},
    problem::{Failure, wrong_method},
    state::State,
};

/// How many reservations and users one request may name.
const NAMED_MAX: usize = 256;
/// How long before its end a contact token introduces somebody at most.
const TOKEN_VALID_MAX: Duration = Duration::from_hours(366 * 24);

/// Both methods of the address.
pub(crate) fn resource() -> Resource {
    let reading = guard::Any(guard::Get()).or(guard::Head());
    web::resource("/keypackages/policy")
        .route(web::post().to(set_policy))
        .route(web::route().guard(reading).to(policy))
        .default_service(web::to(|request: HttpRequest| {
            let response = wrong_method(&request, "GET, POST");
            async move { response }
        }))
}

/// Sets who may reserve packages of the caller's pool, and who is a contact of its.
///
/// A contact is a user whose invitation the device has joined: it names the reservation that was spent.
/// Parts that are left out stay as they are; asking again changes nothing.
#[utoipa::path(
    post, path = "/keypackages/policy", tag = "keypackages",
    request_body = PolicyRequest,
    responses((status = 200, description = "It is so", body = PolicyReply)),
)]
pub(crate) async fn set_policy(
    state: Data<State>,
    caller: AuthenticatedWrite,
) -> Result<HttpResponse, Failure> {
    let asked: PolicyRequest = caller.body.json()?;
    let users = [&asked.removed, &asked.blocked, &asked.unblocked];
    let count = users.iter().map(|users| users.len()).sum::<usize>().max(asked.joined.len());
    if NAMED_MAX < count {
        let detail = format!("the request names {count}; it may name {NAMED_MAX} at most");
        return Err(Failure::new(Code::BadRequest, detail));
    }
    for user in users.into_iter().flatten() {
        PoolId::of(user, None)?;
    }
    let set = state.store()?.set_policy(&caller.pool, asked, caller.idempotency).await?;
    let (PolicyStatus { reserve, contacts, blocked, strangers_per_hour }, position) = set;
    let reply = PolicyReply { reserve, contacts, blocked, strangers_per_hour, position };
    Ok(HttpResponse::Ok().json(reply))
}

/// Tells who may reserve packages of the caller's pool, and who is a contact of its.
#[utoipa::path(
    get, path = "/keypackages/policy", tag = "keypackages",
    responses((status = 200, description = "Who may", body = PolicyReply)),
)]
pub(crate) async fn policy(
    state: Data<State>,
    caller: AuthenticatedRead,
) -> Result<HttpResponse, Failure> {
    let view = state.store()?.load_view(&caller.pool).await;
    let contacts = view.state.contacts();
    Ok(HttpResponse::Ok().json(PolicyReply {
        reserve: contacts.reserve(),
        contacts: contacts.users().map(str::to_owned).collect(),
        blocked: contacts.blocked().map(str::to_owned).collect(),
        strangers_per_hour: contacts.strangers_per_hour(),
        position: view.position,
    }))
}

/// Decides whether a token introduces its bearer to a user's devices. One that has ended, or whose key is
/// not registered any more, introduces nobody; one that nobody has signed is refused.
pub(crate) fn is_introduced(
    state: &State,
    user: &str,
    token: Option<&ContactToken>,
) -> Result<bool, Failure> {
    let Some(token) = token else { return Ok(false) };
    let ledger = state.ledger_id()?;
    let statement = contact_statement(&ledger, user, &token.keyid, token.until());
    let is_signed = |proof| has_signed(&token.keyid, &statement, &proof);
    if !Signature::new(&token.proof).is_ok_and(is_signed) {
        let detail = "the contact token is not a signature for this user by the key it names";
        return Err(Failure::new(Code::NotAllowed, detail));
    }
    let now = state.clock.now();
    let speaks_for = state.store()?.pools().pool_of_key(&token.keyid);
    let is_valid = now < token.until() && token.until() <= now.after(TOKEN_VALID_MAX);
    Ok(is_valid && speaks_for.is_some_and(|pool| pool.user() == user))
}
