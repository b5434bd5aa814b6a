//! Answers to repeated requests, from the records of the first one.
//!
//! An answer about one package is in its own records. Every other one needs the pool as it was, folded
//! from its whole history: one thread does that, for one request after the other, so that repetitions
//! take one core at most and no caller waits for them but those who repeat.

use std::{
    collections::HashMap,
    sync::{
        Arc, MutexGuard, PoisonError,
        mpsc::{Receiver, TrySendError},
    },
    thread::{self, JoinHandle},
};

use keypool_ledger::{
    Event, EventLog, KeyPackageRef, PoolId, Record, ReleaseReason, RevokeReason, log::find_package,
};
use keypool_projections::{Answer, Command, ItemOutcome, ItemRefusal, Limits, OnLapse, Rejection};
use tokio::sync::oneshot;

use super::{
    ExecuteError, ReplayError, Reply, Request, Shared, Target,
    delivery_request::{DeliverError, Delivered, DeliveryRequest},
    job::{CommandOutcome, DeliveryOutcome},
    loader::unreadable,
    published::replay_pool,
};

/// How many repeated requests wait for their answers.
pub(super) const REPEATS_MAX: usize = 256;
/// How many of them are of one asker.
const REPEATS_OF_ONE_MAX: usize = 4;

/// A request that was carried out before, and its records.
pub(super) struct Repeat {
    pub(super) request: Box<Request>,
    pub(super) records: Vec<Record>,
    pub(super) sender: oneshot::Sender<CommandOutcome>,
}

impl Repeat {
    /// The device that asks: the inviter, or the owner of the pool.
    fn asker(&self) -> Option<PoolId> {
        match (&self.request.command, &self.request.target) {
            (Command::Reserve { holder, .. }, _) => Some(holder.clone()),
            (
                Command::Renew(claim)
                | Command::Release(claim)
                | Command::Report { claim, .. }
                | Command::Spend { claim, .. },
                _,
            ) => Some(claim.holder.clone()),
            (_, Target::Pool(pool)) => Some(pool.clone()),
            _ => None,
        }
    }
}

/// Starts the thread that answers repeated requests, until nobody can send any.
pub(super) fn start_repeating<L: EventLog + 'static>(
    shared: Arc<Shared<L>>,
    repeats: Receiver<Repeat>,
) -> Result<JoinHandle<()>, ReplayError> {
    let work = move || {
        for repeat in repeats {
            shared.answer_repeat(repeat);
        }
    };
    let thread = thread::Builder::new().name("keypool-repeats".to_owned()).spawn(work);
    thread.map_err(ReplayError::Thread)
}

impl<L> Shared<L> {
    /// Has a repeated request answered, or refuses it if too many wait.
    pub(super) fn repeat(&self, repeat: Repeat) {
        let asker = repeat.asker();
        if !self.note_repeat(asker.clone()) {
            return drop(repeat.sender.send(Err(ExecuteError::Busy)));
        }
        let repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // A caller whose sender is dropped learns that the pools are closed.
        let refused = repeats.and_then(|repeats| repeats.try_send(repeat).err());
        if let Some(refused) = refused {
            self.forget_repeat(asker);
            if let TrySendError::Full(repeat) = refused {
                drop(repeat.sender.send(Err(ExecuteError::Busy)));
            }
        }
    }

    /// Counts a repeated request; false if as many of this asker wait as may.
    fn note_repeat(&self, asker: Option<PoolId>) -> bool {
        let mut repeating = self.repeating();
        let of_asker = repeating.entry(asker).or_default();
        let may = *of_asker < REPEATS_OF_ONE_MAX;
        *of_asker += usize::from(may);
        may
    }

    fn forget_repeat(&self, asker: Option<PoolId>) {
        let mut repeating = self.repeating();
        let left = repeating.remove(&asker).unwrap_or_default().saturating_sub(1);
        if 0 < left {
            repeating.insert(asker, left);
        }
    }

