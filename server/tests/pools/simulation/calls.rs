//! Requests of clients, their answers, and when two answers to the same request say the same.

use std::{pin::Pin, sync::Arc};

use keypool_ledger::{CommandId, Event, PoolId, Record, ReleaseReason, RevokeReason};
use keypool_projections::{Rejection, SuspensionChange};
use keypool_server::pools::{
    DeliverError, Delivered, DeliveryRequest, ExecuteError, Pools, Reply, Request,
    SuspensionOutcome,
};

use super::log::SimulatedLog;

pub(crate) type SimulatedPools = Pools<Arc<SimulatedLog>>;

/// A request on its way to a server.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Pool(Request),
    Deliver(DeliveryRequest),
    Suspend(SuspensionChange),
    AcceptClock,
    Sweep,
}

/// The outcome of a request on one server.
#[derive(Debug)]
pub(crate) enum Outcome {
    Pool(Box<Result<Reply, ExecuteError>>),
    Delivery(Result<Delivered, DeliverError>),
    Suspension(Result<SuspensionOutcome, ExecuteError>),
    Clock(Result<bool, ExecuteError>),
    Sweep(Result<u64, ExecuteError>),
}

pub(crate) type Running = Pin<Box<dyn Future<Output = Outcome>>>;

impl Ask {
    /// The idempotency key of a client's request; `None` of the operator's and the server's own.
    pub(crate) fn id(&self) -> Option<CommandId> {
        match self {
            Self::Pool(request) => Some(request.id),
            Self::Deliver(request) => Some(request.id),
            Self::Suspend(_) | Self::AcceptClock | Self::Sweep => None,
        }
    }

    pub(crate) fn begun_on(self, pools: Arc<SimulatedPools>) -> Running {
        Box::pin(async move {
            match self {
                Self::Pool(request) => Outcome::Pool(Box::new(pools.execute(request).await)),
                Self::Deliver(request) => Outcome::Delivery(pools.deliver(request).await),
                Self::Suspend(change) => Outcome::Suspension(pools.change_suspension(change).await),
                Self::AcceptClock => Outcome::Clock(pools.accept_clock().await),
                Self::Sweep => Outcome::Sweep(pools.sweep().await),
            }
        })
    }
}

/// The meaning of an outcome for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Done,
    Refused,
    /// The client asks again with the same id.
    Unknown,
}

impl Outcome {
    pub(crate) fn meaning(&self) -> Meaning {
        let error = match self {
            Self::Pool(outcome) => outcome.as_ref().as_ref().err(),
            Self::Suspension(outcome) => outcome.as_ref().err(),
            Self::Clock(outcome) => outcome.as_ref().err(),
            Self::Sweep(outcome) => outcome.as_ref().err(),
            Self::Delivery(Ok(_)) => None,
            Self::Delivery(Err(DeliverError::Execute(error))) => Some(error),
            Self::Delivery(Err(_)) => return Meaning::Refused,
        };
        match error {
            None => Meaning::Done,
            Some(ExecuteError::Rejected(_) | ExecuteError::IdempotencyMismatch(_)) => {
                Meaning::Refused
            }
            Some(_) => Meaning::Unknown,
        }
    }

    /// The reply of a pool, if the command was carried out.
    pub(crate) fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Pool(outcome) => outcome.as_ref().as_ref().ok(),
            _ => None,
        }
    }

    /// The position of the event that the outcome tells of, and whether an earlier request has written it.
    pub(crate) fn place(&self) -> Option<(u64, bool)> {
        let delivered = match self {
            Self::Delivery(Ok(delivered)) => Some((delivered.position, delivered.repeated)),
            _ => None,
        };
        self.reply().map(|reply| (reply.position, reply.repeated)).or(delivered)
    }

    /// Why the rules refused a command to a pool.
    pub(crate) fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Pool(outcome) => match &**outcome {
                Err(ExecuteError::Rejected(rejection)) => Some(rejection),
                _ => None,
            },
            Self::Delivery(Err(DeliverError::Spend { rejection, .. })) => Some(rejection),
            _ => None,
        }
    }

    /// Whether two outcomes of the same recorded request tell the client the same.
    pub(crate) fn says_the_same_as(&self, other: &Self) -> bool {
        if let (Some(one), Some(other)) = (self.reply(), other.reply()) {
            return one == other;
        }
        match (self, other) {
            // The epoch of a message that was posted before is not told.
            (Self::Delivery(Ok(one)), Self::Delivery(Ok(other))) => {
                let same_epoch = one.epoch == 0 || other.epoch == 0 || one.epoch == other.epoch;
                (one.position, &one.not_kept) == (other.position, &other.not_kept) && same_epoch
            }
            (one, other) => one.rejection().is_some() && one.rejection() == other.rejection(),
        }
    }

    pub(crate) fn text(&self) -> String {
        let Some(reply) = self.reply() else { return format!("{self:?}") };
        let (answer, position, health) = (&reply.answer, reply.position, reply.health());
        format!("{answer:?} at {position} with {} left: {health:?}", health.available)
    }
}

/// Whether a refused command may have left a record: that its reservation is lost, or an effect of time.
pub(crate) fn is_left_by_refusal(record: &Record) -> bool {
    matches!(
        record.envelope.event,
        Event::Conflict { .. }
            | Event::Released { reason: ReleaseReason::Lapsed, .. }
            | Event::Revoked { reason: RevokeReason::Lapsed, .. }
            | Event::Expired { .. }
    )
}

/// A request that a client repeats until it knows the outcome.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) agent: usize,
    pub(crate) device: PoolId,
    pub(crate) ask: Ask,
    /// Whether the id was used for another request before, which this one must not get the answer of.
    pub(crate) is_misuse: bool,
    pub(crate) is_known: bool,
}

impl Outcome {
    /// Holds an outcome to the records of the request that the server knows.
    pub(crate) fn check(&self, records: &[&Record], len: u64) {
        let last = records.last().map(|record| record.seq);
        match self.meaning() {
            Meaning::Unknown => {}
            Meaning::Done => {
                let (position, repeated) = self.place().unwrap();
                let is_there = last.is_none_or(|last| last == position);
                assert!(is_there, "{} is not at {last:?}", self.text());
                let is_nothing = matches!(self, Self::Delivery(_)) && position == 0;
                let is_durable = last.is_some() || repeated || is_nothing;
                assert!(is_durable, "{} was answered and not written", self.text());
                assert!(position <= len, "{} is not there", self.text());
            }
            Meaning::Refused => {
                let mut records = records.iter();
                let text = self.text();
                assert!(records.all(|record| is_left_by_refusal(record)), "a trace of {text}");
                assert!(!text.contains("IdempotencyMismatch"), "{text} of a request of its own");
            }
        }
    }
}
