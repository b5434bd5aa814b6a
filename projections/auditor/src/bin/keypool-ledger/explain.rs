//! `explain`: in sentences, why something ended as it did.

pub(crate) mod refused;

use std::{collections::BTreeSet, ops::ControlFlow, path::Path};

use keypool_auditor::{names::StreamName, replay::Keep};
use keypool_ledger::{Event, EventEnvelope, KeyPackageRef, PoolId, ReservationId, RuleSettings};
use keypool_projections::{
    Limits, OnLapse, Package,
    explanation::{PackageStory, why_not},
    timeline,
};
use serde_json::json;

use crate::{
    FINE, PromiseArgs,
    input::{Moment, read},
    output::{Out, ToolError, one_line, time},
    replay::{fold, suspension_sentence, unknown},
    show::{Thing, find, life},
};

/// A record that is about a package: its position and its envelope.
type PackageRecord = (u64, EventEnvelope);

/// Says why something ended as it did.
pub(crate) fn explain(
    path: &Path,
    what: &str,
    at: Option<Moment>,
    promises: PromiseArgs,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let pool: Option<PoolId> = what.parse().ok().filter(|_| at.is_some() || what.contains('/'));
    if let Some(pool) = pool {
        return explain_pool(path, &pool, at, promises, out);
    }
    match find(path, what)? {
        Thing::Package(of) => tell(path, &of, None, promises, out)?,
        Thing::Reservation(id) => {
            let made = life(path, &Thing::Reservation(id))?;
            let of = made.iter().find_map(|(_, envelope)| envelope.event.keypackage_ref().cloned());
            if let Some(of) = of {
                tell(path, &of, Some(id), promises, out)?;
            }
        }
        thing @ (Thing::Command(_) | Thing::Record(_)) => {
            let written = life(path, &thing)?;
            explain_request(path, &written, promises, out)?;
        }
    }
    Ok(FINE)
}

/// Explains the effects of a request, package by package.
fn explain_request(
    path: &Path,
    written: &[PackageRecord],
    promises: PromiseArgs,
    out: &mut Out,
) -> Result<(), ToolError> {
    let mut packages: BTreeSet<KeyPackageRef> = BTreeSet::new();
    for (seq, envelope) in written {
        if let Some(of) = envelope.event.keypackage_ref() {
            packages.insert(of.clone());
        } else {
            let (stream, name) = (StreamName(&envelope.stream), envelope.event.name());
            let at = time(envelope.at);
            let said = timeline([envelope], None).pop().map(|entry| entry.detail);
            let said = said.filter(|said| !said.is_empty()).map(|said| format!(": {said}"));
            let said = said.unwrap_or_default();
            let words = format!("At {at} it wrote `{name}` into the history {stream}{said}.");
            sentence(out, *seq, &words)?;
        }
    }
    for of in packages {
        let named = |(_, envelope): &&PackageRecord| envelope.event.keypackage_ref() == Some(&of);
        let claim = written.iter().filter(named).find_map(|(_, envelope)| match &envelope.event {
            Event::Reserved { reservation, .. } => Some(*reservation),
            Event::Conflict { lost, .. } => Some(*lost),
            Event::Spent { reservation, .. } => *reservation,
            _ => None,
        });
        tell(path, &of, claim, promises, out)?;
    }
    Ok(())
}

fn sentence(out: &mut Out, seq: u64, words: &str) -> Result<(), ToolError> {
    out.say(|| format!("{} ({seq})", one_line(words)), || json!({ "seq": seq, "says": words }))
}

/// Tells a package's life, and how it or one reservation of it ended.
fn tell(
    path: &Path,
    of: &KeyPackageRef,
    claim: Option<ReservationId>,
    promises: PromiseArgs,
    out: &mut Out,
) -> Result<(), ToolError> {
    let life = life(path, &Thing::Package(of.clone()))?;
    out.line(&format!("package {of}"))?;
    let settings = recorded_settings(path)?;
    let mut story = PackageStory::default();
    for (seq, envelope) in &life {
        story.set_grace(limits_at(&settings, *seq, promises).grace);
        let words = story.tell(envelope);
        sentence(out, *seq, &words)?;
    }
    let end = match claim {
        Some(id) => story.end_of_claim(id),
        None => story.end(of),
    };
    out.say(|| one_line(&end).into_owned(), || json!({ "end": end }))
}

/// The settings that the server has recorded, and where.
fn recorded_settings(path: &Path) -> Result<Vec<(u64, RuleSettings)>, ToolError> {
    let mut settings = Vec::new();
    read(path, &mut |raw, envelope| {
        if let Event::Configured(configured) = envelope.event {
            settings.push((raw.seq, configured));
        }
        ControlFlow::Continue(())
    })?;
    Ok(settings)
}

/// The limits at a record, as the log says, but for those that are overridden.
fn limits_at(settings: &[(u64, RuleSettings)], seq: u64, promises: PromiseArgs) -> Limits {
    let latest = settings.iter().rev().find(|(recorded, _)| *recorded <= seq);
    let mut limits = latest.map_or(Limits::STANDARD, |(_, settings)| Limits::of(settings));
    limits.grace = promises.overrides().grace.unwrap_or(limits.grace);
    match promises.on_lapse {
        Some(crate::OnLapseArg::Requeue) => limits.on_lapse = OnLapse::Requeue,
        Some(crate::OnLapseArg::Retire) => limits.on_lapse = OnLapse::Retire,
        None => {}
    }
    limits
}

/// Explains which packages a pool could have handed out at a moment, and which it could not.
fn explain_pool(
    path: &Path,
    pool: &PoolId,
    at: Option<Moment>,
    promises: PromiseArgs,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let fold = fold(path, at, Some(pool), Keep::All)?;
    let state = fold.pool(pool).ok_or_else(|| unknown(pool))?;
    let now = match at {
        Some(Moment::Time(now)) => now,
        Some(Moment::Seq(_)) | None => fold.at(),
    };
    let limits = limits_at(&recorded_settings(path)?, fold.records(), promises);
    let settled = state.settled(now, &limits);
    let offerable: BTreeSet<&KeyPackageRef> =
        settled.offerable(now, &limits).map(|package| &package.facts.keypackage_ref).collect();
    let suspension = fold.suspensions().of(pool.user());
    let offered = if suspension.is_some() { BTreeSet::new() } else { offerable.clone() };
    let suspended = suspension.map(|known| suspension_sentence(pool.user(), known));
    let head = match offered.len() {
        0 if let Some(why) = &suspended => {
            let why = one_line(why);
            format!("At {} {pool} could hand out nothing, because {why}:", time(now))
        }
        0 => format!("At {} {pool} could hand out nothing, and refused whoever asked:", time(now)),
        1 => format!("At {} {pool} could hand out one package:", time(now)),
        n => format!("At {} {pool} could hand out {n} packages:", time(now)),
    };
    out.say(|| head.clone(), || json!({ "says": head, "offered": offered }))?;
    let mut packages: Vec<&Package> = settled.packages().collect();
    packages.sort_by_key(|package| package.order);
    for package in packages {
        let of = &package.facts.keypackage_ref;
        let why = if offered.contains(of) {
            "could be handed out".to_owned()
        } else if offerable.contains(of) {
            "could be handed out, but for the block".to_owned()
        } else {
            why_not(&settled, package, now, &limits)
        };
        out.say(
            || format!("  package {} {why}", of.short()),
            || json!({ "keypackage_ref": of, "says": why }),
        )?;
    }
    Ok(FINE)
}
