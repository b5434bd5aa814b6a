//! The middleware around every request: an id, one line in the log, the counters, and a net under panics.
//! Durations are measured here.

mod notes;

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

use actix_rt::time::Instant;
use actix_web::{
    Error, HttpResponse, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    error::InternalError,
    http::header::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    web::Data,
};
use keypool_api::{Code, Problem, REQUEST_ID_HEADER, TIME_HEADER};
use keypool_ledger::KeyPackageRef;
use uuid::Uuid;

use self::notes::{RequestNotes, notes_of, record_refusals};
pub(crate) use self::notes::{note_caller, note_refused, note_target, note_targets};
#[cfg(feature = "otlp")]
use crate::request_spans::AnsweredRequest;
use crate::{
    body_guard::Unread,
    connections::refusal,
    metrics::ServedRequest,
    problem::{Failure, ReachedLimit},
    routes::route_of,
    state::State,
};

/// The header that follows a request through all logs.
const REQUEST_ID: HeaderName = HeaderName::from_static(REQUEST_ID_HEADER);

/// The header with the server's time, in Unix milliseconds.
const TIME: HeaderName = HeaderName::from_static(TIME_HEADER);

/// The routes that clients and probes ask all the time: long polls, streams, and the state of the server. Their
/// requests are told at the level of debugging, unless they are refused.
const REPEATED: [&str; 6] =
    ["/mailbox", "/keypackages/stream", "/page/live", "/livez", "/readyz", "/metrics"];

/// Runs some work, and returns its result and its duration.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let begun = Instant::now();
    let outcome = work.await;
    (outcome, begun.elapsed())
}

/// The package a request was about, in short, for its line in the log.
struct LoggedPackage(String);

/// Notes in an answer which package it is about.
pub(crate) fn about(response: &mut HttpResponse, keypackage_ref: &KeyPackageRef) {
    response.extensions_mut().insert(LoggedPackage(keypackage_ref.short()));
}

/// Answers a request and says so in the log and in the counters.
pub(crate) async fn observe(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let unread = Unread::of(&mut request);
    let begun = Instant::now();
    let id = request_id(&request);
    let state = request.app_data::<Data<State>>().cloned();
    if let Some(refused) = refusal(&request) {
        let mut response = named(request.into_response(refused), &id);
        set_headers(response.headers_mut(), &id, state.as_ref());
        return Ok(response.map_body(|_, body| unread.keep_until_sent(body)));
    }
    // The request itself must not be kept: routing needs it to be the only one.
    let answered = catch_panic(next.call(request)).await;
    match answered {
        Ok(Ok(mut response)) => {
            set_headers(response.headers_mut(), &id, state.as_ref());
            let served = served(&response, begun.elapsed().as_secs_f64());
            let notes = notes_of(&response);
            note(state.as_ref().map(Data::get_ref), &served, &notes, &id);
            if let Some(state) = &state {
                record_refusals(state, &response, notes, &id);
            }
            Ok(named(response, &id).map_body(|_, body| unread.keep_until_sent(body)))
        }
        Ok(Err(error)) => Err(error),
        Err(Panicked) => {
            let failure =
                Failure::new(Code::Internal, "an internal error occurred").of_request(&id);
            let response = failure.error_response();
            let mut response = response.map_body(|_, body| unread.keep_until_sent(body));
            set_headers(response.headers_mut(), &id, state.as_ref());
            tracing::error!(request_id = id, "a handler panicked");
            Err(InternalError::from_response(failure, response).into())
        }
    }
}

/// Writes the request's id into the problem document of an answer, if it is one.
fn named(
    mut response: ServiceResponse<impl MessageBody + 'static>,
    id: &str,
) -> ServiceResponse<BoxBody> {
    let problem = response.response_mut().extensions_mut().remove::<Box<Problem>>();
    let Some(mut problem) = problem else { return response.map_into_boxed_body() };
    problem.request_id = Some(id.to_owned());
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    response.map_body(|_, _| BoxBody::new(body))
}

