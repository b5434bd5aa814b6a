//! Long polls of the mailbox, with a growing pause while the server does not answer.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use keypool_client::{MailboxEvent, MlsClient, ServerDelivery, SyncError};
use tokio::sync::Notify;

use super::backoff::Backoff;

/// How long the server is asked to wait for something to come, in seconds.
const WAIT_S: u64 = 25;
/// The longest pause between attempts to ask.
const PAUSE_MAX: Duration = Duration::from_secs(8);

type PollOutcome = Result<Vec<MailboxEvent>, SyncError>;

/// The mailbox, being asked. It goes on while something else is done if it is driven by
/// [`MailboxPoller::alongside`].
pub(super) struct MailboxPoller<'a> {
    client: &'a MlsClient<ServerDelivery>,
    asking: Pin<Box<dyn Future<Output = PollOutcome> + 'a>>,
    outcome: Option<PollOutcome>,
    /// The pause after the next failure.
    pause: Backoff,
    is_failing: bool,
    /// Signaled when the server answers after a failure.
    back: Arc<Notify>,
}

impl<'a> MailboxPoller<'a> {
    /// Begins to ask. The first answer comes at once.
    pub(super) fn new(client: &'a MlsClient<ServerDelivery>) -> Self {
        let asking = Box::pin(client.sync(0));
        let (pause, back) = (Backoff::up_to(PAUSE_MAX), Arc::default());
        Self { client, asking, outcome: None, pause, is_failing: false, back }
    }

    /// Returns the signal that the server answers after a failure.
    pub(super) fn back(&self) -> Arc<Notify> {
        Arc::clone(&self.back)
    }

    /// Returns the next events, or the error if the server could not be asked. Cancelling this loses
    /// nothing.
    pub(super) async fn next(&mut self) -> PollOutcome {
        let outcome = match self.outcome.take() {
            Some(outcome) => outcome,
            None => self.asking.as_mut().await,
        };
        let client = self.client;
        if outcome.is_ok() {
            if std::mem::take(&mut self.is_failing) {
                self.pause.reset();
                self.back.notify_one();
            }
            self.asking = Box::pin(client.sync(WAIT_S));
        } else {
            self.is_failing = true;
            let pause = self.pause.after_failure();
            self.asking = Box::pin(async move {
                tokio::time::sleep(pause).await;
                // Whether the server is back is to be known soon.
                client.sync(0).await
            });
        }
        outcome
    }

    /// Does something while the mailbox is being asked: each waits for the other where they must not
    /// meet.
    pub(super) async fn alongside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        if self.outcome.is_none() {
            tokio::select! {
                done = &mut work => return done,
                outcome = self.asking.as_mut() => self.outcome = Some(outcome),
            }
        }
        work.await
    }
}

#[cfg(test)]
impl MailboxPoller<'_> {
    /// Lets the mailbox have answered, or not.
    pub(super) async fn has_come(&mut self, outcome: PollOutcome) {
        self.outcome = Some(outcome);
        drop(self.next().await);
    }

    pub(super) fn next_pause(&self) -> Duration {
        let mut pause = self.pause;
        pause.after_failure()
    }
}
