//! The properties that hold for all commands in any order at any times.
//!
//! Histories are drawn at random and each invariant is checked after **every** event, by code that
//! reads the events alone and shares nothing with the rules.

use std::collections::BTreeMap;

use keypool_auditor::{
    invariants::{self, InvariantParams},
    verify::Finding,
};
use keypool_ledger::{Event, KeyPackageRef, ReleaseReason, ReservationId, SignatureKey, Timestamp};
use keypool_projections::{
    Answer, Command, Health, Limits, OnLapse, PoolState, Rejection, reconcile::digest,
};
use quickcheck::{Gen, QuickCheck, TestResult};

use crate::{
    history::{at, envelope, pool},
    steps::Step,
};

/// The story of one package by the events alone.
#[derive(Clone, Debug, Default)]
struct Seen {
    last_resort: bool,
    not_after: Timestamp,
    uploads: u32,
    lapsed: u32,
    open: Option<(ReservationId, Timestamp)>,
    latest: Option<ReservationId>,
    spent: u32,
    expired: bool,
    revoked: bool,
}

/// The auditor: reads events, knows no rules but the promises.
#[derive(Debug, Default)]
struct Auditor {
    packages: BTreeMap<KeyPackageRef, Seen>,
}

impl Auditor {
    fn see(&mut self, event: &Event, now: Timestamp, limits: &Limits) -> Result<(), String> {
        let Some(of) = event.keypackage_ref() else { return Ok(()) };
        let known = self.packages.contains_key(of);
        let seen = self.packages.entry(of.clone()).or_default();
        let rule = |holds: bool, what: &str| {
            if holds { Ok(()) } else { Err(format!("{what}: {event:?} at {now}")) }
        };
        let single = !seen.last_resort;
        rule(known || matches!(event, Event::Uploaded(_)), "an unknown package")?;
        match event {
            Event::Uploaded(facts) => {
                seen.uploads += 1;
                seen.last_resort = facts.last_resort;
                seen.not_after = facts.not_after;
                rule(seen.uploads == 1, "I5 uploaded twice")?;
            }
            Event::Reserved { reservation, deadline, .. } => {
                let again_max = limits.on_lapse.lapses_max();
                rule(!single || seen.open.is_none(), "I2 two live reservations")?;
                rule(!single || seen.spent == 0, "I1 handed out after it was spent")?;
                rule(!seen.expired && !seen.revoked, "an ended package was handed out")?;
                rule(*deadline <= seen.not_after, "a package was handed out at its end")?;
                rule(!single || seen.lapsed < again_max, "I4 handed out after it lapsed")?;
                seen.open = Some((*reservation, *deadline));
                seen.latest = Some(*reservation);
            }
            Event::Renewed { reservation, deadline, .. } => {
                if let Some(open) = seen.open.as_mut().filter(|open| open.0 == *reservation) {
                    open.1 = *deadline;
                }
            }
            Event::Released { reservation, reason, .. } => {
                let open = seen.open.filter(|open| open.0 == *reservation);
                if let (ReleaseReason::Lapsed, Some((_, deadline))) = (reason, open) {
                    let lapsed = deadline.after(limits.grace) <= now;
                    rule(lapsed, "a reservation lapsed too early")?;
                }
                rule(!single || open.is_some(), "released by who does not hold it")?;
                seen.lapsed += u32::from(*reason == ReleaseReason::Lapsed);
                if open.is_some() {
                    seen.open = None;
                }
            }
            _ => seen.see_end(event, now, rule)?,
        }
        Ok(())
    }

    /// I3 from the events alone.
    fn uploaded(&self) -> u64 {
        self.packages.values().filter(|seen| seen.uploads == 1 && !seen.last_resort).count() as u64
    }
}

