//! The operator's word on users: who is blocked on this server, and who is not any more.
//!
//! Operators and callers read that a user is blocked; the log calls it a suspension, because there an owner's
//! `user_blocked` is about one pool.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Bytes, Data},
};
use keypool_api::Code;
use keypool_ledger::PoolId;
use keypool_projections::{SuspensionChange, explanation::words::one_line};
use serde::{Deserialize, Serialize};

use super::operator::{BlockedUser, json_body};
use crate::{pools::SuspensionOutcome, problem::Failure, state::State};

/// How many characters the operator's reason may have.
const REASON_CHARS_MAX: usize = 200;

/// A request to block a user.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockRequest {
    user: String,
    /// Why, for those who read the log.
    reason: Option<String>,
}

/// A request to unblock a user.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnblockRequest {
    user: String,
}

/// A user, and whether the operator has blocked the user.
#[derive(Debug, Serialize)]
struct BlockReply {
    user: String,
    blocked: bool,
    /// Whether this request changed it; false if it was so already.
    changed: bool,
    /// The position in the log of the event that says so; `None` for a user who was never blocked.
    position: Option<u64>,
}

/// The users that are blocked, in the order of their names.
#[derive(Debug, Serialize)]
struct BlockedUsersReply {
    users: Vec<BlockedUser>,
}

/// Blocks a user: no request of their devices is carried out, and nobody is handed their packages.
pub(crate) async fn block(
    request: HttpRequest,
    state: Data<State>,
    body: Bytes,
) -> Result<HttpResponse, Failure> {
    let BlockRequest { user, reason } = json_body(&request, &body)?;
    let outcome = block_user(&state, &user, reason).await?;
    Ok(HttpResponse::Ok().json(reply(user, true, &outcome)))
}

/// Ends the block of a user.
pub(crate) async fn unblock(
    request: HttpRequest,
    state: Data<State>,
    body: Bytes,
) -> Result<HttpResponse, Failure> {
    let UnblockRequest { user } = json_body(&request, &body)?;
    let outcome = unblock_user(&state, &user).await?;
    Ok(HttpResponse::Ok().json(reply(user, false, &outcome)))
}

/// Lists the users that are blocked.
pub(crate) async fn blocked(state: Data<State>) -> Result<HttpResponse, Failure> {
    let users = state.store()?.pools().suspended_users();
    let users = users.into_iter().map(BlockedUser::from).collect();
    Ok(HttpResponse::Ok().json(BlockedUsersReply { users }))
}

/// Blocks a user by the operator's word, and records why if a reason is given.
pub(crate) async fn block_user(
    state: &State,
    user: &str,
    reason: Option<String>,
) -> Result<SuspensionOutcome, Failure> {
    if reason.as_deref().is_some_and(|reason| !is_reason(reason)) {
        let detail = format!(
            "the reason has {REASON_CHARS_MAX} characters at most, on one line, and none that is not seen; \
             leave it out, or write another one"
        );
        return Err(Failure::new(Code::BadRequest, detail));
    }
    let user = PoolId::of(user, None)?.user().to_owned();
    let change = SuspensionChange::Suspend { user: user.clone(), reason };
    let outcome = state.store()?.pools().change_suspension(change).await?;
    if outcome.changed {
        tracing::warn!(user, position = outcome.position, "the operator blocked a user");
    }
    Ok(outcome)
}

/// Ends the block of a user by the operator's word.
pub(crate) async fn unblock_user(state: &State, user: &str) -> Result<SuspensionOutcome, Failure> {
    let user = PoolId::of(user, None)?.user().to_owned();
    let change = SuspensionChange::Reinstate { user: user.clone() };
    let outcome = state.store()?.pools().change_suspension(change).await?;
    if outcome.changed {
        tracing::warn!(user, position = outcome.position, "the operator unblocked a user");
    }
    Ok(outcome)
}

/// Whether a text can stand in the log as a reason: one line that drives no terminal.
fn is_reason(text: &str) -> bool {
    let chars = text.chars().count();
    (1..=REASON_CHARS_MAX).contains(&chars) && !text.trim().is_empty() && one_line(text) == text
}

fn reply(user: String, blocked: bool, outcome: &SuspensionOutcome) -> BlockReply {
    let SuspensionOutcome { changed, position } = *outcome;
    BlockReply { user, blocked, changed, position }
}
