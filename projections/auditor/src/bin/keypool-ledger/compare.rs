//! `compare`, and `check` of two receipts: who contradicts himself.

use std::{fs, path::Path};

use keypool_auditor::source::{Source, SourceError};
use keypool_transparency::{
    Contradiction, NoteKey, ReceiptFile, SignedArtifact, contradiction as contradicted,
};
use serde_json::json;

use crate::{
    DAMAGED, EQUIVOCATION, FINE, RULE_BROKEN, SignedArgs,
    check::{read_receipt, receipt_in, refuse, told, without_key},
    evidence,
    input::read,
    known_end::{check_signed, parse_key},
    leaves::{Leaves, contradiction},
    log,
    output::{Out, ToolError},
};

/// One side of a comparison.
enum Side {
    Log(Leaves),
    SignedArtifact(SignedArtifact),
    Receipt(Box<ReceiptFile>),
}

fn side(path: &Path, key: Option<&NoteKey>) -> Result<Side, ToolError> {
    match Source::open(path) {
        Ok(_) => Leaves::of(path).map(Side::Log),
        Err(SourceError::Unknown(_)) if path.is_file() => {
            let text = fs::read_to_string(path).map_err(ToolError::file(path))?;
            let named = |err: &dyn std::fmt::Display| {
                ToolError::usage(format!("{}: {err}", path.display()))
            };
            if let Some(receipt) = receipt_in(&text) {
                return receipt
                    .map(|file| Side::Receipt(Box::new(file)))
                    .map_err(|err| named(&err));
            }
            let paper: SignedArtifact = text.parse().map_err(|err| named(&err))?;
            if let Some(key) = key {
                check_signed(path, &paper, key)?;
            }
            Ok(Side::SignedArtifact(paper))
        }
        Err(error) => Err(error.into()),
    }
}

/// Finds where two logs part, or whether checkpoints and receipts fit a log or each other.
pub(crate) fn compare(
    (a, b): (&Path, &Path),
    by: &SignedArgs,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let key = by.key.as_deref().map(parse_key).transpose()?;
    let key = key.as_ref();
    match (side(a, key)?, side(b, key)?) {
        (Side::Log(first), Side::Log(second)) => compare_logs((a, &first), (b, &second), out),
        (Side::Log(leaves), Side::SignedArtifact(paper))
        | (Side::SignedArtifact(paper), Side::Log(leaves)) => {
            if let Some(code) = contradiction(&leaves, &paper, out)? {
                return Ok(code);
            }
            let size = paper.checkpoint.size();
            let what = format!("the log holds what the checkpoint of {size} records says");
            out.say(|| what.clone(), || json!({ "verdict": "consistent", "says": what }))?;
            Ok(FINE)
        }
        (Side::Log(leaves), Side::Receipt(file)) | (Side::Receipt(file), Side::Log(leaves)) => {
            let receipt = match read_receipt(&file, key) {
                Ok(receipt) => receipt,
                Err(err) => return refuse(&err.to_string(), out),
            };
            if let Some(code) = contradiction(&leaves, &file.inclusion.paper, out)? {
                return Ok(code);
            }
            let what = format!("the log holds what the receipt says: {}", told(&receipt));
            out.say(|| what.clone(), || json!({ "verdict": "consistent", "says": what }))?;
            Ok(FINE)
        }
        (Side::SignedArtifact(first), Side::SignedArtifact(second)) => {
            compare_papers((&first, &second), key, &by.evidence, out)
        }
        (Side::Receipt(first), Side::Receipt(second)) => {
            compare_receipts((&first, &second), key, &by.evidence, out)
        }
        (Side::SignedArtifact(_), Side::Receipt(_))
        | (Side::Receipt(_), Side::SignedArtifact(_)) => {
            Err(ToolError::usage("a receipt is compared with another receipt, or with a log"))
        }
    }
}

/// Finds out whether two receipts contradict each other, and needs the key that has signed them.
pub(crate) fn receipts(
    (a, b): (&Path, &Path),
    by: &SignedArgs,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let key = by.key.as_deref().map(parse_key).transpose()?;
    match (side(a, key.as_ref())?, side(b, key.as_ref())?) {
        (Side::Receipt(first), Side::Receipt(second)) => {
            let code = compare_receipts((&first, &second), key.as_ref(), &by.evidence, out)?;
            let is_unverified = key.is_none() && code != DAMAGED;
            if is_unverified {
                return Err(without_key(first.inclusion.paper.checkpoint.origin()));
            }
            Ok(code)
        }
        _ => Err(ToolError::usage("two receipts are checked against each other; see `compare`")),
    }
}

