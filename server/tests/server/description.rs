//! The API document: its schemas fit the requests and the answers, and its examples are true.

use std::collections::BTreeSet;

use boon::{Compiler, Draft as SchemaDraft, Schemas};
use serde_json::{Value, json};

use crate::harness::{Device, Draft, Running, answer};

async fn document(running: &Running) -> Value {
    answer(running.api.http.get(format!("{}/openapi.json", running.api.url))).await.unwrap().body
}

/// The operations of the document: path, method and description.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// The bodies of an operation: media type and description.
fn contents(operation: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let answers = operation["responses"].as_object().unwrap().values();
    let bodies = std::iter::once(&operation["requestBody"]).chain(answers);
    let contents = bodies.filter_map(|body| body["content"].as_object());
    contents.flatten().map(|(media_type, content)| (media_type.as_str(), content))
}

/// The example of an operation's request, and that of its answer.
fn examples(operation: &Value) -> Vec<Value> {
    let examples = contents(operation).filter_map(|(_, content)| content.get("example"));
    examples.cloned().collect()
}

#[actix_web::test]
async fn the_operations_that_are_signed_name_the_signature() {
    let running = Running::start();
    let document = document(&running).await;
    let schemes = &document["components"]["securitySchemes"];
    let signature = &schemes["deviceSignature"];
    assert_eq!((&signature["in"], &signature["name"]), (&json!("header"), &json!("Signature")));
    assert!(signature["description"].as_str().unwrap().contains("RFC 9421"));
    let mut open = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let path = path.replace("{group_id}", "Z3JvdXAtMQ").replace("{user}", "bob");
        let asked = match method {
            "get" => Draft::get(&path),
            _ => Draft::post(&path, &json!({})),
        };
        let unsigned = answer(running.api.with_headers(&asked, &[])).await.unwrap();
        let is_signed = operation.get("security").is_some();
        if !is_signed {
            open.insert(path.clone());
        }
        // A changing request is asked for its key before its signature.
        let refused = unsigned.status == 401 || unsigned.text("detail").contains("Idempotency-Key");
        assert_eq!(refused, is_signed, "{method} {path}: {}", unsigned.body);
        for way in operation["security"].as_array().into_iter().flatten() {
            for scheme in way.as_object().unwrap().keys() {
                assert!(schemes.get(scheme).is_some(), "{scheme} of {path} is not described");
            }
        }
    }
    assert!(
        open.iter().all(|path| path.starts_with("/ledger/") || path.ends_with('z')),
        "{open:?}"
    );
}

#[actix_web::test]
async fn bodies_of_bytes_are_typed_as_such() {
    let document = document(&Running::start()).await;
    let bytes = json!({ "type": "string", "format": "binary" });
    let mut found = BTreeSet::new();
    for (path, _, operation) in operations(&document) {
        for (media_type, content) in contents(operation) {
            let is_binary = matches!(media_type, "message/mls" | "application/octet-stream");
            assert_eq!(content["schema"] == bytes, is_binary, "{media_type} of {path}");
            found.extend(is_binary.then_some(path));
        }
    }
    let expected = ["/keypackages/reserve", "/keypackages/upload", "/ledger/tile/{path}"];
    assert_eq!(found, BTreeSet::from(expected));
}

#[actix_web::test]
async fn the_examples_fit_their_schemas() {
    let document = document(&Running::start()).await;
    let mut checked = 0;
    for (path, method, operation) in operations(&document) {
        for (_, content) in contents(operation) {
            let Some(example) = content.get("example") else { continue };
            let mut schema = document.clone();
            schema["$ref"] = content["schema"]["$ref"].clone();
            let mut compiler = Compiler::new();
            compiler.set_default_draft(SchemaDraft::V2020_12);
            compiler.add_resource("urn:document", schema).unwrap();
            let mut schemas = Schemas::new();
            let compiled = compiler.compile("urn:document", &mut schemas).unwrap();
            let fits = schemas.validate(example, compiled);
            assert!(fits.is_ok(), "{method} {path}: {}", fits.unwrap_err());
            checked += 1;
        }
    }
    assert_eq!(checked, 12);
}

#[actix_web::test]
async fn the_examples_are_the_main_job_as_a_server_answers_it() {
    let (alice, bob) = (Device::new("alice"), Device::new("bob"));
    let running = Running::start();
    let document = document(&running).await;
    let example = |path: &str, method: &str| {
        let found = examples(&document["paths"][path][method]);
        assert!(!found.is_empty(), "{method} {path} has no example");
        found
    };
    let run = async |device: &Device, path: &str| {
        let bodies = example(path, "post");
        let [request, expected] = bodies.as_slice() else { panic!("{path}: {bodies:?}") };
        let path = format!("/v1{path}");
        let come = running.api.post(device, &path, request.clone()).await.ok();
        assert_eq!(come.body, *expected, "{path}");
    };
    // The second answer to a registration is that of a repetition.
    let [request, expected, _] = &example("/devices", "post")[..] else { panic!() };
    let come = running.api.post(&bob, "/v1/devices", request.clone()).await.ok();
    assert_eq!(come.body, *expected);
    running.api.register(&alice).await.ok();
    run(&bob, "/keypackages/upload").await;
    run(&alice, "/keypackages/reserve").await;
    run(&alice, "/keypackages/renew").await;
    run(&alice, "/keypackages/spend").await;
    let mut status = running.api.get(&bob, "/v1/keypackages/status").await.ok();
    let [expected] = &example("/keypackages/status", "get")[..] else { panic!() };
    // The head of the history hangs on the random keys of the requests.
    status.body["head"] = expected["head"].clone();
    assert_eq!(status.body, *expected);
}

#[actix_web::test]
async fn people_read_the_api_as_a_page() {
    let running = Running::start();
    let get = async |path: &str| {
        let url = format!("{}{path}", running.server.url());
        answer(running.api.http.get(url)).await.unwrap().ok()
    };
    let page = get("/docs").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    let html = String::from_utf8(page.bytes).unwrap();
    let document = get("/openapi.json").await.body;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let route = format!("<summary><code>{} {path}</code>", method.to_uppercase());
            assert_eq!(html.matches(&route).count(), 1, "{route}");
            let summary = operation["summary"].as_str().unwrap();
            let plain = summary.split('`').next().unwrap().replace('"', "&quot;");
            assert!(html.contains(&plain), "{summary}");
        }
    }
    for part in ["target_user</code> <small>string</small>", "(optional)", "Idempotency-Key"] {
        assert!(html.contains(part), "{part}");
    }
    assert!(!html.contains('`'), "words of code are shown as such");
    let named = html.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    for address in named.filter(|address| address.starts_with('/')) {
        assert!(!get(address).await.bytes.is_empty(), "{address}");
    }
    assert!(String::from_utf8(get("/").await.bytes).unwrap().contains("/docs"));
}
