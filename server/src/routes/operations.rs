//! Routes for the operator: liveness, readiness, counters, and the description of the API.

use actix_web::{
    HttpResponse,
    http::header,
    web::{self, Data},
};
use keypool_api::{Code, Problem};
use keypool_ledger::LogHealth;

use crate::{
    cluster::check_replica,
    disk::DiskLevel,
    metrics::Figures,
    pools::{ClockState, ExecuteError},
    problem::Failure,
    state::State,
    stream_watch::StreamReport,
};

/// The answer to a browser at the server's own address.
const INDEX: &str = concat!(
    "keypool-server ",
    env!("CARGO_PKG_VERSION"),
    " keeps KeyPackages of MLS (RFC 9420) for apps. The API is described at /docs, and for programs at /openapi.json.\n"
);

/// Names the program and its version, and the address of the API document.
pub(crate) async fn index() -> HttpResponse {
    HttpResponse::Ok().content_type(header::ContentType::plaintext()).body(INDEX)
}

/// Whether the process answers at all.
#[utoipa::path(
    get, path = "/livez", tag = "operations",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")),
)]
pub(crate) async fn livez() -> HttpResponse {
    HttpResponse::Ok().content_type(header::ContentType::plaintext()).body("alive\n")
}

/// Readiness of the server: its log is replayed, its clock is trusted, and the disk of the log has room. While
/// that disk is low, a further line names the requests that are refused; in a cluster further lines name the faults
/// of the stream.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, description = "It is ready", body = String, content_type = "text/plain"),
        (status = 503, description = "Not yet, and why", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn readyz(state: Data<State>) -> Result<HttpResponse, Failure> {
    let mut text = "ready\n".to_owned();
    let refused = readiness(&state)?.map(str::to_owned);
    let faults = stream_report(&state).map(|report| report.faults());
    for line in refused.into_iter().chain(faults.unwrap_or_default()) {
        text.push_str(&line);
        text.push('\n');
    }
    Ok(HttpResponse::Ok().content_type(header::ContentType::plaintext()).body(text))
}

/// Names the requests that a ready server refuses, if any; fails if it is not ready.
fn readiness(state: &State) -> Result<Option<&'static str>, Failure> {
    let pools = state.store()?.pools();
    if *pools.failed().borrow() {
        return Err(ExecuteError::LogUnavailable.into());
    }
    if let Some(replica) = state.replica.get() {
        check_replica(replica)?;
    }
    match pools.clock_state() {
        ClockState::Fine => {}
        ClockState::Regressed { .. } => return Err(ExecuteError::ClockRegressed.into()),
        ClockState::Leapt { .. } => return Err(ExecuteError::ClockLeapt.into()),
    }
    if let LogHealth::Refusing { why } | LogHealth::Failed { why } =
        pools.log().inner().local().health()
    {
        return Err(Failure::new(Code::LogUnavailable, why));
    }
    match state.disk.level() {
        DiskLevel::Full => {
            let detail = DiskLevel::Full.refused().unwrap_or_default();
            Err(Failure::new(Code::LogUnavailable, detail))
        }
        level => Ok(level.refused()),
    }
}

/// The last known state of the stream, in a cluster.
fn stream_report(state: &State) -> Option<StreamReport> {
    state.stream_watch.report(state.clock.monotonic())
}

/// The counters and figures as text, for Prometheus and for the operator's page.
pub(crate) fn metrics_text(state: &State) -> String {
    let ledger = state.ledger.get().map(AsRef::as_ref);
    let State { disk, addresses, connections, streams, polls, .. } = state;
    let is_ready = readiness(state).is_ok();
    let replica = state.replica.get().map(AsRef::as_ref);
    let open = Figures {
        is_ready,
        disk,
        addresses,
        connections: connections.len(),
        streams,
        polls,
        replica,
        stream: stream_report(state),
    };
    state.metrics.render(state.store.get(), ledger, &open)
}

/// The counters, for Prometheus.
pub(crate) async fn metrics(state: Data<State>) -> Result<HttpResponse, Failure> {
    let text = web::block(move || metrics_text(&state)).await;
    let text = text.map_err(|_| crate::keypackage_store::StoreError::Cancelled)?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}
