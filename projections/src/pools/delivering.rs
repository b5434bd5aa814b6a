//! The delivery's share of a group of commands: Commits with their Welcomes and the spending of their
//! packages as one batch, messages, acknowledgements.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use keypool_ledger::{
    Batch, CommandId, Event, EventLog, GroupId, Hash, KeyPackageRef, NewEvent, PoolId, ReadError,
    Record, StreamId, StreamWrite,
};

use super::{
    ExecuteError, PoolView, Shared,
    group::{Group, Plan},
    views::Views,
};
use crate::{
    command::{Answer, Claim, Command, Rejection},
    delivery::{DeliveryRejection, GroupState, MailboxState, Waiting},
};

/// A command on its way to the delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryRequest {
    /// What to do.
    pub command: DeliveryCommand,
    /// Who asks.
    pub caller: PoolId,
    /// The caller's idempotency key.
    pub id: CommandId,
    /// The digest of the whole request, caller included: the same id with another one is refused.
    pub digest: Hash,
}

/// What is asked of the delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryCommand {
    /// Accept a Commit, its Welcomes, and the spending of its packages: all or nothing.
    Commit {
        /// The group.
        group: GroupId,
        /// The epoch it ends.
        epoch: u64,
        /// The bytes.
        commit: Vec<u8>,
        /// The Welcomes for the new members.
        welcomes: Vec<Welcome>,
        /// The packages it uses, by the reservations that hold them.
        spends: Vec<Claim>,
        /// The devices it removes.
        removed: Vec<PoolId>,
    },
    /// Pass a message on to the other members.
    Post {
        /// The group.
        group: GroupId,
        /// The bytes.
        message: Vec<u8>,
    },
    /// Forget what waits for the caller up to a position of the log.
    Acknowledge {
        /// The position of the last thing it has.
        through: u64,
        /// Whether it has been told that something was not kept.
        overrun: bool,
    },
}

/// A Welcome on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The packages it is for, as it says itself.
    pub keypackage_refs: Vec<KeyPackageRef>,
}

/// What a command to the delivery has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The epoch the group is in then; 0 for an acknowledgement.
    pub epoch: u64,
    /// The place of the command's last event in the log; 0 if it changed nothing.
    pub position: u64,
}

