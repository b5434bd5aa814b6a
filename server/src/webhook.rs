//! Posts events to the app's backend, which wakes phones: mail and invitations of devices that are away.
//!
//! A follower reads the log behind the committer, computes the events that are due, and posts them in order
//! until the backend has them. The position up to which it has all of them is a file beside the log, so that
//! a start after a crash goes on there. Nothing is written to the log.

mod due_events;

mod receiver;

mod url;

use std::{
    error::Error,
    future::ready,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use actix_rt::{task::JoinHandle, time::sleep};
use actix_web::web::{self, Data};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use self::due_events::DueEvents;
pub(crate) use self::receiver::Receiver;
pub use self::url::{WebhookUrl, WebhookUrlError};
use crate::{
    backup::WEBHOOK_FILE,
    state::State,
    transparency::{Durable, LedgerError},
};

/// Time between two looks at devices that left, and between two stores of the position.
const TICK: Duration = Duration::from_secs(1);
/// The pauses after a request that failed, the first and the longest; up to as much again is added at random.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// The follower that posts events.
pub(crate) struct Webhook {
    receiver: Receiver,
    state: Data<State>,
    due_events: DueEvents,
    place: Durable,
    stored: u64,
    /// The pauses after the failures since the last request that succeeded; `None` if there are none.
    pauses: Option<ExponentialBackoff>,
    is_unstored: bool,
}

impl Webhook {
    /// Reads the position at which it goes on. Without one it begins at the end of the log; with a damaged one
    /// at the first record, where events that are not due any more are left out.
    ///
    /// # Errors
    ///
    /// Returns a [`LedgerError`] if the file cannot be read or written.
    pub(crate) fn open(
        receiver: Receiver,
        state: Data<State>,
        data: &Path,
    ) -> Result<Self, LedgerError> {
        let place = Durable::at(&position_file(data));
        let end = published(&state);
        let stored = match place.load()?.map(|text| text.trim().parse::<u64>()) {
            // A log that is shorter is an older copy of the data: the operator has accepted that.
            Some(Ok(position)) => position.min(end),
            Some(Err(_)) => {
                let file = place.path().display();
                tracing::warn!(%file, "the webhook's position is damaged; it begins at the first record");
                0
            }
            None => end,
        };
        place.store(&format!("{stored}\n"))?;
        let (due_events, pauses) = (DueEvents::after(stored), None);
        Ok(Self { receiver, state, due_events, place, stored, pauses, is_unstored: false })
    }

    /// Starts to post events, until the server stops.
    pub(crate) fn start(self) -> JoinHandle<()> {
        actix_rt::spawn(self.run())
    }

    async fn run(mut self) {
        let Some(mut written) = self.state.store.get().map(|store| store.pools().written()) else {
            return;
        };
        let mut stopping = self.state.stopping.subscribe();
        let mut tick = pin!(sleep(TICK));
        while !*stopping.borrow() {
            written.mark_unchanged();
            tokio::select! {
                biased;
                () = &mut tick => {
                    self.tick();
                    tick.set(sleep(TICK));
                }
                () = ready(()) => {}
            }
            let Some(filled) = self.filled().await else { return };
            self = filled;
            if self.due_events.batch().is_empty() {
                // Records are to be read, mail to be looked at, or the position to be stored.
                let is_due = self.stored != published(&self.state);
                tokio::select! {
                    _ = stopping.wait_for(|stopping| *stopping) => {}
                    changed = written.changed() => if changed.is_err() { break },
                    () = &mut tick, if is_due => {}
                }
                continue;
            }
            let pause = tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => continue,
                pause = self.post() => pause,
            };
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => {}
                () = sleep(pause) => {}
            }
        }
        self.store_position();
    }

    /// Takes in the log's records on a thread that may block; `None` if the server is stopping.
    async fn filled(mut self) -> Option<Self> {
        let filled = web::block(move || {
            let outcome = match self.state.store.get() {
                Some(store) => self.due_events.fill(store.pools()),
                None => Ok(()),
            };
            (self, outcome)
        });
        let (filled, outcome) = filled.await.ok()?;
        if let Err(error) = outcome {
            let error: &dyn Error = &error;
            tracing::error!(error, "the webhook cannot read the log; it is tried again");
        }
        filled.note_lag();
        Some(filled)
    }

    /// Posts the first events, and returns the time to wait before the next request.
    async fn post(&mut self) -> Duration {
        let Some(ledger) = self.state.ledger.get() else { return TICK };
        let events = self.due_events.batch();
        let count = events.len();
        let posted = self.receiver.post(events, ledger, self.state.clock.now()).await;
        let url = self.receiver.url();
        let Err(error) = posted else {
            if self.pauses.take().is_some() {
                tracing::info!(%url, "the webhook is received again");
            }
            self.due_events.delivered(count);
            self.state.metrics.webhook_delivered(count as u64);
            self.note_lag();
            return Duration::ZERO;
        };
        self.state.metrics.webhook_failed();
        if self.pauses.is_none() {
            let cause = error.source().map(ToString::to_string);
            tracing::warn!(%url, %error, cause, "the webhook is not received; it is tried again");
        }
        let (first, longest) = PAUSES;
        let usual = ExponentialBuilder::default().with_min_delay(first).with_max_delay(longest);
        let pauses = || usual.with_jitter().without_max_times().build();
        self.pauses.get_or_insert_with(pauses).next().unwrap_or(longest)
    }

    fn tick(&mut self) {
        if let Some(store) = self.state.store.get() {
            self.due_events.look_at_unread(store.pools());
        }
        self.store_position();
    }

    /// Stores the position up to which the backend has every event.
    fn store_position(&mut self) {
        let settled = self.due_events.settled();
        if settled == self.stored {
            return;
        }
        match self.place.store(&format!("{settled}\n")) {
            Ok(()) => {
                self.stored = settled;
                self.is_unstored = false;
            }
            Err(error) if !self.is_unstored => {
                self.is_unstored = true;
                let error: &dyn Error = &error;
                tracing::warn!(
                    error,
                    "the webhook's position is not stored; a start repeats events"
                );
            }
            Err(_) => {}
        }
    }

    fn note_lag(&self) {
        let lag = published(&self.state).saturating_sub(self.due_events.settled());
        self.state.metrics.webhook_lag(lag);
    }
}

fn published(state: &State) -> u64 {
    state.store.get().map_or(0, |store| store.pools().published())
}

/// The file with the position up to which the backend has every event.
fn position_file(data: &Path) -> PathBuf {
    data.join(WEBHOOK_FILE)
}
