//! The operator's route for pruning: payloads that are over leave the log now, and not at the next interval.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{Bytes, Data},
};
use keypool_api::Code;
use keypool_ledger::PruneReport;
use serde::{Deserialize, Serialize};

use super::operator::json_body;
use crate::{
    problem::Failure,
    pruning::{PruneError, prune_now},
    state::State,
};

/// A request to prune, which has no parts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PruneRequest {}

/// The payloads that left the log.
#[derive(Debug, Serialize)]
struct PruneReply {
    /// How many segments of the journal were written again.
    segments: u64,
    /// How many bytes of payloads are gone.
    payload_bytes: u64,
    /// How many bytes the journal has less.
    file_bytes: u64,
}

/// Prunes the log, and answers when that is done.
pub(crate) async fn prune(
    request: HttpRequest,
    state: Data<State>,
    body: Bytes,
) -> Result<HttpResponse, Failure> {
    let PruneRequest {} = json_body(&request, &body)?;
    let PruneReport { segments, payload_bytes, file_bytes } =
        prune_now(&state).await.map_err(|error| refusal(&error))?;
    Ok(HttpResponse::Ok().json(PruneReply { segments, payload_bytes, file_bytes }))
}

/// The answer where the log was not pruned, or not to its end.
pub(crate) fn refusal(error: &PruneError) -> Failure {
    let (code, hint) = match error {
        PruneError::NotRetaining => (
            Code::NotAllowed,
            Some(
                "Start the server with --retain TIME, how long payloads stay after they are over.",
            ),
        ),
        PruneError::Busy => (Code::Busy, Some("Wait until it is done: the server's log says so.")),
        PruneError::NotReady => (Code::NotReady, None),
        PruneError::Read(_) | PruneError::Write(_) => (Code::LogUnavailable, None),
    };
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let detail = causes.fold(error.to_string(), |detail, cause| format!("{detail}: {cause}"));
    if matches!(code, Code::LogUnavailable) {
        tracing::warn!(detail, "payloads stay in the log for now");
    }
    Failure::new(code, detail).hinting(hint)
}
