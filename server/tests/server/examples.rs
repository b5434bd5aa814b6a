//! The examples of docs/api.md, played in order against a server.
//!
//! An example is a block marked `http`: a request, an empty line, the answer. Each of the two is one
//! line, its headers, and its body. `"…"` stands for any value, and `…` for any part of a body that is
//! text; `<name>` stands for a string that is the same wherever the name stands; `<package …>` in a
//! request is a new package of the caller, `<welcome for REF>` a Welcome for a package, `<commit EPOCH>`
//! and `<message EPOCH>` MLS messages of the group; `<KIND by DEVICE on HEAD>` and `<KIND on HEAD>` are
//! proofs of statements that end in four minutes, for the ledger that an answer has called `<ledger>`.

use std::{collections::BTreeMap, fs, time::Duration};

use data_encoding::BASE64;
use ed25519_dalek::{Signature, VerifyingKey};
use keypool_api::{
    Code,
    signing::{BodyParts, ReceivedSignature, SignedParts, content_digest},
};
use keypool_ledger::{CredentialBytes, Hash, Timestamp};
use keypool_projections::statement::{Agreement, Statement, device_list_head};
use serde_json::Value;

use crate::{
    groups::{APPLICATION, COMMIT, welcome_for},
    harness::{Answer, Device, Draft, NOW, Running, answer, framed_for},
};

/// The leaf key that is declared: the base point of P-256.
const LEAF_KEY: &str =
    "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU";

/// The credential that is declared: Basic, for alice.
const CREDENTIAL: &str = "AAEFYWxpY2U=";

/// The owner of the recovery key.
const WORDS: &str = "alice/words";

/// The values of the names in the examples.
type Names = BTreeMap<String, String>;