/// Adds the request's id and the server's time to an answer.
fn set_headers(headers: &mut HeaderMap, id: &str, state: Option<&Data<State>>) {
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, value);
    }
    if let Some(state) = state {
        headers.insert(TIME, state.clock.now().as_millis().into());
    }
}

/// The caller's id for the request if it is a harmless one, or a new one.
fn request_id(request: &ServiceRequest) -> String {
    let harmless = |id: &&str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=64).contains(&id.len()) && id.bytes().all(allowed)
    };
    let sent = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    sent.filter(harmless).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

fn served(response: &ServiceResponse<impl MessageBody>, seconds: f64) -> ServedRequest {
    let request = response.request();
    let method = match request.method().as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    };
    let extensions = response.response().extensions();
    ServedRequest {
        route: route_of(request).unwrap_or_else(|| "unmatched".to_owned()),
        method,
        status: response.status().as_u16(),
        seconds,
        code: extensions.get::<Code>().map(|code| code.word()),
        limit: extensions.get::<ReachedLimit>().copied(),
        package: extensions.get::<LoggedPackage>().map(|about| about.0.clone()),
    }
}

fn note(state: Option<&State>, served: &ServedRequest, notes: &RequestNotes, request_id: &str) {
    let ServedRequest { route, method, status, seconds, code, limit, package } = served;
    let ms = (seconds * 1_000_000.0).round() / 1000.0;
    let package = package.as_deref();
    let quota = limit.map(ReachedLimit::word);
    let caller = notes.caller.as_ref().map(tracing::field::display);
    let pool = notes.target.as_deref().or(notes.many.as_deref());
    let insecure = state.is_some_and(|state| state.insecure_no_auth).then_some(true);
    let is_repeated = *status < 400 && REPEATED.contains(&route.as_str());
    if is_repeated {
        tracing::debug!(
            insecure, method, route, status, code, quota, caller, pool, package, ms, request_id,
            "request"
        );
    } else {
        tracing::info!(
            insecure, method, route, status, code, quota, caller, pool, package, ms, request_id,
            "request"
        );
    }
    if let Some(state) = state {
        state.metrics.served(served);
        #[cfg(feature = "otlp")]
        if !is_repeated {
            let caller = notes.caller.as_ref();
            let request = AnsweredRequest { served, quota, caller, pool, request_id };
            state.spans.note(state.clock.now(), &request);
        }
    }
}

/// A future has panicked.
struct Panicked;

/// Drives a future to its end, or to its panic. After a panic the future is not touched again.
async fn catch_panic<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

#[cfg(test)]
mod tests {
    use actix_web::{App, middleware::from_fn, test, web};

    use super::*;

    async fn falls() -> HttpResponse {
        panic!("a secret of the house");
    }

    #[actix_web::test]
    async fn a_panic_in_a_handler_is_an_answer_without_details() {
        let app = App::new().wrap(from_fn(observe)).route("/", web::get().to(falls));
        let app = test::init_service(app).await;
        for _ in 0..2 {
            let request = test::TestRequest::get().uri("/").to_request();
            let error = test::try_call_service(&app, request).await.unwrap_err();
            let response = error.error_response();
            assert_eq!(response.status().as_u16(), 500);
            assert!(response.headers().contains_key("x-request-id"));
            let body = response.into_body().try_into_bytes().unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(body.contains("\"code\":\"internal\"") && !body.contains("secret"), "{body}");
        }
    }

    #[actix_web::test]
    async fn a_request_id_is_kept_if_it_is_harmless() {
        let app = App::new().wrap(from_fn(observe)).default_service(web::to(HttpResponse::Ok));
        let app = test::init_service(app).await;
        for (sent, kept) in [("abc-1.2_3", true), ("two words", false), ("", false)] {
            let request = test::TestRequest::get().insert_header(("X-Request-Id", sent));
            let response = test::call_service(&app, request.to_request()).await;
            let id = response.headers().get("x-request-id").unwrap().to_str().unwrap();
            assert_eq!(id == sent, kept, "{sent:?} {id:?}");
            assert!(!id.is_empty());
        }
    }
}
