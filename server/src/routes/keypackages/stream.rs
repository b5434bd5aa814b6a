//! The stream of a pool's events: server-sent events.
//!
//! Each event of the history is one, with its version as the id, so that a client that reconnects names the
//! last. Between them stand notices: that the pool is low or empty now, and that its last-resort package was
//! given out.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    Error, HttpRequest, HttpResponse,
    http::header,
    web::{self, Bytes, Data},
};
use futures_core::Stream;
use keypool_api::{Code, EventView, LastResortNotice, LevelNotice, PoolCounts};
use keypool_ledger::{Event, PoolId, Record};
use keypool_projections::{Health, Level};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::query;
use crate::{
    authentication::AuthenticatedRead,
    open_requests::OpenRequest,
    problem::Failure,
    state::{State, Store},
};

/// How many records are read at a time.
const PAGE: usize = 100;
/// How many pieces wait for a slow reader.
const AHEAD_MAX: usize = 4;
/// How much time lies between two looks at least, however much is written meanwhile.
const LOOK_APART: Duration = Duration::from_millis(100);
/// When a client that was cut off is to come back, in milliseconds.
const RETRY: &str = "retry: 3000\n\n";

/// The version to begin after.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamQuery {
    after: Option<u64>,
}

/// Streams the history of the caller's pool as it goes on, with notices between: server-sent events.
///
/// It begins after the version in `Last-Event-ID`, or in `after`, or else with the next event. Each event
/// of the history has its name, its version as its id, and an `EventView` as its data. `low` and `empty`
/// tell that the pool is so now, also at the beginning; `last_resort_used` that its last-resort package was
/// given out. The stream ends when the server stops, when the caller's key has ceased to speak for the
/// device, or when the device has opened two newer ones.
#[utoipa::path(
    get, path = "/keypackages/stream", tag = "keypackages",
    params(
        ("after" = Option<u64>, Query, description = "Tell what comes after this version"),
        ("Last-Event-ID" = Option<u64>, Header, description = "The same, from a client that comes back; it goes before `after`"),
    ),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
    ),
)]
pub(crate) async fn stream(
    request: HttpRequest,
    state: Data<State>,
    caller: AuthenticatedRead,
) -> Result<HttpResponse, Failure> {
    let StreamQuery { after } = query(&request)?;
    let after = last_event_id(&request)?.or(after);
    let store = state.store()?;
    let after = match after {
        Some(after) => after,
        None => store.load_view(&caller.pool).await.head.version,
    };
    let Some(place) = state.streams.enter(&caller.pool) else {
        return Err(Failure::new(
            Code::Busy,
            "as many streams are open as may be; try again later",
        ));
    };
    let (sender, receiver) = mpsc::channel(AHEAD_MAX);
    let told = StreamFeed { after, level: None, sender, stopping: state.stopping.subscribe() };
    actix_rt::spawn(told.tell(state, caller, place));
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(Pieces(receiver)))
}

fn last_event_id(request: &HttpRequest) -> Result<Option<u64>, Failure> {
    let Some(value) = request.headers().get("last-event-id") else { return Ok(None) };
    let version = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    let wrong = || Failure::new(Code::BadRequest, "Last-Event-ID is a version: a whole number");
    version.map(Some).ok_or_else(wrong)
}

/// The pieces of a body, as they come.
pub(crate) struct Pieces(pub(crate) mpsc::Receiver<Bytes>);

impl Stream for Pieces {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|piece| piece.map(Ok))
    }
}

/// Nothing more is told: nobody listens, or the server stops, or the pool cannot be read.
struct StreamEnd;

/// How far a stream is.
struct StreamFeed {
    after: u64,
    /// The level that was told last.
    level: Option<Level>,
    sender: mpsc::Sender<Bytes>,
    stopping: watch::Receiver<bool>,
}

impl StreamFeed {
    /// Sends past and new events, until the end. A newer stream that takes the place ends this one
    /// wherever it is, also where its reader takes nothing.
    async fn tell(self, state: Data<State>, caller: AuthenticatedRead, mut place: OpenRequest) {
        tokio::select! {
            () = place.displaced() => {}
            () = self.tell_all(state, caller) => {}
        }
    }