/// One side of an example.
#[derive(Clone, Default)]
struct Message {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Message {
    fn parse(text: &str) -> Self {
        let mut lines = text.lines().peekable();
        let line = lines.next().unwrap().to_owned();
        let mut headers = Vec::new();
        while let Some((name, value)) = lines.peek().and_then(|line| header(line)) {
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
            lines.next();
        }
        Self { line, headers, body: lines.collect::<Vec<_>>().join("\n") }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

fn header(line: &str) -> Option<(&str, &str)> {
    let header = line.split_once(": ")?;
    header.0.chars().all(|char| char.is_ascii_alphanumeric() || char == '-').then_some(header)
}

fn document() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md")).unwrap()
}

/// The examples, each with the line it begins at.
fn examples(document: &str) -> Vec<(usize, Message, Message)> {
    let blocks = document.match_indices("```http\n").map(|(at, mark)| {
        let text = document[at + mark.len()..].split("```").next().unwrap();
        let line = document[..at].lines().count() + 1;
        let (request, answer) = text.trim_end().split_once("\n\n").unwrap();
        (line, Message::parse(request), Message::parse(answer))
    });
    blocks.collect()
}

/// The names that stand in angle brackets in a text.
fn names_in(text: &str) -> Vec<&str> {
    text.split('<').skip(1).filter_map(|rest| Some(rest.split_once('>')?.0)).collect()
}

/// The text of a request, with the values of its names.
fn filled_in(text: &str, device: &Device, names: &mut Names) -> String {
    let mut filled = text.to_owned();
    for name in names_in(text) {
        if !names.contains_key(name) {
            names.insert(name.to_owned(), new_value(name, device, names));
        }
        filled = filled.replace(&format!("<{name}>"), &names[name]);
    }
    filled
}

fn new_value(name: &str, device: &Device, names: &Names) -> String {
    if let Some(statement) = name.split_once(" on ") {
        return proof(statement, device, names);
    }
    if let Some(content) = [("commit ", COMMIT), ("message ", APPLICATION)]
        .into_iter()
        .find_map(|(kind, content)| Some((name.strip_prefix(kind)?.parse().ok()?, content)))
    {
        return BASE64.encode(&framed_for(b"group-1", content.0, content.1, name));
    }
    match name.strip_prefix("welcome for ") {
        Some(package) => welcome_for(&names[package]),
        None if name == "alice's recovery key" => Device::new(WORDS).keyid().to_string(),
        None if name.starts_with("package") => BASE64.encode(&device.package(NOW)),
        None => panic!("no answer has said what <{name}> is"),
    }
}

/// The proof of a statement of a kind, by a device's first key or the caller's, on a named head.
fn proof((kind, head): (&str, &str), caller: &Device, names: &Names) -> String {
    let (kind, by) = kind.split_once(" by ").unwrap_or((kind, ""));
    let by = if by.is_empty() { caller.clone() } else { Device::new(by) };
    let (key, leaf) = (caller.keyid(), LEAF_KEY.parse().unwrap());
    let credential = CREDENTIAL.parse::<CredentialBytes>().unwrap().digest();
    let recovery_key = Device::new(WORDS).keyid();
    let agreement = match kind {
        "vouch" => Agreement::Vouch(&key),
        "rotate" => Agreement::Rotate(&key),
        "credential" => Agreement::Credential(&credential),
        "recovery-key" => Agreement::RecoveryKey(&recovery_key),
        "recover" => Agreement::Recover(&key),
        _ => Agreement::LeafKey(0x0403, &leaf),
    };
    let list = caller.list_with(names[head].parse().unwrap(), &names["ledger"]);
    let until = NOW.after(Duration::from_mins(4));
    let stated = by.states_on(&list, &caller.pool, agreement, until);
    stated["proof"].as_str().unwrap().to_owned()
}

/// The expected answer, with the parts that may differ taken from the real one.
fn expected(example: &Value, come: &Value, names: &mut Names) -> Value {
    match (example, come) {
        (Value::String(text), _) => match (text.as_str(), names_in(text).as_slice(), come) {
            ("…", _, _) => come.clone(),
            (_, [name], Value::String(come)) => {
                names.entry((*name).to_owned()).or_insert_with(|| come.clone()).clone().into()
            }
            _ => example.clone(),
        },
        (Value::Array(examples), Value::Array(come)) => {
            let at = |index| come.get(index).unwrap_or(&Value::Null);
            let items = examples.iter().enumerate();
            items.map(|(index, example)| expected(example, at(index), names)).collect()
        }
        (Value::Object(fields), _) => {
            let fields = fields.iter();
            fields
                .map(|(name, value)| (name.clone(), expected(value, &come[name], names)))
                .collect()
        }
        _ => example.clone(),
    }
}

async fn play(running: &Running, request: &Message, names: &mut Names) -> Answer {
    let (line, caller) = match request.line.split_once(", signed by ") {
        Some((line, caller)) => {
            let next = caller.strip_prefix("the next key of ");
            let device = Device::new(next.unwrap_or(caller));
            (line, Some(if next.is_some() { device.impostor() } else { device }))
        }
        None => (request.line.as_str(), None),
    };
    let (method, path) = line.split_once(' ').unwrap();
    let Some(caller) = caller else {
        let url = format!("{}{path}", running.api.url);
        return answer(running.api.http.request(method.parse().unwrap(), url)).await.unwrap();
    };
    let body = filled_in(&request.body, &caller, names);
    let mut draft = Draft::get(path);
    if method == "POST" {
        draft = Draft::post(path, &Value::Null);
        draft.content_type =
            request.header("content-type").unwrap_or("application/json").to_owned();
        draft.body = Some(match draft.content_type.as_str() {
            "application/json" => body.into_bytes(),
            _ => BASE64.decode(body.as_bytes()).unwrap(),
        });
    }
    draft.key = request.header("idempotency-key").map_or(draft.key, |key| key.parse().unwrap());
    let mut sent = running.api.signed(&caller, &draft);
    if let Some(accept) = request.header("accept") {
        sent = sent.header("accept", accept);
    }
    answer(sent).await.unwrap()
}

fn check(place: usize, example: &Message, come: &Answer, names: &mut Names) {
    let place = format!("the example at line {place} of docs/api.md; {}", come.body);
    assert_eq!(example.line, come.status.to_string(), "{place}");
    for (name, value) in &example.headers {
        let header = come.header(name).into();
        assert_eq!(expected(&value.as_str().into(), &header, names), header, "{name} in {place}");
    }
    if let Ok(body) = serde_json::from_str::<Value>(&example.body) {
        let kind = if come.status < 300 { "application/json" } else { "application/problem+json" };
        assert_eq!(come.header("content-type"), kind, "{place}");
        assert_eq!(expected(&body, &come.body, names), come.body, "{place}");
    } else if let [name] = names_in(&example.body)[..] {
        assert_eq!(names.get(name), Some(&BASE64.encode(&come.bytes)), "{place}");
    } else {
        let come = String::from_utf8_lossy(&come.bytes);
        assert!(is_like(&example.body, come.trim_end()), "{come}\n{place}");
    }
}

/// Whether a text is that of an example, in which `…` stands for anything.
fn is_like(example: &str, come: &str) -> bool {
    let mut parts = example.split('…');
    let Some(mut rest) = parts.next().and_then(|start| come.strip_prefix(start)) else {
        return false;
    };
    for part in parts {
        let Some(place) = rest.find(part) else { return false };
        rest = if part.is_empty() { "" } else { &rest[place + part.len()..] };
    }
    rest.is_empty()
}

#[actix_web::test]
async fn every_example_of_the_api_page_is_true() {
    let (running, document) = (Running::start(), document());
    let mut names = Names::new();
    for (place, request, example) in examples(&document) {
        let come = play(&running, &request, &mut names).await;
        check(place, &example, &come, &mut names);
    }
}

/// The example as it was before the API had a version in its addresses.
fn without_version((request, example): (Message, Message)) -> (Message, Message) {
    let strip = |text: &str| text.replace("/v1/", "/");
    let request = Message { line: strip(&request.line), ..request };
    (request, Message { body: strip(&example.body), ..example })
}

#[actix_web::test]
async fn every_example_is_true_without_the_version() {
    let (running, document) = (Running::start(), document());
    let mut names = Names::new();
    for (place, request, example) in examples(&document) {
        let (request, example) = without_version((request, example));
        let come = play(&running, &request, &mut names).await;
        check(place, &example, &come, &mut names);
    }
}

#[actix_web::test]
async fn every_route_has_an_example() {
    let (running, document) = (Running::start(), document());
    let examples = examples(&document);
    let api = answer(running.api.http.get(format!("{}/openapi.json", running.api.url)));
    let api = api.await.unwrap();
    for (path, methods) in api.body["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let servers = operation.get("servers").unwrap_or(&api.body["servers"]);
            let version = servers[0]["url"].as_str().unwrap().trim_end_matches('/');
            let path = path.replace("{group_id}", "Z3JvdXAtMQ").replace("{user}", "alice");
            let path = path.replace("{path}", "0/000");
            let reservation = "5c0f7b52-4f0e-4e53-9a55-0d6d3c5a9a3e";
            let path = path.replace("{reservation_id}", reservation);
            let start = format!("{} {version}{path}", method.to_ascii_uppercase());
            let shown = |line: &str| {
                line.strip_prefix(&start).is_some_and(|rest| !rest.starts_with(['/', '-']))
            };
            assert!(examples.iter().any(|(_, request, _)| shown(&request.line)), "{start}");
        }
    }
}

#[test]
fn the_api_page_lists_every_code() {
    let document = document();
    for code in Code::ALL {
        let retry = if code.retryable() { "yes" } else { "no" };
        let row = format!("| `{code}` | {} | {} | {retry} |", code.title(), code.hint());
        assert!(document.contains(&row), "{row}");
    }
}

#[test]
fn the_known_answer_of_the_api_page_verifies() {
    let document = document();
    let block = document.split("```").find(|block| block.contains("\nsignature: ")).unwrap();
    let (request, headers) = block.trim().split_once("\n\n").unwrap();
    let (line, body) = request.split_once('\n').unwrap();
    let (authority, path) = line.strip_prefix("POST https://").unwrap().split_once('/').unwrap();
    let headers = Message::parse(&format!("\n{headers}"));
    let value = |name| headers.header(name).unwrap();
    assert_eq!(value("content-digest"), content_digest(body.as_bytes()));
    let parts = SignedParts {
        method: "POST",
        authority,
        path: &format!("/{path}"),
        query: "?",
        body: Some(BodyParts {
            content_type: value("content-type"),
            content_digest: value("content-digest"),
            idempotency_key: value("idempotency-key"),
        }),
        authorization: None,
        caller: None,
    };
    let received = ReceivedSignature::parse(value("signature-input"), value("signature")).unwrap();
    parts.check(&received, NOW).unwrap();
    let key = VerifyingKey::from_bytes(received.keyid.as_bytes().try_into().unwrap()).unwrap();
    let secret: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).unwrap());
    assert_eq!(key, ed25519_dalek::SigningKey::from_bytes(&secret).verifying_key());
    let signature = Signature::from_slice(&received.signature).unwrap();
    key.verify_strict(parts.base(&received.params).as_bytes(), &signature).unwrap();
}

