//! A server of a cluster: its log is replicated, and other servers write to it too.

use std::{sync::Arc, time::Duration};

use actix_web::{
    Error, ResponseError,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::{HeaderName, HeaderValue},
    middleware::Next,
    rt::time::timeout,
    web::{self, Data},
};
use keypool_api::{AFTER_HEADER, Code, POSITION_HEADER};
use keypool_ledger::{EventLog, MemoryIndex, ReplicaHealth, ReplicatedLog, SledLog};

use crate::{problem::Failure, state::State};

/// How long a request waits for records that its sender has seen on another server.
const AFTER_WAIT: Duration = Duration::from_secs(2);

/// The log as a server writes it: its own, or one that is replicated.
pub(crate) trait ServerLog: EventLog + MemoryIndex {
    /// The journal and index on this server's disk.
    fn local(&self) -> &SledLog;
}

impl ServerLog for SledLog {
    fn local(&self) -> &SledLog {
        self
    }
}

impl ServerLog for ReplicatedLog {
    fn local(&self) -> &SledLog {
        Self::local(self)
    }
}

/// The log of a server, and its replicated form in a cluster.
pub(crate) struct OpenedLog {
    /// The journal and index on this server's disk.
    pub(crate) local: Arc<SledLog>,
    /// Set in a cluster.
    pub(crate) replica: Option<Arc<ReplicatedLog>>,
}

impl OpenedLog {
    /// The log that the pools write to.
    pub(crate) fn written(&self) -> Arc<dyn ServerLog> {
        match &self.replica {
            Some(replica) => Arc::clone(replica) as Arc<dyn ServerLog>,
            None => Arc::clone(&self.local) as Arc<dyn ServerLog>,
        }
    }
}

/// Checks that a server of a cluster follows the others.
///
/// # Errors
///
/// Returns a [`Failure`] with the reason if the stream cannot be followed at the moment, or contradicts this
/// server's journal.
pub(crate) fn check_replica(replica: &ReplicatedLog) -> Result<(), Failure> {
    match replica.health() {
        ReplicaHealth::Following => Ok(()),
        ReplicaHealth::Interrupted { why } => {
            let detail = format!("the replicated log cannot be followed at the moment: {why}");
            Err(Failure::new(Code::LogUnavailable, detail))
        }
        ReplicaHealth::Contradicted { why } => {
            let detail = format!("the replicated log contradicts this server's journal: {why}");
            Err(Failure::new(Code::LogUnavailable, detail))
        }
    }
}

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
        && let Err(failure) = wait_for(&state, &after).await
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

/// Waits until this server has published the record at a position. A stream that does not reach there was replaced by
/// an older one: then nothing is waited for.
async fn wait_for(state: &Data<State>, after: &HeaderValue) -> Result<(), Failure> {
    let after: Option<u64> = after.to_str().ok().and_then(|text| text.trim().parse().ok());
    let Some(after) = after else {
        let detail =
            format!("{AFTER_HEADER} is no position of a record: send back {POSITION_HEADER}");
        return Err(Failure::new(Code::BadRequest, detail));
    };
    let store = state.store()?;
    let mut written = store.pools().written();
    let reached = async {
        while store.pools().published() < after {
            if written.changed().await.is_err() {
                return;
            }
        }
    };
    if timeout(AFTER_WAIT, reached).await.is_ok() {
        return Ok(());
    }
    let asked = state.clone();
    let is_complete = web::block(move || {
        let replica = asked.replica.get();
        replica.is_some_and(|replica| replica.is_complete().unwrap_or_default())
    });
    if is_complete.await.unwrap_or_default() {
        return Ok(());
    }
    let published = store.pools().published();
    let detail =
        format!("this server has the records until {published}, and the request is of {after}");
    Err(Failure::new(Code::NotReady, detail))
}
