//! Session keys: a device and the server agree on one, which stands for the device's key for a while.

use actix_web::{HttpResponse, web::Data};
use keypool_projections::wire::{Base64, Code, Problem, SessionReply, SessionRequest};

use crate::{
    authentication::{AuthenticationError, Newcomer},
    problem::Failure,
    sessions::{Agreed, NotAgreed},
    state::State,
};

/// Agrees on a session key: for some minutes it stands for the key that signs this request.
///
/// Requests are then signed with HMAC-SHA-256 (`alg="hmac-sha256"`, `keyid="session:NAME"`). Offered only
/// where the connection can be trusted, and kept in memory alone: asking again agrees on another one.
#[utoipa::path(
    post, path = "/devices/sessions", tag = "devices",
    params(("Idempotency-Key" = uuid::Uuid, Header, description = "A new UUID for each new request")),
    request_body = SessionRequest,
    responses(
        (status = 201, description = "Agreed", body = SessionReply),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Failed", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn agree(state: Data<State>, newcomer: Newcomer) -> Result<HttpResponse, Failure> {
    let SessionRequest { public_key: Base64(theirs) } = newcomer.body.json()?;
    let key = newcomer.key;
    if state.store()?.pools().pool_of_key(&key).is_none() {
        return Err(AuthenticationError::Unregistered(key).into());
    }
    let agreed = state.sessions.agree(&key, &theirs, state.clock.now());
    let Agreed { id, public_key, until } = agreed.map_err(|error| refusal(&error))?;
    let public_key = Base64(public_key.to_vec());
    let reply = SessionReply { session: id, public_key, expires_at: until.as_secs() };
    Ok(HttpResponse::Created().json(reply))
}

fn refusal(error: &NotAgreed) -> Failure {
    let code = match error {
        NotAgreed::NotOffered => Code::NotAllowed,
        NotAgreed::Unusable => Code::BadRequest,
        NotAgreed::Random(cause) => {
            tracing::error!(%cause, "no session could be made");
            Code::Internal
        }
    };
    Failure::new(code, error.to_string())
}
