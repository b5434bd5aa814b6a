//! The routes of the operator's page: its views, its live figures, its actions, and signing in.

use std::{borrow::ToOwned, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse, Resource, ResponseError,
    http::{
        StatusCode,
        header::{
            self, CONTENT_TYPE, HOST, HeaderName, IF_NONE_MATCH, LOCATION, ORIGIN, SET_COOKIE,
        },
    },
    web::{self, Bytes, Data},
};
use keypool_operator_page::{OperatorPage, PageReply};
use tokio::sync::mpsc;

use super::keypackages::stream::Pieces;
use crate::{
    keypackage_store::StoreError,
    operator_page::{LivePageSource, carry_out, start_following},
    problem::Failure,
    state::State,
};

/// The time between two live events.
const LIVE_INTERVAL: Duration = Duration::from_secs(2);
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FORM: &str = "application/x-www-form-urlencoded";

/// Shows a view of the page, or one of its files.
pub(crate) async fn view(request: HttpRequest, state: Data<State>) -> HttpResponse {
    if let Some(file) = OperatorPage::file(request.path(), header_of(&request, &IF_NONE_MATCH)) {
        return response(&file);
    }
    start_following(&state);
    let turn = state.history_reads.turn().await;
    let [path, query] = [request.path(), request.query_string()].map(ToOwned::to_owned);
    let read = web::block(move || {
        let _turn = turn;
        let source = LivePageSource::of(&state)?;
        Ok::<_, Failure>(state.desk.page.get(&source, &path, &query))
    });
    match read.await {
        Ok(Ok(Some(reply))) => response(&reply),
        Ok(Ok(None)) => {
            response(&PageReply::message(404, "No such page", "Begin with the overview."))
        }
        Ok(Err(failure)) => refusal(&failure),
        Err(_) => refusal(&StoreError::Cancelled.into()),
    }
}

/// Streams the figures of the overview: server-sent events, until the server stops.
pub(crate) async fn live(state: Data<State>) -> HttpResponse {
    let (sender, receiver) = mpsc::channel(1);
    actix_rt::spawn(send_figures(state, sender));
    HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(Pieces(receiver))
}

async fn send_figures(state: Data<State>, sender: mpsc::Sender<Bytes>) {
    let mut stopping = state.stopping.subscribe();
    loop {
        // A page that stayed open over a restart of the server asks for nothing else.
        start_following(&state);
        let reader = state.clone();
        let read = web::block(move || {
            let source = LivePageSource::of(&reader).ok()?;
            reader.desk.page.live(&source).ok()
        });
        let Ok(Some(figures)) = read.await else { return };
        let piece = Bytes::from(format!("data: {figures}\n\n"));
        let sent = async {
            let sent = sender.send(piece).await.is_ok();
            actix_rt::time::sleep(LIVE_INTERVAL).await;
            sent
        };
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = sender.closed() => return,
            sent = sent => if !sent { return },
        }
    }
}

/// Asks once more before an action.
pub(crate) async fn confirm(request: HttpRequest) -> HttpResponse {
    response(&OperatorPage::confirmation(request.query_string()))
}

/// Carries out the action of a confirmed form.
pub(crate) async fn act(request: HttpRequest, state: Data<State>, body: Bytes) -> HttpResponse {
    let action = match own_form(&request, &body).and_then(OperatorPage::action) {
        Ok(action) => action,
        Err(reply) => return response(&reply),
    };
    let went = carry_out(&state, &action).await;
    let went = went.map_err(|failure| failure.problem().detail.clone());
    response(&OperatorPage::outcome(&action, went.as_deref().map_err(String::as_str)))
}

/// The path at which a browser signs in.
pub(crate) fn sign_in_resource() -> Resource {
    web::resource(OperatorPage::SIGN_IN).get(sign_in).post(signed_in)
}

/// Asks for the token.
async fn sign_in() -> HttpResponse {
    response(&OperatorPage::sign_in(false))
}

/// Signs a browser in that sends the token.
async fn signed_in(request: HttpRequest, state: Data<State>, body: Bytes) -> HttpResponse {
    let form = match own_form(&request, &body) {
        Ok(form) => form,
        Err(reply) => return response(&reply),
    };
    let token = OperatorPage::field(form, "token").unwrap_or_default();
    if !state.admin.is_token(&token) {
        tracing::warn!("a wrong token was sent to the operator's page");
        return response(&OperatorPage::sign_in(true));
    }
    let cookie = state.desk.sessions.begin(state.clock.now());
    HttpResponse::SeeOther()
        .insert_header((LOCATION, "/"))
        .insert_header((SET_COOKIE, cookie))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .finish()
}

/// The fields of a form that a page of this server has sent, not a page of another origin.
fn own_form<'a>(request: &HttpRequest, body: &'a Bytes) -> Result<&'a str, PageReply> {
    if !is_same_origin(request) {
        let text = "The form was not sent by this page. Open the page anew and press its button.";
        return Err(PageReply::message(403, "Refused", text));
    }
    let is_form = header_of(request, &CONTENT_TYPE).is_some_and(|kind| kind.starts_with(FORM));
    let form = str::from_utf8(body).ok().filter(|_| is_form);
    form.ok_or_else(|| PageReply::message(415, "Refused", "A form is sent as the page sends it."))
}

/// Whether a request comes from a page of this server. Browsers say so in `Sec-Fetch-Site`, where they trust the
/// connection, and in the `Origin` of each `POST`; a page can change neither.
fn is_same_origin(request: &HttpRequest) -> bool {
    if let Some(site) = header_of(request, &SEC_FETCH_SITE) {
        return site == "same-origin";
    }
    let origin = header_of(request, &ORIGIN).and_then(|origin| origin.split_once("://"));
    let host = header_of(request, &HOST);
    origin.zip(host).is_some_and(|((_, authority), host)| authority.eq_ignore_ascii_case(host))
}

fn header_of<'a>(request: &'a HttpRequest, name: &HeaderName) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

fn refusal(failure: &Failure) -> HttpResponse {
    let status = failure.status_code().as_u16();
    response(&PageReply::message(status, "Not now", &failure.problem().detail))
}

fn response(reply: &PageReply) -> HttpResponse {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    for (name, value) in reply.headers() {
        response.insert_header((name, value));
    }
    response.body(reply.body.clone())
}
