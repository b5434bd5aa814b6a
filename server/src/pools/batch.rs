//! A batch of commands: decided in order, each on the state as those before it will leave it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use keypool_ledger::{
    Batch, CommandId, Event, EventLog, Key, KeyPackageRef, LogHead, NewEvent, PoolId, ReadError,
    Record, ReservationId, SignatureKey, StreamHead, StreamId, StreamWrite, Timestamp,
};
use keypool_projections::{
    Answer, Command, Decision, Deliveries, Limits, NewPackage, PoolState, Rejection, Remover,
};

use super::{
    ExecuteError, PoolView, Reply, Request, Shared, Target,
    api::derived_id,
    clock_guard::ClockReading,
    job::{CommandOutcome, DeliveryOutcome, Job, Work},
    published::FreshPool,
};

/// How many pools one sweep settles.
const SETTLED_MAX: usize = 1024;

/// The decision on a job, before anything is written.
pub(super) enum Plan {
    /// Nothing to write.
    Reply(CommandOutcome),
    /// The append with this index in the batch, and the outcome once it is durable: a reply, or the
    /// refusal of a lost reservation, which is recorded as well.
    Write(usize, CommandOutcome),
    /// The request was carried out before, and these are its records.
    Repeat(Vec<Record>),
    /// As the first two, for a command to the delivery.
    Deliver(Option<usize>, DeliveryOutcome),
    /// Batches of a sweep, by index.
    Sweep(Vec<usize>),
}

/// The decision on a command, and its pool.
struct DecidedCommand {
    pool: PoolId,
    /// The pool before.
    view: Arc<PoolView>,
    decision: Decision,
    /// The pool after; `None` if nothing is to be recorded.
    after: Option<PoolState>,
}

/// A batch of commands under way: the states as they will be once its batches are written.
pub(super) struct CommandBatch<'a, L> {
    pub(super) shared: &'a Shared<L>,
    pub(super) look: ClockReading,
    pub(super) limits: Limits,
    /// The record through which the caller has searched for the command's names, and found nothing.
    pub(super) searched_through: u64,
    pub(super) working: HashMap<PoolId, Arc<PoolView>>,
    /// The head of the log that the published states know, on which the batch is decided.
    pub(super) decided_at: LogHead,
    pub(super) batches: Vec<Batch>,
    /// The groups and mailboxes that this batch of commands changes.
    pub(super) deliveries: Deliveries,
    commands: HashSet<CommandId>,
    reservations: HashSet<ReservationId>,
    uploads: HashMap<KeyPackageRef, PoolId>,
    /// Set by a registration: it reads the directory, which shows written records only, so it has a
    /// batch to itself.
    full: bool,
}

impl<'a, L: EventLog> CommandBatch<'a, L> {
    pub(super) fn new(shared: &'a Shared<L>, look: ClockReading) -> Self {
        Self {
            shared,
            look,
            limits: shared.limits_now(),
            searched_through: 0,
            working: HashMap::new(),
            decided_at: shared.published(),
            batches: Vec::new(),
            deliveries: Deliveries::default(),
            commands: HashSet::new(),
            reservations: HashSet::new(),
            uploads: HashMap::new(),
            full: false,
        }
    }

