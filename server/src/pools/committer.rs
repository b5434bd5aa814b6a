//! The one thread that writes: groups of commands become batches, and batches become durable.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
    thread,
};

use keypool_ledger::{
    AppendError, Appended, CommandId, EventLog, PoolId, Record, log::find_command,
};
use tokio::sync::watch as signal;

use super::{
    ExecuteError, PoolView, Reply, Shared,
    batch::{CommandBatch, Plan},
    delivery_request::Delivered,
    idempotent_replay::{Repeat, recall, recall_delivery},
    job::{Job, Work, again},
    published::FreshPool,
};

/// How many commands share one durability point.
const BATCH_MAX: usize = 256;
/// How many pools are published before readers get their turn.
const PUBLISHED_AT_ONCE: usize = 8;
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
        let _guard = PanicGuard(&self.shared.failed);
        let mut jobs: Vec<Job> = Vec::new();
        loop {
            if jobs.is_empty() {
                match queue.recv() {
                    Ok(job) => jobs.push(job),
                    Err(_) => return,
                }
            }
            jobs = self.commit_next(jobs, queue);
        }
    }

    /// Carries out one batch of the jobs that were deferred and of those that wait, and returns those that must be
    /// tried again in the next.
    pub(super) fn commit_next(&self, mut jobs: Vec<Job>, queue: &Receiver<Job>) -> Vec<Job> {
        while jobs.len() < BATCH_MAX {
            match queue.try_recv() {
                Ok(job) => jobs.push(job),
                Err(_) => break,
            }
        }
        let taken = jobs.len();
        let deferred = self.commit(jobs);
        self.shared.queued.fetch_sub(taken - deferred.len(), Ordering::Relaxed);
        deferred
    }

    /// Carries out one batch of jobs and returns those that must be tried again in the next.
    fn commit(&self, jobs: Vec<Job>) -> Vec<Job> {
        if *self.shared.failed.borrow() {
            return refuse_all(jobs, || ExecuteError::LogUnavailable);
        }
        self.shared.follows_soon.store(false, Ordering::Release);
        match self.prepare() {
            Ok(()) => {}
            Err(error) if is_conflict(&error) => {
                return jobs.into_iter().filter_map(|job| again(job.attempts, job.work)).collect();
            }
            Err(error) => return refuse_all(jobs, || meaning_of(&error)),
        }
        let (jobs, mut deferred) = self.change_suspensions(self.look_at_clock(jobs));
        if jobs.is_empty() {
            return deferred;
        }
        let look = self.shared.clock_guard().observe(self.shared.reading());
        self.shared.clock_in_doubt.store(look.is_in_doubt(), Ordering::Relaxed);
        let mut batch = CommandBatch::new(&self.shared, look);
        let mut planned = Vec::new();
        for job in jobs {
            match batch.plan(&job) {
                Some(plan) => planned.push((job, plan)),
                None => deferred.push(job),
            }
        }
        let CommandBatch { decided_at, batches, working, .. } = batch;
        let results = self.shared.log.append(decided_at, batches);
        let batch = Written { results };
        self.publish(working, &batch);
        for (job, plan) in planned {
            deferred.extend(self.conclude(job, plan, &batch));
        }
        deferred
    }

    /// Accepts the clock if it is to be, and answers the jobs that ask for it or that are done.
    fn look_at_clock(&self, jobs: Vec<Job>) -> Vec<Job> {
        let is_asked = jobs.iter().any(|job| matches!(job.work, Work::AcceptClock(_)));
        let mut outcome = Some(self.accept_clock(is_asked));
        let mut rest = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job.work {
                Work::AcceptClock(sender) => {
                    drop(sender.send(outcome.take().unwrap_or(Ok(false))));
                }
                // It was done when this batch was made ready.
                Work::Follow => {}
                _ => rest.push(job),
            }
        }
        rest
    }

    pub(super) fn shared(&self) -> &Shared<L> {
        &self.shared
    }

    /// Notes whether the log takes batches. One that was not written, or is in doubt, may be tried again; after one
    /// whose outcome stays unknown nothing more is written.
    pub(super) fn note(&self, result: &Result<Appended, AppendError>) {
        match result {
            Ok(appended) if appended.records.is_empty() => {}
            Ok(_) => self.shared.note_refusal(None),
            Err(AppendError::Conflict(_)) => {}
            Err(error @ (AppendError::NotWritten(_) | AppendError::InDoubt(_))) => {
                self.shared.note_refusal(Some(error));
            }
            Err(error @ (AppendError::Failed(_) | AppendError::Unknown(_))) => self.fail(error),
        }
    }

    /// Publishes the states that were written as planned. If any batch was not, some of them rest on it: then
    /// the log tells.
    fn publish(&self, working: HashMap<PoolId, Arc<PoolView>>, batch: &Written) {
        batch.results.iter().for_each(|result| self.note(result));
        if batch.results.iter().any(Result::is_err) {
            // If it cannot be read now, the next batch is prepared by reading it.
            let written = batch.results.iter().flatten().flat_map(|appended| &appended.records);
            let own: Vec<u64> = written.map(|record| record.seq).collect();
            return drop(self.follow(&own));
        }
        let own = |(pool, view)| (pool, Arc::unwrap_or_clone(view));
        let mut fresh: HashMap<PoolId, PoolView> = working.into_iter().map(own).collect();
        let appended = batch.results.iter().flatten();
        let records: Vec<&Record> = appended.flat_map(|appended| &appended.records).collect();
        for record in &records {
            let pool = record.envelope.stream.pool();
            if let Some(view) = pool.and_then(|pool| fresh.get_mut(pool)) {
                view.head = record.stream_head();
                view.position = record.seq;
            }
        }
        self.publish_pools(fresh);
        self.publish_records(&records);
    }

    /// Publishes the effects of records on groups and mailboxes, after those on pools, and wakes the
    /// listeners.
    pub(super) fn publish_records(&self, records: &[&Record]) {
        let mut views = self.shared.views_mut();
        for record in records {
            self.shared.packages.note(record);
            views.apply_delivery(record);
            views.note_suspension(record);
            views.changed.note_time(&record.envelope);
            views.changed.through = record.seq;
        }
        let woken = mem::take(&mut views.woken);
        drop(views);
        self.shared.listeners.wake(&woken);
        if let Some(last) = records.last() {
            self.shared.written.send_replace(last.seq);
            self.shared.tell_keeper();
            self.shared.pack_idle();
        }
    }

    /// Publishes pools, a few at a time, so that readers get their turn.
    pub(super) fn publish_pools(&self, fresh: HashMap<PoolId, PoolView>) {
        let limits = self.shared.limits_now();
        let news = fresh.into_iter().map(|(pool, view)| FreshPool::of(pool, view, &limits));
        let mut news = news.collect::<Vec<_>>().into_iter();
        while !news.as_slice().is_empty() {
            let mut views = self.shared.views_mut();
            news.by_ref().take(PUBLISHED_AT_ONCE).for_each(|news| views.publish(news));
        }
    }

    /// Answers a job, or gives it back to be tried again.
    fn conclude(&self, job: Job, plan: Plan, batch: &Written) -> Option<Job> {
        match (plan, job.work) {
            (Plan::Sweep(indexes), Work::Sweep(sender)) => {
                let mut failures = indexes.iter().filter_map(|index| batch.failure(*index));
                // What another writer has changed meanwhile, the next sweep settles.
                let failure = failures.find(|err| !is_conflict(err));
                let outcome = failure.map_or(Ok(indexes.len() as u64), |err| Err(meaning_of(err)));
                drop(sender.send(outcome));
                None
            }
            (Plan::Deliver(index, outcome), Work::Deliver(request, sender)) => {
                let decided = batch.decided(index, outcome, |place, delivered| Delivered {
                    position: place.unwrap_or(delivered.position),
                    ..delivered
                });
                let outcome = match decided {
                    CommitOutcome::Final(outcome) => outcome,
                    CommitOutcome::Again => {
                        return again(job.attempts, Work::Deliver(request, sender));
                    }
                    CommitOutcome::Unknown => self.resolve(request.id, |records| {
                        let first = recall_delivery(&request, records)?;
                        Ok(Delivered { repeated: false, ..first })
                    }),
                };
                drop(sender.send(outcome));
                None
            }
            (Plan::Reply(Err(error)), Work::Sweep(sender)) => {
                drop(sender.send(Err(error)));
                None
            }
            (Plan::Repeat(records), Work::Command(request, sender)) => {
                self.shared.repeat(Repeat { request, records, sender });
                None
            }
            (plan, Work::Command(request, sender)) => {
                let (index, outcome) = match plan {
                    Plan::Write(index, outcome) => (Some(index), outcome),
                    Plan::Reply(outcome) => (None, outcome),
                    Plan::Deliver(..) | Plan::Sweep(_) | Plan::Repeat(_) => return None,
                };
                let decided =
                    batch.decided(index, outcome, |place, reply| self.at_its_place(reply, place));
                let outcome = match decided {
                    CommitOutcome::Final(outcome) => outcome,
                    CommitOutcome::Again => {
                        return again(job.attempts, Work::Command(request, sender));
                    }
                    CommitOutcome::Unknown => self.resolve(request.id, |records| {
                        let reply = self.shared.recorded_reply(&request, records)?;
                        reply.map_or_else(|| recall(&self.shared, &request, records), Ok)
                    }),
                };
                drop(sender.send(outcome));
                None
            }
            // A plan is always of its job's kind.
            _ => None,
        }
    }

    /// Fills in where the command's last event stands, or the pool's last if it wrote none. A reply
    /// that was recalled from the log knows its place.
    fn at_its_place(&self, reply: Reply, place: Option<u64>) -> Reply {
        if reply.position != 0 {
            return reply;
        }
        let published = || self.shared.view(&reply.pool).ok().flatten().map(|view| view.position);
        let place = place.or_else(published);
        Reply { position: place.unwrap_or_default(), ..reply }
    }

    /// Finds out whether a batch was written whose outcome is unknown.
    fn resolve<T, E: From<ExecuteError>>(
        &self,
        id: CommandId,
        recall: impl FnOnce(&[Record]) -> Result<T, E>,
    ) -> Result<T, E> {
        match find_command(&self.shared.log, id, 0) {
            Ok(records) if !records.is_empty() => recall(&records),
            // Some logs do not know themselves before they are opened again.
            Ok(_) | Err(_) => Err(ExecuteError::LogUnavailable.into()),
        }
    }

    /// Stops all writing, because a log that has failed once may fail half the next time.
    pub(super) fn fail(&self, error: &dyn std::error::Error) {
        if !self.shared.failed.send_replace(true) {
            let cause = error.source().map(ToString::to_string);
            tracing::error!(%error, cause, "the log failed; no more events are written");
        }
    }
}

