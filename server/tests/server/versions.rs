//! The API under its version, and without it for older clients.

use serde_json::{Value, json};

use crate::harness::{Answer, Device, Draft, GROUP, NOW, Running, answer, upload};

/// An answer without the id of its request.
fn body_of(answer: &Answer) -> Value {
    let mut body = answer.body.clone();
    if let Some(body) = body.as_object_mut() {
        body.remove("request_id");
    }
    body
}

async fn fetch(running: &Running, path: &str) -> Answer {
    answer(running.api.http.get(format!("{}{path}", running.api.url))).await.unwrap()
}

#[actix_web::test]
async fn every_route_of_the_document_answers_the_same_with_the_version_and_without() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 2).await;
    let document = fetch(&running, "/openapi.json").await.body;
    let mut compared = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{user}", "bob").replace("{path}", "0/000");
        let path = path.replace("{group_id}", "Z3JvdXAtMQ");
        let path = path.replace("{reservation_id}", "5c0f7b52-4f0e-4e53-9a55-0d6d3c5a9a3e");
        for (method, operation) in methods.as_object().unwrap() {
            // A probe has no version, and a stream no end.
            if operation.get("servers").is_some() || path == "/keypackages/stream" {
                continue;
            }
            let draft = match method.as_str() {
                "get" => Draft::get(&path),
                _ => Draft::post(&path, &json!({})),
            };
            let versioned = Draft { path: format!("/v1{path}"), ..draft.clone() };
            let (old, new) =
                (running.api.send(&bob, &draft).await, running.api.send(&bob, &versioned).await);
            assert_eq!((old.status, body_of(&old)), (new.status, body_of(&new)), "{method} {path}");
            assert!(!old.text("detail").starts_with("there is nothing at"), "{method} {path}");
            compared += 1;
        }
    }
    assert!(35 < compared, "{compared}");
}

#[actix_web::test]
async fn a_stream_is_open_with_the_version_and_without() {
    let bob = Device::new("bob");
    let running = Running::start().with(&[&bob], 1).await;
    for path in ["/keypackages/stream", "/v1/keypackages/stream"] {
        let mut stream = running.api.signed(&bob, &Draft::get(path)).send().await.unwrap();
        assert_eq!(stream.status(), 200, "{path}");
        assert!(stream.chunk().await.unwrap().is_some(), "{path}");
    }
}

#[actix_web::test]
async fn a_request_that_is_repeated_with_the_version_is_one_request() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start().with(&[&alice, &bob], 0).await;
    let api = &running.api;
    let both = async |device: &Device, draft: Draft| {
        let versioned = Draft { path: format!("/v1{}", draft.path), ..draft.clone() };
        let first = api.send(device, &draft).await.ok();
        let again = api.send(device, &versioned).await.ok();
        assert_eq!(first.body, again.body, "{}", draft.path);
        first
    };
    both(&bob, Draft::post("/keypackages/upload", &upload(&bob.packages(NOW, 2)))).await;
    let reserve = json!({ "target_user": "bob", "group_id": GROUP });
    let reserved = both(&alice, Draft::post("/keypackages/reserve", &reserve)).await;
    let spend = crate::harness::claim("/spend", &reserved);
    both(&alice, Draft::post("/keypackages/spend", &spend)).await;
    let status = api.get(&bob, "/v1/keypackages/status").await.ok();
    assert_eq!((&status.body["available"], &status.body["spent"]), (&json!(1), &json!(1)));

    // With another body it is another request, whatever its address.
    let draft = Draft::post("/keypackages/reserve", &reserve);
    api.send(&alice, &draft).await.ok();
    let other = json!({ "target_user": "bob", "group_id": "b3RoZXI=" });
    let other = Draft::post("/v1/keypackages/reserve", &other).key(draft.key);
    assert_eq!(api.send(&alice, &other).await.code(), "idempotency_mismatch");
}

#[actix_web::test]
async fn a_signature_holds_for_the_path_that_was_requested() {
    let bob = Device::new("bob");
    let running = Running::start().with(&[&bob], 1).await;
    let api = &running.api;
    let draft = Draft::get("/v1/keypackages/status");
    api.send(&bob, &draft).await.ok();
    let headers = draft.headers(&bob, api.authority(), NOW);
    let moved = Draft::get("/keypackages/status");
    let refused = answer(api.with_headers(&moved, &headers)).await.unwrap();
    assert_eq!(refused.code(), "unauthenticated");
}

#[actix_web::test]
async fn a_request_counts_the_same_with_the_version_and_without() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start_with(|settings| {
        settings.quotas = keypool_server::Settings::default().quotas;
        settings.body_bytes_max = 512 * 1024;
    });
    let running = running.with(&[&alice, &bob], 1).await;
    let api = &running.api;
    // Large bodies are taken under the version, too.
    let large: Vec<Vec<u8>> = (0..6).map(|_| bob.large_package(NOW)).collect();
    api.post(&bob, "/v1/keypackages/upload", upload(&large)).await.ok();
    fetch(&running, "/v1/nothing").await;
    api.get(&bob, "/keypackages/status").await.ok();
    api.get(&bob, "/v1/keypackages/status").await.ok();
    let metrics = format!("{}/metrics", running.admin_url());
    let metrics = answer(api.http.get(metrics)).await.unwrap().bytes;
    let metrics = String::from_utf8(metrics).unwrap();
    let counted = |line: &str| assert!(metrics.lines().any(|known| known == line), "{line}");
    let total = "keypool_http_requests_total";
    counted(&format!("{total}{{route=\"/keypackages/status\",method=\"GET\",status=\"200\"}} 2"));
    counted(&format!("{total}{{route=\"unmatched\",method=\"GET\",status=\"404\"}} 1"));
    assert!(!metrics.contains("/v1"), "a label names the version");
}

#[actix_web::test]
async fn a_version_that_is_not_served_is_named_with_the_one_that_is() {
    let running = Running::start();
    for path in ["/v2/keypackages/status", "/v0", "/v17/"] {
        let refused = fetch(&running, path).await;
        let version = path.split('/').nth(1).unwrap();
        assert_eq!((refused.status, refused.code()), (404, "not_found"), "{path}");
        let detail = format!("this server does not serve /{version} of the API; it serves /v1");
        assert_eq!(refused.text("detail"), detail);
        assert!(refused.text("hint").contains("/v1"), "{}", refused.body);
    }
    for path in ["/v1", "/v1/", "/v1/v1/devices", "/v1/livez", "/v1/openapi.json", "/vx/devices"] {
        let refused = fetch(&running, path).await;
        assert_eq!(refused.text("detail"), format!("there is nothing at {path:?}"));
    }
}
