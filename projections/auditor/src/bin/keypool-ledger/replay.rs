//! `replay`: the pools as they were at a moment, folded by the same code that the server runs.

use std::{collections::BTreeSet, ops::ControlFlow, path::Path};

use keypool_auditor::{
    invariants::{Auditor, Standing},
    names::GroupName,
    replay::{Fold, Keep},
    verify::{Finding, FindingSeverity},
};
use keypool_ledger::{Event, PoolId, StreamId, Timestamp};
use keypool_projections::{Counts, Package, PoolState, Stage, Suspension};
use serde_json::{Value, json};

use crate::{
    FINE, RULE_BROKEN,
    input::{Moment, read},
    output::{Out, ToolError, one_line, short, time},
    times::tell_future,
};

/// I6 as far as events show it: the fold and the auditor's own count agree.
pub(crate) fn disagreements(fold: &Fold, auditor: &Auditor) -> Vec<Finding> {
    let mut findings = fold.refused().to_vec();
    for (pool, derived) in auditor.standings() {
        let folded = fold.pool(pool).map(PoolState::counts).unwrap_or_default();
        if standing(folded) != derived && fold.refused().is_empty() {
            let what =
                format!("the fold of {pool} counts {:?}, the audit {derived:?}.", standing(folded));
            let (gravity, rule, events) = (FindingSeverity::Rule, "I6", vec![fold.records()]);
            findings.push(Finding { gravity, rule, events, what, place: None });
        }
    }
    findings
}

pub(crate) const fn standing(counts: Counts) -> Standing {
    let Counts { available, reserved, spent, expired, revoked, .. } = counts;
    Standing { available, reserved, spent, expired, revoked }
}

/// Folds a log up to a moment: one pool with all its packages, or all of them with their live packages.
pub(crate) fn fold(
    path: &Path,
    at: Option<Moment>,
    only: Option<&PoolId>,
    keep: Keep,
) -> Result<Fold, ToolError> {
    let (mut fold, mut latest) = (Fold::keeping(keep), Timestamp::default());
    read(path, &mut |raw, envelope| {
        latest = latest.max(envelope.at);
        // A later record of another history may have an earlier time, so a time is no place to stop.
        let covered = at.is_none_or(|moment| moment.covers(raw.seq, envelope.at));
        if covered && (is_of(&envelope.stream, only) || is_suspension(&envelope.event)) {
            // The fold remembers what it refuses.
            let _ = fold.take(raw.seq, &envelope);
        }
        match at {
            Some(Moment::Seq(last)) if last < raw.seq => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    })?;
    if let Some(Moment::Time(asked)) = at {
        tell_future(asked, latest);
    }
    Ok(fold)
}

/// Whether a history is that of the one pool that is asked for, if one is.
pub(crate) fn is_of(stream: &StreamId, only: Option<&PoolId>) -> bool {
    only.is_none_or(|pool| stream.pool() == Some(pool))
}

/// Whether an event is the operator's word on a user, which is about all pools of the user.
const fn is_suspension(event: &Event) -> bool {
    matches!(event, Event::UserSuspended { .. } | Event::UserReinstated { .. })
}

/// Shows the pools as they were at a moment.
pub(crate) fn replay(
    path: &Path,
    at: Option<Moment>,
    pool: Option<&PoolId>,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let keep = if pool.is_some() { Keep::All } else { Keep::Live };
    let fold = fold(path, at, pool, keep)?;
    if let Some(pool) = pool {
        let state = fold.pool(pool).ok_or_else(|| unknown(pool))?;
        show_pool(pool, state, out)?;
        show_suspensions(&fold, Some(pool.user()), out)?;
    } else {
        show_all(&fold, out)?;
        show_suspensions(&fold, None, out)?;
    }
    refused(&fold, out)
}

pub(crate) fn unknown(pool: &PoolId) -> ToolError {
    ToolError::usage(format!("pool {pool} has no event in this log up to then"))
}

/// Prints the events that were left out, and returns the exit code.
pub(crate) fn refused(fold: &Fold, out: &mut Out) -> Result<u8, ToolError> {
    for finding in fold.refused() {
        out.say(|| format!("broken ({}): {}", finding.rule, finding.what), || json!(finding))?;
    }
    let n = fold.passed_over();
    if 0 < n {
        out.say(
            || {
                format!(
                    "{n} events are of packages that had ended long before, or were never there, and \
                     were not looked at; audit looks at all"
                )
            },
            || json!({ "passed_over": n }),
        )?;
    }
    Ok(if fold.refused().is_empty() { FINE } else { RULE_BROKEN })
}

fn show_all(fold: &Fold, out: &mut Out) -> Result<(), ToolError> {
    out.line("available reserved  spent expired revoked  pool")?;
    for (pool, state) in fold.pools() {
        let Standing { available, reserved, spent, expired, revoked } = standing(state.counts());
        out.say(
            || format!("{available:>9} {reserved:>8} {spent:>6} {expired:>7} {revoked:>7}  {pool}"),
            || {
                json!({ "pool": pool, "available": available, "reserved": reserved, "spent": spent,
                        "expired": expired, "revoked": revoked, "version": state.version() })
            },
        )?;
    }
    for (group, state) in fold.groups() {
        let members: Vec<String> = state.members().map(ToString::to_string).collect();
        let (epoch, name) = (state.epoch(), GroupName(group));
        out.say(
            || format!("group {name} is in epoch {epoch}; its members are {}", members.join(", ")),
            || json!({ "group": group, "epoch": epoch, "members": members }),
        )?;
    }
    Ok(())
}

/// Shows the suspended users, or that one if the user is suspended.
fn show_suspensions(fold: &Fold, only: Option<&str>, out: &mut Out) -> Result<(), ToolError> {
    for (user, known) in fold.suspensions().iter() {
        if only.is_none_or(|only| only == user) {
            let Suspension { since, position, reason } = known;
            out.say(
                || one_line(&suspension_sentence(user, known)).into_owned(),
                || json!({ "suspended": user, "since": since, "seq": position, "reason": reason }),
            )?;
        }
    }
    Ok(())
}

/// The sentence on the suspension of a user.
pub(crate) fn suspension_sentence(user: &str, known: &Suspension) -> String {
    let Suspension { since, position, reason } = known;
    let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("the operator has blocked {user} since {} ({position}){reason}", time(*since))
}

fn show_pool(pool: &PoolId, state: &PoolState, out: &mut Out) -> Result<(), ToolError> {
    let Standing { available, reserved, spent, expired, revoked } = standing(state.counts());
    out.line(&format!(
        "{pool}: {available} available, {reserved} reserved, {spent} spent, {expired} expired, \
         {revoked} revoked; version {}",
        state.version()
    ))?;
    let mut packages: Vec<&Package> = state.packages().collect();
    packages.sort_by_key(|package| package.order);
    for package in packages {
        out.say(|| package_line(state, package), || package_object(state, package))?;
    }
    Ok(())
}

/// The stage of a package, in a word.
const fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Created => "created",
        Stage::Available => "available",
        Stage::Reserved => "reserved",
        Stage::Spent => "spent",
        Stage::Expired => "expired",
        Stage::Revoked => "revoked",
    }
}

