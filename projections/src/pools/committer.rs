//! The one thread that writes: groups of commands become batches, and batches become durable.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Arc, PoisonError, atomic::Ordering, mpsc::Receiver},
    thread,
};

use keypool_ledger::{AppendError, Appended, EventLog, PoolId};
use tokio::sync::{oneshot, watch as signal};

use super::{
    ExecuteError, PoolView, Reply, Request, Shared,
    group::{Group, Plan},
    recall::recall,
    replay_pool,
};

/// How many commands share one durability point.
const GROUP_MAX: usize = 256;
/// How often a command is decided again after another writer came first.
const ATTEMPTS_MAX: u32 = 8;

pub(super) type Outcome = Result<Reply, ExecuteError>;

/// Something for the committer to do.
pub(super) struct Job {
    pub(super) work: Work,
    attempts: u32,
}

pub(super) enum Work {
    /// Carry out a command.
    Command(Box<Request>, oneshot::Sender<Outcome>),
    /// Record what time has done to every pool.
    Sweep(oneshot::Sender<Result<u64, ExecuteError>>),
}

impl Job {
    pub(super) const fn new(work: Work) -> Self {
        Self { work, attempts: 0 }
    }

    /// Answers a job that did not come to a reply. Whoever asked may have gone; that is no error.
    fn refuse(self, error: ExecuteError) {
        match self.work {
            Work::Command(_, sender) => drop(sender.send(Err(error))),
            Work::Sweep(sender) => drop(sender.send(Err(error))),
        }
    }
}

/// The writing half of the pools.
pub(super) struct Committer<L> {
    shared: Arc<Shared<L>>,
}

