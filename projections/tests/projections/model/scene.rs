//! A state of the model: the pool, its log, and the knowledge of each inviter.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use imbl::Vector;
use keypool_ledger::{Event, ReservationId, Timestamp};
use keypool_projections::{PoolState, ReservationStatus};

use super::{
    outcome::Outcome,
    witness::{Broken, Witness, inviter_named},
};
use crate::history::{START, reservation};

/// The length of one step of time.
const TICK: Duration = Duration::from_mins(1);

/// The moment so many ticks after the start.
pub(crate) fn tick(ticks: u64) -> Timestamp {
    (0..ticks).fold(START, |at, _| at.after(TICK))
}

/// The reservation that an inviter makes.
pub(crate) fn reservation_of(inviter: usize) -> ReservationId {
    reservation(u8::try_from(inviter).unwrap())
}

/// A kind of command of an inviter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Verb {
    Reserve,
    Spend,
    Release,
    Renew,
    ReportGood,
    ReportBad,
}

/// An act of the owner, of the server's operator, or of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    /// The sweep records the effects of time.
    Settle,
    /// The owner withdraws the first package.
    Withdraw,
    /// The owner replaces all packages by a new one.
    Replace,
    /// The device is removed.
    Remove,
    /// The server restarts: open reservations have a full TTL again.
    Restart,
}

/// A command that an inviter repeats until its answer arrives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct InFlight {
    pub(crate) verb: Verb,
    /// The first answer, which was lost; `None` where the command itself was.
    pub(crate) first: Option<Outcome>,
}

/// The knowledge of an inviter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inviter {
    pub(crate) in_flight: Option<InFlight>,
    /// Whether the answer with the package has arrived.
    pub(crate) has_package: bool,
    /// Whether the answer to a spend has arrived.
    pub(crate) has_spent: bool,
    /// How many commands were recorded.
    pub(crate) recorded: u8,
}

/// An event of the log, with the inviter and the number of the command that caused it.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) by: Option<(usize, u8)>,
    pub(crate) event: Event,
    pub(crate) at: Timestamp,
}

/// A state of the model. Two are the same if the same may follow.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) ticks: u64,
    pub(crate) restarted: Option<u64>,
    pub(crate) losses: usize,
    pub(crate) done: Vec<Act>,
    pub(crate) pool: PoolState,
    pub(crate) log: Vector<Arc<Recorded>>,
    pub(crate) inviters: Vec<Inviter>,
    pub(crate) witness: Witness,
    pub(crate) broken: Option<Broken>,
}

impl Scene {
    pub(crate) fn now(&self) -> Timestamp {
        tick(self.ticks)
    }

    /// The events of the log, as a fold takes them.
    pub(crate) fn events(&self) -> impl Iterator<Item = (&Event, Timestamp)> {
        self.log.iter().map(|recorded| (&recorded.event, recorded.at))
    }

    fn of_packages(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for life in &self.witness.lives {
            let Some(package) = self.pool.get(&life.facts.keypackage_ref) else { continue };
            bytes.push(package.stage as u8);
            bytes.push(package.revoked.map_or(0, |reason| reason as u8 + 1));
            let counts = [package.generation, package.cancelled, package.lapsed];
            bytes.extend(counts.map(|count| u8::try_from(count).unwrap()));
        }
        bytes
    }

    /// An inviter with all that the pool knows of the reservation: it names no other inviter, so that the order
    /// of the inviters says nothing.
    fn of_inviter(&self, number: usize) -> Vec<u8> {
        let Inviter { in_flight, has_package, has_spent, .. } = &self.inviters[number];
        let mut bytes = vec![u8::from(*has_package), u8::from(*has_spent)];
        bytes.extend(in_flight.iter().flat_map(|InFlight { verb, first }| {
            [*verb as u8 + 1, first.as_ref().map_or(0, |_| 1)]
        }));
        bytes.push(u8::MAX);
        let id = reservation_of(number);
        let Some(made) = self.pool.reservation(id) else { return bytes };
        let lives = &self.witness.lives;
        let of = lives.iter().position(|life| life.facts.keypackage_ref == made.keypackage_ref);
        let package = self.pool.get(&made.keypackage_ref);
        let user = inviter_named(number);
        bytes.extend([
            u8::try_from(of.unwrap_or(lives.len())).unwrap(),
            u8::try_from(made.deadline.since(START).as_secs() / TICK.as_secs()).unwrap(),
            u8::try_from(made.renewals).unwrap(),
            u8::from(package.is_some_and(|package| package.latest == Some(id))),
            u8::from(package.is_some_and(|package| package.reported_by.contains(&user))),
            match made.status {
                ReservationStatus::Open => 0,
                ReservationStatus::Cancelled => 1,
                ReservationStatus::Lapsed => 2,
                ReservationStatus::Spent { late: false } => 3,
                ReservationStatus::Spent { late: true } => 4,
                ReservationStatus::Lost => 5,
            },
        ]);
        bytes
    }
}

impl PartialEq for Scene {
    fn eq(&self, other: &Self) -> bool {
        self.ticks == other.ticks
            && self.restarted == other.restarted
            && self.losses == other.losses
            && self.done == other.done
            && self.broken == other.broken
            && self.pool == other.pool
    }
}

impl Hash for Scene {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ticks.hash(state);
        self.restarted.hash(state);
        self.losses.hash(state);
        let mut done: Vec<u8> = self.done.iter().map(|act| *act as u8).collect();
        done.sort_unstable();
        done.hash(state);
        self.broken.hash(state);
        self.of_packages().hash(state);
        let each = 0..self.inviters.len();
        let mut inviters: Vec<Vec<u8>> = each.map(|number| self.of_inviter(number)).collect();
        inviters.sort_unstable();
        inviters.hash(state);
    }
}

impl fmt::Debug for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tick {}, broken: {:?}", self.ticks, self.broken)?;
        for Recorded { by, event, at } in self.log.iter().map(|recorded| &**recorded) {
            let tick = at.since(START).as_secs() / TICK.as_secs();
            writeln!(f, "  {tick}: {by:?} {event:?}")?;
        }
        Ok(())
    }
}
