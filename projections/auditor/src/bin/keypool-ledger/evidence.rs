//! Evidence: two signed papers that contradict each other, in a file that proves it to everybody.

use std::{collections::HashMap, fs, io, path::Path};

use keypool_transparency::{Contradiction, NoteKey, ReceiptFile, SignedArtifact, contradiction};
use serde_json::json;

use crate::{
    EQUIVOCATION,
    check::refuse,
    known_end::{check_signed, parse_key},
    output::{Out, ToolError},
};

/// The first line of evidence.
const EVIDENCE: &str = "keypool/equivocation@v1";

/// Whether a text is evidence.
pub(crate) fn is_evidence(text: &str) -> bool {
    text.lines().next() == Some(EVIDENCE)
}

/// Saves two signed papers that contradict each other, with the key that has signed both, and returns
/// the sentence that says so.
pub(crate) fn write((a, b): (&str, &str), key: &NoteKey, file: &Path) -> Result<String, ToolError> {
    let coded = |paper: &str| data_encoding::BASE64.encode(paper.as_bytes());
    let text = format!("{EVIDENCE}\nkey {key}\none {}\nother {}\n", coded(a), coded(b));
    let written = fs::File::create_new(file)
        .and_then(|mut new| io::Write::write_all(&mut new, text.as_bytes()));
    match written {
        // The same evidence was found before.
        Err(_) if fs::read_to_string(file).is_ok_and(|kept| kept == text) => {}
        written => written.map_err(ToolError::file(file))?,
    }
    Ok(format!("both are signed by its key; the evidence is in {}", file.display()))
}

/// Checks evidence: both papers are signed by the key that it names and contradict each other.
pub(crate) fn check(text: &str, named: Option<&NoteKey>, out: &mut Out) -> Result<u8, ToolError> {
    let malformed = || ToolError::usage("the evidence is not complete");
    let fields: HashMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(' ')).collect();
    let key = parse_key(fields.get("key").ok_or_else(malformed)?)?;
    if let Some(named) = named.filter(|named| **named != key) {
        let what = format!("the evidence is against the key {key}, and not against {named}");
        return Err(ToolError::usage(what));
    }
    let paper = |name: &str| -> Result<String, ToolError> {
        let coded = fields.get(name).ok_or_else(malformed)?;
        let bytes = data_encoding::BASE64.decode(coded.as_bytes()).map_err(|_| malformed())?;
        String::from_utf8(bytes).map_err(|_| malformed())
    };
    let (one, other) = (paper("one")?, paper("other")?);
    let shown = if let (Ok(one), Ok(other)) = (one.parse(), other.parse()) {
        shown_by_receipts((&one, &other), &key)
    } else {
        let parse = |text: &str| text.parse::<SignedArtifact>().map_err(|_| malformed());
        shown_by_checkpoints((&parse(&one)?, &parse(&other)?), &key)?
    };
    match shown {
        Ok(what) => {
            let what = format!("equivocation: the key {key} has signed {what}");
            out.say(|| what.clone(), || json!({ "verdict": "equivocation", "says": what }))?;
            Ok(EQUIVOCATION)
        }
        Err(why) => refuse(&why, out),
    }
}

/// The evidence of two checkpoints: the key has signed both, they are of one length and differ.
fn shown_by_checkpoints(
    (a, b): (&SignedArtifact, &SignedArtifact),
    key: &NoteKey,
) -> Result<Result<String, String>, ToolError> {
    for paper in [a, b] {
        check_signed(Path::new("the evidence"), paper, key)?;
    }
    let (a, b) = (&a.checkpoint, &b.checkpoint);
    if a.size() != b.size() || a.root() == b.root() {
        return Ok(Err("the two checkpoints do not contradict each other".to_owned()));
    }
    Ok(Ok(format!("two histories of the first {} records of {}", a.size(), a.origin())))
}

/// The evidence of two receipts: the key has signed both, and they cannot both be true.
fn shown_by_receipts(
    (a, b): (&ReceiptFile, &ReceiptFile),
    key: &NoteKey,
) -> Result<String, String> {
    let (one, other) = match (a.check(key), b.check(key)) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(err), _) | (_, Err(err)) => return Err(err.to_string()),
    };
    match contradiction(&one, &other) {
        Some(Contradiction::Overlapping) | None => {
            Err("the two receipts do not prove that they contradict each other".to_owned())
        }
        Some(how) => {
            let of = one.hand_out.keypackage_ref;
            Ok(format!("two receipts for package {of} that contradict each other: {how}"))
        }
    }
}
