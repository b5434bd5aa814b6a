//! Optional fields of requests that are `null`: every one in the API document counts as left out.

use serde_json::{Map, Value, json};

use crate::harness::{Api, Device, Draft, GROUP, Running, answer};

/// The object that a reference or a field of the document leads to, without `null` as an alternative.
fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    let other = |one: &&Value| one["type"] != "null";
    let schema =
        schema["oneOf"].as_array().and_then(|all| all.iter().find(other)).unwrap_or(schema);
    match schema["$ref"].as_str() {
        Some(to) => resolved(document, document.pointer(&to[1..]).unwrap()),
        None => schema,
    }
}

/// A value that a field takes.
fn sample(document: &Value, name: &str, schema: &Value, optional: &[&str]) -> Value {
    let schema = resolved(document, schema);
    let first = |word: &Value| word.as_array().map_or(word, |all| &all[0]).clone();
    match (name, first(&schema["type"]).as_str().unwrap_or("string")) {
        (_, "object") => object(document, schema, optional),
        (_, "array") => json!([sample(document, name, &schema["items"], optional)]),
        (_, "integer") => json!(1),
        ("head" | "digest" | "credential_hash" | "keypackage_ref" | "keypackage_refs", _) => {
            json!("ab".repeat(32))
        }
        ("proof", _) => json!("A".repeat(86)),
        ("reason", _) => json!("withdrawn"),
        ("reservation_id", _) => json!("9b2f2f6e-6e0c-4b6c-8a39-3f6f4f0d7c11"),
        (name, _) if name.ends_with("keyid") => json!(Device::new("alice").keyid()),
        ("group_id", _) => json!(GROUP),
        ("user" | "device" | "target_user", _) => json!("alice"),
        _ => json!("AAAA"),
    }
}

/// An object with the required fields, with `null` in the named optional ones, and in those of the objects
/// in it.
fn object(document: &Value, schema: &Value, optional: &[&str]) -> Value {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let fields = schema["properties"].as_object().unwrap();
    let mut made = Map::new();
    for (name, field) in fields {
        if required.contains(&json!(name)) {
            made.insert(name.clone(), sample(document, name, field, optional));
        } else if optional.contains(&name.as_str()) {
            made.insert(name.clone(), Value::Null);
        }
    }
    Value::Object(made)
}

/// Every optional field of an object, and of the objects in its required fields.
fn optional_fields(document: &Value, schema: &Value, found: &mut Vec<String>) {
    let schema = resolved(document, schema);
    let schema =
        if schema["type"] == "array" { resolved(document, &schema["items"]) } else { schema };
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if required.contains(&json!(name)) {
            optional_fields(document, field, found);
        } else {
            found.push(name.clone());
        }
    }
}

/// The answer to a request, as far as two answers to one request agree.
async fn told(api: &Api, path: &str, body: &Value) -> (u16, Value) {
    let path = path.replace("{group_id}", "Z3JvdXAtMQ");
    let answer = api.send(&Device::new("alice"), &Draft::post(&path, body)).await;
    (answer.status, answer.body["detail"].clone())
}

#[actix_web::test]
async fn every_optional_field_of_a_request_may_be_null() {
    let running = Running::start().with(&[&Device::new("alice")], 0).await;
    let api = &running.api;
    let document = answer(api.http.get(format!("{}/openapi.json", api.url))).await.unwrap().body;
    let mut seen = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let schema = &methods["post"]["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            continue;
        }
        let schema = resolved(&document, schema);
        let mut optional = Vec::new();
        optional_fields(&document, schema, &mut optional);
        let without = told(api, path, &object(&document, schema, &[])).await;
        let detail = without.1.as_str().unwrap_or_default();
        assert!(!detail.starts_with("the body:"), "{path}: {without:?}");
        for name in optional {
            let with_null = object(&document, schema, &[&name]);
            let with_null = told(api, path, &with_null).await;
            let detail = with_null.1.as_str().unwrap_or_default();
            assert!(!detail.starts_with("the body:"), "{path}, {name}: {with_null:?}");
            seen.push(format!("{path} {name}"));
        }
    }
    insta::assert_snapshot!(seen.join("\n"));
}
