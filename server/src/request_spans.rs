//! Spans of requests, with the feature `otlp`: an OpenTelemetry collector gets one for each request that has a line in
//! the log.

mod endpoint;

mod exporter;

use keypool_ledger::PoolId;

pub use self::endpoint::{OtlpEndpoint, OtlpEndpointError};
pub(crate) use self::exporter::RequestSpans;
use crate::metrics::ServedRequest;

/// A request that was answered, as its line in the log tells it: without addresses, tokens, keys or bytes.
#[derive(Clone, Copy)]
pub(crate) struct AnsweredRequest<'a> {
    pub(crate) served: &'a ServedRequest,
    /// The word of the limit that it has reached, if it has.
    pub(crate) quota: Option<&'static str>,
    pub(crate) caller: Option<&'a PoolId>,
    /// The user or device whose pool it is about.
    pub(crate) pool: Option<&'a str>,
    pub(crate) request_id: &'a str,
}
