//! `explain`: in sentences, why something ended as it did.

pub(crate) mod refused;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::Path,
    time::Duration,
};

use keypool_auditor::{names::StreamName, replay::Keep};
use keypool_ledger::{
    Event, EventEnvelope, KeyPackageRef, PoolId, ReleaseReason, ReservationId, RevokeReason,
    RuleSettings, Timestamp,
};
use keypool_projections::{Limits, OnLapse, Package, PoolState, Stage};
use serde_json::json;

use crate::{
    FINE, PromiseArgs,
    input::{Moment, read},
    output::{Out, ToolError, one_line, short, span, time},
    replay::{fold, unknown},
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
            let words = format!("At {at} it wrote `{name}` into the history {stream}.");
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
    let mut story = Story::default();
    for (seq, envelope) in &life {
        story.grace = limits_at(&settings, *seq, promises).grace;
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

/// The state of a package while its life is told.
#[derive(Default)]
struct Story {
    grace: Duration,
    claims: BTreeMap<ReservationId, ReservationStory>,
    latest: Option<ReservationId>,
    fate: Option<String>,
}

/// The state of a reservation while its package's life is told.
struct ReservationStory {
    holder: PoolId,
    deadline: Timestamp,
    end: Option<String>,
}

impl Story {
    fn name(&self, id: ReservationId) -> String {
        match self.claims.get(&id) {
            Some(told) => format!("{}'s reservation {}", told.holder, short(&id)),
            None => format!("reservation {}", short(&id)),
        }
    }

    fn close(&mut self, id: ReservationId, end: String) {
        if let Some(told) = self.claims.get_mut(&id) {
            told.end = Some(end);
        }
    }

    fn tell(&mut self, envelope: &EventEnvelope) -> String {
        let (at, stream) = (envelope.at, StreamName(&envelope.stream));
        let when = time(at);
        match &envelope.event {
            Event::Created(facts) => {
                format!(
                    "At {when} the owner of {stream} made it, good until {}.",
                    time(facts.not_after)
                )
            }
            Event::Uploaded(facts) => {
                let kind = if facts.last_resort { " as a last resort" } else { "" };
                let until = time(facts.not_after);
                format!("At {when} it was uploaded to {stream}{kind}, good until {until}.")
            }
            Event::Reserved { reservation, generation, holder, deadline, .. } => {
                let told =
                    ReservationStory { holder: holder.clone(), deadline: *deadline, end: None };
                self.claims.insert(*reservation, told);
                self.latest = Some(*reservation);
                let (id, left) = (short(reservation), span(millis(deadline.since(at))));
                format!(
                    "At {when} {holder} reserved it for {left}: reservation {id}, generation \
                     {generation}."
                )
            }
            Event::Renewed { reservation, deadline, .. } => {
                let name = self.name(*reservation);
                if let Some(told) = self.claims.get_mut(reservation) {
                    told.deadline = *deadline;
                }
                format!("At {when} {name} was renewed until {}.", time(*deadline))
            }
            Event::Released { reservation, reason, .. } => self.release(*reservation, *reason, at),
            Event::Spent { reservation, holder, late, .. } => {
                self.spend(*reservation, holder.as_ref(), *late, &when)
            }
            Event::Expired { .. } => {
                self.fate = Some(format!("it expired at {when}, before anybody used it"));
                format!("At {when} it expired: its lifetime was over.")
            }
            Event::Revoked { reason, check, .. } => {
                let check = check.as_ref().map(|check| format!(" (it failed the check {check})"));
                let why = why_revoked(*reason).to_owned() + &check.unwrap_or_default();
                self.fate = Some(format!("it was withdrawn at {when}, because {why}"));
                format!("At {when} it was withdrawn, because {why}.")
            }
            Event::Conflict { lost, holds, .. } => self.conflict(*lost, *holds, at),
            _ => format!("At {when}: {}.", envelope.event.name()),
        }
    }

    fn release(&mut self, id: ReservationId, reason: ReleaseReason, at: Timestamp) -> String {
        let (name, when) = (self.name(id), time(at));
        let deadline = self.claims.get(&id).map_or(at, |told| told.deadline);
        match reason {
            ReleaseReason::Cancelled => {
                self.close(id, format!("was given back by its holder at {when}"));
                format!("At {when} {name} was given back by its holder.")
            }
            ReleaseReason::Lapsed => {
                let (until, grace) = (time(deadline), self.grace.as_secs());
                self.close(
                    id,
                    format!("lapsed: its deadline was {until}, the grace {grace} s more"),
                );
                format!(
                    "At {when} it was recorded that {name} had lapsed: its deadline {until} had \
                     passed {} before, and the grace of {grace} s with it.",
                    span(millis(at.since(deadline)))
                )
            }
        }
    }

    fn spend(
        &mut self,
        id: Option<ReservationId>,
        holder: Option<&PoolId>,
        late: bool,
        when: &str,
    ) -> String {
        let by = holder.map_or_else(|| "somebody".to_owned(), ToString::to_string);
        let late_words = if late { ", late, but before anybody else was given it" } else { "" };
        if let Some(id) = id {
            self.close(id, format!("spent the package at {when}{late_words}"));
        }
        self.fate = Some(format!("{by} spent it at {when}"));
        format!("At {when} {by} spent it{late_words}.")
    }

    fn conflict(&mut self, lost: ReservationId, holds: ReservationId, at: Timestamp) -> String {
        let (when, loser, winner) = (time(at), self.name(lost), self.name(holds));
        let held = match self.claims.get(&holds) {
            Some(ReservationStory { end: Some(end), .. }) => format!("{winner}, which {end}"),
            Some(told) if at < told.deadline => {
                format!("{winner}, which still had {}", span(millis(told.deadline.since(at))))
            }
            _ => winner,
        };
        self.close(
            lost,
            format!(
                "lapsed, and was refused at {when} when it was to be spent all the same, because the \
                 package had been handed on to {held}"
            ),
        );
        format!(
            "At {when} a late spend by {loser} was refused, because the package had been handed on to \
             {held}."
        )
    }

    /// How the package stands at the end.
    fn end(&self, of: &KeyPackageRef) -> String {
        let open = self.latest.filter(|id| self.claims.get(id).is_some_and(|c| c.end.is_none()));
        let fate = match (&self.fate, open) {
            (Some(fate), _) => fate.clone(),
            (None, Some(id)) => {
                let deadline = self.claims.get(&id).map(|told| time(told.deadline));
                format!("{} holds it until {}", self.name(id), deadline.unwrap_or_default())
            }
            (None, None) => "nobody holds it and nobody has used it".to_owned(),
        };
        format!("So, at the end of this log, of package {}: {fate}.", of.short())
    }

    /// How a reservation stands at the end.
    fn end_of_claim(&self, id: ReservationId) -> String {
        let name = self.name(id);
        match self.claims.get(&id) {
            Some(ReservationStory { end: Some(end), .. }) => format!("So {name} {end}."),
            Some(ReservationStory { deadline, .. }) => match &self.fate {
                Some(fate) => format!("So {name} came to nothing: {fate}."),
                None => format!("So {name} holds the package until {}.", time(*deadline)),
            },
            None => format!("So {name} was never made."),
        }
    }
}

const fn why_revoked(reason: RevokeReason) -> &'static str {
    match reason {
        RevokeReason::Rotated => "its device has another credential now",
        RevokeReason::Withdrawn => "its owner wanted it so",
        RevokeReason::Reported => "an inviter reported that it cannot be used",
        RevokeReason::Lapsed => "reservations of it had lapsed as often as they may",
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
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
    let offered: BTreeSet<&KeyPackageRef> =
        settled.offerable(now, &limits).map(|package| &package.facts.keypackage_ref).collect();
    let head = match offered.len() {
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

/// Why a package could not be handed out at a moment.
fn why_not(pool: &PoolState, package: &Package, now: Timestamp, limits: &Limits) -> String {
    let latest = package.latest.and_then(|id| Some((short(&id), pool.reservation(id)?)));
    let by = latest.as_ref().map(|(id, made)| format!("{}'s reservation {id}", made.holder));
    let by = by.unwrap_or_else(|| "somebody".to_owned());
    match package.stage {
        Stage::Created => "was not at the server yet".to_owned(),
        Stage::Spent => format!("was spent by {by}"),
        Stage::Expired => format!("had expired at {}", time(package.facts.not_after)),
        Stage::Revoked => {
            let why = package.revoked.map_or("its owner wanted it so", why_revoked);
            format!("was withdrawn, because {why}")
        }
        Stage::Reserved => {
            let deadline = latest.map_or(now, |(_, made)| made.deadline);
            let left = millis(deadline.since(now));
            let grace = limits.grace.as_secs();
            if left == 0 {
                let over = span(millis(limits.lapses_at(deadline).since(now)));
                return format!("was held by {by}, whose grace had {over} left");
            }
            format!("was held by {by}, which still had {} and {grace} s of grace", span(left))
        }
        Stage::Available if now < package.facts.not_before => "was not valid yet".to_owned(),
        Stage::Available => "had too little life left for a reservation".to_owned(),
    }
}
