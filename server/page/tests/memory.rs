//! The memory of the overview of two hundred thousand pools. Alone in its program, since it counts all allocations.
#![cfg(test)]

#[allow(dead_code, reason = "each test program uses other helpers of these")]
#[path = "../../../projections/tests/projections/history.rs"]
mod history;

use std::alloc::System;

use keypool_ledger::{Event, PoolId};
use keypool_operator_page::PoolsOverview;
use keypool_projections::{Command, Level, Limits, PoolState, RequiredCapabilities};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use self::history::{START, at, envelope, group, package, pool, reservation};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const POOLS: u64 = 200_000;
/// The most bytes of the overview for each pool, its name included.
const POOL_BYTES_MAX: usize = 450;

fn named(n: u64) -> PoolId {
    PoolId::new(&format!("user-{n:06}@chat.example"), "phone").unwrap()
}

/// The events of a pool with seven packages and a last resort, one of them held.
fn events() -> Vec<Event> {
    let mut state = PoolState::default();
    let packages = ["a", "b", "c", "d", "e2", "f", "g", "L"].map(package).to_vec();
    let mut events = Vec::new();
    for command in [Command::Upload(packages), reserve()] {
        let decision = state.decide(&command, START, &Limits::STANDARD);
        assert!(decision.answer.is_ok());
        decision.events.iter().for_each(|event| state.evolve(event, START).unwrap());
        events.extend(decision.events);
    }
    events
}

#[test]
fn two_hundred_thousand_pools_take_little_memory() {
    let (events, mut overview) = (events(), PoolsOverview::default());
    let region = Region::new(ALLOCATOR);
    let mut position = 0;
    for n in 0..POOLS {
        let pool = named(n);
        for event in &events {
            position += 1;
            overview.apply(position, &envelope(position, pool.clone(), event.clone(), START));
        }
    }
    let change = region.change();
    let bytes = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    let each = bytes / usize::try_from(POOLS).unwrap();
    assert!(each < POOL_BYTES_MAX, "{each} bytes for each pool");
    assert_eq!(
        overview.levels(),
        [
            (Level::Healthy, 0),
            (Level::Low, usize::try_from(POOLS).unwrap()),
            (Level::Critical, 0),
            (Level::Empty, 0),
        ]
    );
    assert_eq!(overview.open_reservations(), POOLS);
    assert_eq!(overview.running_dry(START, 199_990, 50).len(), 10);
    assert_eq!(overview.of_users("user-000007", START, 9).len(), 1);
    overview.advance(at(5000));
}

fn reserve() -> Command {
    Command::Reserve {
        reservation: reservation(1),
        holder: pool("alice"),
        group: group("g"),
        ciphersuites: Vec::new(),
        required: RequiredCapabilities::default(),
        introduced: false,
        last_resort_only: false,
    }
}