impl Seen {
    /// The events after which a package is not handed out again.
    fn see_end(
        &mut self,
        event: &Event,
        now: Timestamp,
        rule: impl Fn(bool, &str) -> Result<(), String>,
    ) -> Result<(), String> {
        let seen = self;
        let single = !seen.last_resort;
        match event {
            Event::Spent { reservation, .. } => {
                seen.spent += 1;
                rule(!single || seen.spent == 1, "I1 spent twice")?;
                rule(!single || *reservation == seen.latest, "I1 spent by an earlier holder")?;
                if single {
                    seen.open = None;
                }
            }
            Event::Expired { .. } => {
                rule(seen.not_after <= now, "expired too early")?;
                rule(!seen.expired && seen.spent == 0 || !single, "I5 expired twice")?;
                seen.expired = true;
            }
            Event::Revoked { .. } => {
                rule(!seen.revoked && !seen.expired, "I5 revoked after its end")?;
                rule(!single || seen.spent == 0, "I5 revoked after it was spent")?;
                seen.revoked = true;
            }
            Event::Conflict { lost, holds, .. } => {
                rule(lost != holds && Some(*holds) == seen.latest, "a conflict with nobody")?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Plays a history and checks every promise after every event.
fn audit(steps: &[Step], limits: &Limits) -> Result<Vec<(Event, Timestamp)>, String> {
    let (mut state, mut now, mut log) = (PoolState::default(), at(0), Vec::new());
    let mut auditor = Auditor::default();
    for Step { pause, command } in steps {
        now = now.after(*pause);
        let before = state.clone();
        let offered = Health::of(&state, now, limits);
        let decision = state.decide(command, now, limits);
        if state != before {
            return Err("deciding changed the state".to_owned());
        }
        for event in &decision.events {
            auditor.see(event, now, limits)?;
            state.evolve(event, now).map_err(|err| err.to_string())?;
            let counts = state.counts();
            if counts.uploaded() != auditor.uploaded() {
                return Err(format!("I3: {counts:?} of {} uploaded", auditor.uploaded()));
            }
            log.push((event.clone(), now));
        }
        check_answer(command, &decision.answer, &offered, decision.events.is_empty())?;
        check_repeat(&state, command, &decision.answer, now, limits)?;
        if PoolState::replay(log.iter().map(|(event, at)| (event, *at))).as_ref() != Ok(&state) {
            return Err("I6: the fold of the log is not the live state".to_owned());
        }
        // Asked for at each step, so that one that was worked out before the last one would be told.
        let live = state.live().map(|package| (&package.facts.keypackage_ref, package.stage));
        if state.digest() != digest(live) {
            return Err("the digest is not that of the pool as it is now".to_owned());
        }
        let health = Health::of(&state, now, limits);
        let Health { available, reserved, spent, expired, revoked, total, .. } = health;
        if available + reserved + spent + expired + revoked != total {
            return Err(format!("I3 as counted: {health:?}"));
        }
        let settles = !state.decide(&Command::Settle, now, limits).events.is_empty();
        if state.is_due(now, limits) != settles {
            return Err(format!("due and settled differ: {settles}"));
        }
        if state.settled(now, limits).is_due(now, limits) {
            return Err("a settled pool is due".to_owned());
        }
    }
    Ok(log)
}

/// The counts agree with the next reservation; a refusal leaves no trace but a conflict.
fn check_answer(
    command: &Command,
    answer: &Result<Answer, Rejection>,
    offered: &Health,
    silent: bool,
) -> Result<(), String> {
    let any_suite =
        matches!(command, Command::Reserve { ciphersuites, .. } if ciphersuites.is_empty());
    match answer {
        Err(Rejection::PoolExhausted)
            if 0 < offered.available + offered.last_resort && any_suite =>
        {
            // A last-resort package near its end is live and cannot be offered.
            if 0 < offered.available { Err(format!("refused with {offered:?}")) } else { Ok(()) }
        }
        Err(Rejection::ReservationLost(_)) => Ok(()),
        Err(Rejection::Illegal(err)) => Err(err.to_string()),
        Err(rejection) if !silent => Err(format!("{rejection} left a trace")),
        _ => Ok(()),
    }
}

/// I11: the same command again, at the same moment, adds nothing and answers alike.
fn check_repeat(
    state: &PoolState,
    command: &Command,
    answer: &Result<Answer, Rejection>,
    now: Timestamp,
    limits: &Limits,
) -> Result<(), String> {
    let again = state.decide(command, now, limits);
    // A renewal asks for more time each time; its repetition is recognised by the command's id.
    let counted = matches!(command, Command::Renew(_));
    if !again.events.is_empty() && !counted {
        return Err(format!("I11: {command:?} again led to {:?}", again.events));
    }
    match (answer, again.answer) {
        (Ok(Answer::Reserved { facts: one, .. }), Ok(Answer::Reserved { facts: two, .. }))
            if *one != two =>
        {
            Err("I11: another package for the same reservation".to_owned())
        }
        (Ok(Answer::Reserved { .. } | Answer::Spent { .. }), Err(rejection)) => {
            Err(format!("I11: refused when repeated: {rejection}"))
        }
        _ => Ok(()),
    }
}

/// Every run draws the same histories, unless `KEYPOOL_TEST_SEED` says otherwise; `KEYPOOL_HISTORIES` is their
/// number.
const SEED: u64 = 9420;

/// Plays as many histories as it takes to believe a property, and shrinks the first that breaks it.
fn every_history(limits_hold: fn(Vec<Step>) -> TestResult) {
    let seed = std::env::var("KEYPOOL_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let count = std::env::var("KEYPOOL_HISTORIES").ok().and_then(|count| count.parse().ok());
    let draws = Gen::from_size_and_seed(60, seed.unwrap_or(SEED));
    QuickCheck::new().tests(count.unwrap_or(2000)).rng(draws).quickcheck(limits_hold);
}

fn holds(steps: &[Step], limits: &Limits) -> TestResult {
    match audit(steps, limits) {
        Ok(log) => match audited(&log, limits).first() {
            None => TestResult::passed(),
            Some(finding) => TestResult::error(format!("{finding:?}")),
        },
        Err(why) => TestResult::error(why),
    }
}

/// The findings of the library's auditor, who shares no code with the rules, in a history.
fn audited(log: &[(Event, Timestamp)], limits: &Limits) -> Vec<Finding> {
    let mut auditor = invariants::Auditor::new(InvariantParams {
        grace: limits.grace,
        lapses_max: limits.on_lapse.lapses_max(),
        renewals_max: limits.renewals_max,
        packages_max: limits.packages_max,
        life_margin: limits.life_margin,
    });
    let signature_key = SignatureKey::new(&[1; 32]).unwrap();
    let registered = Event::Registered {
        signature_key,
        credential: "bob".to_owned(),
        voucher: None,
        statement: None,
        frontend: None,
    };
    let first = (registered, at(0));
    for (seq, (event, at)) in (1..).zip(std::iter::once(&first).chain(log)) {
        auditor.see(seq, &envelope(seq, pool("bob"), event.clone(), *at));
    }
    auditor.finish()
}

#[test]
fn every_promise_holds_when_lapsed_packages_are_requeued() {
    every_history(|steps| holds(&steps, &Limits::STANDARD));
}

#[test]
fn every_promise_holds_when_lapsed_packages_are_retired() {
    every_history(|steps| holds(&steps, &Limits { on_lapse: OnLapse::Retire, ..Limits::STANDARD }));
}

#[test]
fn every_promise_holds_in_a_small_pool() {
    every_history(|steps| {
        holds(&steps, &Limits { packages_max: 2, renewals_max: 1, ..Limits::STANDARD })
    });
}

#[test]
fn the_same_history_gives_the_same_events() {
    every_history(|steps| {
        let once = audit(&steps, &Limits::STANDARD);
        TestResult::from_bool(once == audit(&steps, &Limits::STANDARD))
    });
}
