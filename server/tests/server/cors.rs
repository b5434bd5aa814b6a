//! Web pages of other origins: those that the operator names use the API from a browser, others do not.

use std::process::Stdio;

use keypool_projections::quota::{Quotas, Rate};
use reqwest::Method;
use serde_json::json;

use crate::harness::{
    Answer, Api, Device, Draft, GROUP, NOW, Process, Running, answer, command, refusal,
};

const APP: &str = "https://app.example";

/// The request by which a browser asks whether a page may send another one.
fn preflight(api: &Api, origin: &str, method: &str, headers: &str) -> reqwest::RequestBuilder {
    api.http
        .request(Method::OPTIONS, format!("{}/v1/keypackages/reserve", api.url))
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", headers)
}

/// The headers of an answer that a browser looks for.
fn access_headers(answer: &Answer) -> Vec<&str> {
    let names = answer.headers.keys().map(reqwest::header::HeaderName::as_str);
    names.filter(|name| name.starts_with("access-control-")).collect()
}

fn words(header: &str) -> Vec<&str> {
    let mut words: Vec<&str> = header.split(',').map(str::trim).collect();
    words.sort_unstable();
    words
}

fn with_origins(origins: &[&str]) -> Running {
    let origins = origins.iter().map(|origin| origin.parse().unwrap()).collect();
    Running::start_with(|settings| settings.cors_origins = origins)
}

#[actix_web::test]
async fn a_page_of_a_named_origin_reserves_a_package_as_its_browser_lets_it() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = with_origins(&["https://other.example", APP]).with(&[&alice, &bob], 1).await;
    let api = &running.api;
    let draft =
        Draft::post("/v1/keypackages/reserve", &json!({ "target_user": "bob", "group_id": GROUP }));
    // A browser asks with the names of the headers that the page has set, sorted.
    let headers = draft.acting_for("x/y").with_token("t").headers(&alice, api.authority(), NOW);
    let mut names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();

    let may = answer(preflight(api, APP, "POST", &names.join(","))).await.unwrap();
    assert_eq!((may.status, may.header("access-control-allow-origin")), (200, APP));
    assert_eq!(words(may.header("access-control-allow-methods")), ["GET", "HEAD", "POST"]);
    assert_eq!(may.header("access-control-max-age"), "7200");
    let allowed = words(may.header("access-control-allow-headers"));
    assert!(names.iter().all(|name| allowed.contains(name)), "{names:?} {allowed:?}");
    assert!(may.header("vary").to_ascii_lowercase().contains("origin"), "{}", may.header("vary"));
    assert!(!may.headers.contains_key("access-control-allow-credentials"));

    let request = api.signed(&alice, &draft).header("origin", APP);
    let reserved = answer(request).await.unwrap().ok();
    assert_eq!(reserved.header("access-control-allow-origin"), APP);
    let exposed = words(reserved.header("access-control-expose-headers"));
    for name in ["keypool-time", "retry-after", "x-request-id"] {
        assert!(exposed.contains(&name), "{name} {exposed:?}");
    }
    // A page reads each header of the profile that an answer in bytes has.
    api.upload(&bob, &bob.packages(NOW, 1)).await.ok();
    let draft =
        Draft::post("/v1/keypackages/reserve", &json!({ "target_user": "bob", "group_id": GROUP }));
    let raw = api.signed(&alice, &draft).header("origin", APP).header("accept", "message/mls");
    let raw = answer(raw).await.unwrap().ok();
    let ours = raw.headers.keys().filter(|name| name.as_str().starts_with("keypool-"));
    for name in ours {
        assert!(exposed.contains(&name.as_str()), "{name} {exposed:?}");
    }
}

#[actix_web::test]
async fn a_refusal_is_read_by_the_page_too() {
    let running = with_origins(&[APP]);
    let url = format!("{}/v1/keypackages/status", running.api.url);
    let refused = answer(running.api.http.get(url).header("origin", APP)).await.unwrap();
    assert_eq!((refused.status, refused.code()), (401, "unauthenticated"));
    assert_eq!(refused.header("access-control-allow-origin"), APP);
}