/// Why a command to the delivery was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The rules of the delivery refuse it.
    #[error(transparent)]
    Refused(#[from] DeliveryRejection),
    /// A package could not be spent, so the Commit was not accepted either.
    #[error("package {} could not be spent: {rejection}", keypackage_ref.short())]
    Spend {
        /// The package.
        keypackage_ref: KeyPackageRef,
        /// Why.
        #[source]
        rejection: Rejection,
    },
    /// The command was not carried out for another reason.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

pub(super) type DeliveryOutcome = Result<Delivered, DeliverError>;

/// Events for one history, with the bytes of each, and the version they follow.
type Writes = BTreeMap<StreamId, (u64, Vec<(Event, Vec<u8>)>)>;

impl<L: EventLog> Group<'_, L> {
    /// Decides a command to the delivery.
    pub(super) fn deliver(&mut self, request: &DeliveryRequest) -> Plan {
        match self.try_deliver(request) {
            Ok(plan) => plan,
            Err(error) => Plan::Deliver(None, Err(error)),
        }
    }

    fn try_deliver(&mut self, request: &DeliveryRequest) -> Result<Plan, DeliverError> {
        let records =
            self.shared.log.find_after(request.id, self.looked).map_err(ExecuteError::from)?;
        if !records.is_empty() {
            return Ok(Plan::Deliver(None, recall_delivery(request, &records)));
        }
        match &request.command {
            DeliveryCommand::Commit { .. } => self.commit(request),
            DeliveryCommand::Post { group, message } => {
                let state = self.group_state(group);
                let event = state.decide_post(group, &request.caller)?;
                let mut writes = Writes::new();
                self.overruns(&mut writes, &state, &event, message.len());
                let stream = StreamId::Group(group.clone());
                writes.insert(stream, (state.version(), vec![(event, message.clone())]));
                Ok(self.write_delivery(writes, request, state.epoch()))
            }
            DeliveryCommand::Acknowledge { through, overrun } => {
                let mailbox = self.mailbox_state(&request.caller);
                let last = self.shared.log.head().map_err(ExecuteError::from)?.seq;
                let Some(event) = mailbox.decide_acknowledge(*through, *overrun, last)? else {
                    return Ok(Plan::Deliver(None, Ok(Delivered { epoch: 0, position: 0 })));
                };
                let stream = StreamId::Mailbox(request.caller.clone());
                let writes = Writes::from([(stream, (mailbox.version(), vec![(event, vec![])]))]);
                Ok(self.write_delivery(writes, request, 0))
            }
        }
    }

    /// A Commit, its Welcomes and the spending of its packages: one batch, or nothing.
    fn commit(&mut self, request: &DeliveryRequest) -> Result<Plan, DeliverError> {
        let DeliveryCommand::Commit { group, epoch, commit, welcomes, spends, removed } =
            &request.command
        else {
            return Err(ExecuteError::LogUnavailable.into());
        };
        if !spends.is_empty() {
            self.look.relied_on()?;
        }
        let welcomed: BTreeSet<&KeyPackageRef> =
            welcomes.iter().flat_map(|welcome| &welcome.keypackage_refs).collect();
        let spent: BTreeSet<&KeyPackageRef> =
            spends.iter().map(|claim| &claim.keypackage_ref).collect();
        if welcomed != spent || spent.len() != spends.len() {
            return Err(DeliveryRejection::WelcomeMismatch.into());
        }
        let state = self.group_state(group);
        // Whether the epoch is free is told before anything about packages.
        state.decide_commit(group, &request.caller, *epoch, (Vec::new(), Vec::new()))?;
        let mut writes = Writes::new();
        let mut owners: BTreeMap<&KeyPackageRef, PoolId> = BTreeMap::new();
        for claim in spends {
            match self.spend(group, claim, &owners, &mut writes)? {
                Ok(owner) => drop(owners.insert(&claim.keypackage_ref, owner)),
                Err((conflict, rejection)) => {
                    return Ok(self.refuse_commit(request, claim, conflict, rejection));
                }
            }
        }
        let added = owners.values().cloned().collect();
        let changes = (added, removed.clone());
        let event = state.decide_commit(group, &request.caller, *epoch, changes)?;
        let mut events = vec![(event, commit.clone())];
        for welcome in welcomes {
            let to = welcome.keypackage_refs.iter().filter_map(|r| owners.get(r).cloned());
            events.push((Event::Welcomed { to: to.collect() }, welcome.bytes.clone()));
        }
        for (event, bytes) in &events {
            self.overruns(&mut writes, &state, event, bytes.len());
        }
        writes.insert(StreamId::Group(group.clone()), (state.version(), events));
        Ok(self.write_delivery(writes, request, epoch.saturating_add(1)))
    }

    /// Decides the spending of one package, and adds it to what is written. A refusal may bring the
    /// conflict that is to be recorded.
    #[expect(clippy::type_complexity, reason = "a refusal with what is recorded of it, used once")]
    fn spend(
        &mut self,
        group: &GroupId,
        claim: &Claim,
        owners: &BTreeMap<&KeyPackageRef, PoolId>,
        writes: &mut Writes,
    ) -> Result<Result<PoolId, (Option<(StreamId, u64, Event)>, Rejection)>, DeliverError> {
        let unknown = || Rejection::UnknownKeyPackage(claim.keypackage_ref.clone());
        let record =
            self.shared.log.find_package(&claim.keypackage_ref).map_err(ExecuteError::from)?;
        let Some(pool) = record.and_then(|record| record.envelope.stream.pool().cloned()) else {
            return Ok(Err((None, unknown())));
        };
        if owners.values().any(|owner| *owner == pool) {
            return Err(DeliveryRejection::SameDevice(pool).into());
        }
        let command = Command::Spend { claim: claim.clone(), group: group.clone() };
        let view = self.prepared(&pool, &command)?;
        let decision = view.state.decide(&command, self.look.now.max(view.head.at), &self.limits);
        let stream = StreamId::Pool(pool.clone());
        let version = view.state.version();
        match decision.answer {
            // A package that was spent by this reservation before adds nothing to the batch.
            Ok(Answer::Spent { .. }) => {
                if !decision.events.is_empty() {
                    let events = decision.events.into_iter().map(|event| (event, Vec::new()));
                    writes.insert(stream, (version, events.collect()));
                }
                Ok(Ok(pool))
            }
            Ok(_) => Ok(Err((None, unknown()))),
            Err(rejection) => {
                let conflict = decision.events.into_iter().last();
                Ok(Err((conflict.map(|event| (stream, version, event)), rejection)))
            }
        }
    }

    /// A Commit one of whose packages is lost: it is not accepted, and the conflict is recorded.
    fn refuse_commit(
        &mut self,
        request: &DeliveryRequest,
        claim: &Claim,
        conflict: Option<(StreamId, u64, Event)>,
        rejection: Rejection,
    ) -> Plan {
        let keypackage_ref = claim.keypackage_ref.clone();
        let refusal = Err(DeliverError::Spend { keypackage_ref, rejection });
        let Some((stream, version, event)) = conflict else {
            return Plan::Deliver(None, refusal);
        };
        let writes = Writes::from([(stream, (version, vec![(event, Vec::new())]))]);
        match self.write_delivery(writes, request, 0) {
            Plan::Deliver(index, Ok(_)) => Plan::Deliver(index, refusal),
            other => other,
        }
    }

    /// Adds the overrun of every mailbox that has no room for what an event brings to it.
    fn overruns(&self, writes: &mut Writes, state: &GroupState, event: &Event, bytes: usize) {
        for recipient in state.recipients(event) {
            let mailbox = self.mailbox_state(&recipient);
            let limits = &self.shared.delivery_limits;
            let overrun = mailbox.decide_overrun(bytes as u64, self.look.now, limits);
            if let Some(overrun) = overrun {
                let stream = StreamId::Mailbox(recipient);
                writes.entry(stream).or_insert((mailbox.version(), vec![(overrun, Vec::new())]));
            }
        }
    }

    /// Adds a batch over several histories, and evolves what the commands after it will read.
    fn write_delivery(&mut self, writes: Writes, request: &DeliveryRequest, epoch: u64) -> Plan {
        let mut batch = Batch::default();
        // A mailbox is overrun before the message comes that it has no room for.
        let (first, then): (Vec<_>, Vec<_>) =
            writes.into_iter().partition(|(stream, _)| matches!(stream, StreamId::Mailbox(_)));
        for (stream, (expected, events)) in first.into_iter().chain(then) {
            let at = self.stream_at(&stream).map(|last| self.look.now.max(last));
            let at = match at.and_then(|at| self.evolve_working(&stream, &events, at).map(|()| at))
            {
                Ok(at) => at,
                Err(error) => return Plan::Deliver(None, Err(error.into())),
            };
            let events = events.into_iter().map(|(event, payload)| NewEvent {
                at,
                command: request.id,
                request: request.digest,
                event,
                payload,
            });
            batch.writes.push(StreamWrite { stream, expected, events: events.collect() });
        }
        let index = self.add(batch);
        Plan::Deliver(Some(index), Ok(Delivered { epoch, position: 0 }))
    }

    fn evolve_working(
        &mut self,
        stream: &StreamId,
        events: &[(Event, Vec<u8>)],
        at: keypool_ledger::Timestamp,
    ) -> Result<(), ExecuteError> {
        match stream {
            StreamId::Pool(pool) => {
                let mut view = self.pool_view(pool)?;
                let evolved = Arc::make_mut(&mut view);
                for (event, _) in events {
                    evolved.state.evolve(event, at).map_err(Rejection::from)?;
                }
                evolved.head.at = at;
                self.working.insert(pool.clone(), view);
            }
            StreamId::Group(group) => {
                let mut state = self.group_state(group);
                for (event, _) in events {
                    state.evolve(event);
                }
                self.groups.insert(group.clone(), (state, at));
            }
            StreamId::Mailbox(device) => {
                let mut state = self.mailbox_state(device);
                for (event, _) in events {
                    state.evolve(event);
                }
                self.mailboxes.insert(device.clone(), (state, at));
            }
            StreamId::Server => {}
        }
        Ok(())
    }

    fn stream_at(&self, stream: &StreamId) -> Result<keypool_ledger::Timestamp, ExecuteError> {
        let published = |views: &Views| match stream {
            StreamId::Pool(_) | StreamId::Server => None,
            StreamId::Group(group) => views.groups.get(group).map(|(_, at)| *at),
            StreamId::Mailbox(device) => views.mailboxes.get(device).map(|(_, at)| *at),
        };
        let working = match stream {
            StreamId::Pool(pool) => Some(self.pool_view(pool)?.head.at),
            StreamId::Group(group) => self.groups.get(group).map(|(_, at)| *at),
            StreamId::Mailbox(device) => self.mailboxes.get(device).map(|(_, at)| *at),
            StreamId::Server => None,
        };
        Ok(working.or_else(|| published(&self.shared.views())).unwrap_or_default())
    }

    fn group_state(&self, group: &GroupId) -> GroupState {
        let working = self.groups.get(group).map(|(state, _)| state.clone());
        working.unwrap_or_else(|| self.shared.group(group))
    }

    fn mailbox_state(&self, device: &PoolId) -> MailboxState {
        let working = self.mailboxes.get(device).map(|(state, _)| state.clone());
        working.unwrap_or_else(|| self.shared.mailbox(device))
    }
}

