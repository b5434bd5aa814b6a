//! The description of the API, made from the handlers and the types on the wire.

use std::sync::LazyLock;

use keypool_projections::wire::Problem;
use utoipa::OpenApi;

use crate::routes::{devices, keypackages, operations};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "keypool",
        description = "A pool of MLS KeyPackages for each device: uploaded by its owner, handed out once.\n\n\
            Every request under /devices and /keypackages is signed with the device's MLS signature key: \
            HTTP Message Signatures (RFC 9421), tag `keypool-v1`; see docs/api.md. Every error is a problem \
            (RFC 9457) with a stable `code`.",
        license(name = "MIT OR Apache-2.0"),
    ),
    paths(
        devices::register,
        keypackages::upload,
        keypackages::reserve,
        keypackages::renew,
        keypackages::release,
        keypackages::spend,
        keypackages::revoke,
        keypackages::status,
        keypackages::events,
        operations::livez,
        operations::readyz,
    ),
    components(schemas(Problem)),
    tags(
        (name = "devices", description = "Which key speaks for which device"),
        (name = "keypackages", description = "The packages of a device"),
        (name = "operations", description = "For whoever runs the server"),
    ),
)]
struct Document;

static DOCUMENT: LazyLock<String> =
    LazyLock::new(|| Document::openapi().to_pretty_json().unwrap_or_default());

/// The description as JSON.
pub(crate) fn document() -> &'static str {
    &DOCUMENT
}