fn compare_receipts(
    (a, b): (&ReceiptFile, &ReceiptFile),
    key: Option<&NoteKey>,
    evidence: &Path,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let (one, other) = match (read_receipt(a, key), read_receipt(b, key)) {
        (Ok(one), Ok(other)) => (one, other),
        (Err(err), _) | (_, Err(err)) => return refuse(&err.to_string(), out),
    };
    let of = &one.hand_out.keypackage_ref;
    if (&one.ledger, of) != (&other.ledger, &other.hand_out.keypackage_ref) {
        let what = "the receipts are not for one package of one ledger: nothing to compare";
        return Err(ToolError::usage(what));
    }
    let (verdict, code, what) = match contradicted(&one, &other) {
        None => ("consistent", FINE, "the two receipts do not contradict each other".to_owned()),
        // The first may have given it back: that is for its holder to say.
        Some(how @ Contradiction::Overlapping) => {
            ("doubtful", RULE_BROKEN, format!("not proved ({}): {how}", of.short()))
        }
        Some(how) => {
            ("equivocation", EQUIVOCATION, format!("equivocation ({}): {how}", of.short()))
        }
    };
    out.say(|| what.clone(), || json!({ "verdict": verdict, "says": what, "keypackage_ref": of }))?;
    for receipt in [&one, &other] {
        out.line(&format!("  {}", told(receipt)))?;
    }
    match (code, key) {
        (EQUIVOCATION, Some(key)) => {
            out.line(&evidence::write((&a.to_string(), &b.to_string()), key, evidence)?)?;
        }
        (EQUIVOCATION, None) => {
            out.line("whether its key has signed both was not checked: --key")?;
        }
        _ => {}
    }
    Ok(code)
}

fn compare_logs(
    (a, first): (&Path, &Leaves),
    (b, second): (&Path, &Leaves),
    out: &mut Out,
) -> Result<u8, ToolError> {
    let differs = first.0.iter().zip(&second.0).position(|(first, second)| first != second);
    let Some(place) = differs else {
        let (shorter, longer) = (first.size().min(second.size()), first.size().max(second.size()));
        let what = if shorter == longer {
            format!("both logs have the same {shorter} records")
        } else {
            format!(
                "one log has {shorter} records, the other has the same and {} more",
                longer - shorter
            )
        };
        out.say(|| what.clone(), || json!({ "verdict": "consistent", "says": what }))?;
        return Ok(FINE);
    };
    let seq = place as u64 + 1;
    let what = format!(
        "equivocation: the logs part at record {seq}; {place} records before it are the same"
    );
    out.say(|| what.clone(), || json!({ "verdict": "equivocation", "seq": seq, "says": what }))?;
    for path in [a, b] {
        out.line(&format!("{}:", path.display()))?;
        let mut shown = Ok(());
        read(path, &mut |raw, envelope| {
            if raw.seq < seq {
                return std::ops::ControlFlow::Continue(());
            }
            shown = out.say(|| log::line(seq, &envelope), || log::object(seq, &envelope));
            std::ops::ControlFlow::Break(())
        })?;
        shown?;
    }
    Ok(EQUIVOCATION)
}

fn compare_papers(
    (a, b): (&SignedArtifact, &SignedArtifact),
    key: Option<&NoteKey>,
    evidence: &Path,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let (first, second) = (&a.checkpoint, &b.checkpoint);
    if first.origin() != second.origin() {
        let (a, b) = (first.origin(), second.origin());
        return Err(ToolError::usage(format!("one checkpoint is of {a}, the other of {b}")));
    }
    if first.size() != second.size() {
        let what = "checkpoints of different lengths contradict each other or not only beside the log: \
                    compare each with it, or check a consistency proof";
        return Err(ToolError::usage(what));
    }
    if first.root() == second.root() {
        let what = format!("both checkpoints say the same of {} records", first.size());
        out.say(|| what.clone(), || json!({ "verdict": "consistent", "says": what }))?;
        return Ok(FINE);
    }
    let size = first.size();
    let what = format!(
        "equivocation: two checkpoints of {} say different things of its first {size} records",
        first.origin()
    );
    out.say(|| what.clone(), || json!({ "verdict": "equivocation", "says": what }))?;
    if let Some(key) = key {
        out.line(&evidence::write((&a.to_string(), &b.to_string()), key, evidence)?)?;
    } else {
        out.line("whether its key has signed both was not checked: --key")?;
    }
    Ok(EQUIVOCATION)
}