/// Says that the log has failed if the committer panics: nobody would answer any more.
struct PanicGuard<'a>(&'a signal::Sender<bool>);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.send_replace(true);
        }
    }
}

/// The outcome of a batch of commands.
struct Written {
    results: Vec<Result<Appended, AppendError>>,
}

/// The outcome of a plan.
enum CommitOutcome<T, E> {
    /// This is the answer.
    Final(Result<T, E>),
    /// Another writer came first.
    Again,
    /// The log did not say whether it was written.
    Unknown,
}

/// Translates a refusal of the log for the command whose batch it was.
pub(super) fn meaning_of(error: &AppendError) -> ExecuteError {
    match error {
        AppendError::Conflict(_) => ExecuteError::Busy,
        AppendError::NotWritten(_) | AppendError::Failed(_) => ExecuteError::LogRefuses,
        AppendError::Unknown(_) | AppendError::InDoubt(_) => ExecuteError::LogUnavailable,
    }
}

fn is_conflict(error: &AppendError) -> bool {
    matches!(error, AppendError::Conflict(_))
}

/// Answers jobs that are not carried out; none of them is tried again.
fn refuse_all(jobs: Vec<Job>, error: impl Fn() -> ExecuteError) -> Vec<Job> {
    for job in jobs {
        job.refuse(error());
    }
    Vec::new()
}

