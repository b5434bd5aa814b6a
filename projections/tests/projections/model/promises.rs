//! The promises, each checked in every state that can be reached; and the states that must be met, so that the
//! model proves nothing about worlds in which nothing happens.

use keypool_ledger::{Event, RevokeReason};
use keypool_projections::{Claim, Command, OnLapse, PoolState, ReservationStatus, Stage};
use stateright::Property;

use super::{
    outcome::Outcome,
    scene::{Act, Scene, Verb, reservation_of},
    witness::{End, Fate},
    world::World,
};
use crate::history::{group, pool, reference};

/// All promises, and the states that a world must meet.
pub(crate) fn all(world: &World) -> Vec<Property<World>> {
    let mut all = vec![
        Property::always("every step keeps its promise", |_, scene: &Scene| scene.broken.is_none()),
        Property::always("a package is spent once at most", spent_once),
        Property::always("a package has one holder at a time", one_holder),
        Property::always("an acknowledged spend is not lost", acknowledged),
        Property::always("the fold of the events is the state", is_fold),
        Property::always("every reservation ends by itself, and not too early", ends),
        Property::always("a command that is repeated adds nothing and is answered alike", repeats),
        Property::always("a claim is of use to its holder alone", only_holder),
    ];
    all.extend(to_be_met(world));
    all
}

