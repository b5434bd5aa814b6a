//! The description of the API, made from the handlers and the types on the wire.

mod bodies;

mod fields;

mod security;

mod shared;

use std::sync::LazyLock;

use actix_web::{
    HttpResponse,
    http::header::{self, ContentType},
};
use keypool_api::{API_PREFIX, EventView, LastResortNotice, LevelNotice, Problem};
use keypool_operator_page::{CONTENT_SECURITY_POLICY, api_page, api_style};
use utoipa::{OpenApi, openapi::PathItem};

use self::{bodies::Bodies, fields::Fields, security::Security, shared::SharedParts};
use crate::routes::{
    delivery, devices, directory, keypackages, ledger, operations, policy, recovery,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "keypool",
        description = "A pool of MLS KeyPackages for each device: uploaded by its owner, handed out once.\n\n\
            Every request under /devices, /users, /keypackages, /groups and /mailbox is signed with the device's MLS signature key: \
            HTTP Message Signatures (RFC 9421), tag `keypool-v1`; see docs/api.md. Every error is a problem \
            (RFC 9457) with a stable `code`.",
        license(name = "MIT OR Apache-2.0"),
    ),
    servers((url = API_PREFIX, description = "Version 1. Older clients ask without it.")),
    paths(
        devices::register,
        devices::rotate,
        devices::remove,
        devices::leaf_key,
        devices::credential,
        recovery::recovery_key,
        recovery::recover,
        directory::of_user,
        directory::of_users,
        keypackages::upload,
        keypackages::reserve,
        keypackages::reserve_many::reserve_many,
        keypackages::waiting_list::await_packages,
        keypackages::renew,
        keypackages::release,
        keypackages::report,
        keypackages::spend,
        keypackages::revoke,
        keypackages::reconciliation::reconcile,
        keypackages::rotate::rotate,
        keypackages::status,
        keypackages::events,
        keypackages::stream::stream,
        policy::set_policy,
        policy::policy,
        ledger::receipt,
        delivery::make,
        delivery::leave,
        delivery::commit,
        delivery::message,
        delivery::mailbox,
        delivery::acknowledge,
        ledger::key,
        ledger::checkpoint,
        ledger::time,
        ledger::tile,
        ledger::inclusion,
        ledger::consistency,
        operations::livez,
        operations::readyz,
    ),
    components(schemas(Problem, EventView, LastResortNotice, LevelNotice)),
    modifiers(&Fields, &SharedParts, &Security, &Bodies),
    tags(
        (name = "devices", description = "Which key speaks for which device"),
        (name = "keypackages", description = "The packages of a device"),
        (name = "delivery", description = "Commits, Welcomes and messages, for apps without a Delivery Service of their own"),
        (name = "ledger", description = "What the whole log is, for everyone to check: hashes and signatures only"),
        (name = "operations", description = "For whoever runs the server"),
    ),
)]
struct Document;

static DOCUMENT: LazyLock<String> =
    LazyLock::new(|| Document::openapi().to_pretty_json().unwrap_or_default());

/// The path of the description that is routed by another pattern.
const TILE: (&str, &str) = ("/ledger/tile/{path}", "/ledger/tile/{path:.*}");

/// The pattern of each route of the description, with its methods.
pub(crate) fn served_routes() -> Vec<(String, &'static str)> {
    let paths = Document::openapi().paths.paths;
    let methods = |(path, item): (String, PathItem)| {
        let path = if path == TILE.0 { TILE.1.to_owned() } else { path };
        let PathItem { get, post, .. } = item;
        let named = [("GET", get), ("POST", post)];
        let served = named.into_iter().filter(|(_, operation)| operation.is_some());
        served.map(move |(method, _)| (path.clone(), method)).collect::<Vec<_>>()
    };
    paths.into_iter().flat_map(methods).collect()
}

/// The description as JSON.
pub(crate) fn document() -> &'static str {
    &DOCUMENT
}

/// The path of the description as a page for people.
pub(crate) const PAGE: &str = "/docs";

static PAGE_HTML: LazyLock<String> = LazyLock::new(|| {
    api_page(&serde_json::from_str(document()).unwrap_or_default(), "/openapi.json")
});

/// Answers with the description of the API as a page.
pub(crate) async fn page() -> HttpResponse {
    let mut answer = HttpResponse::Ok();
    answer.insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY));
    answer.content_type(ContentType::html()).body(PAGE_HTML.as_str())
}

/// Answers with the style sheet of that page.
pub(crate) async fn page_style() -> HttpResponse {
    HttpResponse::Ok().content_type("text/css; charset=utf-8").body(api_style())
}

/// Answers with the description of the API.
pub(crate) async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(document())
}
