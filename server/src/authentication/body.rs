//! The body of a request: read within a size and a time.

use std::time::Duration;

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    web::{self, Bytes},
};
use keypool_ledger::CommandId;
use keypool_projections::wire::Code;
use serde::de::DeserializeOwned;

use super::header;
use crate::{problem::Failure, state::State};

/// A body that has arrived.
#[derive(Debug)]
pub(crate) struct Body {
    /// What it says it is, without parameters, in lower case.
    pub(crate) media_type: String,
    /// Its bytes.
    pub(crate) bytes: Bytes,
}

impl Body {
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

/// Reads the body, within the size and the time a request has, and the idempotency key.
pub(super) async fn receive(
    request: &HttpRequest,
    payload: Payload,
    state: &State,
) -> Result<(Body, CommandId), Failure> {
    let bytes = read_body(payload, request, state.body_bytes_max, state.body_timeout).await?;
    let key = header(request.headers(), "idempotency-key")?.ok_or_else(|| {
        Failure::new(Code::BadRequest, "the header Idempotency-Key is missing; send a new UUID")
    })?;
    let key: CommandId = key.parse()?;
    let content_type = header(request.headers(), "content-type")?.unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    if request.uri().query().is_some() {
        return Err(Failure::new(Code::BadRequest, "this address takes no query"));
    }
    Ok((Body { media_type, bytes }, key))
}

async fn read_body(
    payload: Payload,
    request: &HttpRequest,
    bytes_max: usize,
    timeout: Duration,
) -> Result<Bytes, Failure> {
    let too_large =
        || Failure::new(Code::TooLarge, format!("the body may have {bytes_max} bytes at most"));
    let declared = header(request.headers(), "content-length")?.and_then(|text| text.parse().ok());
    if declared.is_some_and(|len: u64| u64::try_from(bytes_max).is_ok_and(|max| max < len)) {
        return Err(too_large());
    }
    let mut payload = payload;
    let payload = web::Payload::from_request(request, &mut payload).await;
    let payload = payload.map_err(|_| Failure::new(Code::BadRequest, "the body cannot be read"))?;
    match actix_rt::time::timeout(timeout, payload.to_bytes_limited(bytes_max)).await {
        Ok(Ok(Ok(bytes))) => Ok(bytes),
        Ok(Ok(Err(_))) => Err(Failure::new(Code::BadRequest, "the body did not arrive whole")),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", timeout.as_secs());
            Err(Failure::new(Code::RequestTimeout, detail))
        }
    }
}
