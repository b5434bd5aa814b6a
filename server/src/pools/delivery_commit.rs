//! The delivery's share of a batch of commands: Commits with their Welcomes and the spending of their
//! packages as one batch, messages, acknowledgements.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use keypool_ledger::{
    Batch, Event, EventLog, GroupId, Key, KeyPackageRef, LeaveCause, NewEvent, PoolId, Record,
    StreamId, StreamWrite, WelcomeFault,
};
use keypool_projections::{
    Acknowledgement, Answer, Claim, Command, DeliveryRejection, GroupState, MailboxState,
    MembershipChange, Rejection, Touched,
};

use super::{
    ExecuteError, PoolView, Shared,
    batch::{CommandBatch, Plan},
    delivery_request::{DeliverError, Delivered, DeliveryCommand, DeliveryRequest, Welcome},
    idempotent_replay::recall_delivery,
    mailboxes::{Keeping, Writes, without_bytes},
    published::Views,
};

impl<L: EventLog> CommandBatch<'_, L> {
    /// Decides a command to the delivery.
    pub(super) fn deliver(&mut self, request: &DeliveryRequest) -> Plan {
        match self.try_deliver(request) {
            Ok(plan) => plan,
            Err(error) => Plan::Deliver(None, Err(error)),
        }
    }

    fn try_deliver(&mut self, request: &DeliveryRequest) -> Result<Plan, DeliverError> {
        let records = self.arrived(Key::Command(request.id)).map_err(ExecuteError::from)?;
        if !records.is_empty() {
            return Ok(Plan::Deliver(None, recall_delivery(request, &records)));
        }
        self.check_caller(&request.caller).map_err(ExecuteError::from)?;
        match &request.command {
            DeliveryCommand::Make { group } => {
                let state = self.group_state(group);
                let event = state.decide_make(group, &request.caller)?;
                let writes = one_write(StreamId::Group(group.clone()), state.version(), event);
                self.write_delivery(writes, request, Delivered::default())
            }
            DeliveryCommand::Commit { .. } => self.commit(request),
            DeliveryCommand::Post { group, message } => self.post(request, group, message),
            DeliveryCommand::Leave { group } => {
                let state = self.group_state(group);
                let events = state.decide_leave(&request.caller, LeaveCause::Left);
                let write = (state.version(), without_bytes(events));
                let writes = Writes::from([(StreamId::Group(group.clone()), write)]);
                self.write_delivery(writes, request, Delivered::default())
            }
            DeliveryCommand::Acknowledge(acknowledgement) => {
                self.acknowledge(request, acknowledgement)
            }
            DeliveryCommand::Await { invitees, stop } => {
                self.await_packages(request, invitees, stop)
            }
        }
    }

    /// An acknowledgement, with the answers to the invitations that it names.
    fn acknowledge(
        &mut self,
        request: &DeliveryRequest,
        acknowledgement: &Acknowledgement,
    ) -> Result<Plan, DeliverError> {
        let caller = &request.caller;
        let mailbox = self.mailbox_state(caller);
        let last = self.shared.log.head().map_err(ExecuteError::from)?.seq;
        let event = mailbox.decide_acknowledge(acknowledgement, last)?;
        let mut writes = Writes::new();
        let mailbox_write = (mailbox.version(), without_bytes(event.into_iter().collect()));
        writes.insert(StreamId::Mailbox(caller.clone()), mailbox_write);
        let mut answer = |group: &GroupId, fault: Option<WelcomeFault>| {
            let stream = StreamId::Group(group.clone());
            // The first word counts: a group has one answer of its device.
            if writes.contains_key(&stream) {
                return;
            }
            let (version, events) = self.with_group(group, |state| {
                let events = match fault {
                    None => state.decide_joined(caller).into_iter().collect(),
                    Some(reason) => state.decide_failed(caller, reason),
                };
                (state.version(), events)
            });
            writes.insert(stream, (version, without_bytes(events)));
        };
        acknowledgement.accepted.iter().for_each(|group| answer(group, None));
        acknowledgement.failed.iter().for_each(|(group, reason)| answer(group, Some(*reason)));
        self.write_delivery(writes, request, Delivered::default())
    }

    /// A message for the other members. One that nobody keeps is recorded without its bytes, as far as
    /// anything has changed or its sender must not notice.
    fn post(
        &mut self,
        request: &DeliveryRequest,
        group: &GroupId,
        message: &[u8],
    ) -> Result<Plan, DeliverError> {
        let state = self.group_state(group);
        let version = state.version();
        let event = state.decide_post(group, &request.caller)?;
        let (state, left) = self.without_ignored(group, &state, &request.caller);
        let mut writes = Writes::new();
        let (event, keeping) = self.kept(&mut writes, (group, &state), event, message.len());
        let Keeping { is_kept, is_blocked, not_kept } = keeping;
        let mut events = without_bytes(left);
        let is_refused = !not_kept.is_empty() && (!events.is_empty() || !writes.is_empty());
        if is_kept || is_blocked || is_refused {
            events.push((event, if is_kept { message.to_vec() } else { Vec::new() }));
        }
        let delivered = Delivered { epoch: state.epoch(), not_kept, ..Delivered::default() };
        if events.is_empty() {
            return Ok(Plan::Deliver(None, Ok(delivered)));
        }
        writes.insert(StreamId::Group(group.clone()), (version, events));
        self.write_delivery(writes, request, delivered)
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
        let limits = self.shared.delivery_limits;
        check_welcomes(welcomes, spends, limits.welcome_bytes_max)?;
        let state = self.group_state(group);
        // Whether the epoch is free is told before anything about packages.
        let nothing = MembershipChange::default();
        state.decide_commit(group, &request.caller, *epoch, &nothing, &limits)?;
        let (state, left) = self.without_ignored(group, &state, &request.caller);
        let mut writes = Writes::new();
        let mut owners: BTreeMap<&KeyPackageRef, PoolId> = BTreeMap::new();
        for claim in spends {
            match self.spend(group, claim, &owners, &mut writes)? {
                Ok(owner) => drop(owners.insert(&claim.keypackage_ref, owner)),
                Err((conflict, rejection)) => {
                    return self.refuse_commit(request, claim, conflict, rejection);
                }
            }
        }
        for (keypackage_ref, owner) in &owners {
            if state.has_member(owner) && !removed.contains(owner) {
                return Err(DeliveryRejection::MemberAlready(owner.clone()).into());
            }
            let mailbox = self.mailbox_state(owner);
            let is_contact =
                self.pool_view(owner)?.state.contacts().is_contact(request.caller.user());
            let by = (&request.caller, is_contact);
            let decided = mailbox.decide_invitation(owner, by, group, self.look.now, &limits);
            decided.map_err(|rejection| DeliverError::Invitee {
                keypackage_ref: (*keypackage_ref).clone(),
                rejection,
            })?;
            self.end_ignored(owner, group, &mut writes);
        }
        let added = owners.values().cloned().collect();
        let change = MembershipChange { added, removed: removed.clone() };
        let event = state.decide_commit(group, &request.caller, *epoch, &change, &limits)?;
        let (event, keeping) = self.kept(&mut writes, (group, &state), event, commit.len());
        let Keeping { is_kept, not_kept, .. } = keeping;
        let mut events = without_bytes(left);
        // Nothing is stored for nobody: a Commit in a group of one only counts the epoch.
        events.push((event, if is_kept { commit.clone() } else { Vec::new() }));
        for welcome in welcomes {
            let to = welcome.keypackage_refs.iter().filter_map(|r| owners.get(r).cloned());
            let by = Some(request.caller.clone());
            events.push((Event::Welcomed { to: to.collect(), by }, welcome.bytes.clone()));
        }
        let version = self.group_state(group).version();
        writes.insert(StreamId::Group(group.clone()), (version, events));
        let delivered =
            Delivered { epoch: epoch.saturating_add(1), not_kept, ..Delivered::default() };
        self.write_delivery(writes, request, delivered)
    }

    /// The group without the members that have not accepted it in time, and the events that say so. The
    /// caller accepts the group by this request.
    fn without_ignored(
        &self,
        group: &GroupId,
        state: &GroupState,
        caller: &PoolId,
    ) -> (GroupState, Vec<Event>) {
        let (now, limits) = (self.look.now, &self.shared.delivery_limits);
        let others = state.members().filter(|member| *member != caller);
        let ignored = others.filter(|member| {
            self.with_mailbox(member, |mailbox| mailbox.has_ignored(group, now, limits))
        });
        let left = ignored.flat_map(|member| state.decide_leave(member, LeaveCause::Ignored));
        let left: Vec<Event> = left.collect();
        let mut state = state.clone();
        for event in &left {
            state.evolve(event);
        }
        (state, left)
    }

    /// Ends a device's memberships in other groups that it has not accepted in time: one that stays away
    /// would be given ever more of them.
    fn end_ignored(&self, device: &PoolId, but: &GroupId, writes: &mut Writes) {
        let (now, limits) = (self.look.now, &self.shared.delivery_limits);
        let ignored: Vec<GroupId> = self.with_mailbox(device, |mailbox| {
            mailbox.ignored(now, limits).filter(|group| *group != but).cloned().collect()
        });
        for group in ignored {
            let state = self.group_state(&group);
            let left = state.decide_leave(device, LeaveCause::Ignored);
            if !left.is_empty() {
                let write = writes.entry(StreamId::Group(group));
                let (_, events) = write.or_insert_with(|| (state.version(), Vec::new()));
                events.extend(without_bytes(left));
            }
        }
    }

    /// Decides the spending of one package, and adds it to the writes. A refusal may bring the
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
        let uploaded = self.shared.uploaded(&claim.keypackage_ref).map_err(ExecuteError::from)?;
        let Some(pool) = uploaded.map(|package| package.pool) else {
            return Ok(Err((None, unknown())));
        };
        if owners.values().any(|owner| *owner == pool) {
            return Err(DeliveryRejection::SameDevice(pool).into());
        }
        if let Err(suspended) = self.check_invitee(&pool) {
            return Ok(Err((None, suspended)));
        }
        let command = Command::Spend { claim: claim.clone(), group: group.clone() };
        let view = self.prepared(&pool, &command)?;
        let decision = view.state.decide(&command, self.look.now, &self.limits);
        let stream = StreamId::Pool(pool.clone());
        let version = view.state.version();
        match decision.answer {
            // One spend adds a device once: what was spent before adds nobody.
            Ok(Answer::Spent { replayed: true, .. }) => {
                Ok(Err((None, Rejection::AlreadySpent(claim.keypackage_ref.clone()))))
            }
            // Another device has the name since: the Welcome is not for it.
            Ok(Answer::Spent { .. }) if !is_current(&view, &claim.keypackage_ref) => {
                Ok(Err((None, Rejection::Revoked(claim.keypackage_ref.clone()))))
            }
            Ok(Answer::Spent { .. }) => {
                let events = decision.events.into_iter().map(|event| (event, Vec::new()));
                writes.insert(stream, (version, events.collect()));
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
    ) -> Result<Plan, DeliverError> {
        let keypackage_ref = claim.keypackage_ref.clone();
        let refusal = Err(DeliverError::Spend { keypackage_ref, rejection });
        let Some((stream, version, event)) = conflict else {
            return Ok(Plan::Deliver(None, refusal));
        };
        let writes = one_write(stream, version, event);
        match self.write_delivery(writes, request, Delivered::default())? {
            Plan::Deliver(index, Ok(_)) => Ok(Plan::Deliver(index, refusal)),
            other => Ok(other),
        }
    }

    /// Adds a batch over several histories, and evolves the states that the commands after it read. Nothing
    /// is written if there is no event.
    pub(super) fn write_delivery(
        &mut self,
        mut writes: Writes,
        request: &DeliveryRequest,
        delivered: Delivered,
    ) -> Result<Plan, DeliverError> {
        writes.retain(|_, (_, events)| !events.is_empty());
        if writes.is_empty() {
            return Ok(Plan::Deliver(None, Ok(delivered)));
        }
        let mut batch = Batch::default();
        let at = self.look.now;
        // A mailbox is closed before the message comes that it has no room for.
        let (first, then): (Vec<_>, Vec<_>) =
            writes.into_iter().partition(|(stream, _)| matches!(stream, StreamId::Mailbox(_)));
        for (stream, (expected, events)) in first.into_iter().chain(then) {
            self.evolve_working(&stream, &events)?;
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
        Ok(Plan::Deliver(Some(index), Ok(delivered)))
    }

    fn evolve_working(
        &mut self,
        stream: &StreamId,
        events: &[(Event, Vec<u8>)],
    ) -> Result<(), ExecuteError> {
        if let StreamId::Pool(pool) = stream {
            let mut view = self.pool_view(pool)?;
            let evolved = Arc::make_mut(&mut view);
            for (event, _) in events {
                evolved.state.evolve(event, self.look.now).map_err(Rejection::from)?;
            }
            evolved.head.at = self.look.now;
            self.working.insert(pool.clone(), view);
        }
        for (event, bytes) in events {
            self.evolve_deliveries(stream, event, bytes.len());
        }
        Ok(())
    }

    pub(super) fn group_state(&self, group: &GroupId) -> GroupState {
        self.with_group(group, GroupState::clone)
    }

    pub(super) fn with_group<T>(&self, group: &GroupId, look: impl FnOnce(&GroupState) -> T) -> T {
        match self.deliveries.groups.get(group) {
            Some(working) => look(working),
            None => look(&self.shared.at_hand(group).unwrap_or_default()),
        }
    }
}

/// Whether a package is of the device that is registered now.
fn is_current(view: &PoolView, keypackage_ref: &KeyPackageRef) -> bool {
    view.state.get(keypackage_ref).is_some_and(|package| view.state.is_of_this_incarnation(package))
}

/// One event for one history.
fn one_write(stream: StreamId, version: u64, event: Event) -> Writes {
    Writes::from([(stream, (version, vec![(event, Vec::new())]))])
}

/// Checks that the Welcomes are for exactly the packages that are spent, and none is too large.
fn check_welcomes(
    welcomes: &[Welcome],
    spends: &[Claim],
    bytes_max: usize,
) -> Result<(), DeliveryRejection> {
    let named: BTreeSet<&KeyPackageRef> =
        welcomes.iter().flat_map(|welcome| &welcome.keypackage_refs).collect();
    let spent: BTreeSet<&KeyPackageRef> =
        spends.iter().map(|claim| &claim.keypackage_ref).collect();
    // Each package in one Welcome, and no Welcome for nobody.
    let count: usize = welcomes.iter().map(|welcome| welcome.keypackage_refs.len()).sum();
    let is_idle = welcomes.iter().any(|welcome| welcome.keypackage_refs.is_empty());
    if named != spent || spent.len() != spends.len() || count != spends.len() || is_idle {
        return Err(DeliveryRejection::WelcomeMismatch);
    }
    match welcomes.iter().map(|welcome| welcome.bytes.len()).max() {
        Some(bytes) if bytes_max < bytes => {
            Err(DeliveryRejection::WelcomeTooLarge { bytes, max: bytes_max })
        }
        _ => Ok(()),
    }
}

impl Views {
    /// Takes in a record that may concern groups and mailboxes: one of theirs, or a pool's.
    pub(super) fn apply_delivery(&mut self, record: &Record) {
        let bytes = record.payload.len() as u64;
        let Touched { groups, mailboxes, noted } =
            self.deliveries.evolve(record.seq, &record.envelope, bytes);
        self.changed.groups.extend(groups);
        self.changed.mailboxes.extend(mailboxes.iter().cloned().chain(noted));
        self.woken.extend(mailboxes);
    }
}

impl<L> Shared<L> {
    pub(super) fn group(&self, group: &GroupId) -> GroupState {
        self.at_hand(group).map(Arc::unwrap_or_clone).unwrap_or_default()
    }

    pub(super) fn mailbox(&self, device: &PoolId) -> MailboxState {
        self.at_hand(device).map(Arc::unwrap_or_clone).unwrap_or_default()
    }
}

impl<L: EventLog> CommandBatch<'_, L> {
    /// A pool as the commands before this one will leave it.
    pub(super) fn pool_view(&self, pool: &PoolId) -> Result<Arc<PoolView>, ExecuteError> {
        if let Some(working) = self.working.get(pool) {
            return Ok(Arc::clone(working));
        }
        Ok(self.shared.view(pool)?.unwrap_or_default())
    }
}
