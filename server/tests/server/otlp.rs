//! Spans of requests, as an OpenTelemetry collector gets them over HTTP: only with the feature `otlp`.

use std::{net::TcpListener, process::Stdio, time::Duration};

use actix_rt::time::timeout;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, web};
use keypool_server::Settings;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message as _;
use serde_json::json;
use tokio::sync::mpsc;

use crate::harness::{Device, Draft, Process, Running, command, refusal};

/// How long a thing may take that only a hang keeps from happening.
const DEADLINE: Duration = Duration::from_mins(1);

/// A collector that takes spans, and hands them to the test.
struct Collector {
    url: String,
    requests: mpsc::UnboundedReceiver<(String, web::Bytes)>,
    handle: ServerHandle,
}

impl Collector {
    fn serve(listener: TcpListener) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = mpsc::unbounded_channel();
        let take = move |request: HttpRequest, body: web::Bytes| {
            let content_type = request.headers().get("content-type").unwrap().to_str().unwrap();
            assert_eq!((request.path(), content_type), ("/v1/traces", "application/x-protobuf"));
            let headers = format!("{:?}", request.headers());
            drop(sender.send((headers, body)));
            async { HttpResponse::Ok().finish() }
        };
        let app = move || App::new().default_service(web::to(take.clone()));
        let server = HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(0);
        let server = server.listen(listener).unwrap().run();
        let handle = server.handle();
        actix_rt::spawn(server);
        Self { url, requests, handle }
    }

    fn start() -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// The next request's service and spans.
    async fn next(&mut self) -> (String, Vec<Span>) {
        let (_, body) = timeout(DEADLINE, self.requests.recv()).await.unwrap().unwrap();
        spans_of(&body)
    }
}

/// The service that spans are of, and the spans.
fn spans_of(body: &[u8]) -> (String, Vec<Span>) {
    let mut request = ExportTraceServiceRequest::decode(body).unwrap();
    let resource = request.resource_spans.pop().unwrap();
    assert!(request.resource_spans.is_empty());
    let attributes = resource.resource.unwrap().attributes;
    let service = attributes.into_iter().find(|known| known.key == "service.name").unwrap();
    let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans).collect();
    (text(service.value.unwrap().value.unwrap()), spans)
}