/// A known answer of the page: the lines before its empty line, and the value behind a name after it.
fn known_answer<'a>(document: &'a str, start: &str, name: &str) -> (String, &'a str) {
    let is_it = |block: &&str| block.trim().starts_with(start) && block.contains(name);
    let block = document.split("```").find(is_it).unwrap();
    let (lines, answer) = block.trim().split_once("\n\n").unwrap();
    (format!("{lines}\n"), answer.strip_prefix(name).unwrap())
}

#[test]
fn the_known_head_and_statement_of_the_api_page_are_right() {
    let document = document();
    let secret: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).unwrap());
    let phone = Device {
        pool: "alice/phone".parse().unwrap(),
        key: ed25519_dalek::SigningKey::from_bytes(&secret),
    };
    let (lines, answer) = known_answer(&document, "keypool-devices-v1", "head: ");
    let by = phone.keyid();
    let list = [("laptop", 2, None), ("phone", 1, Some(&by))];
    let head = device_list_head("alice", list.into_iter());
    assert_eq!((Hash::of(lines.as_bytes()), answer), (head, head.to_string().as_str()));

    let (lines, answer) = known_answer(&document, "keypool-statement-v2", "proof: ");
    let part = |line: usize| lines.lines().nth(line).unwrap();
    let (laptop, next) = (part(3).parse().unwrap(), part(5).parse().unwrap());
    let list = phone.list_with(head, part(2));
    let until = Timestamp::from_secs(part(7).parse().unwrap());
    let agreement = Agreement::Vouch(&next);
    let statement = Statement {
        ledger: &list.ledger,
        subject: &laptop,
        by: &by,
        agreement: agreement.clone(),
        head: &head,
        until,
    };
    assert_eq!(String::from_utf8(statement.to_bytes()).unwrap(), lines);
    assert_eq!(phone.states_on(&list, &laptop, agreement, until)["proof"], answer);
}