/// A state that a world must meet.
type State = (&'static str, fn(&World, &Scene) -> bool);

fn to_be_met(world: &World) -> impl Iterator<Item = Property<World>> {
    let mut states: Vec<State> = vec![
        ("a package is spent", |_, scene| fate(scene, Fate::Spent { late: false })),
        ("a lapsed reservation spends late", |_, scene| fate(scene, Fate::Spent { late: true })),
        ("a package is handed out again", |_, scene| {
            scene.witness.lives.iter().any(|life| 1 < life.handouts)
        }),
        ("all packages have ended", |_, scene| {
            let lives = &scene.witness.lives;
            lives.iter().all(|life| life.end.is_some() || life.facts.last_resort)
        }),
    ];
    if world.verbs.contains(&Verb::Release) {
        states.push(("a package is given back", |_, scene| fate(scene, Fate::GivenBack)));
    }
    if world.packages.contains(&"a") && 4 < world.horizon {
        let expires = "a package expires in the hands of its holder";
        states.push((expires, |_, scene| ended(scene, End::Expired, Fate::Open)));
        let is_retired = |_: &World, scene: &Scene| is_revoked(scene, RevokeReason::Lapsed);
        states.push(("a lapsed package is retired", is_retired));
    }
    if world.limits.on_lapse == OnLapse::Requeue {
        states.push(("a late spend is lost to another", |_, scene| fate(scene, Fate::Lost)));
    }
    if world.verbs.contains(&Verb::ReportGood) {
        states.push(("three reports withdraw a good package", |_, scene| {
            let reports = scene.events().filter(|(event, _)| event.name() == "reported").count();
            3 <= reports && is_revoked(scene, RevokeReason::Reported)
        }));
    }
    if world.acts.contains(&Act::Withdraw) {
        let withdrawn = "a package is withdrawn from its holder";
        states.push((withdrawn, |_, scene| ended(scene, End::Withdrawn, Fate::Open)));
    }
    states.into_iter().map(|(name, is_met)| Property::sometimes(name, is_met))
}

fn fate(scene: &Scene, fate: Fate) -> bool {
    scene.witness.made.iter().flatten().any(|made| made.fate == fate)
}

fn ended(scene: &Scene, end: End, fate: Fate) -> bool {
    let witness = &scene.witness;
    let mut made = witness.made.iter().flatten();
    made.any(|made| made.fate == fate && witness.life_of(made).end == Some(end))
}

fn is_revoked(scene: &Scene, for_this: RevokeReason) -> bool {
    let is_so =
        |event: &Event| matches!(event, Event::Revoked { reason, .. } if *reason == for_this);
    scene.events().any(|(event, _)| is_so(event))
}

fn spent_once(_: &World, scene: &Scene) -> bool {
    scene.witness.lives.iter().filter(|life| !life.facts.last_resort).all(|life| {
        let of = |event: &Event| {
            let is_spend = matches!(event, Event::Spent { .. });
            is_spend && event.keypackage_ref() == Some(&life.facts.keypackage_ref)
        };
        scene.events().filter(|(event, _)| of(event)).count() <= 1
    })
}

fn one_holder(_: &World, scene: &Scene) -> bool {
    scene.pool.live().filter(|package| !package.facts.last_resort).all(|package| {
        let of = &package.facts.keypackage_ref;
        let holders =
            scene.pool.open_reservations().filter(|(_, made)| made.keypackage_ref == *of).count();
        holders == usize::from(package.stage == Stage::Reserved)
    })
}

fn acknowledged(_: &World, scene: &Scene) -> bool {
    let spenders = scene.inviters.iter().enumerate().filter(|(_, inviter)| inviter.has_spent);
    spenders.map(|(number, _)| scene.pool.reservation(reservation_of(number))).all(|made| {
        made.is_some_and(|made| {
            let package = scene.pool.get(&made.keypackage_ref);
            let is_spent = matches!(made.status, ReservationStatus::Spent { .. });
            is_spent
                && package.is_some_and(|package| {
                    package.facts.last_resort || package.stage == Stage::Spent
                })
        })
    })
}

fn is_fold(_: &World, scene: &Scene) -> bool {
    PoolState::replay(scene.events()).as_ref() == Ok(&scene.pool)
}

/// Nobody acts from here on: each open reservation ends at its moment, and not a millisecond before.
fn ends(world: &World, scene: &Scene) -> bool {
    let limits = world.limits_of(scene);
    let due = scene.pool.next_due(&limits);
    let is_due_then = due.is_none_or(|due| {
        let before = due.before(std::time::Duration::from_millis(1));
        scene.pool.is_due(due, &limits)
            && (before < scene.now() || !scene.pool.is_due(before, &limits))
    });
    let open = scene.witness.made.iter().enumerate();
    let mut open = open.filter_map(|(number, made)| Some((number, made.as_ref()?)));
    is_due_then
        && open.all(|(number, made)| {
            if made.fate != Fate::Open {
                return true;
            }
            let is_open = |at| {
                let settled = scene.pool.settled(at, &limits);
                let made = settled.reservation(reservation_of(number));
                made.is_some_and(|made| made.status == ReservationStatus::Open)
            };
            let lapses_at = scene.witness.lapses_at(made);
            let before = lapses_at.before(std::time::Duration::from_millis(1));
            is_open(before) && !is_open(lapses_at)
        })
}

/// Each command that an inviter has had an answer to, without its id and at once: a renewal asks for more time each
/// time, and is recognised by its id.
fn repeats(world: &World, scene: &Scene) -> bool {
    let limits = world.limits_of(scene);
    (0..world.inviters).all(|number| {
        [Verb::Reserve, Verb::Spend, Verb::Release].iter().all(|verb| {
            let inviter = &scene.inviters[number];
            let made = scene.witness.made[number];
            let was_answered = match verb {
                Verb::Reserve => inviter.has_package,
                Verb::Spend => inviter.has_spent,
                _ => made.is_some_and(|made| made.fate == Fate::GivenBack),
            };
            let Some(command) = World::command(scene, number, *verb).filter(|_| was_answered)
            else {
                return true;
            };
            let again = scene.pool.decide(&command, scene.now(), &limits);
            let (promised, _) = scene.witness.promised(number, *verb, scene.now());
            again.events.is_empty() && Outcome::of(&again.answer) == promised
        })
    })
}

/// No other inviter, no other group and no other package fits a claim.
fn only_holder(world: &World, scene: &Scene) -> bool {
    let limits = world.limits_of(scene);
    let refuses = |command: &Command| {
        let decision = scene.pool.decide(command, scene.now(), &limits);
        let outcome = Outcome::of(&decision.answer);
        world.met.note(&decision.events, &outcome);
        decision.events.is_empty() && matches!(outcome, Outcome::Refused(_))
    };
    (0..world.inviters).all(|number| {
        let Some(Command::Spend { claim, group: own }) = World::command(scene, number, Verb::Spend)
        else {
            return true;
        };
        let stranger = pool("stranger");
        let strange = Claim { holder: stranger, ..claim.clone() };
        let unknown = Claim { keypackage_ref: reference("nobody's"), ..claim.clone() };
        refuses(&Command::Spend { claim: strange.clone(), group: own.clone() })
            && refuses(&Command::Renew(strange.clone()))
            && refuses(&Command::Release(strange))
            && refuses(&Command::Spend { claim: unknown, group: own })
            && refuses(&Command::Spend { claim, group: group("another") })
    })
}
