//! The guard of the operator's listener as a middleware.

use actix_web::{
    Error, HttpResponse, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header::{HeaderValue, WWW_AUTHENTICATE},
    middleware::Next,
};
use keypool_api::Code;

use crate::{problem::Failure, state::State};

/// Answers requests of the operator, and refuses those of others.
pub(crate) async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let checked = State::of(request.request()).and_then(|state| state.admin.check(&request));
    match checked {
        Ok(()) => Ok(next.call(request).await?.map_into_boxed_body()),
        Err(failure) => Ok(request.into_response(refusal(&failure))),
    }
}

fn refusal(failure: &Failure) -> HttpResponse {
    let mut response = failure.error_response();
    if failure.code() == Code::Unauthenticated {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
