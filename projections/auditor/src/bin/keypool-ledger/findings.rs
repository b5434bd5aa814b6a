//! The findings of `verify` and `audit` in words, and their exit code.

use keypool_auditor::{
    source::{SourceEnd, SourceError},
    verify::{FileLocation, Finding, FindingSeverity, VerificationReport},
};
use serde_json::json;

use crate::{
    DAMAGED, EQUIVOCATION, FINE, RULE_BROKEN,
    output::{Out, ToolError, one_line},
};

/// Reads the end of a source, or says why it was not reached. A server that goes away is no damage.
pub(crate) fn answered(
    outcome: Result<SourceEnd, SourceError>,
) -> Result<Result<SourceEnd, SourceError>, ToolError> {
    match outcome {
        Err(error @ SourceError::Server { .. }) => Err(error.into()),
        outcome => Ok(outcome),
    }
}

/// Prints the findings, and returns the exit code.
pub(crate) fn report(
    verdict: &VerificationReport,
    out: &mut Out,
    fine: impl FnOnce() -> String,
) -> Result<u8, ToolError> {
    let head = format!("{}:{}", verdict.records, verdict.root);
    for finding in &verdict.findings {
        out.say(|| words(finding), || json!(finding))?;
    }
    let worst = verdict.findings.iter().map(|finding| finding.gravity).max();
    let code = match worst {
        None => FINE,
        Some(FindingSeverity::Rule) => RULE_BROKEN,
        Some(FindingSeverity::Damage) => DAMAGED,
        Some(FindingSeverity::Equivocation) => EQUIVOCATION,
    };
    let summary = || match verdict.findings.len() {
        0 => format!("{}\nhead {head}", fine()),
        1 => format!("1 finding in {} records\nhead {head}", verdict.records),
        n => format!("{n} findings in {} records\nhead {head}", verdict.records),
    };
    out.say(summary, || {
        let findings = verdict.findings.len();
        json!({ "records": verdict.records, "histories": verdict.histories,
                "pruned": verdict.pruned, "findings": findings, "head": head })
    })?;
    Ok(code)
}

/// A finding for people.
fn words(finding: &Finding) -> String {
    let Finding { gravity, rule, what, place, .. } = finding;
    let gravity = match gravity {
        FindingSeverity::Rule => "broken",
        FindingSeverity::Damage => "damaged",
        FindingSeverity::Equivocation => "equivocation",
    };
    let place = place.as_ref().map(|FileLocation { file, offset }| match file.to_str() {
        Some(url) if url.starts_with("http://") => format!("\n  at {url}"),
        _ => format!("\n  at byte {offset} of {}", file.display()),
    });
    format!("{gravity} ({rule}): {}{}", one_line(what), place.unwrap_or_default())
}
