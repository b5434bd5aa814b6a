//! The one thread that writes: groups of commands become batches, and batches become durable.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Arc, PoisonError, atomic::Ordering, mpsc::Receiver},
};

use keypool_ledger::{
    AppendError, Appended, Batch, CommandId, Event, EventLog, Hash, NewEvent, PoolId, Record,
    ReservationId, StreamId, StreamWrite, Timestamp,
};
use tokio::sync::oneshot;

use super::{
    ExecuteError, PoolView, ReplayError, Reply, Request, Shared, Target, replay_pool, watch::Look,
};
use crate::{
    command::{Answer, Command, ItemOutcome, Limits, NewPackage, Rejection},
    decide::Decision,
    health::Health,
    pool::PoolState,
};

/// How many commands share one durability point.
const GROUP_MAX: usize = 256;
/// How often a command is decided again after another writer came first.
const ATTEMPTS_MAX: u32 = 8;

type Outcome = Result<Reply, ExecuteError>;

/// Something for the committer to do.
pub(super) struct Job {
    work: Work,
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

/// What a job came to, before anything is written.
enum Plan {
    /// Nothing to write.
    Reply(Outcome),
    /// The batch with this index in the group, and the outcome once it is durable: a reply, or the
    /// refusal of a lost reservation, which is recorded as well.
    Write(usize, Outcome),
    /// Batches of a sweep, by index.
    Sweep(Vec<usize>),
}

impl<L: EventLog> Committer<L> {
    pub(super) const fn new(shared: Arc<Shared<L>>) -> Self {
        Self { shared }
    }

    /// Works until the queue is closed and empty.
    pub(super) fn run(self, queue: &Receiver<Job>) {
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
            Plan::Reply(Ok(reply)) if stale.contains(&reply.pool) => None,
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
        let records = self.shared.log.find(request.id)?;
        if records.is_empty() {
            return Err(ExecuteError::LogUnavailable);
        }
        recall(&self.shared, request, &records)
    }

