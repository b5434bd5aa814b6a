//! `explain POOL --for CALLER --at T`: why a caller was refused a package around a moment, by the record of
//! refusals and by the log.

use std::{collections::BTreeSet, path::Path, time::Duration};

use keypool_api::{CountedRefusals, RefusalLine, RefusedRequest};
use keypool_auditor::{replay::Keep, source::Source};
use keypool_ledger::{KeyPackageRef, PoolId, ReservePolicy, Timestamp};
use keypool_projections::PoolState;
use serde_json::json;

use super::explain_pool;
use crate::{
    FINE, PromiseArgs,
    input::Moment,
    output::{Out, ToolError, time},
    replay::fold,
};

/// How far around the moment refusals are told.
const AROUND: Duration = Duration::from_hours(1);
/// How many refusals are told: those that are nearest to the moment.
const TOLD_MAX: usize = 20;

/// A user, or one device.
#[derive(Clone, Debug)]
struct Party {
    user: String,
    device: Option<String>,
}

/// The question: why the caller was refused a package of the owner around a moment.
struct Question {
    owner: Party,
    caller: Party,
    at: Timestamp,
    /// The packages of the owner's pools up to then.
    packages: BTreeSet<KeyPackageRef>,
}

/// The part of the record that answers the question.
#[derive(Default)]
struct FoundRefusals {
    /// The refusals, in the order in which they were recorded.
    refused: Vec<RefusedRequest>,
    /// The counts of the caller's refusals that were not kept one by one.
    counted: Vec<CountedRefusals>,
    /// How many lines of these days are damaged.
    unreadable: u64,
    /// Whether anything is recorded of these days.
    is_kept: bool,
}

impl Party {
    fn parse(text: &str) -> Result<Self, ToolError> {
        let (user, device) = user_and_device(text);
        PoolId::of(user, device).map_err(|error| ToolError::usage(error.to_string()))?;
        Ok(Self { user: user.to_owned(), device: device.map(str::to_owned) })
    }

    fn has(&self, pool: &PoolId) -> bool {
        self.user == pool.user()
            && self.device.as_ref().is_none_or(|device| device == pool.device())
    }

    /// Whether a request that names a user, or a device written `user/device`, is about this party.
    fn is_target(&self, target: &str) -> bool {
        let (user, device) = user_and_device(target);
        let asked = self.device.as_deref();
        self.user == user && (device.is_none() || asked.is_none() || device == asked)
    }

    fn name(&self) -> String {
        let device = self.device.as_ref().map(|device| format!("/{device}"));
        self.user.clone() + &device.unwrap_or_default()
    }
}

fn user_and_device(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(user, device)| (user, Some(device)))
}

impl Question {
    fn concerns(&self, refused: &RefusedRequest) -> bool {
        let has = |package: &KeyPackageRef| self.packages.contains(package);
        let is_about = refused.target.as_ref().is_some_and(|target| self.owner.is_target(target))
            || refused.keypackage_ref.as_ref().is_some_and(has);
        is_about
            && self.is_callers(refused.caller.as_ref())
            && self.is_near(refused.at_ms, refused.at_ms)
    }

    fn counts(&self, counted: &CountedRefusals) -> bool {
        let until_ms = Timestamp::from_millis(counted.from_ms).after(Duration::from_hours(1));
        self.is_callers(counted.caller.as_ref())
            && self.is_near(counted.from_ms, until_ms.as_millis())
    }

    fn is_callers(&self, caller: Option<&PoolId>) -> bool {
        caller.is_some_and(|pool| self.caller.has(pool))
    }

    fn is_near(&self, from_ms: u64, until_ms: u64) -> bool {
        let (from, until) = (self.at.before(AROUND), self.at.after(AROUND));
        from.as_millis() <= until_ms && from_ms <= until.as_millis()
    }
}

/// Says why a caller was refused a package around a moment.
pub(crate) fn explain(
    path: &Path,
    (owner, caller): (&str, &str),
    at: Moment,
    promises: PromiseArgs,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let (owner, caller) = (Party::parse(owner)?, Party::parse(caller)?);
    let all = fold(path, Some(at), None, Keep::Live)?;
    let pools: Vec<(&PoolId, &PoolState)> =
        all.pools().into_iter().filter(|(pool, _)| owner.has(pool)).collect();
    let packages = packages(path, at, pools.iter().map(|(pool, _)| *pool))?;
    let at_time = match at {
        Moment::Time(at) => at,
        Moment::Seq(_) => all.at(),
    };
    let question = Question { owner, caller, at: at_time, packages };
    tell_refusals(&question, &find(path, &question)?, out)?;
    for (pool, state) in &pools {
        tell_policy(&question, (pool, state), out)?;
        explain_pool(path, pool, Some(at), promises, out)?;
    }
    if pools.is_empty() {
        let (when, owner) = (time(at_time), question.owner.name());
        let says = format!("At {when} this log had no event of {owner}.");
        out.say(|| says.clone(), || json!({ "says": says, "refusals": 0 }))?;
    }
    Ok(FINE)
}

/// The packages that pools have had up to a moment.
fn packages<'p>(
    path: &Path,
    at: Moment,
    pools: impl Iterator<Item = &'p PoolId>,
) -> Result<BTreeSet<KeyPackageRef>, ToolError> {
    let mut packages = BTreeSet::new();
    for pool in pools {
        let fold = fold(path, Some(at), Some(pool), Keep::All)?;
        let had = fold.pool(pool).into_iter().flat_map(PoolState::packages);
        packages.extend(had.map(|package| package.facts.keypackage_ref.clone()));
    }
    Ok(packages)
}