    fn repeating(&self) -> MutexGuard<'_, HashMap<Option<PoolId>, usize>> {
        self.repeating.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: EventLog> Shared<L> {
    /// Answers a repeated request from its records and the pool before them.
    pub(super) fn answer_repeat(&self, repeat: Repeat) {
        let outcome = recall(self, &repeat.request, &repeat.records);
        self.forget_repeat(repeat.asker());
        // The caller may have gone.
        let _ = repeat.sender.send(outcome);
    }

    /// Answers a repeated request from its own records, if they say it all.
    pub(super) fn recorded_reply(
        &self,
        request: &Request,
        records: &[Record],
    ) -> Result<Option<Reply>, ExecuteError> {
        let (first, pool) = first_of(request, records)?;
        let Some(answer) = recorded(&self.log, &request.command, &events_of(records))? else {
            return Ok(None);
        };
        let view = self.view(&pool)?.unwrap_or_default();
        let (after, limits) = ((view, first.envelope.at), self.limits_now());
        let position = records.last().unwrap_or(first).seq;
        Ok(Some(Reply { pool, answer: answer?, position, repeated: true, after, limits }))
    }
}

/// The first record of a request and its pool, if they are of this request.
fn first_of<'a>(
    request: &Request,
    records: &'a [Record],
) -> Result<(&'a Record, PoolId), ExecuteError> {
    let mismatch = || ExecuteError::IdempotencyMismatch(request.id);
    let first = records.first().ok_or_else(mismatch)?;
    let mut pool = first.envelope.stream.pool().cloned().ok_or_else(mismatch)?;
    // A recovery removes other devices first.
    if let (Command::Recover { .. }, Target::Pool(target)) = (&request.command, &request.target) {
        pool.clone_from(target);
    }
    let is_same = first.envelope.request == request.digest;
    if is_same { Ok((first, pool)) } else { Err(mismatch()) }
}

fn events_of(records: &[Record]) -> Vec<&Event> {
    records.iter().map(|record| &record.envelope.event).collect()
}

/// Answers a repeated request as the first one was answered, from its records.
pub(super) fn recall<L: EventLog>(
    shared: &Shared<L>,
    request: &Request,
    records: &[Record],
) -> CommandOutcome {
    let (first, pool) = first_of(request, records)?;
    let at = first.envelope.at;
    let events = events_of(records);
    let mut before =
        replay_pool(&shared.log, &pool, first.envelope.version - 1).map_err(unreadable)?;
    // What time had done is recorded first; the command was decided on the pool as that left it.
    let (settled, own) = records.split_at(records.iter().take_while(|r| is_settling(r)).count());
    for record in settled {
        before.apply(record).map_err(unreadable)?;
    }
    let mut after = before.clone();
    for record in own {
        after.apply(record).map_err(unreadable)?;
    }
    // What time had done by then is recorded and folded: no other reservation had lapsed, though the clock may have
    // been set back since. No package that was not retired then is retired now, because the server has become
    // stricter since.
    let now = shared.limits_now();
    let then = Limits { lapse_floor: now.lapse_floor.max(at), ..now };
    let limits = Limits { on_lapse: OnLapse::Requeue, ..then };
    let answer = before.state.decide(&request.command, at, &limits).answer;
    let answer = with_recorded_uploads(answer?, &events);
    let position = after.position;
    Ok(Reply { pool, answer, position, repeated: true, after: (Arc::new(after), at), limits: then })
}

/// Whether a record is an effect of time and not of a command.
fn is_settling(record: &Record) -> bool {
    matches!(
        record.envelope.event,
        Event::Released { reason: ReleaseReason::Lapsed, .. }
            | Event::Revoked { reason: RevokeReason::Lapsed, .. }
            | Event::Expired { .. }
    )
}

/// The answer that follows from a command's events alone, independent of today's limits.
fn recorded(
    log: &impl EventLog,
    command: &Command,
    events: &[&Event],
) -> Result<Option<Result<Answer, Rejection>>, ExecuteError> {
    if let Some(made) = events.iter().find(|event| matches!(event, Event::Reserved { .. })) {
        return recorded_reservation(log, command, made);
    }
    Ok(events.iter().find_map(|event| match (command, event) {
        (Command::Renew(_), Event::Renewed { deadline, .. }) => {
            Some(Ok(Answer::Renewed { deadline: *deadline }))
        }
        (Command::Spend { .. }, Event::Spent { late, .. }) => {
            Some(Ok(Answer::Spent { late: *late, replayed: false }))
        }
        (Command::Spend { .. }, Event::Conflict { lost, .. }) => {
            Some(Err(Rejection::ReservationLost(*lost)))
        }
        (
            Command::Register { .. } | Command::Admit { .. } | Command::Recover { .. },
            Event::Registered { .. },
        )
        | (Command::Rotate { .. }, Event::KeyRotated { .. }) => {
            Some(Ok(Answer::Registered { known: false }))
        }
        (Command::Remove { .. }, Event::DeviceRemoved { .. })
        | (Command::ReleaseName, Event::NameReleased {}) => Some(Ok(Answer::Removed)),
        (Command::DeclareLeafKey { .. }, Event::LeafKeyPinned { .. })
        | (Command::DeclareCredential { .. }, Event::CredentialDeclared { .. })
        | (Command::SetRecoveryKey { .. }, Event::RecoveryKeySet { .. }) => {
            Some(Ok(Answer::Declared))
        }
        (Command::Release(_), Event::Released { reason: ReleaseReason::Cancelled, .. }) => {
            Some(Ok(Answer::Released))
        }
        (Command::Report { .. }, Event::Released { reason: ReleaseReason::Cancelled, .. }) => {
            Some(Ok(Answer::Reported))
        }
        _ => None,
    }))
}

