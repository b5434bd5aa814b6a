//! `verify` and `audit`: whether the bytes are whole, and whether the events keep what was promised.

use std::{fs, ops::ControlFlow, path::Path, time::Duration};

use keypool_auditor::{
    audit::{Auditor, Overrides, Promises, UNSEEN},
    fold::{Fold, Keep},
    source::{Source, SourceEnd, SourceError},
    verify::{Finding, Gravity, Place, Seen, Verdict, Verifier},
};
use keypool_transparency::{NoteKey, Paper};
use serde_json::json;

use crate::{
    DAMAGED, EQUIVOCATION, FINE, OnLapse, PromiseArgs, RULE_BROKEN, SeenArgs,
    output::{Out, ToolError},
    reading::Progress,
    replaying::disagreements,
};

/// The invariants that an audit looks at.
const SHOWN: &str = "I1 I2 I3 I4 I5 I6 I7 I11";

impl PromiseArgs {
    pub(crate) fn overrides(self) -> Overrides {
        let lapses_max = |on_lapse| match on_lapse {
            OnLapse::Requeue => 2,
            OnLapse::Retire => 1,
        };
        let grace = self.grace_s.map(Duration::from_secs);
        Overrides { grace, lapses_max: self.on_lapse.map(lapses_max) }
    }
}

impl SeenArgs {
    /// The ends of the log that somebody remembers.
    fn seen(&self) -> Result<Vec<Seen>, ToolError> {
        let mut seen = Vec::new();
        for text in &self.expect_head {
            let head = text.split_once(':').and_then(|(size, root)| {
                Some(Seen { size: size.parse().ok()?, root: root.parse().ok()? })
            });
            let wrong =
                || ToolError::usage(format!("{text} is no head: SIZE:ROOT, as verify prints it"));
            seen.push(head.ok_or_else(wrong)?);
        }
        for path in &self.checkpoint {
            let paper = read_paper(path)?;
            if let Some(key) = self.key.as_deref() {
                check_signed(path, &paper, &parse_key(key)?)?;
            }
            seen.push(Seen { size: paper.checkpoint.size(), root: paper.checkpoint.root() });
        }
        Ok(seen)
    }
}

/// Reads a checkpoint's file.
pub(crate) fn read_paper(path: &Path) -> Result<Paper, ToolError> {
    let text = fs::read_to_string(path).map_err(ToolError::file(path))?;
    text.parse().map_err(|err| ToolError::usage(format!("{}: {err}", path.display())))
}

/// Reads a log's public key.
pub(crate) fn parse_key(text: &str) -> Result<NoteKey, ToolError> {
    text.trim().parse().map_err(|err| ToolError::usage(format!("{text}: {err}")))
}

/// Refuses a checkpoint that the log has not signed.
pub(crate) fn check_signed(path: &Path, paper: &Paper, key: &NoteKey) -> Result<(), ToolError> {
    let path = path.display();
    if paper.checkpoint.origin() != key.name() {
        let origin = paper.checkpoint.origin();
        return Err(ToolError::usage(format!(
            "{path} is of {origin}, the key is {}'s",
            key.name()
        )));
    }
    let note = paper.note.as_ref();
    let note = note.ok_or_else(|| ToolError::usage(format!("{path}: nobody has signed it")))?;
    note.check(key).map_err(|err| ToolError::usage(format!("{path}: {err}")))
}

/// Checks that the bytes are those that were written.
pub(crate) fn verify(path: &Path, seen: &SeenArgs, out: &mut Out) -> Result<u8, ToolError> {
    let seen = seen.seen()?;
    let source = Source::open(path)?;
    let progress = Progress::of(&source);
    let mut verifier = Verifier::expecting(&seen);
    let outcome = source.visit(&mut |raw| {
        progress.pass((8 + raw.envelope_bytes.len() + raw.payload.len()) as u64);
        verifier.take(&raw);
        ControlFlow::Continue(())
    });
    drop(progress);
    let verdict = verifier.finish(answered(outcome)?);
    let pruned = match verdict.pruned {
        0 => String::new(),
        n => format!(", {n} payloads pruned"),
    };
    let Verdict { records, histories, .. } = verdict;
    report(&verdict, out, || format!("{records} records of {histories} histories: whole{pruned}"))
}

/// Reads the end of a source, or says why it was not reached. A server that goes away is no damage.
fn answered(
    outcome: Result<SourceEnd, SourceError>,
) -> Result<Result<SourceEnd, SourceError>, ToolError> {
    match outcome {
        Err(error @ SourceError::Server { .. }) => Err(error.into()),
        outcome => Ok(outcome),
    }
}

/// Checks that the events keep every promise.
pub(crate) fn audit(
    path: &Path,
    seen: &SeenArgs,
    promises: PromiseArgs,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let seen = seen.seen()?;
    let source = Source::open(path)?;
    let progress = Progress::of(&source);
    let mut verifier = Verifier::expecting(&seen);
    let mut auditor = Auditor::new(Promises::STANDARD).overriding(promises.overrides());
    let mut fold = Fold::keeping(Keep::All);
    let outcome = source.visit(&mut |raw| {
        progress.pass((8 + raw.envelope_bytes.len() + raw.payload.len()) as u64);
        if let Some(envelope) = verifier.take(&raw) {
            auditor.see(raw.seq, &envelope);
            // The fold remembers what it refuses.
            let _ = fold.take(raw.seq, &envelope);
        }
        ControlFlow::Continue(())
    });
    drop(progress);
    let mut verdict = verifier.finish(answered(outcome)?);
    let disagreements = disagreements(&fold, &auditor);
    verdict.findings.extend(auditor.finish());
    verdict.findings.extend(disagreements);
    verdict.findings.sort_by_key(|finding| finding.events.last().copied());
    let Verdict { records, histories, .. } = verdict;
    let code = report(&verdict, out, || {
        format!("{records} records of {histories} histories keep every promise ({SHOWN})")
    })?;
    for (rule, why) in UNSEEN {
        out.say(
            || format!("not shown by events: {rule}, {why}"),
            || json!({ "not_shown": rule, "why": why }),
        )?;
    }
    Ok(code)
}

/// Says what was found, and the number to end with.
fn report(
    verdict: &Verdict,
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
        Some(Gravity::Rule) => RULE_BROKEN,
        Some(Gravity::Damage) => DAMAGED,
        Some(Gravity::Equivocation) => EQUIVOCATION,
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
        Gravity::Rule => "broken",
        Gravity::Damage => "damaged",
        Gravity::Equivocation => "equivocation",
    };
    let place = place.as_ref().map(|Place { file, offset }| match file.to_str() {
        Some(url) if url.starts_with("http://") => format!("\n  at {url}"),
        _ => format!("\n  at byte {offset} of {}", file.display()),
    });
    format!("{gravity} ({rule}): {what}{}", place.unwrap_or_default())
}
