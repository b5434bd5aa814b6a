//! The steps of the model, each carried out by the real `decide` and `evolve`, and checked.

use std::sync::Arc;

use keypool_ledger::{Event, ReleaseReason, RevokeReason};
use keypool_projections::{Answer, Command, Decision, PoolState, Rejection};

use super::{
    evicted,
    outcome::Outcome,
    scene::{Act, InFlight, Inviter, Recorded, Scene, Verb},
    witness::Broken,
    world::World,
};

/// The fate of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The answer arrives.
    Answered,
    /// The server crashes before it has recorded anything.
    LostBefore,
    /// The server crashes after it has recorded everything, and before it answers.
    LostAfter,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Tick,
    Act(Act),
    Ask(usize, Verb, Delivery),
}

impl World {
    /// The steps that may be next.
    pub(crate) fn steps(&self, scene: &Scene, steps: &mut Vec<Step>) {
        if scene.broken.is_some() {
            return;
        }
        if scene.ticks < self.horizon {
            steps.push(Step::Tick);
        }
        let is_new = |act: &&Act| **act == Act::Settle || !scene.done.contains(act);
        steps.extend(self.acts.iter().filter(is_new).map(|act| Step::Act(*act)));
        for (number, inviter) in scene.inviters.iter().enumerate() {
            if let Some(InFlight { verb, .. }) = inviter.in_flight {
                steps.push(Step::Ask(number, verb, Delivery::Answered));
                continue;
            }
            let own = if inviter.has_package { self.verbs } else { &[] };
            for verb in std::iter::once(&Verb::Reserve).chain(own) {
                steps.push(Step::Ask(number, *verb, Delivery::Answered));
                if scene.losses < self.losses {
                    steps.push(Step::Ask(number, *verb, Delivery::LostBefore));
                    steps.push(Step::Ask(number, *verb, Delivery::LostAfter));
                }
            }
        }
    }

    /// The scene after a step.
    pub(crate) fn after(&self, scene: &Scene, step: &Step) -> Scene {
        let mut next = scene.clone();
        next.losses += usize::from(
            matches!(step, Step::Ask(_, _, delivery) if *delivery != Delivery::Answered),
        );
        match step {
            Step::Tick => next.ticks += 1,
            Step::Act(act) => self.act(&mut next, *act),
            Step::Ask(inviter, verb, Delivery::LostBefore) => {
                next.inviters[*inviter].in_flight = Some(InFlight { verb: *verb, first: None });
            }
            Step::Ask(inviter, verb, delivery) => self.ask(&mut next, (*inviter, *verb), *delivery),
        }
        next
    }

    fn act(&self, scene: &mut Scene, act: Act) {
        if act != Act::Settle {
            scene.done.push(act);
        }
        if let Some(command) = self.command_of(act) {
            self.execute(scene, None, &command);
        } else {
            scene.restarted = Some(scene.ticks);
            scene.witness.restart(scene.now());
            scene.start_anew();
        }
    }

    /// Carries out the command of an inviter, or answers its repetition from the log.
    fn ask(&self, scene: &mut Scene, (number, verb): (usize, Verb), delivery: Delivery) {
        let Some(command) = Self::command(scene, number, verb) else { return };
        let flying = scene.inviters[number].in_flight.take();
        let outcome = match flying.and_then(|flying| flying.first) {
            Some(first) => {
                scene.note(self.check_repeat(scene, number, &command, &first));
                first
            }
            None => self.ask_first(scene, (number, verb), &command),
        };
        let is_recorded = scene
            .log
            .iter()
            .any(|recorded| recorded.by == Some((number, scene.inviters[number].recorded)));
        if delivery == Delivery::LostAfter {
            let first = is_recorded.then_some(outcome);
            scene.inviters[number].in_flight = Some(InFlight { verb, first });
            scene.start_anew();
        } else {
            scene.inviters[number].take(verb, &outcome);
            scene.inviters[number].recorded += u8::from(is_recorded);
        }
    }

    /// Carries out the command of an inviter for the first time, and compares the answer with the promise.
    fn ask_first(
        &self,
        scene: &mut Scene,
        (number, verb): (usize, Verb),
        command: &Command,
    ) -> Outcome {
        let (expected, events) = scene.witness.promised(number, verb, scene.now());
        let (settling, before) = (scene.witness.due_events(scene.now()), scene.log.len());
        let outcome = self.execute(scene, Some(number), command);
        if outcome != expected {
            let told = format!("{verb:?} got {outcome:?}, and was promised {expected:?}");
            scene.note(Err(told));
        }
        let recorded = scene.log.len() - before;
        if recorded != if events == 0 { 0 } else { settling + events } {
            scene.note(Err(format!("{verb:?} has recorded {recorded} events, not {events}")));
        }
        outcome
    }

