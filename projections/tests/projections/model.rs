//! The rules explored exhaustively: every order of a few commands, losses, crashes and ticks of time, in small
//! worlds. `KEYPOOL_MODEL=large` explores larger ones.
//!
//! Each step is carried out by the real `decide` and `evolve`. A witness reads the events, shares no code with the
//! rules, and says which answer an inviter is promised.

#[path = "model/evicted.rs"]
mod evicted;

#[path = "model/outcome.rs"]
mod outcome;

#[path = "model/promised.rs"]
mod promised;

#[path = "model/promises.rs"]
mod promises;

#[path = "model/scene.rs"]
mod scene;

#[path = "model/step.rs"]
mod step;

#[path = "model/witness.rs"]
mod witness;

#[path = "model/world.rs"]
mod world;

use insta::assert_snapshot;
use keypool_projections::{Limits, OnLapse};
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

use self::{
    scene::{Act, Scene, Verb},
    step::Step,
    world::{Met, World},
};

impl Model for World {
    type State = Scene;
    type Action = Step;

    fn init_states(&self) -> Vec<Scene> {
        vec![self.beginning()]
    }

    fn actions(&self, scene: &Scene, steps: &mut Vec<Step>) {
        self.steps(scene, steps);
    }

    fn next_state(&self, scene: &Scene, step: Step) -> Option<Scene> {
        Some(self.after(scene, &step))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = promises::all(self);
        if size() == Size::Small {
            all.retain(|property| property.expectation == Expectation::Always);
        }
        all
    }
}

/// How much is explored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    /// A second or two for each world: for many runs, as with mutated rules.
    Small,
    /// For each change.
    Standard,
    /// Minutes, and gigabytes of memory.
    Large,
}

/// The size by `KEYPOOL_MODEL`: `small`, `large`, or the standard one.
fn size() -> Size {
    match std::env::var("KEYPOOL_MODEL").as_deref() {
        Ok("small") => Size::Small,
        Ok("large") => Size::Large,
        _ => Size::Standard,
    }
}

/// Explores a world, and returns the names of all that was met in it, in the standard size.
#[expect(clippy::print_stdout, reason = "the size of a world is read with --nocapture")]
fn explore(world: World) -> Option<String> {
    let checker = world.checker().threads(2).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    checker.assert_properties();
    println!("{} states, {} steps", checker.unique_state_count(), checker.state_count());
    (size() == Size::Standard).then(|| checker.model().met.names())
}

const CLAIMS: &[Verb] = &[Verb::Spend, Verb::Release, Verb::Renew];
const REPORTS: &[Verb] = &[Verb::Spend, Verb::ReportGood, Verb::ReportBad];

/// Three packages and three inviters who spend, give back, renew and let lapse.
fn three_by_three(on_lapse: OnLapse) -> World {
    let horizon = if size() == Size::Small { 2 } else { 5 };
    World {
        packages: &["a", "c", "b"],
        inviters: 3,
        verbs: CLAIMS,
        acts: &[],
        limits: Limits { on_lapse, ..World::LIMITS },
        horizon,
        losses: 0,
        evicts: false,
        met: Met::default(),
    }
}

#[test]
fn three_inviters_and_three_packages_keep_every_promise() {
    let Some(met) = explore(three_by_three(OnLapse::Requeue)) else { return };
    assert_snapshot!(met, @"
    conflict, expired, registered, released, renewed, reserved, revoked, spent, uploaded
    already_spent, done, expired, pool_exhausted, released, renewals_used_up, renewed, reservation_lost, reservation_mismatch, reserved, spent, spent before, spent late, spent late before, unknown_key_package
    ");
}

#[test]
fn three_inviters_keep_every_promise_when_lapsed_packages_are_retired() {
    let Some(met) = explore(World { packages: &["a", "b"], ..three_by_three(OnLapse::Retire) })
    else {
        return;
    };
    assert_snapshot!(met, @"
    expired, registered, released, renewed, reserved, revoked, spent, uploaded
    already_spent, done, expired, pool_exhausted, released, renewals_used_up, renewed, reservation_lost, reservation_mismatch, reserved, spent, spent before, spent late, spent late before, unknown_key_package
    ");
}

#[test]
fn a_crash_before_or_after_a_command_is_recorded_loses_nothing() {
    let (horizon, losses) = match size() {
        Size::Small => (1, 1),
        Size::Standard => (2, 1),
        Size::Large => (5, 2),
    };
    let world = World { horizon, losses, ..three_by_three(OnLapse::Requeue) };
    let Some(met) = explore(world) else { return };
    assert_snapshot!(met, @"
    conflict, registered, released, renewed, reserved, spent, uploaded
    already_spent, done, pool_exhausted, released, renewals_used_up, renewed, reservation_lost, reservation_mismatch, reserved, spent, spent before, spent late, spent late before, unknown_key_package
    ");
}

#[test]
fn three_inviters_share_a_last_resort_package_and_report_it() {
    let (horizon, losses) = match size() {
        Size::Small => (2, 0),
        Size::Standard => (5, 0),
        Size::Large => (6, 2),
    };
    let world = World {
        packages: &["L", "b"],
        verbs: REPORTS,
        horizon,
        losses,
        evicts: true,
        ..three_by_three(OnLapse::Requeue)
    };
    let Some(met) = explore(world) else { return };
    assert_snapshot!(met, @"
    conflict, registered, released, reported, reserved, revoked, spent, uploaded
    already_spent, done, pool_exhausted, reported, reservation_lost, reservation_mismatch, reserved, revoked, spent, spent before, spent late, spent late before, unknown_key_package
    ");
}

#[test]
fn an_owner_withdraws_replaces_and_leaves_while_two_inviters_hold_packages() {
    let large = size() == Size::Large;
    let world = World {
        packages: if large { &["a", "b"] } else { &["a"] },
        inviters: if size() == Size::Small { 1 } else { 2 },
        acts: &[Act::Withdraw, Act::Replace, Act::Remove],
        horizon: 5,
        losses: if large { 2 } else { 0 },
        evicts: true,
        ..three_by_three(OnLapse::Requeue)
    };
    let Some(met) = explore(world) else { return };
    assert_snapshot!(met, @"
    conflict, device_removed, expired, registered, released, renewed, reserved, revoked, spent, uploaded
    already_spent, done, expired, not_registered, pool_exhausted, released, renewals_used_up, renewed, reservation_lost, reservation_mismatch, reserved, revoked, spent, spent before, spent late, spent late before, unknown_key_package
    ");
}

#[test]
fn a_restart_gives_each_open_reservation_its_ttl_again() {
    let world = World {
        packages: &["b"],
        inviters: if size() == Size::Large { 3 } else { 2 },
        acts: &[Act::Settle, Act::Restart],
        horizon: if size() == Size::Large { 6 } else { 4 },
        losses: 1,
        evicts: true,
        ..three_by_three(OnLapse::Requeue)
    };
    let Some(met) = explore(world) else { return };
    assert_snapshot!(met, @"
    conflict, registered, released, renewed, reserved, revoked, spent, uploaded
    already_spent, done, pool_exhausted, released, renewals_used_up, renewed, reservation_lost, reservation_mismatch, reserved, spent, spent before, spent late, spent late before, unknown_key_package
    ");
}
