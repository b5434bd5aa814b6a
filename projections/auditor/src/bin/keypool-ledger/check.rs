//! `check`: whether a checkpoint, a proof, a receipt or evidence is genuine.

use std::{fs, path::Path};

use keypool_ledger::codec;
use keypool_transparency::{
    Consistency, Inclusion, NoteKey, Receipt, ReceiptError, ReceiptFile, SignedArtifact,
};
use serde_json::json;

use crate::{
    DAMAGED, FINE, SignedArgs, evidence,
    known_end::{check_signed, parse_key},
    log,
    output::{Out, ToolError, time},
};

/// How a receipt begins.
const RECEIPT: &str = "keypool/receipt@v";

/// Checks a checkpoint, a proof, a receipt or evidence.
pub(crate) fn check(file: &Path, by: &SignedArgs, out: &mut Out) -> Result<u8, ToolError> {
    let text = fs::read_to_string(file).map_err(ToolError::file(file))?;
    let key = by.key.as_deref().map(parse_key).transpose()?;
    if evidence::is_evidence(&text) {
        return evidence::check(&text, key.as_ref(), out);
    }
    if let Ok(proof) = text.parse() {
        return check_inclusion(&proof, key.as_ref(), out);
    }
    if let Ok(proof) = text.parse() {
        return check_consistency(&proof, key.as_ref(), out);
    }
    if let Some(receipt) = receipt_in(&text) {
        return check_receipt(receipt, key.as_ref(), out);
    }
    let paper: SignedArtifact =
        text.parse().map_err(|err| ToolError::usage(format!("{}: {err}", file.display())))?;
    let says = format!("a checkpoint of {}", described(&paper, &signature(&paper, key.as_ref())?));
    out.say(|| says.clone(), || json!({ "says": says, "checked": key.is_some() }))?;
    verified(&paper, key.as_ref())
}

/// The exit code for a paper that was checked by a key.
///
/// # Errors
///
/// Returns the key to give and its sources if none was given: a text that anybody may have written
/// proves nothing.
fn verified(paper: &SignedArtifact, key: Option<&NoteKey>) -> Result<u8, ToolError> {
    match (key, &paper.note) {
        (Some(_), _) => Ok(FINE),
        (None, Some(_)) => Err(without_key(paper.checkpoint.origin())),
        (None, None) => Err(ToolError::usage(
            "no signature was verified: nobody has signed the checkpoint. Have it signed with the log's \
             key (`checkpoint --sign`), or compare it with the log (`compare`)",
        )),
    }
}

/// The error of a check without the key of a ledger.
pub(crate) fn without_key(ledger: &str) -> ToolError {
    ToolError::usage(format!(
        "no signature was verified, because the key of {ledger} was not given. Give it as --key \
         {ledger}+HASH+BASE64: the line `ledger key` that the server prints at its start. Get it from \
         its operator; `GET /ledger/key` answers with it too, and is as trustworthy as that connection"
    ))
}

fn check_inclusion(
    proof: &Inclusion,
    key: Option<&NoteKey>,
    out: &mut Out,
) -> Result<u8, ToolError> {
    if let Err(err) = proof.check() {
        return refuse(&err.to_string(), out);
    }
    let signed = signature(&proof.paper, key)?;
    let says = format!(
        "record {} is in the log of {}",
        proof.index.saturating_add(1),
        described(&proof.paper, &signed)
    );
    out.say(|| says.clone(), || json!({ "says": says, "checked": key.is_some() }))?;
    show_record(proof, out)?;
    verified(&proof.paper, key)
}

/// Shows the record that a proof is about.
fn show_record(proof: &Inclusion, out: &mut Out) -> Result<(), ToolError> {
    let envelope = codec::decode(&proof.envelope);
    let envelope = envelope.map_err(|err| ToolError::usage(err.to_string()))?;
    let seq = proof.index.saturating_add(1);
    out.say(|| log::line(seq, &envelope), || log::object(seq, &envelope))
}

