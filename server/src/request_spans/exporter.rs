//! The spans of requests, as a thread of their own sends them to a collector: OTLP over HTTP, in protobuf.
//!
//! A collector that is away or hangs keeps no request waiting: spans wait in a bounded queue, and those that have no
//! place in it are left out.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, UNIX_EPOCH},
};

use actix_web::web;
use keypool_ledger::Timestamp;
use opentelemetry::{
    Context, KeyValue,
    trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _},
};
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter},
};

use super::{AnsweredRequest, OtlpEndpoint};

/// The name of the service that the spans are of, and of the part of it that makes them.
const SERVICE: &str = "keypool-server";
/// How long a server that stops waits for the collector to take the last spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The spans of requests; none where the operator names no collector.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestSpans(Option<(SdkTracerProvider, SdkTracer)>);

impl RequestSpans {
    /// Starts the thread that sends them, if there is a collector.
    ///
    /// # Errors
    ///
    /// Returns the reason why no client of the collector can be made.
    pub(crate) fn start(endpoint: Option<&OtlpEndpoint>) -> Result<Self, String> {
        let Some(endpoint) = endpoint else { return Ok(Self::default()) };
        let exporter = ToldExporter::new(endpoint)
            .map_err(|error| format!("the client of --otlp-endpoint cannot be made: {error}"))?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource =
            Resource::builder().with_service_name(SERVICE).with_attribute(version).build();
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource);
        let provider = provider.build();
        let tracer = provider.tracer(SERVICE);
        Ok(Self(Some((provider, tracer))))
    }

    /// Adds the span of a request that was answered at a time. It never waits.
    pub(crate) fn note(&self, at: Timestamp, request: &AnsweredRequest<'_>) {
        let Some((_, tracer)) = &self.0 else { return };
        let AnsweredRequest { served, .. } = request;
        let end = UNIX_EPOCH + Duration::from_millis(at.as_millis());
        let took = Duration::try_from_secs_f64(served.seconds).unwrap_or_default();
        let builder = tracer
            .span_builder(format!("{} {}", served.method, served.route))
            .with_kind(SpanKind::Server)
            .with_start_time(end.checked_sub(took).unwrap_or(end))
            .with_attributes(attributes(request));
        let mut span = builder.start_with_context(tracer, &Context::new());
        if 500 <= served.status {
            span.set_status(Status::error(served.code.unwrap_or_default()));
        }
        span.end_with_timestamp(end);
    }

    /// Sends the last spans, and ends; a collector that does not take them within 3 seconds does not get them.
    pub(crate) async fn end(self) {
        let Some((provider, tracer)) = self.0 else { return };
        drop(tracer);
        let ended = web::block(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "the last spans of requests did not reach the collector");
        }
    }
}

/// The facts of a request, under the names of OpenTelemetry where it has them.
fn attributes(request: &AnsweredRequest<'_>) -> Vec<KeyValue> {
    let AnsweredRequest { served, quota, caller, pool, request_id } = request;
    let mut attributes = vec![
        KeyValue::new("http.request.method", served.method),
        KeyValue::new("http.route", served.route.clone()),
        KeyValue::new("http.response.status_code", i64::from(served.status)),
        KeyValue::new("keypool.request_id", (*request_id).to_owned()),
    ];
    let caller = caller.map(ToString::to_string);
    let facts = [
        ("keypool.code", served.code.map(str::to_owned)),
        ("keypool.quota", quota.map(str::to_owned)),
        ("keypool.caller", caller),
        ("keypool.pool", pool.map(str::to_owned)),
        ("keypool.package", served.package.clone()),
    ];
    let known = facts.into_iter().filter_map(|(name, fact)| Some(KeyValue::new(name, fact?)));
    attributes.extend(known);
    attributes
}

/// The exporter, which says in the log once that the collector is away, and once that it is back.
#[derive(Debug)]
struct ToldExporter {
    exporter: opentelemetry_otlp::SpanExporter,
    url: String,
    is_failing: AtomicBool,
}

impl ToldExporter {
    fn new(endpoint: &OtlpEndpoint) -> Result<Self, ExporterBuildError> {
        let url = endpoint.traces_url();
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_http();
        let exporter = exporter.with_endpoint(url.clone()).build()?;
        Ok(Self { exporter, url, is_failing: AtomicBool::new(false) })
    }
}

impl SpanExporter for ToldExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exported = self.exporter.export(batch).await;
        let was_failing = self.is_failing.swap(exported.is_err(), Ordering::Relaxed);
        let url = &self.url;
        match &exported {
            Err(error) if !was_failing => {
                tracing::warn!(%url, %error, "the collector takes no spans; those of now are lost");
            }
            Ok(()) if was_failing => tracing::info!(%url, "the collector takes spans again"),
            _ => {}
        }
        exported
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
