//! For whoever runs the server: is it alive, is it ready, what does it count, what does it offer.

use actix_web::{
    HttpResponse,
    http::header,
    web::{self, Data},
};
use keypool_projections::wire::Problem;

use crate::{metrics::Figures, openapi, problem::Failure, state::State};

/// Whether the process answers at all.
#[utoipa::path(
    get, path = "/livez", tag = "operations",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")),
)]
pub(crate) async fn livez() -> HttpResponse {
    HttpResponse::Ok().content_type(header::ContentType::plaintext()).body("alive\n")
}

/// Whether the server takes requests: it does once it has replayed its log.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses(
        (status = 200, description = "It is ready", body = String, content_type = "text/plain"),
        (status = 503, description = "Not yet, and why", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn readyz(state: Data<State>) -> Result<HttpResponse, Failure> {
    let store = state.store()?;
    if *store.pools().failed().borrow() {
        return Err(keypool_projections::ExecuteError::LogUnavailable.into());
    }
    Ok(HttpResponse::Ok().content_type(header::ContentType::plaintext()).body("ready\n"))
}

/// The counters, for Prometheus.
pub(crate) async fn metrics(state: Data<State>) -> Result<HttpResponse, Failure> {
    let render = move || {
        let ledger = state.ledger.get().map(AsRef::as_ref);
        let State { addresses, connections, streams, polls, .. } = state.get_ref();
        let open = Figures { addresses, connections, streams, polls };
        state.metrics.render(state.store.get(), ledger, &open)
    };
    let text = web::block(render).await;
    let text = text.map_err(|_| crate::keypackage_store::StoreError::Cancelled)?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}

/// The description of this API.
pub(crate) async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type(header::ContentType::json()).body(openapi::document())
}