fn recorded_reservation(
    log: &impl EventLog,
    command: &Command,
    made: &Event,
) -> Result<Option<Result<Answer, Rejection>>, ExecuteError> {
    let (
        Command::Reserve { reservation: asked, .. },
        Event::Reserved { keypackage_ref, reservation, generation, deadline, .. },
    ) = (command, made)
    else {
        return Ok(None);
    };
    let uploaded = find_package(log, keypackage_ref)?.map(|record| record.envelope.event);
    let Some(Event::Uploaded(facts)) = uploaded.filter(|_| asked == reservation) else {
        return Ok(None);
    };
    let (reservation, generation, deadline) = (*reservation, *generation, *deadline);
    Ok(Some(Ok(Answer::Reserved { facts, reservation, generation, deadline })))
}

/// Tells of each package as the log has it: stored if it was taken in, independent of today's limits.
fn with_recorded_uploads(answer: Answer, events: &[&Event]) -> Answer {
    let taken = |sought: &KeyPackageRef| {
        events
            .iter()
            .any(|event| matches!(event, Event::Uploaded(facts) if facts.keypackage_ref == *sought))
    };
    let as_recorded = |outcome: ItemOutcome| match outcome {
        ItemOutcome::Refused(refused, _) if taken(&refused) => ItemOutcome::Stored(refused),
        ItemOutcome::Stored(stored) if !taken(&stored) => {
            // Only the cap is a matter of settings: there was no room for it then.
            ItemOutcome::Refused(stored, ItemRefusal::PoolFull)
        }
        other => other,
    };
    match answer {
        Answer::Uploaded(outcomes) => {
            Answer::Uploaded(outcomes.into_iter().map(as_recorded).collect())
        }
        Answer::Replaced { outcomes, .. } => {
            let outcomes = outcomes.into_iter().map(as_recorded).collect();
            Answer::Replaced { outcomes, revoked: rotated(events) }
        }
        other => other,
    }
}

/// The packages that were withdrawn for others.
fn rotated(events: &[&Event]) -> Vec<KeyPackageRef> {
    let withdrawn = |event: &&Event| match event {
        Event::Revoked { keypackage_ref, reason: RevokeReason::Rotated, .. } => {
            Some(keypackage_ref.clone())
        }
        _ => None,
    };
    events.iter().filter_map(withdrawn).collect()
}

/// Answers a repeated command to the delivery from the records of the first one.
pub(super) fn recall_delivery(request: &DeliveryRequest, records: &[Record]) -> DeliveryOutcome {
    let mismatch = || ExecuteError::IdempotencyMismatch(request.id);
    let (Some(first), Some(last)) = (records.first(), records.last()) else {
        return Err(mismatch().into());
    };
    if first.envelope.request != request.digest {
        return Err(mismatch().into());
    }
    let (mut epoch, mut not_kept) = (0, Vec::new());
    for record in records {
        match &record.envelope.event {
            Event::Committed { epoch: ended, not_kept: missing, .. } => {
                epoch = ended.saturating_add(1);
                not_kept.clone_from(missing);
            }
            Event::Posted { not_kept: missing, .. } => not_kept.clone_from(missing),
            _ => {}
        }
    }
    let conflict = records.iter().find_map(|record| match &record.envelope.event {
        Event::Conflict { keypackage_ref, lost, .. } => Some((keypackage_ref.clone(), *lost)),
        _ => None,
    });
    if let Some((keypackage_ref, lost)) = conflict {
        let rejection = Rejection::ReservationLost(lost);
        return Err(DeliverError::Spend { keypackage_ref, rejection });
    }
    Ok(Delivered { epoch, position: last.seq, not_kept, repeated: true })
}
