//! What the server tells of the pool as it happens, listened to all the while; a line that breaks is opened
//! again after a pause, and nobody is told of that: the refresh that comes anyway asks.

use std::{future::Future, pin::Pin, time::Duration};

use keypool_client::{MlsClient, PoolListener, PoolNews, ServerDelivery};
use tokio::time::sleep;

/// The pause after the first line that broke; it doubles with each one after it.
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

type Listener<'a> = PoolListener<'a, ServerDelivery>;

/// The pool, being listened to. Dropping it ends that at once.
pub(super) struct Ears<'a> {
    client: &'a MlsClient<ServerDelivery>,
    listening: Pin<Box<dyn Future<Output = Option<Listener<'a>>> + 'a>>,
    /// The pause after the next line that breaks.
    pause: Duration,
}

impl<'a> Ears<'a> {
    /// Begins to listen.
    pub(super) fn new(client: &'a MlsClient<ServerDelivery>) -> Self {
        Self { client, listening: Box::pin(until_news(client, None)), pause: PAUSE_MIN }
    }

    /// Waits until something was told that a refresh is worth. Cancelling this loses nothing.
    pub(super) async fn next(&mut self) {
        loop {
            let listener = self.listening.as_mut().await;
            let (client, pause) = (self.client, self.pause);
            if listener.is_some() {
                self.pause = PAUSE_MIN;
                self.listening = Box::pin(until_news(client, listener));
                return;
            }
            self.pause = pause.saturating_mul(2).min(PAUSE_MAX);
            self.listening = Box::pin(async move {
                sleep(pause).await;
                until_news(client, None).await
            });
        }
    }
}

/// Listens until a package was used, or the pool is low or empty, or its last resort was given out. Returns the
/// listener; none if the line broke.
async fn until_news<'a>(
    client: &'a MlsClient<ServerDelivery>,
    listener: Option<Listener<'a>>,
) -> Option<Listener<'a>> {
    let mut listener = match listener {
        Some(listener) => listener,
        None => client.listen().await.ok()?,
    };
    loop {
        match listener.next().await.ok()?? {
            PoolNews::Happened(moment) if moment.event != "spent" => {}
            PoolNews::Happened(_)
            | PoolNews::Low(_)
            | PoolNews::Empty(_)
            | PoolNews::LastResortUsed(_) => return Some(listener),
        }
    }
}
