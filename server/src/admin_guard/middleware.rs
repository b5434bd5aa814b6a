//! The guard of the operator's listener as a middleware.

use actix_web::{
    Error, HttpResponse, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header::{ACCEPT, HeaderValue, LOCATION, WWW_AUTHENTICATE},
    middleware::Next,
};
use keypool_api::Code;
use keypool_operator_page::OperatorPage;

use crate::{
    operator_page::{is_page_path, session_of},
    problem::Failure,
    state::State,
};

/// Answers requests of the operator, and refuses those of others.
pub(crate) async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let checked = State::of(request.request())
        .and_then(|state| state.admin.check(&request, is_signed_in(&request, state)));
    match checked {
        Ok(()) => Ok(next.call(request).await?.map_into_boxed_body()),
        Err(failure) if failure.code() == Code::Unauthenticated && is_browser(&request) => {
            let response =
                HttpResponse::SeeOther().insert_header((LOCATION, OperatorPage::SIGN_IN)).finish();
            Ok(request.into_response(response))
        }
        Err(failure) => Ok(request.into_response(refusal(&failure))),
    }
}

/// Whether a request for the operator's page comes from a browser that has signed in. A cookie opens nothing else: no
/// page of another origin may use it for the operator's other routes.
fn is_signed_in(request: &ServiceRequest, state: &State) -> bool {
    let cookie = session_of(request.headers()).filter(|_| is_page_path(request.path()));
    cookie.is_some_and(|cookie| state.desk.sessions.knows(cookie, state.clock.now()))
}

/// Whether a browser asks for a view of the operator's page: then it is asked for the token.
fn is_browser(request: &ServiceRequest) -> bool {
    let accepted = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    is_page_path(request.path()) && accepted.is_some_and(|accepted| accepted.contains("text/html"))
}

fn refusal(failure: &Failure) -> HttpResponse {
    let mut response = failure.error_response();
    if failure.code() == Code::Unauthenticated {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
