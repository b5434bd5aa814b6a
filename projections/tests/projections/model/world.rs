//! The worlds that are explored: so many inviters, these packages, these commands.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use keypool_ledger::{Event, RevokeReason};
use keypool_projections::{
    Claim, Command, Limits, NewPackage, PoolState, Remover, RequiredCapabilities, RevokeScope,
};

use super::{
    outcome::Outcome,
    scene::{Act, Inviter, Scene, Verb, reservation_of, tick},
    witness::{Witness, inviter_named},
};
use crate::history::{group, package, pool, reference};

/// A small world.
#[derive(Debug)]
pub(crate) struct World {
    /// The packages in the order of their uploads.
    pub(crate) packages: &'static [&'static str],
    pub(crate) inviters: usize,
    pub(crate) verbs: &'static [Verb],
    pub(crate) acts: &'static [Act],
    pub(crate) limits: Limits,
    /// The last tick.
    pub(crate) horizon: u64,
    /// The number of requests and answers that a crash of the server loses.
    pub(crate) losses: usize,
    /// Whether the pool is evicted, packed and reloaded before each command.
    pub(crate) evicts: bool,
    pub(crate) met: Met,
}

/// The names of the events and of the answers that an exploration has met.
#[derive(Debug, Default)]
pub(crate) struct Met {
    events: Mutex<BTreeSet<&'static str>>,
    answers: Mutex<BTreeSet<&'static str>>,
}

impl Met {
    pub(crate) fn note(&self, events: &[Event], outcome: &Outcome) {
        let mut names = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        names.extend(events.iter().map(Event::name));
        drop(names);
        let outcome = match outcome {
            Outcome::Reserved { .. } => "reserved",
            Outcome::Renewed { .. } => "renewed",
            Outcome::Released => "released",
            Outcome::Reported => "reported",
            Outcome::Spent { late: false, replayed: false } => "spent",
            Outcome::Spent { late: false, replayed: true } => "spent before",
            Outcome::Spent { late: true, replayed: false } => "spent late",
            Outcome::Spent { late: true, replayed: true } => "spent late before",
            Outcome::Refused(rejection) => rejection,
            Outcome::Other => "done",
        };
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(outcome);
    }

    /// All names, in their order.
    pub(crate) fn names(&self) -> String {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let events: Vec<&str> = events.iter().copied().collect();
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answers: Vec<&str> = answers.iter().copied().collect();
        format!("{}\n{}", events.join(", "), answers.join(", "))
    }
}

/// A package of the model. `a` ends at tick 4, `c` is valid from tick 1 to 3, the others outlive the model.
pub(crate) fn package_named(name: &str) -> NewPackage {
    let (not_before, not_after) = match name {
        "a" => (0, 4),
        "c" => (1, 3),
        _ => (0, 60),
    };
    let mut package = package(name);
    package.facts.not_before = tick(not_before);
    package.facts.not_after = tick(not_after);
    package
}

impl World {
    /// The limits of the model: a TTL, a grace and a margin of one tick each, and one renewal.
    pub(crate) const LIMITS: Limits = Limits { renewals_max: 1, ..Limits::STANDARD };

    /// The world before the first command: the packages are in the pool.
    pub(crate) fn beginning(&self) -> Scene {
        let mut scene = Scene {
            ticks: 0,
            restarted: None,
            losses: 0,
            done: Vec::new(),
            pool: PoolState::default(),
            log: imbl::Vector::new(),
            inviters: vec![Inviter::default(); self.inviters],
            witness: Witness::new(self.inviters, self.limits),
            broken: None,
        };
        let register = Command::Register {
            signature_key: keypool_ledger::SignatureKey::new(&[1; 32]).unwrap(),
            credential: "bob".to_owned(),
            statement: None,
        };
        let packages = self.packages.iter().map(|name| package_named(name)).collect();
        for command in [register, Command::Upload(packages)] {
            self.execute(&mut scene, None, &command);
        }
        scene
    }

    /// The limits as they are for a scene: a restart moves the floor of the lapses.
    pub(crate) fn limits_of(&self, scene: &Scene) -> Limits {
        match scene.restarted {
            Some(ticks) => Limits { lapse_floor: tick(ticks), ..self.limits },
            None => self.limits,
        }
    }

    /// The command that a verb of an inviter stands for; `None` without the package that it needs.
    pub(crate) fn command(scene: &Scene, inviter: usize, verb: Verb) -> Option<Command> {
        let (reservation, holder) = (reservation_of(inviter), pool(&inviter_named(inviter)));
        if verb == Verb::Reserve {
            return Some(Command::Reserve {
                reservation,
                holder,
                group: group("g"),
                ciphersuites: vec![],
                required: RequiredCapabilities::default(),
                introduced: false,
                last_resort_only: false,
            });
        }
        let made = scene.pool.reservation(reservation)?;
        let keypackage_ref = made.keypackage_ref.clone();
        let claim = Claim { keypackage_ref, reservation, holder };
        Some(match verb {
            Verb::Spend => Command::Spend { claim, group: group("g") },
            Verb::Release => Command::Release(claim),
            Verb::Renew => Command::Renew(claim),
            Verb::Reserve | Verb::ReportGood | Verb::ReportBad => {
                let admissible = verb == Verb::ReportGood;
                Command::Report { claim, check: None, admissible }
            }
        })
    }

    /// The command that an act stands for; `None` for a restart.
    pub(crate) fn command_of(&self, act: Act) -> Option<Command> {
        let reason = RevokeReason::Withdrawn;
        match act {
            Act::Settle => Some(Command::Settle),
            Act::Withdraw => {
                let first = self.packages.first().map(|name| reference(name));
                let which = RevokeScope::Refs(first.into_iter().collect());
                Some(Command::Revoke { which, reason })
            }
            Act::Replace => {
                Some(Command::Replace { packages: vec![package_named("n")], next: None })
            }
            Act::Remove => Some(Command::Remove { by: Remover::Operator }),
            Act::Restart => None,
        }
    }
}
