//! How often memory is allocated for a reservation, from the request to the package's bytes.
#![cfg(test)]

#[allow(dead_code, reason = "each test program uses other helpers of these")]
#[path = "../../projections/tests/projections/history.rs"]
mod history;

#[allow(dead_code, reason = "each test program uses other helpers of these")]
#[path = "pools/service.rs"]
mod service;

use std::{alloc::System, sync::Arc};

use keypool_ledger::{ManualClock, MemoryIndex, ReservationId, SledLog, SledLogOptions};
use keypool_projections::{Command, Limits};
use keypool_server::pools::{Pools, Target};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tempfile::TempDir;
use uuid::Uuid;

use self::{
    history::{START, group, package, pool},
    service::{block_on, request, reserved},
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How many pools there are, each with so many packages.
const POOLS: usize = 16;
const PACKAGES: usize = 32;
/// How many allocations a reservation needs at most, those of the log and of all threads included.
const ALLOCATIONS_MAX: usize = 100;
/// How many bytes they have at most.
const BYTES_MAX: usize = 20_000;

fn reserve(n: u128) -> Command {
    Command::Reserve {
        reservation: ReservationId(Uuid::from_u128(n)),
        holder: pool("alice"),
        group: group("g"),
        ciphersuites: Vec::new(),
        required: keypool_projections::RequiredCapabilities::default(),
        introduced: false,
        last_resort_only: false,
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures are asked for with --nocapture")]
fn a_reservation_needs_a_bounded_number_of_allocations() {
    let dir = TempDir::new().unwrap();
    let log = Arc::new(SledLog::open(dir.path(), SledLogOptions::default()).unwrap());
    let clock = Arc::new(ManualClock::at(START));
    let pools = Pools::open(Arc::clone(&log), clock, Limits::STANDARD).unwrap();
    let pools = pools.with_memory_index(log as Arc<dyn MemoryIndex>);
    for n in 0..POOLS {
        let packages = (0..PACKAGES).map(|m| package(&format!("{n}-{m}"))).collect();
        let target = Target::Pool(pool(&format!("bob{n}")));
        block_on(pools.execute(request(n as u128, target, Command::Upload(packages)))).unwrap();
    }
    let mut asks = Vec::new();
    for n in 0..POOLS * PACKAGES / 2 {
        let target = Target::Pool(pool(&format!("bob{}", n % POOLS)));
        let id = 1_000_000 + n as u128;
        asks.push(request(id, target, reserve(id)));
    }
    let count = asks.len();

    let region = Region::new(ALLOCATOR);
    for ask in asks {
        let reply = block_on(pools.execute(ask)).unwrap();
        block_on(pools.load_package_bytes(&reserved(&reply))).unwrap().unwrap();
    }
    let stats = region.change();

    let allocations = (stats.allocations + stats.reallocations) / count;
    let bytes = stats.bytes_allocated / count;
    println!("a reservation: {allocations} allocations, {bytes} bytes");
    assert!(allocations <= ALLOCATIONS_MAX, "{allocations}");
    assert!(bytes <= BYTES_MAX, "{bytes}");
}
