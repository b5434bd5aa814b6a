//! Refusals of addresses that do not exist, and of methods that an address does not take.

use actix_web::{HttpRequest, HttpResponse, ResponseError, http::header};
use keypool_api::{API_PREFIX, Code};

use super::Failure;

/// The next step on the operator's listener, which does not have the API document.
const ADMIN_HINT: &str = "This is the operator's listener: it has /metrics, /readyz, /pools and /ledger/events. The API is \
                          at the public listener, and its document there at /openapi.json.";

/// The refusal of a path that no listener has.
fn no_such_path(request: &HttpRequest) -> Failure {
    let path: String = request.path().chars().take(100).collect();
    Failure::new(Code::NotFound, format!("there is nothing at {path:?}"))
}

/// The answer where no route of the operator's listener is.
pub(crate) async fn no_such_admin_path(request: HttpRequest) -> HttpResponse {
    no_such_path(&request).hinting(Some(ADMIN_HINT)).error_response()
}

/// The answer where no public route is; one for a version of the API that is not served names those that are.
pub(crate) async fn no_such_public_path(request: HttpRequest) -> HttpResponse {
    let Some(version) = version_of(request.path()).filter(|version| *version != API_PREFIX) else {
        return no_such_path(&request).error_response();
    };
    let detail = format!("this server does not serve {version} of the API; it serves {API_PREFIX}");
    let hint = format!("Ask under {API_PREFIX}, or have the operator install a newer server.");
    Failure::new(Code::NotFound, detail).hinting(Some(hint)).error_response()
}

/// The version of the API at the start of a path, such as `/v2`.
fn version_of(path: &str) -> Option<&str> {
    let end = path.get(1..)?.find('/').map_or(path.len(), |at| at + 1);
    let version = path.get(..end)?;
    let digits = version.strip_prefix("/v")?;
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    ((1..=4).contains(&digits.len()) && is_number(digits)).then_some(version)
}

/// The answer where a route is and does not take the method.
pub(crate) fn wrong_method(request: &HttpRequest, allowed: &str) -> HttpResponse {
    let method: String = request.method().as_str().chars().take(20).collect();
    let detail = format!("{method} is not taken here; {allowed} is");
    let mut response = Failure::new(Code::MethodNotAllowed, detail).error_response();
    if let Ok(allowed) = header::HeaderValue::from_str(allowed) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}
