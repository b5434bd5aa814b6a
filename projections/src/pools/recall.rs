//! Answers to repeated requests, from what the log has recorded of the first one.

use std::sync::Arc;

use keypool_ledger::{Event, EventLog, KeyPackageRef, Record, ReleaseReason, RevokeReason};

use super::{
    ExecuteError, Reply, Request, Shared, committer::Outcome, loading::unreadable,
    views::replay_pool,
};
use crate::{
    command::{Answer, Command, ItemOutcome, ItemRefusal, Limits, OnLapse, Rejection},
    pool::PoolState,
};

/// Answers a repeated request as the first one was answered, from what the log has recorded of it.
pub(super) fn recall<L: EventLog>(
    shared: &Shared<L>,
    request: &Request,
    records: &[Record],
) -> Outcome {
    let mismatch = || ExecuteError::IdempotencyMismatch(request.id);
    let first = records.first().ok_or_else(mismatch)?;
    let pool = first.envelope.stream.pool().cloned().ok_or_else(mismatch)?;
    if first.envelope.request != request.digest {
        return Err(mismatch());
    }
    let mut before =
        replay_pool(&shared.log, &pool, first.envelope.version - 1).map_err(unreadable)?;
    // What time had done is recorded first; the command was decided on the pool as that left it.
    let (settled, own) = records.split_at(records.iter().take_while(|r| is_settling(r)).count());
    for record in settled {
        before.take_in(record).map_err(unreadable)?;
    }
    let mut after = before.clone();
    for record in own {
        after.take_in(record).map_err(unreadable)?;
    }
    let at = first.envelope.at;
    let events: Vec<&Event> = records.iter().map(|record| &record.envelope.event).collect();
    let answer = recorded(&request.command, &events, &after.state).unwrap_or_else(|| {
        // What time had done by then is recorded and folded. No package that was not retired then is
        // retired now, because the server has become stricter since.
        let limits = Limits { on_lapse: OnLapse::Requeue, ..shared.limits_now() };
        before.state.decide(&request.command, at, &limits).answer
    });
    let answer = with_recorded_uploads(answer?, &events);
    let (position, limits) = (after.position, shared.limits_now());
    Ok(Reply { pool, answer, position, repeated: true, after: (Arc::new(after), at), limits })
}

/// Whether a record says what time has done, not what a command wanted.
fn is_settling(record: &Record) -> bool {
    matches!(
        record.envelope.event,
        Event::Released { reason: ReleaseReason::Lapsed, .. }
            | Event::Revoked { reason: RevokeReason::Lapsed, .. }
            | Event::Expired { .. }
    )
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
        (Command::Register { .. } | Command::Admit { .. }, Event::Registered { .. })
        | (Command::Rotate { .. }, Event::KeyRotated { .. }) => {
            Some(Ok(Answer::Registered { known: false }))
        }
        (Command::Remove { .. }, Event::DeviceRemoved {}) => Some(Ok(Answer::Removed)),
        (Command::Release(_), Event::Released { reason: ReleaseReason::Cancelled, .. }) => {
            Some(Ok(Answer::Released))
        }
        (Command::Report { .. }, Event::Released { reason: ReleaseReason::Cancelled, .. }) => {
            Some(Ok(Answer::Reported))
        }
        _ => None,
    })
}

/// What the log has taken in was stored and nothing else, whatever the limits say today.
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