/// Reads the part of the record that answers the question.
fn find(path: &Path, question: &Question) -> Result<FoundRefusals, ToolError> {
    let (source, mut found) = (Source::open(path)?, FoundRefusals::default());
    let moments = [question.at.before(AROUND), question.at, question.at.after(AROUND)];
    let days: BTreeSet<String> = moments.map(day_of).into();
    for day in &days {
        let Some(record) = source.refusals_of(day)? else { continue };
        found.is_kept = true;
        found.unreadable = found.unreadable.saturating_add(record.unreadable);
        for line in record.lines {
            match line {
                RefusalLine::Refused(refused) if question.concerns(&refused) => {
                    found.refused.push(refused);
                }
                RefusalLine::Counted(counted) if question.counts(&counted) => found.count(counted),
                _ => {}
            }
        }
    }
    Ok(found)
}

impl FoundRefusals {
    /// Keeps the largest count of each caller and hour.
    fn count(&mut self, counted: CountedRefusals) {
        let is_same = |one: &&mut CountedRefusals| {
            (&one.caller, one.from_ms) == (&counted.caller, counted.from_ms)
        };
        match self.counted.iter_mut().find(is_same) {
            Some(known) => known.count = known.count.max(counted.count),
            None => self.counted.push(counted),
        }
    }

    /// The refusals that are nearest to a moment, in their order.
    fn nearest(&self, at: Timestamp) -> Vec<&RefusedRequest> {
        let mut nearest: Vec<_> = self.refused.iter().collect();
        nearest.sort_by_key(|refused| at.as_millis().abs_diff(refused.at_ms));
        nearest.truncate(TOLD_MAX);
        nearest.sort_by_key(|refused| refused.at_ms);
        nearest
    }
}

fn tell_refusals(
    question: &Question,
    found: &FoundRefusals,
    out: &mut Out,
) -> Result<(), ToolError> {
    let (says, n) = (heading(question, found), found.refused.len());
    out.say(|| says.clone(), || json!({ "says": says, "refusals": n }))?;
    for refused in found.nearest(question.at) {
        let says = refused.sentence();
        out.say(|| format!("  {says}"), || json!({ "says": says, "refused": refused }))?;
    }
    if TOLD_MAX < n {
        out.line(&format!("  and {} more, farther from that moment", n.saturating_sub(TOLD_MAX)))?;
    }
    for counted in &found.counted {
        let (count, hour) = (counted.count, time(Timestamp::from_millis(counted.from_ms)));
        let caller = counted.caller.as_ref().map(ToString::to_string).unwrap_or_default();
        let says = format!(
            "and {count} more of {caller}, about any pool, in the hour from {hour}: these were only counted"
        );
        out.say(|| format!("  {says}"), || json!({ "says": says, "counted": counted }))?;
    }
    if 0 < found.unreadable {
        let n = found.unreadable;
        let says = format!("damaged lines of the record that were left out: {n}");
        out.say(|| format!("  {says}"), || json!({ "says": says, "unreadable": n }))?;
    }
    Ok(())
}

fn heading(question: &Question, found: &FoundRefusals) -> String {
    let Question { owner, caller, at, .. } = question;
    let (caller, owner, when) = (caller.name(), owner.name(), time(*at));
    match found.refused.len() {
        0 if !found.is_kept => format!(
            "No refusals are recorded of the day of {when}: a server keeps them for 7 days at most, and an \
             export has none."
        ),
        0 => format!("No refusal of {caller} about {owner} is recorded within an hour of {when}."),
        1 => format!("Within an hour of {when} {caller} was refused once about {owner}:"),
        n => format!("Within an hour of {when} {caller} was refused {n} times about {owner}:"),
    }
}

/// Tells the owner's policy at a moment, and the caller's place in it.
fn tell_policy(
    question: &Question,
    (pool, state): (&PoolId, &PoolState),
    out: &mut Out,
) -> Result<(), ToolError> {
    let (user, contacts) = (&question.caller.user, state.contacts());
    let relation = match (contacts.is_blocked(user), contacts.is_contact(user)) {
        (true, _) => "blocked",
        _ if user == pool.user() => "same_user",
        (_, true) => "contact",
        _ => "stranger",
    };
    let place = match relation {
        "blocked" => format!("had blocked {user}"),
        "same_user" => format!("was a device of {user}, too"),
        other => format!("knew {user} as a {other}"),
    };
    let (reserve, is_removed) = (contacts.reserve(), state.is_removed());
    let open = match reserve {
        ReservePolicy::Open => "was open to everybody",
        ReservePolicy::Contacts => "was open to contacts only",
    };
    let removed = if is_removed { ", and its device was removed" } else { "" };
    let says = format!("At {} {pool} {open}, {place}{removed}.", time(question.at));
    out.say(
        || says.clone(),
        || json!({ "says": says, "reserve": reserve, "relation": relation, "removed": is_removed }),
    )
}

/// The day of a moment in UTC, as the record's files are named.
fn day_of(at: Timestamp) -> String {
    time(at).split('T').next().unwrap_or_default().to_owned()
}