fn package_line(state: &PoolState, package: &Package) -> String {
    let last = if package.facts.last_resort { "last resort, " } else { "" };
    let latest = package.latest.and_then(|id| Some((id, state.reservation(id)?)));
    let by = latest.map(|(id, made)| {
        let (id, deadline) = (short(&id), time(made.deadline));
        format!(", last reserved by {} until {deadline} ({id})", made.holder)
    });
    format!(
        "  {}  {:<9}  {last}generation {}, until {}{}",
        package.facts.keypackage_ref.short(),
        word(package.stage),
        package.generation,
        time(package.facts.not_after),
        by.unwrap_or_default()
    )
}

fn package_object(state: &PoolState, package: &Package) -> Value {
    let latest = package.latest.and_then(|id| state.reservation(id));
    json!({
        "keypackage_ref": package.facts.keypackage_ref, "stage": word(package.stage),
        "last_resort": package.facts.last_resort, "generation": package.generation,
        "not_after": package.facts.not_after, "reservation": package.latest,
        "holder": latest.map(|made| made.holder.clone()),
        "deadline": latest.map(|made| made.deadline),
    })
}

/// Shows the changes between two moments.
pub(crate) fn diff(
    path: &Path,
    (a, b): (Moment, Moment),
    only: Option<&PoolId>,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let fold = |moment| fold(path, Some(moment), only, Keep::All);
    let (before, after) = (fold(a)?, fold(b)?);
    let (olds, news) = (before.pools(), after.pools());
    let pools: BTreeSet<&PoolId> = olds.keys().chain(news.keys()).copied().collect();
    let empty = PoolState::default();
    let mut changes = 0_u64;
    for pool in pools {
        let old = olds.get(pool).copied().unwrap_or(&empty);
        let new = news.get(pool).copied().unwrap_or(&empty);
        let refs: BTreeSet<_> = old.packages().chain(new.packages()).map(order_of).collect();
        for (_, of) in refs {
            let (old, new) = (old.get(of), new.get(of));
            if old == new {
                continue;
            }
            changes += 1;
            let (from, to) = (old.map(standing_of), new.map(standing_of));
            out.say(
                || {
                    let name = |at: &Option<String>| at.clone().unwrap_or("not there".to_owned());
                    format!("{pool}  {}  {} -> {}", of.short(), name(&from), name(&to))
                },
                || json!({ "pool": pool, "keypackage_ref": of, "from": from, "to": to }),
            )?;
        }
    }
    out.line(&format!("{changes} packages changed"))?;
    refused(&after, out)
}

/// The stage of a package, with the generation of its latest reservation if it was ever reserved.
pub(crate) fn standing_of(package: &Package) -> String {
    match package.generation {
        0 => word(package.stage).to_owned(),
        n => format!("{} (generation {n})", word(package.stage)),
    }
}

/// The order of listed packages.
fn order_of(package: &Package) -> (u64, &keypool_ledger::KeyPackageRef) {
    (package.order, &package.facts.keypackage_ref)
}
