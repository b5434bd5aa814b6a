//! How often each fault happens in the run of one seed, in 10,000 of its occasions, and the settings of its servers.

use std::time::Duration;

use keypool_projections::{DeliveryLimits, Limits, OnLapse};

use super::dice::{CERTAIN, Dice};

/// The fault rates and the settings of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) servers: usize,
    pub(crate) agents: u64,
    /// Whether the log has an index in memory, so that few requests wait for a read.
    pub(crate) is_indexed: bool,
    pub(crate) limits: Limits,
    pub(crate) delivery: DeliveryLimits,
    /// Whether nobody becomes a contact, and some have taken as many packages as strangers may.
    pub(crate) is_among_strangers: bool,
    /// How many of 100 pieces of work are commits: the fewer, the more commands each has.
    pub(crate) commits: u64,
    /// How many of 100 requests are to the delivery.
    pub(crate) deliveries: u64,
    /// A request or an answer is lost; comes twice.
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    /// A read of the log or of snapshots fails; another piece of work is carried out in the middle of one.
    pub(crate) read_fails: u64,
    pub(crate) interleaves: u64,
    /// An append fails in each of its ways.
    pub(crate) not_written: u64,
    pub(crate) partly_written: u64,
    pub(crate) fails: u64,
    pub(crate) torn: u64,
    pub(crate) in_doubt: u64,
    /// A server crashes in the middle of an append.
    pub(crate) crashes: u64,
    /// A snapshot is not stored.
    pub(crate) snapshot_fails: u64,
    /// Of steps: the process is killed, or closed and started again; a clock is set wrong.
    pub(crate) killed: u64,
    pub(crate) restarted: u64,
    pub(crate) clock_set: u64,
}

impl Rates {
    pub(crate) fn drawn(dice: &Dice) -> Self {
        // A third of the faults does not happen at all in a run, so that others are not hidden behind them.
        let rate = |max| if dice.chance(CERTAIN / 3) { 0 } else { dice.below(max) + 1 };
        let servers = if dice.chance(3_500) { 2 } else { 1 };
        Self {
            servers,
            agents: 3 + dice.below(4),
            is_indexed: dice.chance(5_000),
            limits: limits(dice),
            is_among_strangers: dice.chance(3_000),
            commits: 8 + dice.below(40),
            deliveries: 5 + dice.below(40),
            delivery: delivery_limits(dice),
            lost: rate(2_500),
            repeated: rate(2_000),
            read_fails: rate(150),
            interleaves: rate(1_500),
            not_written: rate(500),
            partly_written: rate(500),
            fails: rate(100),
            torn: rate(200),
            in_doubt: if servers == 1 { 0 } else { rate(600) },
            crashes: rate(200),
            snapshot_fails: rate(2_000),
            killed: rate(80),
            restarted: rate(80),
            clock_set: rate(60),
        }
    }
}

fn limits(dice: &Dice) -> Limits {
    Limits {
        packages_max: if dice.chance(3_000) { 6 } else { 64 },
        renewals_max: if dice.chance(3_000) { 1 } else { 5 },
        on_lapse: if dice.chance(3_000) { OnLapse::Retire } else { OnLapse::Requeue },
        strangers_floor: if dice.chance(3_000) { 2 } else { 0 },
        grace: if dice.chance(3_000) { Duration::from_secs(5) } else { Limits::STANDARD.grace },
        ..Limits::STANDARD
    }
}

fn delivery_limits(dice: &Dice) -> DeliveryLimits {
    if dice.chance(6_000) {
        return DeliveryLimits::STANDARD;
    }
    DeliveryLimits {
        group_messages_max: 4,
        invited_messages_max: 2,
        invitations_max: 3,
        invitations_of_user_max: 2,
        invitation_age_max: Duration::from_mins(10),
        age_max: Duration::from_mins(30),
        awaited_max: 2,
        awaiters_max: 1,
        ..DeliveryLimits::STANDARD
    }
}
