//! The body of a request: read within a size, a time and a budget of all bodies together.

use std::{future::poll_fn, pin::Pin, sync::Arc};

use actix_web::{
    HttpRequest,
    dev::Payload,
    web::{Bytes, BytesMut},
};
use futures_core::Stream;
use keypool_api::Code;
use keypool_ledger::CommandId;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::header;
use crate::{problem::Failure, routes::route_of, state::State};

/// The largest body of a request that carries neither packages nor messages.
const SMALL_BYTES_MAX: usize = 64 * 1024;
/// The routes whose bodies may be larger.
const LARGE: [&str; 4] = [
    "/keypackages/upload",
    "/keypackages/rotate",
    "/groups/{group_id}/commits",
    "/groups/{group_id}/messages",
];
/// The unit of the budget, in bytes.
const UNIT: usize = 1024;

/// A body that has arrived.
#[derive(Debug)]
pub(crate) struct ReceivedBody {
    /// The media type, without parameters, in lower case.
    pub(crate) media_type: String,
    /// Its bytes.
    pub(crate) bytes: Bytes,
    /// Its part of the budget.
    _held: Option<OwnedSemaphorePermit>,
}

impl ReceivedBody {
    /// The value that a JSON body holds.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        if self.media_type != "application/json" {
            let detail = format!("the body is {:?}, not application/json", self.media_type);
            return Err(Failure::new(Code::UnsupportedMediaType, detail));
        }
        // serde takes an array for a struct, which the API document does not offer.
        if self.bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
            return Err(Failure::new(Code::BadRequest, "the body: expected a JSON object"));
        }
        serde_json::from_slice(&self.bytes)
            .map_err(|err| Failure::new(Code::BadRequest, format!("the body: {err}")))
    }
}

/// Bytes of bodies that the process holds at a time. Small bodies have a part of their own, so that large
/// ones that trickle in keep no reservation waiting; and so have those of keys that are not registered, so
/// that a stranger keeps no device waiting.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    small: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl BodyBudget {
    /// So many bytes in all: a quarter of them for small bodies, and a quarter for those of strangers.
    pub(crate) fn of_bytes(bytes: usize) -> Self {
        let units = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        let quarter = units / 4;
        let part = |units| Arc::new(Semaphore::new(units));
        Self { small: part(quarter), strangers: part(quarter), large: part(units - 2 * quarter) }
    }

    /// The least of bytes in all with which each part holds the largest body that may come.
    pub(crate) fn bytes_min(body_bytes_max: usize) -> usize {
        body_bytes_max.max(SMALL_BYTES_MAX).div_ceil(UNIT).saturating_mul(4 * UNIT)
    }

    fn part(&self, bytes_max: usize, is_registered: bool) -> &Arc<Semaphore> {
        match is_registered {
            false => &self.strangers,
            true if bytes_max <= SMALL_BYTES_MAX => &self.small,
            true => &self.large,
        }
    }
}

/// Announcement of a body, in the head of its request.
#[derive(Debug)]
pub(super) struct BodyHead {
    pub(super) idempotency_key: CommandId,
    media_type: String,
    bytes_max: usize,
}

impl BodyHead {
    /// Reads the head, and refuses a body that says it is larger than its route takes.
    pub(super) fn of(request: &HttpRequest, bytes_max: usize) -> Result<Self, Failure> {
        let large = route_of(request).is_some_and(|route| LARGE.contains(&route.as_str()));
        let bytes_max = if large { bytes_max } else { bytes_max.min(SMALL_BYTES_MAX) };
        let declared = header(request.headers(), "content-length")?;
        let declared = declared.and_then(|text| text.parse::<usize>().ok());
        if declared.is_some_and(|len| bytes_max < len) {
            return Err(too_large(bytes_max));
        }
        let key = header(request.headers(), "idempotency-key")?.ok_or_else(|| {
            Failure::new(Code::BadRequest, "the header Idempotency-Key is missing; send a new UUID")
        })?;
        let idempotency_key: CommandId = key.parse()?;
        if request.uri().query().is_some() {
            return Err(Failure::new(Code::BadRequest, "this address takes no query"));
        }
        let content_type = header(request.headers(), "content-type")?.unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default();
        let media_type = media_type.trim().to_ascii_lowercase();
        Ok(Self { idempotency_key, media_type, bytes_max })
    }
}

/// Reads the body, within the size and the time a request has.
pub(super) async fn read(
    announced: BodyHead,
    payload: Payload,
    (is_registered, state): (bool, &State),
) -> Result<ReceivedBody, Failure> {
    let BodyHead { media_type, bytes_max, .. } = announced;
    let budget = state.bodies.part(bytes_max, is_registered);
    let timeout = state.body_timeout;
    let whole = actix_rt::time::timeout(timeout, read_all(payload, bytes_max, budget)).await;
    let (bytes, held) = whole.map_err(|_| {
        let detail = format!("the body did not arrive within {} s", timeout.as_secs());
        Failure::new(Code::RequestTimeout, detail)
    })??;
    Ok(ReceivedBody { media_type, bytes, _held: held })
}

/// Reads all there is. Bytes are held against the budget when they arrive, not when they are announced: a
/// client that announces much and sends little takes nothing from others.
async fn read_all(
    mut payload: Payload,
    bytes_max: usize,
    budget: &Arc<Semaphore>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Failure> {
    let (mut bytes, mut held) = (BytesMut::new(), None);
    while let Some(chunk) = poll_fn(|cx| Pin::new(&mut payload).poll_next(cx)).await {
        let chunk =
            chunk.map_err(|_| Failure::new(Code::BadRequest, "the body did not arrive whole"))?;
        if bytes_max < bytes.len().saturating_add(chunk.len()) {
            return Err(too_large(bytes_max));
        }
        bytes.extend_from_slice(&chunk);
        hold(&mut held, bytes.len(), budget)?;
    }
    Ok((bytes.freeze(), held))
}

/// Takes the bytes from the budget that are read beyond those held. That counts the sum of the chunks,
/// which may be small.
fn hold(
    held: &mut Option<OwnedSemaphorePermit>,
    bytes: usize,
    budget: &Arc<Semaphore>,
) -> Result<(), Failure> {
    let enough = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let units = bytes.div_ceil(UNIT).saturating_sub(enough);
    let units = u32::try_from(units).unwrap_or(u32::MAX);
    let more = Arc::clone(budget).try_acquire_many_owned(units).map_err(|_| {
        Failure::new(Code::Busy, "the server holds as many bodies as it may; try again in a second")
    })?;
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
    Ok(())
}

fn too_large(bytes_max: usize) -> Failure {
    let hint = if bytes_max <= SMALL_BYTES_MAX {
        "Send less at a time: the limit of this address is fixed."
    } else {
        "Send fewer packages at a time, or a smaller message; the operator sets the limit with \
         --body-bytes-max, and that of a proxy (nginx: client_max_body_size)."
    };
    let detail = format!("the body may have {bytes_max} bytes at most");
    Failure::new(Code::TooLarge, detail).hinting(Some(hint))
}
