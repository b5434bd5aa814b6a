//! The mirror of the server's history of the pool: fetched, verified, and applied to the device's own packages.

use keypool_api::EventView;
use keypool_ledger::{Event, EventEnvelope, RevokeReason, Timestamp};

use super::{
    checkpoints::{excuse_awaited, note_fetched, note_spent},
    copies, drift,
};
use crate::{
    ExchangeError, MlsConnection, Staged, StorageError,
    mls::keypackage_pool::{
        ServerStatus, note_used, record_revoked, record_server_status, record_uploaded,
    },
    storage::kept_form,
};

/// How many events are fetched at a time.
const PAGE: u64 = 500;

impl<D> MlsConnection<D> {
    /// Fetches the new events of the server's history, verifies that they continue the mirror, and
    /// applies them to packages whose upload was not answered, or that were withdrawn.
    ///
    /// The last known event is fetched once more, so that a server that was set back to an older log
    /// is noticed. Returns how many events were new.
    ///
    /// # Errors
    ///
    /// Returns an [`ExchangeError`]; it holds [`StorageError::MirrorRefused`] if the server tells
    /// another history than before, or less of it, or one that no pool can have.
    pub async fn fetch_history(&self, now: Timestamp) -> Result<usize, ExchangeError> {
        self.take_history(None, now).await
    }

    /// As [`MlsConnection::fetch_history`]; the server's statement of the pool beside it is stored with
    /// the end of it, in the same write.
    pub(in crate::mls) async fn take_history(
        &self,
        told: Option<ServerStatus>,
        now: Timestamp,
    ) -> Result<usize, ExchangeError> {
        let (mut count, own) = (0, self.store().history_head().version);
        loop {
            let known = self.store().mirror_head().version;
            let reply = self.api().events(known.saturating_sub(1), PAGE).await?;
            if 0 < known && reply.events.is_empty() {
                return Err(self.note_refusal(history_truncated(known), None, now)?.into());
            }
            let kept = |view: EventView| kept_form(view.envelope.0, &view.event);
            let records: Vec<Vec<u8>> =
                reply.events.into_iter().map(kept).collect::<Result<_, _>>()?;
            let staged = self.store().stage()?;
            let new = match staged.extend_mirror(&records) {
                Ok(new) => new,
                Err(error) => {
                    drop(staged);
                    return Err(self.note_refusal(error, Some(&records), now)?.into());
                }
            };
            for envelope in &new {
                apply_event(&staged, envelope, now)?;
            }
            note_spent(&staged, &new, now)?;
            let is_end = !reply.more || new.is_empty();
            if is_end {
                note_fetched(&staged, own, known.saturating_add(new.len() as u64))?;
                if drift::is_older_home(&staged)? {
                    excuse_awaited(&staged)?;
                }
                told.as_ref().map_or(Ok(()), |told| record_server_status(&staged, told))?;
            }
            staged.commit()?;
            count += new.len();
            if is_end {
                return Ok(count);
            }
        }
    }
}

/// Applies an event of the server to an own package, as part of the operation that mirrors
/// it.
pub(super) fn apply_event(
    staged: &Staged<'_>,
    envelope: &EventEnvelope,
    now: Timestamp,
) -> Result<(), StorageError> {
    let Some(keypackage_ref) = envelope.event.keypackage_ref() else { return Ok(()) };
    if staged.package(keypackage_ref).is_none() {
        // Uploaded by another copy of this home, or before it was restored from a backup: its keys are not here.
        if matches!(envelope.event, Event::Uploaded(_)) {
            drift::note_older_home(staged)?;
            copies::note_active(staged, envelope.at)?;
        }
        return Ok(());
    }
    let refs = std::slice::from_ref(keypackage_ref);
    match &envelope.event {
        Event::Uploaded(_) => drop(record_uploaded(staged, refs, now, envelope.command)?),
        Event::Spent { .. } => note_used(staged, keypackage_ref, now)?,
        Event::Revoked { reason, .. } => {
            let is_live = staged.package(keypackage_ref).is_some_and(|own| own.stage.is_live());
            if is_live && *reason == RevokeReason::Withdrawn {
                copies::note_withdrawal(staged, envelope.command)?;
            }
            record_revoked(staged, refs, *reason, (now, envelope.command))?;
        }
        _ => {}
    }
    Ok(())
}

/// The error for a history that is shorter than its mirror.
pub(super) fn history_truncated(known: u64) -> StorageError {
    let why = "it is not there any more, the server's history is shorter than before".to_owned();
    StorageError::MirrorRefused { version: known, why }
}
