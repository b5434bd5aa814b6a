//! The server's own history in the log: the settings it ran with, and the clock that was accepted after a
//! leap.

use std::{mem, sync::atomic::Ordering};

use keypool_ledger::{
    AppendError, Appended, Batch, Event, EventLog, LogHead, NewEvent, PoolId, StreamId,
    StreamWrite, Timestamp,
};
use keypool_projections::Limits;
use tokio::sync::oneshot;

use super::{
    ExecuteError, Pools, ReplayError, Shared,
    api::derived_id,
    clock_guard::ClockState,
    committer::{Committer, meaning_of},
    job::{Job, Work},
};

/// Appends an event to the server's history, if the log still ends where that was decided. The event's id
/// follows from its content, so that the same history and the same clock give the same bytes.
pub(super) fn append(
    log: &impl EventLog,
    decided_at: LogHead,
    at: Timestamp,
    event: Event,
) -> Result<Appended, AppendError> {
    let unreadable = |error| AppendError::NotWritten(Box::new(error));
    let expected = log.stream_head(&StreamId::Server).map_err(unreadable)?.version;
    let (command, request) = derived_id(&format!("server {expected} {} {event:?}", at.as_millis()));
    let event = NewEvent { at, command, request, event, payload: Vec::new() };
    let write = StreamWrite { stream: StreamId::Server, expected, events: vec![event] };
    let results = log.append(decided_at, vec![Batch { writes: vec![write] }]);
    let unanswered = || Err(AppendError::Unknown("the log did not answer".into()));
    results.into_iter().next().unwrap_or_else(unanswered)
}

impl<L: EventLog> Committer<L> {
    /// Accepts a clock that is not trusted, if the operator or enough devices say so, and records it.
    /// Returns whether it did.
    pub(super) fn accept_clock(&self, by_operator: bool) -> Result<bool, ExecuteError> {
        let shared = self.shared();
        let (decided_at, reading) = (shared.published(), shared.reading());
        let registered = shared.views().directory.registered();
        let acceptance = shared.clock_guard().acceptance(reading, by_operator, registered);
        let Some(event @ Event::ClockAccepted { from, to }) = acceptance else { return Ok(false) };
        let result = append(&shared.log, decided_at, to, event);
        self.note(&result);
        let appended = result.map_err(|error| meaning_of(&error))?;
        tracing::warn!(%from, %to, by_operator, "the server's clock was accepted");
        shared.clock_guard().accept(to, reading);
        shared.publish_server_events(&appended);
        Ok(true)
    }

    /// Records the settings if the log took no events at the start: nothing that was decided by them stands
    /// in front of them.
    pub(super) fn record_due_settings(&self) -> Result<(), AppendError> {
        let shared = self.shared();
        if !shared.settings_due.load(Ordering::Relaxed) {
            return Ok(());
        }
        let result = shared.append_settings(shared.published());
        self.note(&result);
        result?;
        shared.settings_due.store(false, Ordering::Relaxed);
        Ok(())
    }
}

impl<L: EventLog> Shared<L> {
    /// Records the settings that rules depend on, if they are not those that were recorded last. A log in
    /// which none are recorded was written with the defaults.
    pub(super) fn record_settings(&self) -> Result<(), ReplayError> {
        let decided_at = self.published();
        let history = self.log.read_stream(&StreamId::Server, 0, usize::MAX)?;
        let recorded = history.iter().rev().find_map(|record| match &record.envelope.event {
            Event::Configured(settings) => Some(*settings),
            _ => None,
        });
        if self.limits.recorded() == recorded.unwrap_or_else(|| Limits::STANDARD.recorded()) {
            return Ok(());
        }
        match self.append_settings(decided_at) {
            Ok(_) => Ok(()),
            // Another server has the log open too: recorded when its records are known.
            Err(AppendError::Conflict(_)) => {
                self.settings_due.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(error @ AppendError::NotWritten(_)) => {
                self.settings_due.store(true, Ordering::Relaxed);
                self.note_refusal(Some(&error));
                Ok(())
            }
            Err(error) => Err(ReplayError::Append(error)),
        }
    }

    fn append_settings(&self, decided_at: LogHead) -> Result<Appended, AppendError> {
        let now = self.clock_guard().observe(self.reading()).now;
        let appended =
            append(&self.log, decided_at, now, Event::Configured(self.limits.recorded()))?;
        self.publish_server_events(&appended);
        Ok(appended)
    }
}

impl<L> Shared<L> {
    pub(super) fn publish_server_events(&self, appended: &Appended) {
        for record in &appended.records {
            let mut views = self.views_mut();
            views.changed.through = record.seq;
            views.changed.note_time(&record.envelope);
            views.note_suspension(record);
            let woken = mem::take(&mut views.woken);
            drop(views);
            self.listeners.wake(&woken);
            self.written.send_replace(record.seq);
        }
    }
}

impl<L: EventLog + 'static> Pools<L> {
    /// The state of the machine's clock, for readiness and the log.
    #[must_use]
    pub fn clock_state(&self) -> ClockState {
        self.shared.clock_guard().state(self.shared.reading())
    }

    /// Hears the time that a registered device has signed: a second opinion while the machine's clock is
    /// not trusted. That the signature is right is for the caller to check; whether the time is, is not.
    pub fn hear_time(&self, device: &PoolId, signed: Timestamp) {
        if !self.shared.clock_in_doubt.load(Ordering::Relaxed) {
            return;
        }
        self.shared.clock_guard().hear(device, signed, self.shared.reading());
    }

    /// Accepts the machine's clock by the operator's word, if it has leapt or regressed. Returns whether it
    /// had. The log's time goes on from the clock, forward or back, and the change is recorded.
    ///
    /// # Errors
    ///
    /// Returns an [`ExecuteError`] if the log does not take events.
    pub async fn accept_clock(&self) -> Result<bool, ExecuteError> {
        let (sender, answer) = oneshot::channel();
        self.enqueue(Job::new(Work::AcceptClock(sender), 0))?;
        answer.await.unwrap_or(Err(ExecuteError::LogUnavailable))
    }
}
