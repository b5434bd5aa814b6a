//! The description of the API as a page for people: each route with its fields, answers and examples.

use maud::{DOCTYPE, Markup, html};
use serde_json::{Map, Value};

use crate::assets;

/// The path of the page's style sheet, beside the page.
pub const API_STYLE: &str = "/docs/page.css";
/// The methods in the order in which they are shown.
const METHODS: [&str; 2] = ["get", "post"];
/// Characters of an example's text; a longer one is cut.
const TEXT_MAX: usize = 60;

/// Makes the page of an `OpenAPI` 3.1 document; `address` is the path of the document itself. A part that is not as
/// that standard says is left out.
#[must_use]
pub fn api_page(document: &Value, address: &str) -> String {
    let title = text(document, "/info/title");
    let tags = array(document, "/tags");
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "API · " (title) }
                link rel="stylesheet" href=(API_STYLE);
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    strong { (title) }
                    nav aria-label="Parts of the API" {
                        @for tag in tags { @let name = text(tag, "/name"); a href={ "#" (name) } { (name) } }
                    }
                }
                main id="main" tabindex="-1" {
                    h1 { "API " (text(document, "/info/version")) }
                    @for paragraph in text(document, "/info/description").split("\n\n") { p { (prose(paragraph)) } }
                    p { "This page is made of " a href=(address) { "the OpenAPI document" } ", from which clients can be generated. "
                        "Paths begin with " code { (text(document, "/servers/0/url")) } "." }
                    @for tag in tags { (part(document, tag)) }
                }
            }
        }
    };
    page.into_string()
}

/// The style sheet of the page.
#[must_use]
pub fn api_style() -> &'static str {
    assets::Asset::at(assets::STYLE).map_or("", |asset| asset.text)
}

/// The routes of a tag.
fn part(document: &Value, tag: &Value) -> Markup {
    let name = text(tag, "/name");
    html! {
        section aria-labelledby=(name) {
            h2 id=(name) { (name) }
            p { (prose(text(tag, "/description"))) "." }
            @for (path, item) in object(document, "/paths") {
                @for method in METHODS {
                    @if let Some(operation) = item.get(method).filter(|it| text(it, "/tags/0") == name) {
                        (route(document, (path, method), operation))
                    }
                }
            }
        }
    }
}

fn route(document: &Value, (path, method): (&str, &str), operation: &Value) -> Markup {
    let id = text(operation, "/operationId");
    let request =
        resolved(document, operation.pointer("/requestBody/content/application~1json/schema"));
    let is_signed = !array(operation, "/security").is_empty();
    html! {
        details id=(id) {
            summary { code { (method.to_uppercase()) " " (path) } " " (prose(text(operation, "/summary"))) }
            @let description = text(operation, "/description");
            @if !description.is_empty() { p { (prose(description)) } }
            @if is_signed { p { small { "The device signs the request." } } }
            (parameters(operation))
            @if let Some(schema) = request { h3 { "Request" } (fields(document, schema)) }
            (example("An example", operation.pointer("/requestBody/content/application~1json/example")))
            h3 { "Answers" }
            dl {
                @for (status, answer) in object(operation, "/responses") {
                    dt { code { (status) } " " (prose(text(answer, "/description"))) }
                    @let content = answer.pointer("/content/application~1json");
                    @let schema = resolved(document, content.and_then(|content| content.get("schema")));
                    dd {
                        @if let Some(schema) = schema { (fields(document, schema)) }
                        (example("An example", content.and_then(|content| content.get("example"))))
                    }
                }
            }
        }
    }
}

/// A description, its words between backticks as code.
fn prose(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 0 { (part) } @else { code { (part) } }
        }
    }
}

fn parameters(operation: &Value) -> Markup {
    let parameters = array(operation, "/parameters");
    html! {
        @if !parameters.is_empty() {
            ul {
                @for parameter in parameters {
                    li { code { (text(parameter, "/name")) } " (" (text(parameter, "/in")) "): "
                        (prose(text(parameter, "/description"))) }
                }
            }
        }
    }
}

/// The fields of an object, each with its type, and whether it may be left out.
fn fields(document: &Value, schema: &Value) -> Markup {
    let required: Vec<&str> = array(schema, "/required").iter().filter_map(Value::as_str).collect();
    html! {
        ul {
            @for (name, field) in object(schema, "/properties") {
                @let description = described(document, field);
                li {
                    code { (name) } " " small { (kind(document, field)) }
                    @if !required.contains(&name) { " " small { "(optional)" } }
                    @if !description.is_empty() { ": " (prose(&description)) }
                }
            }
        }
    }
}

fn example(title: &str, example: Option<&Value>) -> Markup {
    html! {
        @if let Some(example) = example {
            p { small { (title) } }
            pre.scroll tabindex="0" { code { (serde_json::to_string_pretty(&shortened(example)).unwrap_or_default()) } }
        }
    }
}

/// The type of a field in a word or two.
fn kind(document: &Value, field: &Value) -> String {
    if let Some(reference) = field.pointer("/$ref").and_then(Value::as_str) {
        return match resolved(document, Some(field)) {
            Some(schema) if schema.get("properties").is_none() => kind(document, schema),
            _ => reference.rsplit('/').next().unwrap_or_default().to_owned(),
        };
    }
    match field.get("type") {
        Some(Value::String(name)) if name == "array" => {
            let of = field.get("items").map(|item| kind(document, item));
            format!("list of {}", of.unwrap_or_default())
        }
        Some(Value::String(name)) => name.clone(),
        Some(Value::Array(kinds)) => {
            let kinds = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null");
            kinds.collect::<Vec<_>>().join(" or ")
        }
        _ => array(field, "/oneOf")
            .iter()
            .map(|one| kind(document, one))
            .find(|kind| kind != "null")
            .unwrap_or_default(),
    }
}

fn described(document: &Value, field: &Value) -> String {
    let own = text(field, "/description");
    if !own.is_empty() {
        return own.to_owned();
    }
    let of_one = array(field, "/oneOf").iter().map(|one| text(one, "/description"));
    let of_one = of_one.into_iter().find(|description| !description.is_empty());
    let of_type = resolved(document, Some(field)).map(|schema| text(schema, "/description"));
    of_one.or(of_type).unwrap_or_default().to_owned()
}

/// The schema that a reference stands for, or the schema itself.
fn resolved<'a>(document: &'a Value, schema: Option<&'a Value>) -> Option<&'a Value> {
    let schema = schema?;
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => document.pointer(reference.strip_prefix('#')?),
        None => Some(schema),
    }
}

/// An example whose long texts, which are bytes, are cut.
fn shortened(example: &Value) -> Value {
    match example {
        Value::String(text) if TEXT_MAX < text.chars().count() => {
            Value::String(text.chars().take(TEXT_MAX).chain(['…']).collect())
        }
        Value::Array(values) => values.iter().map(shortened).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), shortened(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn array<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn object<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let fields = value.pointer(pointer).and_then(Value::as_object);
    fields.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}
