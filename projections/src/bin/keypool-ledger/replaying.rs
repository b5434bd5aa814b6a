//! `replay`: the pools as they were at a moment, folded by the same code that the server runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::Path,
};

use keypool_ledger::{EventEnvelope, GroupId, PoolId, StreamId, Timestamp};
use keypool_projections::{
    Counts, GroupState, Package, PoolState, Stage,
    audit::{Auditor, Standing},
    verify::{Finding, Gravity},
};
use serde_json::{Value, json};

use crate::{
    FINE, RULE_BROKEN,
    output::{Out, ToolError, short, time},
    reading::{Moment, read},
};

/// Every pool and every group as the events so far have left it.
#[derive(Clone, Default)]
pub(crate) struct Folds {
    pub(crate) pools: BTreeMap<PoolId, PoolState>,
    groups: BTreeMap<GroupId, GroupState>,
    refused: Vec<Finding>,
    records: u64,
    /// When the last of them was recorded.
    pub(crate) at: Timestamp,
}

impl Folds {
    /// Takes in the next event. One that the fold refuses is remembered and left out.
    pub(crate) fn take_in(&mut self, seq: u64, envelope: &EventEnvelope) {
        (self.records, self.at) = (seq, self.at.max(envelope.at));
        match &envelope.stream {
            StreamId::Pool(pool) => {
                let state = match self.pools.get_mut(pool) {
                    Some(state) => state,
                    None => self.pools.entry(pool.clone()).or_default(),
                };
                if let Err(error) = state.evolve(&envelope.event, envelope.at) {
                    let what = format!("record {seq} of {pool} is refused by the fold: {error}.");
                    let (gravity, rule, events) = (Gravity::Rule, "I6", vec![seq]);
                    self.refused.push(Finding { gravity, rule, events, what, place: None });
                }
            }
            StreamId::Group(group) => {
                self.groups.entry(group.clone()).or_default().evolve(&envelope.event);
            }
            StreamId::Mailbox(_) => {}
        }
    }

    /// I6 as far as events show it: the fold and the auditor's own count agree.
    pub(crate) fn disagreements(&self, auditor: &Auditor) -> Vec<Finding> {
        let mut findings = self.refused.clone();
        for (pool, derived) in auditor.standings() {
            let folded = self.pools.get(pool).map(PoolState::counts).unwrap_or_default();
            if standing(folded) != derived && self.refused.is_empty() {
                let what = format!(
                    "the fold of {pool} counts {:?}, the audit {derived:?}.",
                    standing(folded)
                );
                let (gravity, rule, events) = (Gravity::Rule, "I6", vec![self.records]);
                findings.push(Finding { gravity, rule, events, what, place: None });
            }
        }
        findings
    }
}

const fn standing(counts: Counts) -> Standing {
    let Counts { available, reserved, spent, expired, revoked, .. } = counts;
    Standing { available, reserved, spent, expired, revoked }
}

/// Folds a log up to a moment.
pub(crate) fn fold(path: &Path, at: Option<Moment>) -> Result<Folds, ToolError> {
    let mut folds = Folds::default();
    read(path, &mut |raw, envelope| {
        // A later record of another history may have an earlier time, so a time is no place to stop.
        match at {
            Some(Moment::Seq(last)) if last < raw.seq => return ControlFlow::Break(()),
            Some(moment) if !moment.covers(raw.seq, envelope.at) => {}
            _ => folds.take_in(raw.seq, &envelope),
        }
        ControlFlow::Continue(())
    })?;
    Ok(folds)
}

/// Shows the pools as they were at a moment.
pub(crate) fn replay(
    path: &Path,
    at: Option<Moment>,
    pool: Option<&PoolId>,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let folds = fold(path, at)?;
    if let Some(pool) = pool {
        let state = folds.pools.get(pool);
        let state = state.ok_or_else(|| unknown(pool))?;
        show_pool(pool, state, out)?;
    } else {
        show_all(&folds, out)?;
    }
    refused(&folds, out)
}

pub(crate) fn unknown(pool: &PoolId) -> ToolError {
    ToolError::usage(format!("pool {pool} has no event in this log up to then"))
}

fn refused(folds: &Folds, out: &mut Out) -> Result<u8, ToolError> {
    for finding in &folds.refused {
        out.say(|| format!("broken ({}): {}", finding.rule, finding.what), || json!(finding))?;
    }
    Ok(if folds.refused.is_empty() { FINE } else { RULE_BROKEN })
}

fn show_all(folds: &Folds, out: &mut Out) -> Result<(), ToolError> {
    out.line("available reserved  spent expired revoked  pool")?;
    for (pool, state) in &folds.pools {
        let Standing { available, reserved, spent, expired, revoked } = standing(state.counts());
        out.say(
            || format!("{available:>9} {reserved:>8} {spent:>6} {expired:>7} {revoked:>7}  {pool}"),
            || {
                json!({ "pool": pool, "available": available, "reserved": reserved, "spent": spent,
                        "expired": expired, "revoked": revoked, "version": state.version() })
            },
        )?;
    }
    for (group, state) in &folds.groups {
        let members: Vec<String> = state.members().map(ToString::to_string).collect();
        let epoch = state.epoch();
        out.say(
            || format!("group {group} is in epoch {epoch}; its members are {}", members.join(", ")),
            || json!({ "group": group, "epoch": epoch, "members": members }),
        )?;
    }
    Ok(())
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

/// Where a package stands, in a word.
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

/// Shows what changed between two moments.
pub(crate) fn diff(
    path: &Path,
    (a, b): (Moment, Moment),
    only: Option<&PoolId>,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let (before, after) = (fold(path, Some(a))?, fold(path, Some(b))?);
    let pools: BTreeSet<&PoolId> = before.pools.keys().chain(after.pools.keys()).collect();
    let empty = PoolState::default();
    let mut changes = 0_u64;
    for pool in pools.into_iter().filter(|pool| only.is_none_or(|only| only == *pool)) {
        let old = before.pools.get(pool).unwrap_or(&empty);
        let new = after.pools.get(pool).unwrap_or(&empty);
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

/// Where a package stands, and which reservation of it is meant.
fn standing_of(package: &Package) -> String {
    match package.generation {
        0 => word(package.stage).to_owned(),
        n => format!("{} (generation {n})", word(package.stage)),
    }
}

/// What packages are listed by.
fn order_of(package: &Package) -> (u64, &keypool_ledger::KeyPackageRef) {
    (package.order, &package.facts.keypackage_ref)
}