/// Answers a repeated command from what the log has recorded of the first one.
pub(super) fn recall_delivery(request: &DeliveryRequest, records: &[Record]) -> DeliveryOutcome {
    let mismatch = || ExecuteError::IdempotencyMismatch(request.id);
    let (Some(first), Some(last)) = (records.first(), records.last()) else {
        return Err(mismatch().into());
    };
    if first.envelope.request != request.digest {
        return Err(mismatch().into());
    }
    let epoch = records.iter().find_map(|record| match &record.envelope.event {
        Event::Committed { epoch, .. } => Some(epoch.saturating_add(1)),
        _ => None,
    });
    let conflict = records.iter().find_map(|record| match &record.envelope.event {
        Event::Conflict { keypackage_ref, lost, .. } => Some((keypackage_ref.clone(), *lost)),
        _ => None,
    });
    if let Some((keypackage_ref, lost)) = conflict {
        let rejection = Rejection::ReservationLost(lost);
        return Err(DeliverError::Spend { keypackage_ref, rejection });
    }
    Ok(Delivered { epoch: epoch.unwrap_or_default(), position: last.seq })
}

impl Views {
    /// Takes in a record of a group's or a mailbox's history.
    pub(super) fn take_in_delivery(&mut self, record: &Record) {
        let (event, at) = (&record.envelope.event, record.envelope.at);
        match &record.envelope.stream {
            StreamId::Pool(_) | StreamId::Server => {}
            StreamId::Group(group) => {
                let (state, last_at) = self.groups.entry(group.clone()).or_default();
                let waiting =
                    Waiting { position: record.seq, bytes: record.payload.len() as u64, at };
                let recipients = state.recipients(event);
                state.evolve(event);
                *last_at = at;
                self.changed.groups.insert(group.clone());
                for recipient in recipients {
                    self.changed.mailboxes.insert(recipient.clone());
                    self.mailboxes.entry(recipient).or_default().0.deliver(waiting);
                }
            }
            StreamId::Mailbox(device) => {
                let (state, last_at) = self.mailboxes.entry(device.clone()).or_default();
                state.evolve(event);
                *last_at = at;
                self.changed.mailboxes.insert(device.clone());
            }
        }
    }