    /// Decides a command, records its events and folds them; checks each promise on the way.
    pub(crate) fn execute(
        &self,
        scene: &mut Scene,
        inviter: Option<usize>,
        command: &Command,
    ) -> Outcome {
        let (now, limits) = (scene.now(), self.limits_of(scene));
        let (decision, after) = scene.pool.decide_with_outcome(command, now, &limits);
        if self.evicts {
            let evicted = evicted::decide(scene, command, &limits);
            if evicted.as_ref() != Ok(&decision) {
                scene.note(Err(format!("evicted: {evicted:?}, kept: {decision:?}")));
            }
        }
        let Decision { events, answer } = decision;
        let by = inviter.map(|number| (number, scene.inviters[number].recorded));
        for event in &events {
            let seen = scene.witness.see(event, now);
            scene.note(seen);
            let evolved = scene.pool.evolve(event, now);
            scene.note(evolved.map_err(|err| err.to_string()));
            scene.log.push_back(Arc::new(Recorded { by, event: event.clone(), at: now }));
        }
        let is_fold = after.as_ref().is_none_or(|after| *after == scene.pool);
        if !is_fold || after.is_some() == events.is_empty() {
            scene.note(Err("the outcome of a decision is not the fold of its events".to_owned()));
        }
        let outcome = Outcome::of(&answer);
        self.met.note(&events, &outcome);
        scene.note(check_trace(&events, &answer));
        outcome
    }

    /// A repeated command is decided on the pool as it was, with the effects of time that were recorded in front of
    /// the command's own events, and gets its first answer.
    fn check_repeat(
        &self,
        scene: &Scene,
        number: usize,
        command: &Command,
        first: &Outcome,
    ) -> Result<(), Broken> {
        let by = (number, scene.inviters[number].recorded);
        let of_others = scene.log.iter().take_while(|recorded| recorded.by != Some(by));
        let behind = scene.log.iter().skip(of_others.clone().count());
        let at = behind.clone().next().ok_or("a recorded command is not in the log")?.at;
        let settling = behind.take_while(|recorded| is_of_time(&recorded.event));
        let before = of_others.chain(settling);
        let pool = PoolState::replay(before.map(|known| (&known.event, known.at)));
        let pool = pool.map_err(|err| err.to_string())?;
        let again = Outcome::of(&pool.decide(command, at, &self.limits_of(scene)).answer);
        if again == *first {
            Ok(())
        } else {
            Err(format!("a repeated command got {again:?} after {first:?}"))
        }
    }
}

/// Whether an event is an effect of time and not of a command.
fn is_of_time(event: &Event) -> bool {
    matches!(
        event,
        Event::Released { reason: ReleaseReason::Lapsed, .. }
            | Event::Revoked { reason: RevokeReason::Lapsed, .. }
            | Event::Expired { .. }
    )
}

/// The rules never contradict the lifecycle, and a refusal leaves no trace but a conflict.
fn check_trace(events: &[Event], answer: &Result<Answer, Rejection>) -> Result<(), Broken> {
    match answer {
        Err(Rejection::Illegal(err)) => Err(err.to_string()),
        Err(Rejection::ReservationLost(_)) | Ok(_) => Ok(()),
        Err(_) if events.is_empty() => Ok(()),
        Err(rejection) => Err(format!("{rejection} left a trace")),
    }
}

impl Scene {
    /// Keeps the first broken promise.
    fn note(&mut self, checked: Result<(), Broken>) {
        if let Err(broken) = checked {
            self.broken.get_or_insert(broken);
        }
    }

    /// The server folds the pool from its log after a crash.
    fn start_anew(&mut self) {
        match PoolState::replay(self.events()) {
            Ok(pool) => self.pool = pool,
            Err(err) => self.note(Err(err.to_string())),
        }
    }
}

impl Inviter {
    /// Takes in an answer.
    fn take(&mut self, verb: Verb, outcome: &Outcome) {
        match (verb, outcome) {
            (Verb::Reserve, Outcome::Reserved { .. }) => self.has_package = true,
            (Verb::Spend, Outcome::Spent { .. }) => self.has_spent = true,
            _ => {}
        }
    }
}
