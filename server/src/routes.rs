//! The routes. A handler reads the request, asks the store, and writes the answer; it holds no rules.

pub(crate) mod backup;

pub(crate) mod prune;

pub(crate) mod revoke;

pub(crate) mod devices;

pub(crate) mod directory;

pub(crate) mod recovery;

pub(crate) mod keypackages;

pub(crate) mod delivery;

pub(crate) mod ledger;

pub(crate) mod policy;

pub(crate) mod erasure;
pub(crate) mod names;

pub(crate) mod suspensions;

pub(crate) mod operations;

pub(crate) mod operator;

pub(crate) mod operator_page;

use actix_web::{
    Handler, HttpRequest, Resource, Responder, Route, guard as route_guard,
    middleware::from_fn,
    web::{self, ServiceConfig},
};
use keypool_api::API_PREFIX;
use keypool_operator_page::API_STYLE;

use crate::{
    admin_guard::middleware::guard,
    problem::{no_such_admin_path, no_such_public_path, wrong_method},
};

/// The pattern of the route that a request has reached, without the version of the API; `None` if it has
/// reached none.
pub(crate) fn route_of(request: &HttpRequest) -> Option<String> {
    request.match_pattern().map(|pattern| unversioned(&pattern).to_owned())
}

/// A path without the version of the API at its start.
pub(crate) fn unversioned(path: &str) -> &str {
    path.strip_prefix(API_PREFIX).filter(|rest| rest.starts_with('/')).unwrap_or(path)
}

/// Adds the public routes: those of the API with its version, and without it for older clients.
pub(crate) fn public(config: &mut ServiceConfig) {
    config
        .service(web::scope(API_PREFIX).configure(api))
        .configure(api)
        .service(get("/", operations::index))
        .service(get("/openapi.json", crate::openapi::openapi))
        .service(get(crate::openapi::PAGE, crate::openapi::page))
        .service(get(API_STYLE, crate::openapi::page_style))
        .configure(health)
        .default_service(web::to(no_such_public_path));
}

/// Adds the routes of the API.
pub(crate) fn api(config: &mut ServiceConfig) {
    config
        .service(post("/devices", devices::register))
        .service(post("/devices/rotate", devices::rotate))
        .service(post("/devices/remove", devices::remove))
        .service(post("/devices/leaf-key", devices::leaf_key))
        .service(post("/devices/credential", devices::credential))
        .service(post("/devices/recovery-key", recovery::recovery_key))
        .service(post("/devices/recover", recovery::recover))
        .service(get("/users/{user}/devices", directory::of_user))
        .service(post("/users/devices", directory::of_users))
        .service(post("/keypackages/upload", keypackages::upload))
        .service(post("/keypackages/reserve", keypackages::reserve))
        .service(post("/keypackages/reserve-many", keypackages::reserve_many::reserve_many))
        .service(post("/keypackages/await", keypackages::waiting_list::await_packages))
        .service(post("/keypackages/renew", keypackages::renew))
        .service(post("/keypackages/release", keypackages::release))
        .service(post("/keypackages/report", keypackages::report))
        .service(post("/keypackages/spend", keypackages::spend))
        .service(post("/keypackages/revoke", keypackages::revoke))
        .service(post("/keypackages/reconcile", keypackages::reconciliation::reconcile))
        .service(post("/keypackages/rotate", keypackages::rotate::rotate))
        .service(get("/keypackages/status", keypackages::status))
        .service(policy::resource())
        .service(get("/keypackages/events", keypackages::events))
        .service(get("/keypackages/stream", keypackages::stream::stream))
        .service(get("/keypackages/receipt/{reservation_id}", ledger::receipt))
        .service(post("/groups", delivery::make))
        .service(post("/groups/{group_id}/leave", delivery::leave))
        .service(post("/groups/{group_id}/commits", delivery::commit))
        .service(post("/groups/{group_id}/messages", delivery::message))
        .service(get("/mailbox", delivery::mailbox))
        .service(post("/mailbox/acknowledge", delivery::acknowledge))
        .service(get("/ledger/key", ledger::key))
        .service(get("/ledger/checkpoint", ledger::checkpoint))
        .service(get("/ledger/time", ledger::time))
        .service(get("/ledger/tile/{path:.*}", ledger::tile))
        .service(get("/ledger/proof/inclusion", ledger::inclusion))
        .service(get("/ledger/proof/consistency", ledger::consistency));
}

/// Adds the routes of the operator's own listener.
pub(crate) fn admin(config: &mut ServiceConfig) {
    let guarded = web::scope("")
        .wrap(from_fn(guard))
        .service(get("/metrics", operations::metrics))
        .service(get("/ledger/events", ledger::events))
        .service(get("/ledger/refusals/{day}", ledger::refusals))
        .service(get("/pools", operator::pools))
        .service(get("/users/{user}", operator::user))
        .service(post("/devices/remove", operator::remove_device))
        .service(post("/names/release", names::release))
        .service(post("/names/erase", erasure::erase))
        .service(post("/names/block", suspensions::block))
        .service(post("/names/unblock", suspensions::unblock))
        .service(get("/names/blocked", suspensions::blocked))
        .service(post("/packages/revoke", revoke::revoke))
        .service(post("/backup", backup::make))
        .service(post("/prune", prune::prune))
        .service(get("/", operator_page::view))
        .service(get("/page/live", operator_page::live))
        .service(get("/page/confirm", operator_page::confirm))
        .service(post("/page/act", operator_page::act))
        .service(operator_page::sign_in_resource())
        .service(get("/page/{part}", operator_page::view))
        .configure(health)
        .default_service(web::to(no_such_admin_path));
    config.service(guarded);
}

fn health(config: &mut ServiceConfig) {
    config.service(get("/livez", operations::livez)).service(get("/readyz", operations::readyz));
}

fn post<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: Responder + 'static,
{
    only(path, "POST", web::post().to(handler))
}

fn get<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: actix_web::FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let method = route_guard::Any(route_guard::Get()).or(route_guard::Head());
    only(path, "GET", web::route().guard(method).to(handler))
}

/// A path that takes one method, and names it in refusals of others.
fn only(path: &str, allowed: &'static str, route: Route) -> Resource {
    let refuse = move |request: HttpRequest| {
        let response = wrong_method(&request, allowed);
        async move { response }
    };
    web::resource(path).route(route).default_service(web::to(refuse))
}