    /// Takes in what another writer has added to a group's or a mailbox's history.
    pub(super) fn catch_up(
        &mut self,
        log: &impl EventLog,
        stream: &StreamId,
    ) -> Result<(), ReadError> {
        let version = match stream {
            StreamId::Pool(_) | StreamId::Server => return Ok(()),
            StreamId::Group(group) => self.groups.get(group).map(|(state, _)| state.version()),
            StreamId::Mailbox(device) => {
                self.mailboxes.get(device).map(|(state, _)| state.version())
            }
        };
        for record in log.read_stream(stream, version.unwrap_or_default(), usize::MAX)? {
            self.take_in_delivery(&record);
        }
        Ok(())
    }
}

impl<L> Shared<L> {
    pub(super) fn group(&self, group: &GroupId) -> GroupState {
        self.views().groups.get(group).map(|(state, _)| state.clone()).unwrap_or_default()
    }

    pub(super) fn mailbox(&self, device: &PoolId) -> MailboxState {
        self.views().mailboxes.get(device).map(|(state, _)| state.clone()).unwrap_or_default()
    }
}

impl<L: EventLog> Group<'_, L> {
    /// A pool as the commands before this one will leave it.
    pub(super) fn pool_view(&self, pool: &PoolId) -> Result<Arc<PoolView>, ExecuteError> {
        if let Some(working) = self.working.get(pool) {
            return Ok(Arc::clone(working));
        }
        Ok(self.shared.view(pool)?.unwrap_or_default())
    }
}