fn text(value: Value) -> String {
    match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

/// An attribute of a span; empty if it has none of that name.
fn attribute(span: &Span, name: &str) -> String {
    let found = span.attributes.iter().find(|known| known.key == name);
    found.map(|known| text(known.value.clone().unwrap().value.unwrap())).unwrap_or_default()
}

fn told_to(url: &str) -> impl FnOnce(&mut Settings) {
    let endpoint = url.parse().unwrap();
    move |settings| settings.otlp_endpoint = Some(endpoint)
}

#[actix_web::test]
async fn each_request_is_a_span_with_the_facts_of_its_line_and_the_last_ones_come_at_the_stop() {
    let mut collector = Collector::start();
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start_with(told_to(&collector.url)).with(&[&alice, &bob], 2).await;
    let reserving = json!({ "target_user": "bob", "group_id": "Z3JvdXAtMQ==" });
    let reserving = Draft::post("/v1/keypackages/reserve", &reserving).with_token("a-secret-token");
    let reserved = running.api.send(&alice, &reserving).await.ok();
    let refused = running.api.reserve(&alice, "nobody").await;
    assert_eq!(refused.status, 404);
    running.api.get(&bob, "/mailbox").await.ok();
    let unknown = format!("{}/what-is-this/alice", running.api.url);
    running.api.http.get(unknown).send().await.unwrap();
    running.server.stop().await;

    collector.requests.close();
    let (mut bodies, mut spans) = (Vec::new(), Vec::new());
    while let Some((headers, body)) = collector.requests.recv().await {
        let (service, more) = spans_of(&body);
        assert_eq!(service, "keypool-server");
        spans.extend(more);
        bodies.push(format!("{headers}{}", String::from_utf8_lossy(&body)));
    }
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    let expected = [
        "POST /devices",
        "POST /devices",
        "POST /keypackages/upload",
        "POST /keypackages/reserve",
        "POST /keypackages/reserve",
        "GET unmatched",
    ];
    assert_eq!(names, expected, "a successful long poll has no line, and no span");
    let [given, missing] = [&spans[3], &spans[4]];
    for (name, facts) in [
        ("http.request.method", ["POST", "POST"]),
        ("http.route", ["/keypackages/reserve", "/keypackages/reserve"]),
        ("http.response.status_code", ["200", "404"]),
        ("keypool.code", ["", refused.code()]),
        ("keypool.caller", ["alice/main", "alice/main"]),
        ("keypool.pool", ["bob", "nobody"]),
        ("keypool.package", [&reserved.text("keypackage_ref")[..8], ""]),
        ("keypool.request_id", [reserved.header("x-request-id"), refused.header("x-request-id")]),
    ] {
        assert_eq!([attribute(given, name), attribute(missing, name)], facts, "{name}");
    }
    for span in &spans {
        assert_eq!(span.kind, SpanKind::Server as i32);
        assert!(
            span.parent_span_id.is_empty() && span.start_time_unix_nano <= span.end_time_unix_nano
        );
    }
    let end = Duration::from_nanos(given.end_time_unix_nano);
    assert_eq!(end.as_millis(), u128::from(crate::harness::NOW.as_millis()));
    let secrets = [
        "a-secret-token".to_owned(),
        "authorization".to_owned(),
        reserved.text("keypackage").to_owned(),
        alice.keyid().to_string(),
        "127.0.0.1".to_owned(),
    ];
    for body in bodies {
        let body = body.replace(collector.url.trim_start_matches("http://"), "COLLECTOR");
        assert!(!secrets.iter().any(|secret| body.contains(secret)), "{body}");
    }
    collector.handle.stop(false).await;
}

#[actix_web::test]
async fn a_collector_that_hangs_keeps_neither_requests_nor_the_stop_waiting() {
    // Its connections are made, and nothing ever answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let alice = Device::new("alice");
    let running = Running::start_with(told_to(&url)).with(&[&alice], 1).await;
    // More than the spans that wait at most.
    for _ in 0..3000 {
        let asked = running.api.http.get(format!("{}/openapi.json", running.api.url));
        let asked = asked.header("if-none-match", "x").send();
        assert!(timeout(DEADLINE, asked).await.unwrap().unwrap().status().is_success());
    }
    running.api.get(&alice, "/keypackages/status").await.ok();
    timeout(DEADLINE, running.server.stop()).await.unwrap();
}

#[actix_web::test]
async fn a_collector_that_was_away_is_told_once_and_gets_spans_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = listener.local_addr().unwrap();
    drop(listener);
    let mut command = command(dir.path());
    command.args(["--otlp-endpoint", &format!("http://{authority}")]);
    // Spans are sent every 50 milliseconds in the place of 5 seconds.
    command.env("OTEL_BSP_SCHEDULE_DELAY", "50").stderr(Stdio::piped());
    let mut process = Process::spawn(&mut command);
    let alice = Device::new("alice");
    process.api.register(&alice).await.ok();
    let said = process.said("the collector takes no spans");
    assert!(said.contains("WARN") && said.contains(&format!("{authority}/v1/traces")), "{said}");
    let mut collector = Collector::serve(TcpListener::bind(authority).unwrap());
    let mut names = Vec::new();
    while names.is_empty() {
        process.api.get(&alice, "/keypackages/status").await.ok();
        let next = timeout(Duration::from_secs(1), collector.next()).await;
        names.extend(next.into_iter().flat_map(|(_, spans)| spans).map(|span| span.name));
    }
    assert!(names.iter().all(|name| name == "GET /keypackages/status"), "{names:?}");
    process.said("the collector takes spans again");
    assert!(process.terminate().success());
}

#[test]
fn a_collector_is_shown_with_the_settings_and_a_wrong_address_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keypool.toml");
    std::fs::write(&file, "otlp-endpoint = \"http://collector.example:4318\"\n").unwrap();
    let mut show = std::process::Command::new(env!("CARGO_BIN_EXE_keypool-server"));
    let shown = show.env_clear().args(["config", "show", "--config"]).arg(&file).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let line = format!(
        "otlp-endpoint = \"http://collector.example:4318\"  # {}, line 1\n",
        file.display()
    );
    assert!(shown.contains(&line), "{shown}");
    for (url, why) in [
        ("collector.example:4318", "is no URL such as http://127.0.0.1:4318"),
        ("http://token@collector.example", "OTEL_EXPORTER_OTLP_HEADERS"),
    ] {
        let (said, code) = refusal(command(dir.path()).args(["--otlp-endpoint", url]));
        assert!(code == 2 && said.contains(why), "{said}");
    }
}
