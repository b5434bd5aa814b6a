//! `audit`: whether the events of a log keep every promise.

use std::{ops::ControlFlow, path::Path, time::Duration};

use keypool_auditor::{
    invariants::{Auditor, InvariantParams, Overrides, UNSEEN},
    replay::{Fold, Keep},
    source::Source,
    verify::{VerificationReport, Verifier},
};
use serde_json::json;

use crate::{
    OnLapseArg, PromiseArgs, SeenArgs,
    findings::{answered, report},
    input::ProgressMeter,
    output::{Out, ToolError},
    replay::disagreements,
};

/// The invariants that an audit looks at.
const SHOWN: &str = "I1 I2 I3 I4 I5 I6 I7 I11";

impl PromiseArgs {
    pub(crate) fn overrides(self) -> Overrides {
        let lapses_max = |on_lapse| match on_lapse {
            OnLapseArg::Requeue => 2,
            OnLapseArg::Retire => 1,
        };
        let grace = self.grace_s.map(Duration::from_secs);
        Overrides { grace, lapses_max: self.on_lapse.map(lapses_max) }
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
    let progress = ProgressMeter::of(&source);
    let mut verifier = Verifier::expecting(&seen);
    let mut auditor = Auditor::new(InvariantParams::STANDARD).overriding(promises.overrides());
    let mut fold = Fold::keeping(Keep::All);
    let mut unread = None;
    let outcome = source.visit(&mut |raw| {
        progress.pass((8 + raw.envelope_bytes.len() + raw.payload.len()) as u64);
        if let Some(mut envelope) = verifier.take(&raw) {
            if let Err(error) = source.reveal(&raw, &mut envelope) {
                unread = Some(error);
                return ControlFlow::Break(());
            }
            auditor.see(raw.seq, &envelope);
            // The fold remembers what it refuses.
            let _ = fold.take(raw.seq, &envelope);
        }
        ControlFlow::Continue(())
    });
    drop(progress);
    let outcome = unread.map_or(outcome, Err);
    let mut verdict = verifier.finish(answered(outcome)?);
    let disagreements = disagreements(&fold, &auditor);
    verdict.findings.extend(auditor.finish());
    verdict.findings.extend(disagreements);
    verdict.findings.sort_by_key(|finding| finding.events.last().copied());
    let VerificationReport { records, histories, .. } = verdict;
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