impl Written {
    /// Finds the outcome of a plan, now that its batch is written.
    fn decided<T, E: From<ExecuteError>>(
        &self,
        index: Option<usize>,
        outcome: Result<T, E>,
        placed: impl FnOnce(Option<u64>, T) -> T,
    ) -> CommitOutcome<T, E> {
        match index.map(|index| self.results.get(index)) {
            // An answer that wrote nothing may rest on a state that was not written either.
            None if self.results.iter().any(Result::is_err) => CommitOutcome::Again,
            None => CommitOutcome::Final(outcome.map(|answer| placed(None, answer))),
            Some(Some(Ok(appended))) => {
                let place = appended.records.last().map(|last| last.seq);
                CommitOutcome::Final(outcome.map(|answer| placed(place, answer)))
            }
            Some(Some(Err(AppendError::Conflict(_))) | None) => CommitOutcome::Again,
            Some(Some(Err(error @ (AppendError::NotWritten(_) | AppendError::Failed(_))))) => {
                CommitOutcome::Final(Err(meaning_of(error).into()))
            }
            Some(Some(Err(_))) => CommitOutcome::Unknown,
        }
    }

    fn failure(&self, index: usize) -> Option<&AppendError> {
        self.results.get(index).and_then(|result| result.as_ref().err())
    }
}
