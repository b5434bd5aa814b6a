//! Explanations: sentences on the life of a package, and on a pool's events.

pub mod words;

use std::{collections::BTreeMap, time::Duration};

use keypool_ledger::{
    Event, EventEnvelope, KeyPackageRef, PoolId, ReleaseReason, ReservationId, RevokeReason,
    Timestamp,
};

use self::words::{short, span, time};
use crate::{Limits, Package, PoolState, Stage, timeline::detail};

/// The life of a package as sentences: the state while it is told.
#[derive(Clone, Debug, Default)]
pub struct PackageStory {
    grace: Duration,
    claims: BTreeMap<ReservationId, ReservationStory>,
    latest: Option<ReservationId>,
    fate: Option<String>,
}

/// The state of a reservation while its package's life is told.
#[derive(Clone, Debug)]
struct ReservationStory {
    holder: PoolId,
    deadline: Timestamp,
    end: Option<String>,
}

impl PackageStory {
    /// Sets the grace that the server ran with at the next event.
    pub const fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

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

    /// Takes in the next event of the package, and returns its sentence.
    #[must_use]
    pub fn tell(&mut self, envelope: &EventEnvelope) -> String {
        let (at, stream) = (envelope.at, &envelope.stream);
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
                let (id, left) = (short(reservation), span(deadline.since(at)));
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
                    span(at.since(deadline))
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
                format!("{winner}, which still had {}", span(told.deadline.since(at)))
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

    /// The sentence on the package's state at the end.
    #[must_use]
    pub fn end(&self, of: &KeyPackageRef) -> String {
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

    /// The sentence on a reservation's state at the end.
    #[must_use]
    pub fn end_of_claim(&self, id: ReservationId) -> String {
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
        RevokeReason::Operator => "the operator of the server withdrew it",
    }
}

/// The rest of a sentence on a package that could not be handed out at a moment: `was spent by …`.
#[must_use]
pub fn why_not(pool: &PoolState, package: &Package, now: Timestamp, limits: &Limits) -> String {
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
            let left = deadline.since(now);
            let grace = limits.grace.as_secs();
            if left.is_zero() {
                let over = span(limits.lapses_at(deadline).since(now));
                return format!("was held by {by}, whose grace had {over} left");
            }
            format!("was held by {by}, which still had {} and {grace} s of grace", span(left))
        }
        Stage::Available if now < package.facts.not_before => "was not valid yet".to_owned(),
        Stage::Available => "had too little life left for a reservation".to_owned(),
    }
}

/// The sentence on an event that is about no package: `At … registered: key …`.
#[must_use]
pub fn device_sentence(envelope: &EventEnvelope) -> String {
    let (when, name) = (time(envelope.at), envelope.event.name().replace('_', " "));
    match detail(envelope).as_str() {
        "" => format!("At {when}: {name}."),
        detail => format!("At {when}: {name}: {detail}."),
    }
}