    /// Decides a job, or returns `None` if it must wait for the writes of this batch.
    pub(super) fn plan(&mut self, job: &Job) -> Option<Plan> {
        self.searched_through = job.searched_through;
        let request = match &job.work {
            _ if self.full => return None,
            Work::Sweep(_) => return Some(self.sweep()),
            // The committer does it in front of the batch.
            Work::AcceptClock(_) | Work::Suspend(..) | Work::Follow => return None,
            Work::Deliver(request, _) if !self.commands.insert(request.id) => return None,
            Work::Deliver(request, _) => return Some(self.deliver(request)),
            Work::Command(request, _) => request,
        };
        if request.command.changes_keys() {
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
        if !self.commands.insert(request.id) || !self.claim_uploads(request) {
            return None;
        }
        Some(self.execute(request).unwrap_or_else(|error| Plan::Reply(Err(error))))
    }

    /// Notes which packages this batch brings to which pool; false if one of them goes to another pool
    /// as well, whose upload must be written first.
    fn claim_uploads(&mut self, request: &Request) -> bool {
        let Target::Pool(pool) = &request.target else { return true };
        let packages = request.command.packages();
        let refs = || packages.iter().map(|package| &package.facts.keypackage_ref);
        let elsewhere = |r: &KeyPackageRef| self.uploads.get(r).is_some_and(|other| other != pool);
        if refs().any(elsewhere) {
            return false;
        }
        self.uploads.extend(refs().map(|r| (r.clone(), pool.clone())));
        true
    }

    fn execute(&mut self, request: &Request) -> Result<Plan, ExecuteError> {
        let records = self.arrived(Key::Command(request.id))?;
        if !records.is_empty() {
            let reply = self.shared.recorded_reply(request, &records)?;
            return Ok(reply.map_or(Plan::Repeat(records), |reply| Plan::Reply(Ok(reply))));
        }
        let pool = match &request.target {
            Target::Pool(pool) => Some(pool),
            Target::Package(_) => None,
        };
        self.check_suspension(pool, &request.command)?;
        match request.command {
            Command::Reserve { .. } | Command::Spend { .. } => self.look.relied_on()?,
            Command::Upload(_)
            | Command::Replace { .. }
            | Command::Renew(_)
            | Command::Report { .. } => self.look.not_leapt()?,
            _ => {}
        }
        let decided = self.decide(request)?;
        if let (Command::Recover { signature_key, .. }, Some(_)) =
            (&request.command, &decided.after)
        {
            let others = self.remove_others(request, &decided.pool, signature_key)?;
            return Ok(self.take_up_after(others, request, decided));
        }
        Ok(self.take_up(request, decided))
    }

    /// Removes every device of a user but one, in the writes that are returned.
    fn remove_others(
        &mut self,
        request: &Request,
        kept: &PoolId,
        by: &SignatureKey,
    ) -> Result<Vec<StreamWrite>, ExecuteError> {
        let mut devices = self.shared.views().directory.registered_of(kept.user());
        devices.retain(|device| device != kept);
        let mut writes = Vec::with_capacity(devices.len() + 1);
        for device in devices {
            let decided =
                self.decide_on(&device, &Command::Remove { by: Remover::Key(by.clone()) })?;
            writes.extend(self.stage(request, decided).0);
        }
        Ok(writes)
    }

    /// Adds a decision to the writes of the batch.
    fn take_up(&mut self, request: &Request, decided: DecidedCommand) -> Plan {
        self.take_up_after(Vec::new(), request, decided)
    }

    /// Adds a decision to the batch, as one append with writes to other pools that come before it.
    fn take_up_after(
        &mut self,
        mut writes: Vec<StreamWrite>,
        request: &Request,
        decided: DecidedCommand,
    ) -> Plan {
        let (write, outcome) = self.stage(request, decided);
        let Some(write) = write else { return Plan::Reply(outcome) };
        writes.push(write);
        Plan::Write(self.add(Batch { writes }), outcome)
    }

    /// Takes a decision into the states of the batch, and returns its write, if anything is to be recorded,
    /// and its outcome.
    fn stage(
        &mut self,
        request: &Request,
        decided: DecidedCommand,
    ) -> (Option<StreamWrite>, CommandOutcome) {
        let DecidedCommand { pool, view, decision: Decision { events, answer }, after } = decided;
        let Some(state) = after else {
            let repeated = |answer| Reply { repeated: true, ..self.reply(pool, view, answer) };
            return (None, answer.map(repeated).map_err(Into::into));
        };
        let expected = view.state.version();
        let at = self.look.now;
        let head = StreamHead { at, ..view.head };
        let after = Arc::new(PoolView { state, head, position: view.position });
        self.working.insert(pool.clone(), Arc::clone(&after));
        let (stream, events) = (StreamId::Pool(pool.clone()), new_events(events, request, at));
        let outcome = answer.map(|answer| self.reply(pool, after, answer));
        (Some(StreamWrite { stream, expected, events }), outcome.map_err(Into::into))
    }

    /// Finds the pool a command is for, and decides it there.
    fn decide(&mut self, request: &Request) -> Result<DecidedCommand, ExecuteError> {
        if let Command::Reserve { holder, group, .. } = &request.command {
            self.check_membership(holder, group)?;
        }
        match &request.target {
            Target::Pool(pool) => {
                self.check(pool, &request.command)?;
                self.decide_on(pool, &request.command)
            }
            Target::Package(keypackage_ref) => {
                let unknown = || Rejection::UnknownKeyPackage(keypackage_ref.clone());
                let pool = self.shared.pool_of(&request.target)?.ok_or_else(unknown)?;
                self.decide_on(&pool, &request.command)
            }
        }
    }

    fn decide_on(
        &mut self,
        pool: &PoolId,
        command: &Command,
    ) -> Result<DecidedCommand, ExecuteError> {
        let view = self.prepared(pool, command)?;
        let (decision, after) =
            view.state.decide_with_outcome(command, self.look.now, &self.limits);
        Ok(DecidedCommand { pool: pool.clone(), view, decision, after })
    }

    /// A pool as the commands before this one will leave it, with everything that this one names.
    pub(super) fn prepared(
        &mut self,
        pool: &PoolId,
        command: &Command,
    ) -> Result<Arc<PoolView>, ExecuteError> {
        let mut view = self.pool_view(pool)?;
        let reserved_after = match command {
            Command::Reserve { .. } => self.unsearched(),
            _ => Some(0),
        };
        if self.shared.recall(pool, &mut view, command, reserved_after)? {
            self.working.insert(pool.clone(), Arc::clone(&view));
        }
        Ok(view)
    }

    /// The record behind which the log was not searched for the command's names; `None` if the whole log was.
    fn unsearched(&self) -> Option<u64> {
        (self.searched_through < self.decided_at.seq).then_some(self.searched_through)
    }

    /// Finds the records of a name that arrived since the command was searched for.
    pub(super) fn arrived(&self, key: Key<'_>) -> Result<Vec<Record>, ReadError> {
        match self.unsearched() {
            Some(after) if self.shared.memory().may_have(key, after) => {
                self.shared.log.find(key, after, usize::MAX)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The pool in which a reservation was made since the command was searched for. If there is none, the
    /// whole log has been searched.
    pub(super) fn reservation(
        &mut self,
        id: ReservationId,
    ) -> Result<Option<PoolId>, ExecuteError> {
        let made = self.arrived(Key::Reservation(id))?.into_iter().next();
        if made.is_none() {
            self.searched_through = self.decided_at.seq;
        }
        Ok(made.and_then(|record| record.envelope.stream.pool().cloned()))
    }

    /// Adds an append, and returns its index.
    pub(super) fn add(&mut self, batch: Batch) -> usize {
        self.batches.push(batch);
        self.batches.len() - 1
    }

    /// Settles the pools that are due, as far as this batch has room; the others stay due.
    fn sweep(&mut self) -> Plan {
        if let Err(error) = self.look.not_leapt() {
            return Plan::Reply(Err(error));
        }
        let (now, limits) = (self.look.now, self.limits);
        let mut due = self.shared.views().directory.due(now, SETTLED_MAX);
        due.retain(|pool| !self.working.contains_key(pool));
        let mut indexes = Vec::new();
        for pool in due {
            match self.settle(&pool, now, &limits) {
                Ok(index) => indexes.extend(index),
                Err(error) => tracing::error!(%error, %pool, "a pool could not be settled"),
            }
        }
        Plan::Sweep(indexes)
    }

    /// Records the effects of time on a pool; `None` if there are none.
    fn settle(
        &mut self,
        pool: &PoolId,
        now: Timestamp,
        limits: &Limits,
    ) -> Result<Option<usize>, ExecuteError> {
        let view = self.pool_view(pool)?;
        if !view.state.is_due(now, limits) {
            // Reservations have more time than when it was noted: a restart, a clock that leapt.
            let news = FreshPool::of(pool.clone(), Arc::unwrap_or_clone(view), limits);
            self.shared.views_mut().publish(news);
            return Ok(None);
        }
        let request = settling(pool, view.head.version, now);
        let decided = self.decide_on(pool, &Command::Settle)?;
        match self.take_up(&request, decided) {
            Plan::Write(index, _) => Ok(Some(index)),
            _ => Ok(None),
        }
    }

    /// The reply as it will be once the batch is written; its place in the log is filled in then.
    fn reply(&self, pool: PoolId, after: Arc<PoolView>, answer: Answer) -> Reply {
        let (after, limits) = ((after, self.look.now), self.limits);
        Reply { pool, answer, position: 0, repeated: false, after, limits }
    }
}

/// The request of a sweep for one pool. Its id follows from the lapses and expiries, so that the same history
/// and the same clock give the same bytes.
fn settling(pool: &PoolId, version: u64, now: Timestamp) -> Request {
    let (id, digest) = derived_id(&format!("settle {pool} {version} {}", now.as_millis()));
    Request { target: Target::Pool(pool.clone()), command: Command::Settle, id, digest }
}

fn new_events(events: Vec<Event>, request: &Request, at: Timestamp) -> Vec<NewEvent> {
    let wrap = |event: Event| NewEvent {
        at,
        command: request.id,
        request: request.digest,
        payload: payload(&event, &request.command),
        event,
    };
    events.into_iter().map(wrap).collect()
}

/// The bytes that go with an event: the package's, when it is uploaded.
fn payload(event: &Event, command: &Command) -> Vec<u8> {
    let Event::Uploaded(facts) = event else { return Vec::new() };
    let is_it = |package: &&NewPackage| package.facts.keypackage_ref == facts.keypackage_ref;
    command.packages().iter().find(is_it).map(|package| package.bytes.clone()).unwrap_or_default()
}
