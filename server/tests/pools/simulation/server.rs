//! A server of a simulation: its clock and disk, and the pools while it is up.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use keypool_ledger::{Clock, ManualClock, PoolId, StreamId, Timestamp};
use keypool_server::pools::{Pools, Step};

use super::{
    calls::{Ask, Outcome, Running, SimulatedPools},
    dice::Dice,
    log::{SharedEngine, SimulatedLog},
    rates::Rates,
    snapshots::SimulatedSnapshots,
};

/// A machine with a clock and a disk, and the server on it.
pub(crate) struct SimulatedServer {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) snapshots: Arc<SimulatedSnapshots>,
    pub(crate) process: Option<Process>,
    /// The streams that have changed since their published states were compared.
    pub(crate) uncompared: BTreeSet<StreamId>,
}

/// A server that is up.
pub(crate) struct Process {
    pub(crate) pools: Arc<SimulatedPools>,
    pub(crate) log: Arc<SimulatedLog>,
    /// The requests under way, with the calls that they are of.
    running: Vec<(Option<usize>, Running)>,
    /// How many records the published states had at the start.
    opened_at: u64,
    /// The moment before which, and the grace, no reservation lapses.
    pub(crate) lapse_floor: Timestamp,
}

impl SimulatedServer {
    pub(crate) fn new(now: Timestamp, dice: &Arc<Dice>, rates: &Rates) -> Self {
        let snapshots = SimulatedSnapshots::new(Arc::clone(dice), rates.snapshot_fails);
        Self {
            clock: Arc::new(ManualClock::at(now)),
            snapshots: Arc::new(snapshots),
            process: None,
            uncompared: BTreeSet::new(),
        }
    }

    /// Starts the server if its log can be read. Without faults it must be.
    pub(crate) fn start(
        &mut self,
        engine: &SharedEngine,
        dice: &Arc<Dice>,
        rates: &Rates,
        armed: bool,
    ) {
        let log = Arc::new(SimulatedLog::new(Arc::clone(engine), Arc::clone(dice), rates));
        let snapshots = Arc::clone(&self.snapshots);
        let clock: Arc<dyn Clock> = self.clock.clone();
        let opened_at = log.known() as u64;
        log.armed.store(armed, Ordering::Relaxed);
        let opened =
            Pools::open_stepwise(Arc::clone(&log), snapshots, clock, rates.limits, rates.delivery);
        log.armed.store(false, Ordering::Relaxed);
        let mut pools = match opened {
            Ok(pools) => pools,
            Err(error) if armed => return drop(error),
            Err(error) => panic!("the server does not start: {error}"),
        };
        if rates.is_indexed {
            pools = pools.with_memory_index(Arc::clone(&log) as Arc<_>);
        }
        let pools = Arc::new(pools);
        let (interrupted, dice) = (Arc::downgrade(&pools), Arc::clone(dice));
        let interruption = move || {
            let steps = [Step::Commit, Step::Read, Step::Read, Step::Repeat];
            let Some(pools) = interrupted.upgrade() else { return };
            if dice.chance(5_000) {
                pools.log().catch_up(false);
            }
            dice.pick(&steps).map(|step| pools.carry_out(*step));
        };
        drop(log.interruption.set(Box::new(interruption)));
        let lapse_floor = pools.now().after(rates.limits.reservation_ttl);
        self.uncompared = all_streams(engine);
        self.process = Some(Process { pools, log, running: Vec::new(), opened_at, lapse_floor });
    }

    /// Kills the process: its disk alone is left.
    pub(crate) fn kill(&mut self) {
        let Some(Process { pools, running, log, .. }) = self.process.take() else { return };
        log.armed.store(false, Ordering::Relaxed);
        drop(running);
        assert_eq!(Arc::strong_count(&pools), 1, "nobody else has the pools");
    }

    /// Closes the pools as a server that is told to stop does.
    pub(crate) fn stop(&mut self) {
        if let Some(process) = &mut self.process {
            process.armed(true);
            process.pools.close();
            process.armed(false);
        }
    }
}

/// The name of every history that there is.
fn all_streams(engine: &SharedEngine) -> BTreeSet<StreamId> {
    let engine = engine.lock().unwrap();
    engine.records.iter().map(|record| record.envelope.stream.clone()).collect()
}

impl Process {
    pub(crate) fn armed(&self, armed: bool) {
        self.log.armed.store(armed, Ordering::Relaxed);
    }

    pub(crate) fn has_crashed(&self) -> bool {
        self.log.crashed.load(Ordering::Relaxed)
    }

    pub(crate) fn has_failed(&self) -> bool {
        *self.pools.failed().borrow()
    }

    /// The position through which the published states know the log.
    pub(crate) fn published(&self) -> u64 {
        self.opened_at.max(*self.pools.written().borrow())
    }

    pub(crate) fn n_running(&self) -> usize {
        self.running.len()
    }

    pub(crate) fn begin(&mut self, call: Option<usize>, ask: Ask) {
        self.running.push((call, ask.begun_on(Arc::clone(&self.pools))));
    }

    pub(crate) fn hear_time(&self, device: &PoolId, signed: Timestamp) {
        self.pools.hear_time(device, signed);
    }

    /// Carries out a piece of work, and returns the requests that are answered since.
    pub(crate) fn work(
        &mut self,
        step: Option<Step>,
        armed: bool,
    ) -> Vec<(Option<usize>, Outcome)> {
        let was_hurt = self.log.hurt.load(Ordering::Relaxed);
        if step == Some(Step::Commit) {
            self.log.hurt.store(false, Ordering::Relaxed);
        }
        self.armed(armed);
        // The next batch makes good what a failed read has left undone; where none waits, nothing does.
        if !step.is_some_and(|step| self.pools.carry_out(step)) && was_hurt {
            self.log.hurt.store(true, Ordering::Relaxed);
        }
        let mut answers = Vec::new();
        if !self.has_crashed() {
            let mut context = Context::from_waker(Waker::noop());
            self.running.retain_mut(|(call, running)| match running.as_mut().poll(&mut context) {
                Poll::Ready(outcome) => {
                    answers.push((*call, outcome));
                    false
                }
                Poll::Pending => true,
            });
        }
        self.armed(false);
        answers
    }
}
