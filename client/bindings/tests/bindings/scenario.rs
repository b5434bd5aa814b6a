//! The scenario, `client/bindings/scenario.json`, played by devices of every language against one real server.
//!
//! Devices of this language are in this process. Those of another one are in the program that the variable
//! `KEYPOOL_PLAYER_LANGUAGE` names, such as `KEYPOOL_PLAYER_PYTHON="python3 play.py"`: it reads a step a line from its
//! standard input, and answers each with a line. `client/bindings/run` sets the variables.

use std::{collections::BTreeMap, env, fs, path::Path};

use serde_json::{Map, Value};

use super::{
    player::{Answer, Player},
    service::Service,
};

/// The ciphersuites other than the first one that devices of every language can use.
const OTHER_CIPHERSUITES: [u16; 2] = [2, 3];

/// The begin of the names of the variables that name the programs of other languages.
const PROGRAM_PREFIX: &str = "KEYPOOL_PLAYER_";

/// The language of a device: the name of a program's variable, or none for this process.
type Language<'a> = Option<&'a str>;

#[test]
fn every_language_plays_the_scenario() {
    let programs = programs();
    play(&programs, &|_| None);
    for language in programs.keys() {
        play(&programs, &|_| Some(language));
    }
}

#[test]
fn devices_of_different_languages_are_in_one_group() {
    let programs = programs();
    for language in programs.keys() {
        play(&programs, &|device| (device != "alice").then_some(language));
        play(&programs, &|device| (device == "alice").then_some(language));
    }
    for (language, other) in programs.keys().zip(programs.keys().skip(1)) {
        play(&programs, &|device| Some(if device == "alice" { language } else { other }));
        play(&programs, &|device| Some(if device == "alice" { other } else { language }));
    }
}

#[test]
fn the_scenario_is_played_in_other_ciphersuites() {
    let programs = programs();
    for ciphersuite in OTHER_CIPHERSUITES {
        play_in(Some(ciphersuite), &programs, &|_| None);
        for language in programs.keys() {
            play_in(Some(ciphersuite), &programs, &|it| (it != "alice").then_some(language));
            play_in(Some(ciphersuite), &programs, &|it| (it == "alice").then_some(language));
        }
    }
}

/// The programs of other languages, by language.
fn programs() -> BTreeMap<String, String> {
    let named = env::vars().filter_map(|(name, command)| {
        Some((name.strip_prefix(PROGRAM_PREFIX)?.to_lowercase(), command))
    });
    named.collect()
}

/// Plays the whole scenario on a server of its own, in the ciphersuite that devices have by default.
fn play<'a>(programs: &BTreeMap<String, String>, language_of: &dyn Fn(&str) -> Language<'a>) {
    play_in(None, programs, language_of);
}

/// Plays the whole scenario on a server of its own, with devices of one ciphersuite.
fn play_in<'a>(
    ciphersuite: Option<u16>,
    programs: &BTreeMap<String, String>,
    language_of: &dyn Fn(&str) -> Language<'a>,
) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenario.json"));
    let scenario: Value = serde_json::from_str(&text.unwrap()).unwrap();
    let service = Service::start();
    let mut players = BTreeMap::<Language<'_>, Player>::new();
    let mut kept = Map::new();
    for (number, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
        if step["verb"] == "advance" {
            service.advance(step["seconds"].as_u64().unwrap());
        }
        let Some(device) = step["device"].as_str() else { continue };
        let language = language_of(device);
        let player = players.entry(language).or_insert_with(|| {
            Player::start(language.map(|name| programs[name].as_str()), &service)
        });
        let mut args =
            step.get("args").map_or_else(|| Value::Object(Map::new()), |args| filled(args, &kept));
        if let (Some(ciphersuite), true) = (ciphersuite, step["verb"] == "open") {
            args["ciphersuites"] = Value::from(vec![ciphersuite]);
        }
        let name = &scenario["devices"][device];
        let answer = player.play(&serde_json::json!({
            "device": device, "user": name["user"], "name": name["device"], "verb": step["verb"], "args": args,
        }));
        let (language, suite) = (language.unwrap_or("rust"), ciphersuite.unwrap_or(1));
        let place = format!("step {number} in {language}, ciphersuite {suite}: {step}\n");
        check(&place, step, &answer, &kept);
        if let (Some(name), Ok(result)) = (step["as"].as_str(), answer) {
            kept.insert(name.to_owned(), result);
        }
    }
}

/// Holds an answer to the expectation of its step.
fn check(place: &str, step: &Value, answer: &Answer, kept: &Map<String, Value>) {
    match (answer, step.get("refused")) {
        (Err(error), Some(refused)) => {
            assert!(fits(error, refused), "{place}refused otherwise: {error}");
            assert!(
                error["message"].as_str().is_some_and(|text| !text.is_empty()),
                "{place}{error}"
            );
        }
        (Err(error), None) => panic!("{place}{error}"),
        (Ok(result), Some(_)) => panic!("{place}not refused: {result}"),
        (Ok(result), None) => {
            if let Some(expected) = step.get("expect") {
                assert!(fits(result, &filled(expected, kept)), "{place}{result}");
            }
            if let Some(included) = step["includes"].as_array() {
                let mut found = result.as_array().unwrap().iter();
                let are_there = included.iter().all(|item| found.any(|found| fits(found, item)));
                assert!(are_there, "{place}{result}");
            }
        }
    }
}

/// Whether a result has all that is expected: of an object only the named fields are.
fn fits(result: &Value, expected: &Value) -> bool {
    match (result, expected) {
        (Value::Object(result), Value::Object(expected)) => expected
            .iter()
            .all(|(name, value)| result.get(name).is_some_and(|found| fits(found, value))),
        (Value::Array(result), Value::Array(expected)) => {
            result.len() == expected.len() && result.iter().zip(expected).all(|(a, b)| fits(a, b))
        }
        (result, expected) => result == expected,
    }
}

/// The value with each text `$name.field` replaced by the kept result of that name.
fn filled(value: &Value, kept: &Map<String, Value>) -> Value {
    match value {
        Value::String(text) => match text.strip_prefix('$') {
            Some(path) => {
                path.split('.').fold(Value::Object(kept.clone()), |at, name| at[name].clone())
            }
            None => value.clone(),
        },
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), filled(value, kept))).collect()
        }
        Value::Array(items) => items.iter().map(|item| filled(item, kept)).collect(),
        _ => value.clone(),
    }
}

#[test]
fn a_player_that_answers_otherwise_is_found_out() {
    let step = serde_json::json!({ "verb": "status", "expect": { "available": 32 } });
    let is_fine = |answer: Answer| {
        std::panic::catch_unwind(|| check("", &step, &answer, &Map::new())).is_ok()
    };
    assert!(is_fine(Ok(serde_json::json!({ "available": 32, "spent": 1 }))));
    assert!(!is_fine(Ok(serde_json::json!({ "available": 31 }))));
    assert!(!is_fine(Ok(serde_json::json!({}))));
    assert!(!is_fine(Err(serde_json::json!({ "code": "unreachable" }))));
}