#[actix_web::test]
async fn other_origins_and_tricks_with_the_name_are_not_let_in() {
    let running = with_origins(&[APP]);
    let api = &running.api;
    let others = [
        "null",
        "*",
        "https://evil.example",
        "https://app.example.evil.example",
        "https://evilapp.example",
        "https://sub.app.example",
        "http://app.example",
        "https://app.example:8443",
        "https://app.example:443",
        "https://app.example/",
        "https://APP.example",
        "https://app.example https://evil.example",
        "https://app.example,https://evil.example",
        "https://app.example\\@evil.example",
        "",
    ];
    for origin in others {
        let may = answer(preflight(api, origin, "POST", "signature")).await.unwrap();
        assert!(300 <= may.status, "{origin:?} {}", may.status);
        assert!(!may.headers.contains_key("access-control-allow-origin"), "{origin:?}");
        let key = api.http.get(format!("{}/v1/ledger/key", api.url)).header("origin", origin);
        let key = answer(key).await.unwrap();
        assert!(!key.headers.contains_key("access-control-allow-origin"), "{origin:?}");
    }
    // Two origins in one request are none.
    let twice = preflight(api, APP, "POST", "signature").header("origin", "https://evil.example");
    let twice = answer(twice).await.unwrap();
    assert_ne!(twice.header("access-control-allow-origin"), "https://evil.example");
    // Other methods and headers are not, from a named origin either.
    for (method, headers) in [("DELETE", "signature"), ("POST", "signature,x-keypool-caller")] {
        let may = answer(preflight(api, APP, method, headers)).await.unwrap();
        assert!(300 <= may.status, "{method} {headers} {}", may.status);
    }
}

#[actix_web::test]
async fn a_preflight_counts_against_no_limit() {
    let origins = vec![APP.parse().unwrap()];
    let once = Rate { burst: 1, every: std::time::Duration::from_hours(1) };
    let running = Running::start_with(|settings| {
        settings.cors_origins = origins;
        settings.quotas =
            Some(Quotas { failures: once, requests: once, devices: once, ..Quotas::STANDARD });
        settings.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    });
    let api = &running.api;
    for _ in 0..20 {
        let may = preflight(api, APP, "POST", "signature").header("x-forwarded-for", "192.0.2.1");
        assert_eq!(answer(may).await.unwrap().status, 200);
    }
    let draft = Draft::post("/v1/devices", &json!({ "user": "alice" }));
    let register = api.signed(&Device::new("alice"), &draft);
    answer(register.header("x-forwarded-for", "192.0.2.1")).await.unwrap().ok();
}

#[actix_web::test]
async fn without_a_named_origin_no_answer_has_a_header_for_pages() {
    let running = Running::start();
    let api = &running.api;
    let may = answer(preflight(api, APP, "POST", "signature")).await.unwrap();
    assert_eq!((may.status, may.code()), (405, "method_not_allowed"));
    let key = api.http.get(format!("{}/v1/ledger/key", api.url)).header("origin", APP);
    let key = answer(key).await.unwrap().ok();
    for answer in [&may, &key] {
        assert!(access_headers(answer).is_empty() && !answer.headers.contains_key("vary"));
    }
}

#[actix_web::test]
async fn the_operators_listener_answers_no_page() {
    let running = with_origins(&[APP]);
    let metrics = running.api.http.get(format!("{}/metrics", running.admin_url()));
    let metrics = answer(metrics.header("origin", APP)).await.unwrap().ok();
    assert!(access_headers(&metrics).is_empty());
}

#[actix_web::test]
async fn the_flag_may_be_given_several_times_and_an_origin_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut flags = command(dir.path());
    flags.args(["--cors-origin", APP, "--cors-origin", "http://localhost:5173"]);
    let process = Process::spawn(flags.stderr(Stdio::null()));
    for origin in [APP, "http://localhost:5173"] {
        let may = answer(preflight(&process.api, origin, "GET", "signature")).await.unwrap();
        assert_eq!(may.header("access-control-allow-origin"), origin);
    }
    drop(process);
    for (origin, next) in [
        ("*", "name each origin, such as https://app.example"),
        ("null", "name each origin, such as https://app.example"),
        ("https://app.example/chat", "a scheme, a host, a port, and nothing else"),
        ("https://app.example/", "say \"https://app.example\""),
    ] {
        let (said, code) = refusal(command(dir.path()).args(["--cors-origin", origin]));
        assert!(said.contains(next) && code == 2, "{said} ({code})");
    }
}