    async fn tell_all(mut self, state: Data<State>, caller: AuthenticatedRead) {
        let Ok(store) = state.store() else { return };
        let mut news = store.pools().listen(&caller.pool);
        let mut piece = RETRY.to_owned();
        loop {
            news.mark_unchanged();
            if caller.still_speaks(&state).is_err() {
                return;
            }
            if self.catch_up(&state, &caller, &mut piece).await.is_err() {
                return;
            }
            let mut stopping = self.stopping.clone();
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = self.sender.closed() => return,
                changed = news.changed() => if changed.is_err() { return },
                () = actix_rt::time::sleep(state.stream_heartbeat) => ":\n\n".clone_into(&mut piece),
            }
            actix_rt::time::sleep(LOOK_APART).await;
        }
    }

    /// Sends the recorded events that were not sent, and the level of the pool if that has changed.
    async fn catch_up(
        &mut self,
        state: &Data<State>,
        caller: &AuthenticatedRead,
        piece: &mut String,
    ) -> Result<(), StreamEnd> {
        let store = state.store().map_err(|_| StreamEnd)?;
        while self.after < store.load_view(&caller.pool).await.head.version {
            let Some((last, told)) = page(state, &caller.pool, self.after).await? else { break };
            self.after = last;
            piece.push_str(&told);
            self.send(std::mem::take(piece)).await?;
        }
        let health = store.load_status(&caller.pool).await.1;
        if self.level != Some(health.level) {
            self.level = Some(health.level);
            add_level(piece, &health);
        }
        if piece.is_empty() { Ok(()) } else { self.send(std::mem::take(piece)).await }
    }

    /// Hands a piece over. A reader who takes nothing keeps nobody waiting when the server stops.
    async fn send(&mut self, piece: String) -> Result<(), StreamEnd> {
        tokio::select! {
            sent = self.sender.send(Bytes::from(piece)) => sent.map_err(|_| StreamEnd),
            _ = self.stopping.wait_for(|stopping| *stopping) => Err(StreamEnd),
        }
    }
}

/// The events after a version, as they are told, and the version of the last of them. They are read where
/// that keeps no requests waiting.
async fn page(
    state: &Data<State>,
    pool: &PoolId,
    after: u64,
) -> Result<Option<(u64, String)>, StreamEnd> {
    let turn = state.history_reads.turn().await;
    let (state, pool) = (state.clone(), pool.clone());
    let read = web::block(move || {
        let _turn = turn;
        let store = state.store().ok()?;
        let records = store.history(&pool, after, PAGE).ok()?;
        let mut told = String::new();
        for record in &records {
            add_record(&mut told, store, record);
        }
        Some(records.last().map(|last| (last.envelope.version, told)))
    });
    read.await.ok().flatten().ok_or(StreamEnd)
}

/// Adds an event of the history, and the notice that follows from it.
fn add_record(piece: &mut String, store: &Store, record: &Record) {
    let event = &record.envelope.event;
    let version = record.envelope.version;
    add(piece, Some(version), event.name(), &EventView::from(record));
    let Event::Reserved { keypackage_ref, .. } = event else { return };
    let found = store.get_key_package(keypackage_ref).ok().flatten();
    if found.is_some_and(|(_, package, _)| package.facts.last_resort) {
        let keypackage_ref = keypackage_ref.clone();
        add(piece, None, "last_resort_used", &LastResortNotice { keypackage_ref, version });
    }
}

/// Adds the notice that the pool is low or empty now. Uploads tell that it is full again.
fn add_level(piece: &mut String, health: &Health) {
    let name = match health.level {
        Level::Healthy => return,
        Level::Low | Level::Critical => "low",
        Level::Empty => "empty",
    };
    let notice = LevelNotice {
        pool: PoolCounts::from(health),
        pool_health: health.level.word().to_owned(),
        recommended_upload: health.recommended_upload(),
    };
    add(piece, None, name, &notice);
}

/// Adds one event. Compact JSON is one line of data.
fn add(piece: &mut String, id: Option<u64>, name: &str, data: &impl Serialize) {
    let data = serde_json::to_string(data).unwrap_or_default();
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    piece.extend([id.as_str(), "event: ", name, "\ndata: ", &data, "\n\n"]);
}