impl<L: EventLog> Committer<L> {
    pub(super) const fn new(shared: Arc<Shared<L>>) -> Self {
        Self { shared }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(self, queue: &Receiver<Job>) {
        let _alarm = Alarm(&self.shared.failed);
        let mut jobs: Vec<Job> = Vec::new();
        loop {
            if jobs.is_empty() {
                match queue.recv() {
                    Ok(job) => jobs.push(job),
                    Err(_) => return,
                }
            }
            while jobs.len() < GROUP_MAX {
                match queue.try_recv() {
                    Ok(job) => jobs.push(job),
                    Err(_) => break,
                }
            }
            let taken = jobs.len();
            jobs = self.commit(mem::take(&mut jobs));
            self.shared.queued.fetch_sub(taken - jobs.len(), Ordering::Relaxed);
        }
    }

    /// Carries out one group of jobs and returns those that must be tried again in the next.
    fn commit(&self, jobs: Vec<Job>) -> Vec<Job> {
        if *self.shared.failed.borrow() {
            for job in jobs {
                job.refuse(ExecuteError::LogUnavailable);
            }
            return Vec::new();
        }
        let sweep = jobs.iter().any(|job| matches!(job.work, Work::Sweep(_)));
        let look = self.shared.watch().observe(self.shared.clock.now(), sweep);
        let mut group = Group::new(&self.shared, look);
        let (mut planned, mut deferred) = (Vec::new(), Vec::new());
        for job in jobs {
            match group.plan(&job) {
                Some(plan) => planned.push((job, plan)),
                None => deferred.push(job),
            }
        }
        let Group { batches, pools, working, .. } = group;
        let results = self.shared.log.append(batches);
        let group = Written { results, pools };
        let stale = self.publish(working, &group);
        for (job, plan) in planned {
            deferred.extend(self.conclude(job, plan, &group, &stale));
        }
        deferred
    }

    /// Publishes the states that were written as planned, and folds the others from the log again.
    fn publish(&self, working: HashMap<PoolId, PoolView>, group: &Written) -> HashSet<PoolId> {
        let mut fresh = working;
        let mut stale = HashSet::new();
        for (result, pool) in group.results.iter().zip(&group.pools) {
            match result {
                Ok(appended) => {
                    let last = appended.records.last();
                    if let (Some(view), Some(last)) = (fresh.get_mut(pool), last) {
                        view.head = last.stream_head();
                        view.position = last.seq;
                    }
                }
                Err(error) => {
                    if !matches!(error, AppendError::Conflict { .. }) {
                        self.fail(error);
                    }
                    stale.insert(pool.clone());
                }
            }
        }
        for pool in &stale {
            match replay_pool(&self.shared.log, pool, u64::MAX) {
                Ok(view) => drop(fresh.insert(pool.clone(), view)),
                Err(err) => {
                    fresh.remove(pool);
                    self.fail(&err);
                }
            }
        }
        let mut views = self.shared.views.write().unwrap_or_else(PoisonError::into_inner);
        for (pool, view) in fresh {
            views.publish(pool, view);
        }
        stale
    }

    /// Answers a job, or gives it back to be tried again.
    fn conclude(
        &self,
        mut job: Job,
        plan: Plan,
        group: &Written,
        stale: &HashSet<PoolId>,
    ) -> Option<Job> {
        let outcome = match plan {
            Plan::Sweep(indexes) => {
                let Work::Sweep(sender) = job.work else { return None };
                let failed = indexes.iter().find_map(|index| group.failure(*index));
                let outcome = match failed {
                    Some(error) if !matches!(error, AppendError::Conflict { .. }) => {
                        Err(ExecuteError::LogUnavailable)
                    }
                    // What another writer has changed meanwhile, the next sweep settles.
                    _ => Ok(indexes.len() as u64),
                };
                drop(sender.send(outcome));
                return None;
            }
            // An answer that wrote nothing may rest on a state that was not written either.
            Plan::Reply(_) if !stale.is_empty() => None,
            Plan::Reply(Ok(reply)) => Some(Ok(self.at_its_place(reply, usize::MAX, group))),
            Plan::Reply(refused) => Some(refused),
            Plan::Write(index, outcome) => match group.results.get(index) {
                Some(Ok(_)) => Some(outcome.map(|reply| self.at_its_place(reply, index, group))),
                Some(Err(AppendError::Conflict { .. })) | None => None,
                Some(Err(_)) => Some(self.resolve(&job)),
            },
        };
        match outcome {
            Some(outcome) => {
                if let Work::Command(_, sender) = job.work {
                    drop(sender.send(outcome));
                }
                None
            }
            None if ATTEMPTS_MAX <= job.attempts => {
                job.refuse(ExecuteError::Busy);
                None
            }
            None => {
                tracing::debug!("another writer came first; deciding again");
                job.attempts += 1;
                Some(job)
            }
        }
    }

    /// Fills in where the command's last event stands, or the pool's last if it wrote none. A reply
    /// that was recalled from the log knows its place.
    fn at_its_place(&self, reply: Reply, index: usize, group: &Written) -> Reply {
        if reply.position != 0 {
            return reply;
        }
        let written = group.results.get(index).and_then(|result| result.as_ref().ok());
        let place = written.and_then(|appended| appended.records.last()).map(|last| last.seq);
        let place = place.or_else(|| self.shared.view(&reply.pool).map(|view| view.position));
        Reply { position: place.unwrap_or_default(), ..reply }
    }

    /// Finds out what became of a batch whose outcome is not known.
    fn resolve(&self, job: &Job) -> Outcome {
        let Work::Command(request, _) = &job.work else {
            return Err(ExecuteError::LogUnavailable);
        };
        match self.shared.log.find(request.id) {
            Ok(records) if !records.is_empty() => recall(&self.shared, request, &records),
            // Some logs do not know themselves before they are opened again.
            Ok(_) | Err(_) => Err(ExecuteError::LogUnavailable),
        }
    }

    /// Stops all writing: what has failed once may fail half the next time.
    fn fail(&self, error: &dyn std::error::Error) {
        if !self.shared.failed.send_replace(true) {
            let cause = error.source().map(ToString::to_string);
            tracing::error!(%error, cause, "the log failed; no more events are written");
        }
    }
}

/// Says that the log has failed if the committer panics: nobody would answer any more.
struct Alarm<'a>(&'a signal::Sender<bool>);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.send_replace(true);
        }
    }
}

/// What became of the batches of a group.
struct Written {
    results: Vec<Result<Appended, AppendError>>,
    /// The pool of each batch.
    pools: Vec<PoolId>,
}

impl Written {
    fn failure(&self, index: usize) -> Option<&AppendError> {
        self.results.get(index).and_then(|result| result.as_ref().err())
    }
}
