//! Bodies of the description: which of them are bytes, and an example of each step of the main job.

use serde::Deserialize;
use serde_json::Value;
use utoipa::{
    Modify,
    openapi::{
        Content, OpenApi, RefOr,
        path::{Operation, PathItem},
        schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type},
    },
};

/// The media types of bodies that are bytes.
const BINARY: [&str; 2] = ["message/mls", "application/octet-stream"];
const JSON: &str = "application/json";

/// A registration, an upload, a reservation, its renewal and its end, as one server answers them in turn.
const EXAMPLES: &str = include_str!("examples.json");

/// An operation with the bodies of its request and its answer.
#[derive(Deserialize)]
struct BodyExample {
    path: String,
    request: Option<Value>,
    answer: Value,
}

/// Adds the types of binary bodies, and examples, to the description.
pub(super) struct Bodies;

impl Modify for Bodies {
    fn modify(&self, document: &mut OpenApi) {
        for PathItem { get, post, .. } in document.paths.paths.values_mut() {
            for operation in [get, post].into_iter().flatten() {
                contents(operation).for_each(type_binary);
            }
        }
        let examples: Vec<BodyExample> = serde_json::from_str(EXAMPLES).unwrap_or_default();
        for BodyExample { path, request, answer } in examples {
            let Some(item) = document.paths.paths.get_mut(&path) else { continue };
            let operation = if request.is_some() { &mut item.post } else { &mut item.get };
            if let Some(operation) = operation {
                add_examples(operation, request.as_ref(), &answer);
            }
        }
    }
}

/// The bodies of an operation with their media types: those of its request, then those of its answers.
fn contents(operation: &mut Operation) -> impl Iterator<Item = (&String, &mut Content)> {
    let request = operation.request_body.iter_mut().filter_map(written);
    let request = request.flat_map(|body| body.content.iter_mut());
    let answers = operation.responses.responses.values_mut().filter_map(written);
    let answers = answers.flat_map(|answer| answer.content.iter_mut());
    let written = |(media_type, content)| Some((media_type, written(content)?));
    request.filter_map(written).chain(answers.filter_map(written))
}

/// A part of the description that stands where it is used.
const fn written<T>(part: &mut RefOr<T>) -> Option<&mut T> {
    match part {
        RefOr::T(part) => Some(part),
        RefOr::Ref(_) => None,
    }
}

fn type_binary((media_type, content): (&String, &mut Content)) {
    if BINARY.contains(&media_type.as_str()) {
        let bytes = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
        content.schema = Some(bytes.into());
    }
}

/// Adds the examples to the bodies in JSON: at most one of the request, and those of answers.
fn add_examples(operation: &mut Operation, request: Option<&Value>, answer: &Value) {
    let bodies = contents(operation).filter(|(media_type, _)| *media_type == JSON);
    let examples = request.into_iter().chain(std::iter::repeat(answer));
    for ((_, content), example) in bodies.zip(examples) {
        content.example = Some(example.clone());
    }
}