fn check_consistency(
    proof: &Consistency,
    key: Option<&NoteKey>,
    out: &mut Out,
) -> Result<u8, ToolError> {
    if let Err(err) = proof.check() {
        return refuse(&err.to_string(), out);
    }
    // The signed end proves its beginning, so the old checkpoint may be anybody's own.
    let old_key = key.filter(|_| proof.old.note.is_some());
    let old = described(&proof.old, &signature(&proof.old, old_key)?);
    let new = described(&proof.new, &signature(&proof.new, key)?);
    let says = format!("the log has only grown: from that of {old}\nto that of {new}");
    out.say(|| says.clone(), || json!({ "says": says, "checked": key.is_some() }))?;
    verified(&proof.new, key)
}

/// The receipt in a text; an error if it looks like one and is none.
pub(crate) fn receipt_in(text: &str) -> Option<Result<ReceiptFile, ReceiptError>> {
    text.starts_with(RECEIPT).then(|| text.parse())
}

/// Reads a receipt, if it is one and signed by the key that was named, if one was.
pub(crate) fn read_receipt(
    file: &ReceiptFile,
    key: Option<&NoteKey>,
) -> Result<Receipt, ReceiptError> {
    key.map_or_else(|| file.read(), |key| file.check(key))
}

fn check_receipt(
    file: Result<ReceiptFile, ReceiptError>,
    key: Option<&NoteKey>,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let read = file.and_then(|file| Ok((read_receipt(&file, key)?, file)));
    let (receipt, file) = match read {
        Ok(read) => read,
        Err(err) => return refuse(&err.to_string(), out),
    };
    let signed = match key {
        Some(_) => "signed by the key that was named".to_owned(),
        None => in_the_name_of(&file.note.names().collect::<Vec<_>>()),
    };
    out.line(&format!(
        "a receipt of {}, {signed}; its record is in the log at {} records",
        receipt.ledger,
        file.inclusion.paper.checkpoint.size()
    ))?;
    out.say(
        || told(&receipt),
        || {
            let hand_out = &receipt.hand_out;
            json!({ "verdict": "receipt", "ledger": receipt.ledger, "record": hand_out.record,
                    "keypackage_ref": hand_out.keypackage_ref, "pool": hand_out.pool,
                    "holder": hand_out.holder, "generation": hand_out.generation,
                    "standing": receipt.standing.word(), "as_of": receipt.as_of,
                    "checked": key.is_some() })
        },
    )?;
    show_record(&file.inclusion, out)?;
    key.map_or_else(|| Err(without_key(&receipt.ledger)), |_| Ok(FINE))
}

/// The text of a receipt, in a line.
pub(crate) fn told(receipt: &Receipt) -> String {
    let hand_out = &receipt.hand_out;
    format!(
        "package {} of {} handed to {} at {} (record {}), {} as of record {}",
        hand_out.keypackage_ref.short(),
        hand_out.pool,
        hand_out.holder,
        time(hand_out.reserved_at),
        hand_out.record,
        receipt.standing.word(),
        receipt.as_of
    )
}

pub(crate) fn refuse(why: &str, out: &mut Out) -> Result<u8, ToolError> {
    let what = format!("it proves nothing: {why}");
    out.say(|| what.clone(), || json!({ "verdict": "refused", "says": what }))?;
    Ok(DAMAGED)
}

fn described(paper: &SignedArtifact, signed: &str) -> String {
    let checkpoint = &paper.checkpoint;
    format!("{} at {} records, {signed}", checkpoint.origin(), checkpoint.size())
}

/// The signers of a checkpoint, as far as they can be checked.
fn signature(paper: &SignedArtifact, key: Option<&NoteKey>) -> Result<String, ToolError> {
    match (&paper.note, key) {
        (_, Some(key)) => {
            check_signed(Path::new("the checkpoint"), paper, key)?;
            Ok("signed by the key that was named".to_owned())
        }
        (Some(note), None) => Ok(in_the_name_of(&note.names().collect::<Vec<_>>())),
        (None, None) => Ok("signed by nobody".to_owned()),
    }
}

fn in_the_name_of(names: &[&str]) -> String {
    format!("signed in the name of {} (not checked: --key)", names.join(", "))
}
