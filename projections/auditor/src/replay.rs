//! All pools and groups of a log, folded from its events by the same code that the server runs.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use keypool_ledger::{EventEnvelope, GroupId, PoolId, StreamId, Timestamp};
use keypool_projections::{Deliveries, GroupState, IllegalChange, PoolState, Suspensions};

use crate::verify::{Finding, FindingSeverity};

/// A pool forgets when it knows this many packages whose fate is sealed, or twice as many as were left
/// the last time.
const ENDED_MIN: usize = 16;
/// How long after its lifetime a package that was never spent may still be, by a reservation of it.
const LATE_SPEND: Duration = Duration::from_hours(24);

/// The memory of a fold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Every package and every reservation that ever was: memory grows with the log.
    #[default]
    All,
    /// Packages that may still change, a few that ended last, and how many others there were: memory
    /// grows with the pools only.
    ///
    /// An event of a package that was forgotten is passed over, whether or not the lifecycle allows it.
    Live,
}

/// Every pool and every group as the events so far have left it.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    keep: Keep,
    pools: HashMap<PoolId, Folded>,
    deliveries: Deliveries,
    suspensions: Suspensions,
    refused: Vec<Finding>,
    passed_over: u64,
    records: u64,
    at: Timestamp,
}

#[derive(Clone, Debug, Default)]
struct Folded {
    state: PoolState,
    /// How many sealed fates were left when the pool forgot last.
    left: Option<usize>,
}

impl Fold {
    /// Begins before the first event.
    #[must_use]
    pub fn keeping(keep: Keep) -> Self {
        Self { keep, ..Self::default() }
    }

    /// Takes in the next event. One that the lifecycle forbids is remembered and left out.
    ///
    /// # Errors
    ///
    /// Returns an [`IllegalChange`] for an event that the lifecycle forbids.
    pub fn take(&mut self, seq: u64, envelope: &EventEnvelope) -> Result<(), IllegalChange> {
        (self.records, self.at) = (seq, self.at.max(envelope.at));
        match &envelope.stream {
            StreamId::Pool(pool) => {
                let folded = match self.pools.get_mut(pool) {
                    Some(folded) => folded,
                    None => self.pools.entry(pool.clone()).or_default(),
                };
                if self.keep == Keep::Live {
                    folded.forget(envelope.at);
                }
                match folded.state.evolve(&envelope.event, envelope.at) {
                    Err(error) if error.stage.is_none() && folded.left.is_some() => {
                        self.passed_over = self.passed_over.saturating_add(1);
                        folded.state.pass_over();
                    }
                    Err(error) => {
                        let what =
                            format!("record {seq} of {pool} is refused by the fold: {error}.");
                        let (gravity, rule, events) = (FindingSeverity::Rule, "I6", vec![seq]);
                        self.refused.push(Finding { gravity, rule, events, what, place: None });
                        return Err(error);
                    }
                    Ok(()) => {}
                }
            }
            StreamId::Server => self.suspensions.evolve(seq, envelope.at, &envelope.event),
            StreamId::Group(_) | StreamId::Mailbox(_) | StreamId::Names(_) => {}
        }
        self.deliveries.evolve(seq, envelope, 0);
        Ok(())
    }

    /// The pools that have had an event, in order.
    #[must_use]
    pub fn pools(&self) -> BTreeMap<&PoolId, &PoolState> {
        self.pools.iter().map(|(pool, folded)| (pool, &folded.state)).collect()
    }

    /// One pool, if it has had an event.
    #[must_use]
    pub fn pool(&self, pool: &PoolId) -> Option<&PoolState> {
        self.pools.get(pool).map(|folded| &folded.state)
    }

    /// The groups that have had an event.
    #[must_use]
    pub const fn groups(&self) -> &BTreeMap<GroupId, GroupState> {
        &self.deliveries.groups
    }

    /// The suspended users.
    #[must_use]
    pub const fn suspensions(&self) -> &Suspensions {
        &self.suspensions
    }

    /// The events that the lifecycle forbids.
    #[must_use]
    pub fn refused(&self) -> &[Finding] {
        &self.refused
    }

    /// How many events of packages that were forgotten, or never known, were not looked at.
    #[must_use]
    pub const fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// The place of the last event taken in.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// When the latest of the events was recorded.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }
}

impl Folded {
    fn forget(&mut self, now: Timestamp) {
        let enough = self.left.unwrap_or_default().saturating_mul(2).max(ENDED_MIN);
        if enough <= self.state.n_ended() {
            self.state.forget_ended(now.before(LATE_SPEND));
            self.left = Some(self.state.n_ended());
        }
    }
}