    /// Stops all writing: what has failed once may fail half the next time.
    fn fail(&self, error: &dyn std::error::Error) {
        if !self.shared.failed.send_replace(true) {
            let cause = error.source().map(ToString::to_string);
            tracing::error!(%error, cause, "the log failed; no more events are written");
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

/// A group of commands under way: the states as they will be once its batches are written.
struct Group<'a, L> {
    shared: &'a Shared<L>,
    look: Look,
    limits: Limits,
    working: HashMap<PoolId, PoolView>,
    batches: Vec<Batch>,
    pools: Vec<PoolId>,
    commands: HashSet<CommandId>,
    reservations: HashSet<ReservationId>,
    /// Set by a registration: it reads the directory, which shows only what is written, so it has a
    /// group to itself.
    full: bool,
}

impl<'a, L: EventLog> Group<'a, L> {
    fn new(shared: &'a Shared<L>, look: Look) -> Self {
        Self {
            shared,
            look,
            limits: shared.limits_now(),
            working: HashMap::new(),
            batches: Vec::new(),
            pools: Vec::new(),
            commands: HashSet::new(),
            reservations: HashSet::new(),
            full: false,
        }
    }

    /// Decides a job, or returns `None` if it must wait for what this group writes.
    fn plan(&mut self, job: &Job) -> Option<Plan> {
        let request = match &job.work {
            _ if self.full => return None,
            Work::Sweep(_) => return Some(self.sweep()),
            Work::Command(request, _) => request,
        };
        if matches!(request.command, Command::Register { .. }) {
            if !self.batches.is_empty() {
                return None;
            }
            self.full = true;
        }
        if let Command::Reserve { reservation, .. } = &request.command
            && !self.reservations.insert(*reservation)
        {
            return None;
        }
        if !self.commands.insert(request.id) {
            return None;
        }
        Some(self.execute(request).unwrap_or_else(|error| Plan::Reply(Err(error))))
    }

    fn execute(&mut self, request: &Request) -> Result<Plan, ExecuteError> {
        let records = self.shared.log.find(request.id)?;
        if !records.is_empty() {
            return Ok(Plan::Reply(recall(self.shared, request, &records)));
        }
        let clocked = matches!(request.command, Command::Reserve { .. } | Command::Spend { .. });
        if self.look.regressed && clocked {
            return Err(ExecuteError::ClockRegressed);
        }
        let (pool, decision) = self.decide(request)?;
        let Decision { events, answer } = decision;
        if events.is_empty() {
            let reply = self.reply(&pool, answer?);
            return Ok(Plan::Reply(Ok(reply)));
        }
        let index = self.write(&pool, &events, request)?;
        let outcome = answer.map(|answer| self.reply(&pool, answer)).map_err(ExecuteError::from);
        Ok(Plan::Write(index, outcome))
    }

    /// Finds the pool a command is for, and decides it there.
    fn decide(&self, request: &Request) -> Result<(PoolId, Decision), ExecuteError> {
        match &request.target {
            Target::Pool(pool) => {
                self.check(pool, &request.command)?;
                Ok((pool.clone(), self.decide_on(pool, &request.command)))
            }
            Target::Package(keypackage_ref) => {
                let unknown = || Rejection::UnknownKeyPackage(keypackage_ref.clone());
                let record = self.shared.log.find_package(keypackage_ref)?.ok_or_else(unknown)?;
                let pool = record.envelope.stream.pool().cloned().ok_or_else(unknown)?;
                let decision = self.decide_on(&pool, &request.command);
                Ok((pool, decision))
            }
            Target::User(user) => self.decide_on_any(user, &request.command),
        }
    }

    fn decide_on(&self, pool: &PoolId, command: &Command) -> Decision {
        let view = self.working.get(pool).cloned();
        let view = view.or_else(|| self.shared.view(pool).map(Arc::unwrap_or_clone));
        let view = view.unwrap_or_default();
        view.state.decide(command, self.look.now.max(view.head.at), &self.limits)
    }

    /// Decides on the first device of a user that can answer: the one that did before, if one did.
    fn decide_on_any(
        &self,
        user: &str,
        command: &Command,
    ) -> Result<(PoolId, Decision), ExecuteError> {
        let unknown = || Rejection::UnknownUser(user.to_owned());
        let devices: Vec<PoolId> =
            self.shared.views().directory.devices_of(user).cloned().collect();
        let Command::Reserve { reservation, holder, .. } = command else {
            return Err(unknown().into());
        };
        if let Some(made) = self.reservation(*reservation)? {
            if !devices.contains(&made) {
                return Err(Rejection::ReservationMismatch(*reservation).into());
            }
            let decision = self.decide_on(&made, command);
            return Ok((made, decision));
        }
        let mut refusal = if devices.is_empty() { unknown() } else { Rejection::OwnPool };
        for pool in devices.into_iter().filter(|pool| pool != holder) {
            let decision = self.decide_on(&pool, command);
            match decision.answer {
                Ok(_) => return Ok((pool, decision)),
                Err(Rejection::PoolExhausted) if refusal == Rejection::NothingCompatible => {}
                Err(rejection) => refusal = rejection,
            }
        }
        Err(refusal.into())
    }

    /// Refuses what the state of one pool alone cannot tell.
    fn check(&self, pool: &PoolId, command: &Command) -> Result<(), ExecuteError> {
        match command {
            Command::Register { signature_key, .. }
                if !self.shared.views().directory.admits(pool, signature_key) =>
            {
                return Err(Rejection::IdentityBound.into());
            }
            Command::Reserve { reservation, holder, .. } => {
                if holder == pool {
                    return Err(Rejection::OwnPool.into());
                }
                if self.shared.view(pool).is_none() {
                    return Err(Rejection::UnknownUser(pool.to_string()).into());
                }
                if self.reservation(*reservation)?.is_some_and(|made| made != *pool) {
                    return Err(Rejection::ReservationMismatch(*reservation).into());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The pool in which a reservation was made.
    fn reservation(&self, id: ReservationId) -> Result<Option<PoolId>, ExecuteError> {
        let record = self.shared.log.find_reservation(id)?;
        Ok(record.and_then(|record| record.envelope.stream.pool().cloned()))
    }

    /// Adds a batch to the group and evolves the pool as the batch will leave it.
    fn write(
        &mut self,
        pool: &PoolId,
        events: &[Event],
        request: &Request,
    ) -> Result<usize, ExecuteError> {
        let published = || self.shared.view(pool).map(Arc::unwrap_or_clone).unwrap_or_default();
        let view = self.working.entry(pool.clone()).or_insert_with(published);
        let expected = view.state.version();
        let at = self.look.now.max(view.head.at);
        for event in events {
            view.state.evolve(event, at).map_err(Rejection::from)?;
        }
        view.head.at = at;
        let events = new_events(events, request, at);
        let stream = StreamId::Pool(pool.clone());
        self.batches.push(Batch { writes: vec![StreamWrite { stream, expected, events }] });
        self.pools.push(pool.clone());
        Ok(self.batches.len() - 1)
    }

    /// Settles every pool that is due, as far as this group has room.
    fn sweep(&mut self) -> Plan {
        let (now, limits) = (self.look.now, self.limits);
        let due: Vec<PoolId> = {
            let views = self.shared.views();
            let due = views.pools.iter().filter(|(pool, view)| {
                !self.working.contains_key(*pool) && view.state.is_due(now, &limits)
            });
            let mut due: Vec<PoolId> = due.map(|(pool, _)| pool.clone()).collect();
            due.sort();
            due
        };
        let mut indexes = Vec::new();
        for pool in due {
            let decision = self.decide_on(&pool, &Command::Settle);
            let version = self.shared.view(&pool).map_or(0, |view| view.head.version);
            let request = settling(&pool, version, now);
            match self.write(&pool, &decision.events, &request) {
                Ok(index) => indexes.push(index),
                Err(error) => tracing::error!(%error, "a pool could not be settled"),
            }
        }
        Plan::Sweep(indexes)
    }

    /// The reply as it will be once the group is written; its place in the log is filled in then.
    fn reply(&self, pool: &PoolId, answer: Answer) -> Reply {
        let view = self.working.get(pool).cloned();
        let view = view.or_else(|| self.shared.view(pool).map(Arc::unwrap_or_clone));
        let state = view.unwrap_or_default().state;
        let health = Health::of(&state, self.look.now, &self.limits);
        Reply { pool: pool.clone(), answer, health, position: 0 }
    }
}

/// The request of a sweep for one pool. Its id follows from what it settles, so that the same history
/// and the same clock give the same bytes.
fn settling(pool: &PoolId, version: u64, now: Timestamp) -> Request {
    let digest = Hash::of(format!("settle {pool} {version} {}", now.as_millis()).as_bytes());
    let mut id = [0; 16];
    id.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    Request {
        target: Target::Pool(pool.clone()),
        command: Command::Settle,
        id: CommandId(uuid::Builder::from_random_bytes(id).into_uuid()),
        digest,
    }
}

fn new_events(events: &[Event], request: &Request, at: Timestamp) -> Vec<NewEvent> {
    let wrap = |event: &Event| NewEvent {
        at,
        command: request.id,
        request: request.digest,
        event: event.clone(),
        payload: payload(event, &request.command),
    };
    events.iter().map(wrap).collect()
}

/// The bytes that go with an event: the package's, when it is uploaded.
fn payload(event: &Event, command: &Command) -> Vec<u8> {
    let (Event::Uploaded(facts), Command::Upload(packages)) = (event, command) else {
        return Vec::new();
    };
    let is_it = |package: &&NewPackage| package.facts.keypackage_ref == facts.keypackage_ref;
    packages.iter().find(is_it).map(|package| package.bytes.clone()).unwrap_or_default()
}

/// Answers a repeated request as the first one was answered, from what the log has recorded of it.
fn recall<L: EventLog>(shared: &Shared<L>, request: &Request, records: &[Record]) -> Outcome {
    let mismatch = || ExecuteError::IdempotencyMismatch(request.id);
    let first = records.first().ok_or_else(mismatch)?;
    let pool = first.envelope.stream.pool().cloned().ok_or_else(mismatch)?;
    if first.envelope.request != request.digest {
        return Err(mismatch());
    }
    let before = replay_pool(&shared.log, &pool, first.envelope.version - 1);
    let before = before.map_err(unreadable)?;
    let mut after = before.clone();
    for record in records {
        after.take_in(record).map_err(unreadable)?;
    }
    let at = first.envelope.at;
    let limits = shared.limits_now();
    let events: Vec<&Event> = records.iter().map(|record| &record.envelope.event).collect();
    let answer = recorded(&request.command, &events, &after.state)
        .unwrap_or_else(|| before.state.decide(&request.command, at, &limits).answer);
    let answer = with_recorded_uploads(answer?, &events);
    let health = Health::of(&after.state, at, &limits);
    Ok(Reply { pool, answer, health, position: after.position })
}

/// The answer that a command's events say by themselves, whatever the limits are today.
fn recorded(
    command: &Command,
    events: &[&Event],
    after: &PoolState,
) -> Option<Result<Answer, Rejection>> {
    events.iter().find_map(|event| match (command, event) {
        (
            Command::Reserve { reservation: asked, .. },
            Event::Reserved { keypackage_ref, reservation, generation, deadline, .. },
        ) if asked == reservation => after.get(keypackage_ref).map(|package| {
            Ok(Answer::Reserved {
                facts: package.facts.clone(),
                reservation: *reservation,
                generation: *generation,
                deadline: *deadline,
            })
        }),
        (Command::Renew(_), Event::Renewed { deadline, .. }) => {
            Some(Ok(Answer::Renewed { deadline: *deadline }))
        }
        (Command::Spend { .. }, Event::Spent { late, .. }) => {
            Some(Ok(Answer::Spent { late: *late, replayed: false }))
        }
        (Command::Spend { .. }, Event::Conflict { lost, .. }) => {
            Some(Err(Rejection::ReservationLost(*lost)))
        }
        (Command::Register { .. }, Event::Registered { .. }) => {
            Some(Ok(Answer::Registered { known: false }))
        }
        _ => None,
    })
}

/// What the log has taken in, it has stored, whatever the limits say today.
fn with_recorded_uploads(answer: Answer, events: &[&Event]) -> Answer {
    let Answer::Uploaded(outcomes) = answer else { return answer };
    let stored = |outcome: ItemOutcome| match outcome {
        ItemOutcome::Refused(refused, _)
            if events.iter().any(
                |event| matches!(event, Event::Uploaded(facts) if facts.keypackage_ref == refused),
            ) =>
        {
            ItemOutcome::Stored(refused)
        }
        other => other,
    };
    Answer::Uploaded(outcomes.into_iter().map(stored).collect())
}

fn unreadable(error: ReplayError) -> ExecuteError {
    match error {
        ReplayError::Read(read) => read.into(),
        other => {
            tracing::error!(error = %other, "a history cannot be folded");
            ExecuteError::LogUnavailable
        }
    }
}
