//! Jobs for the committer: a command, a sweep, or the operator's word, with its answer's way back.

use keypool_projections::SuspensionChange;
use tokio::sync::oneshot;

use super::{
    ExecuteError, Reply, Request, SuspensionOutcome,
    delivery_request::{DeliverError, Delivered, DeliveryRequest},
};

/// How often a command is decided again after another writer came first. Of three servers that all write, each is
/// first in one of three attempts; one that is slow for a moment has been last thirty times in a row.
const ATTEMPTS_MAX: u32 = 128;

/// The outcome of a command to a pool.
pub(super) type CommandOutcome = Result<Reply, ExecuteError>;

/// The outcome of a command to the delivery.
pub(super) type DeliveryOutcome = Result<Delivered, DeliverError>;

/// Something for the committer to do.
pub(super) struct Job {
    pub(super) work: Work,
    /// The record through which the asker has searched for the names in it, and found nothing.
    pub(super) searched_through: u64,
    /// How often the job was decided before.
    pub(super) attempts: u32,
}

/// The work of a job.
pub(super) enum Work {
    /// Carry out a command.
    Command(Box<Request>, oneshot::Sender<CommandOutcome>),
    /// Carry out a command to the delivery.
    Deliver(Box<DeliveryRequest>, oneshot::Sender<DeliveryOutcome>),
    /// Record the effects of time on every pool.
    Sweep(oneshot::Sender<Result<u64, ExecuteError>>),
    /// Accept the machine's clock, by the operator's word.
    AcceptClock(oneshot::Sender<Result<bool, ExecuteError>>),
    /// Publish the records that other servers have written.
    Follow,
    /// Suspend or reinstate a user, by the operator's word.
    Suspend(SuspensionChange, oneshot::Sender<Result<SuspensionOutcome, ExecuteError>>),
}

impl Job {
    pub(super) const fn new(work: Work, searched_through: u64) -> Self {
        Self { work, searched_through, attempts: 0 }
    }

    /// Answers a job that did not come to a reply. The asker may have gone; that is no error.
    pub(super) fn refuse(self, error: ExecuteError) {
        match self.work {
            Work::Command(_, sender) => drop(sender.send(Err(error))),
            Work::Deliver(_, sender) => drop(sender.send(Err(error.into()))),
            Work::Sweep(sender) => drop(sender.send(Err(error))),
            Work::AcceptClock(sender) => drop(sender.send(Err(error))),
            Work::Follow => {}
            Work::Suspend(_, sender) => drop(sender.send(Err(error))),
        }
    }
}

/// A job that is to be decided once more, unless that was done often enough.
pub(super) fn again(attempts: u32, work: Work) -> Option<Job> {
    let job = Job { work, searched_through: 0, attempts: attempts + 1 };
    if ATTEMPTS_MAX < job.attempts {
        job.refuse(ExecuteError::Busy);
        return None;
    }
    tracing::debug!("another writer came first; deciding again");
    Some(job)
}
