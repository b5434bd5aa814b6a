//! `verify`: whether the bytes of a log are those that were written.

use std::{ops::ControlFlow, path::Path};

use keypool_auditor::{
    source::Source,
    verify::{VerificationReport, Verifier},
};

use crate::{
    SeenArgs,
    findings::{answered, report},
    input::ProgressMeter,
    output::{Out, ToolError},
};

/// Checks that the bytes are those that were written.
pub(crate) fn verify(path: &Path, seen: &SeenArgs, out: &mut Out) -> Result<u8, ToolError> {
    let seen = seen.seen()?;
    let source = Source::open(path)?;
    let progress = ProgressMeter::of(&source);
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
    let VerificationReport { records, histories, .. } = verdict;
    report(&verdict, out, || format!("{records} records of {histories} histories: whole{pruned}"))
}
