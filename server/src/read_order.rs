//! Reads of a cluster's servers in order: a device that has seen a record at one of them sees it at each.

use std::time::Duration;

use actix_web::{
    Error, ResponseError,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::{HeaderName, HeaderValue},
    middleware::Next,
    rt::time::timeout,
    web::{self, Data},
};
use keypool_api::{AFTER_HEADER, API_PREFIX, Code, POSITION_HEADER};

use crate::{problem::Failure, state::State};

/// How long a request waits for records that its sender has seen on another server.
const AFTER_WAIT: Duration = Duration::from_secs(2);

/// Answers a request once this server has the records that its sender has seen elsewhere, and says how far it is.
/// A server that runs alone does neither.
pub(crate) async fn keep_order(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let state = request.app_data::<Data<State>>().cloned();
    let state = state.filter(|state| state.replica.get().is_some());
    let Some(state) = state else { return Ok(next.call(request).await?.map_into_left_body()) };
    let after = request.headers().get(AFTER_HEADER).cloned();
    if let Some(after) = after
        && let Err(failure) = wait_for(&state, &after, is_of_ledger(request.path())).await
    {
        let refused = failure.error_response();
        return Ok(request.into_response(refused).map_into_right_body());
    }
    let mut response = next.call(request).await?;
    if let Some(store) = state.store.get() {
        let name = HeaderName::from_static(POSITION_HEADER);
        response.headers_mut().insert(name, store.pools().published().into());
    }
    Ok(response.map_into_left_body())
}

/// Whether a path is one of the public ledger, whose answers rest on a checkpoint.
fn is_of_ledger(path: &str) -> bool {
    path.strip_prefix(API_PREFIX).unwrap_or(path).starts_with("/ledger/")
}

/// Waits until this server has published the record at a position, or a checkpoint that has it. A stream that does not
/// reach there was replaced by an older one: then nothing is waited for.
async fn wait_for(
    state: &Data<State>,
    after: &HeaderValue,
    in_checkpoint: bool,
) -> Result<(), Failure> {
    let after: Option<u64> = after.to_str().ok().and_then(|text| text.trim().parse().ok());
    let Some(after) = after else {
        let detail =
            format!("{AFTER_HEADER} is no position of a record: send back {POSITION_HEADER}");
        return Err(Failure::new(Code::BadRequest, detail));
    };
    let store = state.store()?;
    let mut written = store.pools().written();
    let mut signed = state.ledger()?.watch();
    let reached = async {
        while store.pools().published() < after {
            if written.changed().await.is_err() {
                return;
            }
        }
        if in_checkpoint {
            drop(signed.wait_for(|published| after <= published.size()).await);
        }
    };
    if timeout(AFTER_WAIT, reached).await.is_ok() {
        return Ok(());
    }
    let asked = state.clone();
    let ends_before = web::block(move || {
        let replica = asked.replica.get();
        replica.is_some_and(|replica| replica.ends_before(after).unwrap_or_default())
    });
    if ends_before.await.unwrap_or_default() {
        return Ok(());
    }
    let published = store.pools().published();
    let detail =
        format!("this server has the records until {published}, and the request is of {after}");
    Err(Failure::new(Code::NotReady, detail))
}
