//! The event stream of the device's pool: server-sent events, parsed incrementally.

use std::time::Duration;

use http::Method;
use keypool_api::{EventView, LastResortNotice, LevelNotice};
use serde::de::DeserializeOwned;

use super::{ApiClient, ApiError, Call};
use crate::transport::{ResponseBody, read_to_end};

/// How long a stream lasts at most: then it is begun anew.
const STREAM_MAX: Duration = Duration::from_hours(24);
/// How long nothing may come: the server says every 15 seconds that it is there.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// How many bytes one event may have.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// The status of the answer that a stream is.
const OK_STATUS: u16 = 200;

/// An event of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// Something that happened to the pool.
    Event(Box<EventView>),
    /// The pool is low, or critical.
    Low(LevelNotice),
    /// Nothing is left.
    Empty(LevelNotice),
    /// The last-resort package was given out.
    LastResortUsed(LastResortNotice),
    /// Nothing: the server says that it is there.
    Alive,
}

/// A stream that is open. Dropping it closes it.
#[derive(Debug)]
pub struct EventStream {
    body: Box<dyn ResponseBody>,
    server: String,
    come: Vec<u8>,
    /// How many of these bytes were searched for the end of a block.
    searched: usize,
}

impl ApiClient {
    /// Opens the event stream of the device's pool after a version of its history.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`].
    pub async fn stream(&self, after: u64) -> Result<EventStream, ApiError> {
        let query = format!("after={after}");
        let call = Call {
            query: &query,
            wait: STREAM_MAX,
            ..Call::to(Method::GET, "/keypackages/stream")
        };
        let response = tokio::time::timeout(SILENCE_MAX, self.exchange(&call, self.now()));
        let silent = |silence: tokio::time::error::Elapsed| ApiError::Unreachable {
            server: self.server().to_owned(),
            source: silence.into(),
        };
        let response = response.await.map_err(silent)??;
        let status = response.status();
        let server = self.server().to_owned();
        if status.is_success() {
            return Ok(EventStream {
                body: response.into_body(),
                server,
                come: Vec::new(),
                searched: 0,
            });
        }
        if let Some(redirected) = self.redirection(&response) {
            return Err(redirected);
        }
        let bytes = read_to_end(response.into_body()).await;
        let bytes = bytes.map_err(|err| self.unreachable(err))?;
        match serde_json::from_slice(&bytes) {
            Ok(problem) => Err(self.refused(problem)),
            Err(_) => Err(ApiError::Unexpected { server, status: status.as_u16() }),
        }
    }
}

impl EventStream {
    /// Returns the next event, or `None` at the end of the stream. Unknown events are skipped. Cancelling it
    /// loses nothing.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`] if nothing comes any more, or something else than a stream's events: listen
    /// again then.
    pub async fn next(&mut self) -> Result<Option<StreamEvent>, ApiError> {
        loop {
            while let Some(block) = self.block() {
                if let Some(told) = told(&block).map_err(|()| self.unexpected())? {
                    return Ok(Some(told));
                }
            }
            if EVENT_BYTES_MAX < self.come.len() {
                return Err(self.unexpected());
            }
            let piece = tokio::time::timeout(SILENCE_MAX, self.body.chunk()).await;
            let piece = piece.map_err(|silence| self.unreachable(silence.into()))?;
            match piece.map_err(|err| self.unreachable(err))? {
                Some(piece) => self.come.extend(piece),
                None => return Ok(None),
            }
        }
    }

    /// The next whole block, without the empty line at its end.
    fn block(&mut self) -> Option<Vec<u8>> {
        // Bytes that come one by one are searched once, not again with each that follows.
        let begin = self.searched.saturating_sub(1);
        let rest = self.come.get(begin..).unwrap_or_default();
        self.searched = self.come.len();
        let end = begin + rest.windows(2).position(|two| two == b"\n\n")?;
        self.searched = 0;
        let rest = self.come.split_off(end + 2);
        let mut block = std::mem::replace(&mut self.come, rest);
        block.truncate(end);
        Some(block)
    }

    fn unreachable(&self, source: crate::BoxError) -> ApiError {
        ApiError::Unreachable { server: self.server.clone(), source }
    }

    fn unexpected(&self) -> ApiError {
        ApiError::Unexpected { server: self.server.clone(), status: OK_STATUS }
    }
}

/// Parses one block of the stream; `None` if its event is unknown.
fn told(block: &[u8]) -> Result<Option<StreamEvent>, ()> {
    let block = std::str::from_utf8(block).map_err(drop)?;
    if block.starts_with(':') {
        return Ok(Some(StreamEvent::Alive));
    }
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
    let (Some(name), Some(data)) = (field("event: "), field("data: ")) else { return Ok(None) };
    Ok(match (name, field("id: ")) {
        (_, Some(_)) => Some(StreamEvent::Event(Box::new(read(data)?))),
        ("low", None) => Some(StreamEvent::Low(read(data)?)),
        ("empty", None) => Some(StreamEvent::Empty(read(data)?)),
        ("last_resort_used", None) => Some(StreamEvent::LastResortUsed(read(data)?)),
        _ => None,
    })
}

fn read<T: DeserializeOwned>(data: &str) -> Result<T, ()> {
    serde_json::from_str(data).map_err(drop)
}
