//! A deterministic simulation of servers, devices, a network, disks and clocks: the same seed is the same run.
//!
//! The pools are the server's own, opened without threads: the scheduler carries out each piece of their work when
//! it is drawn, and an append, a read or an answer fails when that is drawn. `just simulate` runs many seeds.

#[path = "simulation/agents.rs"]
mod agents;

#[path = "simulation/calls.rs"]
mod calls;

#[path = "simulation/dice.rs"]
mod dice;

#[path = "simulation/ending.rs"]
mod ending;

#[path = "simulation/engine.rs"]
mod engine;

#[path = "simulation/inviters.rs"]
mod inviters;

#[path = "simulation/log.rs"]
mod log;

#[path = "simulation/observer.rs"]
mod observer;

#[path = "simulation/owners.rs"]
mod owners;

#[path = "simulation/rates.rs"]
mod rates;

#[path = "simulation/server.rs"]
mod server;

#[path = "simulation/snapshots.rs"]
mod snapshots;

#[path = "simulation/world.rs"]
mod world;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    str::FromStr,
};

use self::world::World;

/// Seeds that have failed once, each with the number of steps that its failure needs: a repeated upload that told
/// another fill level, and spends that were packed with other times.
const FAILED_ONCE: [(u64, u64); 2] = [(38, 2_000), (6, 2_000)];
/// The size of the run in CI.
const SEEDS: u64 = 500;
const STEPS: u64 = 2_000;

fn number<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

/// Runs a seed; a failure says how it is run again.
#[expect(clippy::print_stderr, reason = "the command to run the seed again")]
fn run(seed: u64, steps: u64) {
    let is_loud = number::<u64>("KEYPOOL_SIMULATION_SEED").is_some();
    let outcome = catch_unwind(AssertUnwindSafe(|| World::new(seed, is_loud).run(steps)));
    if let Err(panic) = outcome {
        eprintln!(
            "seed {seed} fails; to run it alone, with all that happens: KEYPOOL_SIMULATION_SEED={seed} \
             KEYPOOL_SIMULATION_STEPS={steps} cargo test -p keypool-server --test pools --locked \
             every_promise_holds -- --nocapture"
        );
        resume_unwind(panic);
    }
}

#[test]
fn every_promise_holds_in_each_simulated_run() {
    let steps = number("KEYPOOL_SIMULATION_STEPS").unwrap_or(STEPS);
    if let Some(seed) = number("KEYPOOL_SIMULATION_SEED") {
        return run(seed, steps);
    }
    let first = number("KEYPOOL_SIMULATION_FIRST").unwrap_or(1);
    let seeds = number("KEYPOOL_SIMULATION_SEEDS").unwrap_or(SEEDS);
    (first..first + seeds).for_each(|seed| run(seed, steps));
}

#[test]
fn seeds_that_have_failed_once_fail_no_more() {
    for (seed, steps) in FAILED_ONCE {
        run(seed, steps);
    }
}

#[test]
fn a_seed_is_the_same_run_to_the_byte() {
    for seed in 1..=12 {
        let [one, other] = [0; 2].map(|_| World::new(seed, false).run(STEPS));
        assert_eq!(one, other, "seed {seed}");
    }
}
