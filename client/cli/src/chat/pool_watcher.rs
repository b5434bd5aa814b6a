//! The event stream of the pool, kept open all the while; a line that breaks is opened
//! again after a pause, and nobody is told of that: the refresh that comes anyway asks.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use keypool_client::{MlsClient, PoolEvent, PoolListener, ServerDelivery};
use tokio::{
    sync::Notify,
    time::{Sleep, sleep},
};

use super::backoff::Backoff;

/// The longest pause between attempts to listen.
const PAUSE_MAX: Duration = Duration::from_secs(30);

type Listener<'a> = PoolListener<'a, ServerDelivery>;

/// The pool, being listened to. Dropping it ends that at once.
pub(super) struct PoolWatcher<'a> {
    client: &'a MlsClient<ServerDelivery>,
    listening: Pin<Box<dyn Future<Output = Option<Listener<'a>>> + 'a>>,
    /// The pause after the next line that breaks.
    pause: Backoff,
    /// The pause that is to be over before a line that broke is opened again.
    pausing: Option<Pin<Box<Sleep>>>,
    /// The signal that the server answers again, which ends the pause.
    back: Arc<Notify>,
}

impl<'a> PoolWatcher<'a> {
    /// Begins to listen. `back` signals that the server answers again.
    pub(super) fn new(client: &'a MlsClient<ServerDelivery>, back: Arc<Notify>) -> Self {
        let listening = Box::pin(until_news(client, None));
        Self { client, listening, pause: Backoff::up_to(PAUSE_MAX), pausing: None, back }
    }

    /// Waits until something was told that a refresh is worth. Cancelling this loses nothing.
    pub(super) async fn next(&mut self) {
        loop {
            if let Some(pausing) = &mut self.pausing {
                tokio::select! {
                    () = pausing => {}
                    () = self.back.notified() => self.pause.reset(),
                }
                self.pausing = None;
            }
            let listener = self.listening.as_mut().await;
            let has_told = listener.is_some();
            self.listening = Box::pin(until_news(self.client, listener));
            if has_told {
                self.pause.reset();
                return;
            }
            self.pausing = Some(Box::pin(sleep(self.pause.after_failure())));
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
            PoolEvent::Happened(moment) if moment.event != "spent" => {}
            PoolEvent::Happened(_)
            | PoolEvent::Low(_)
            | PoolEvent::Empty(_)
            | PoolEvent::LastResortUsed(_) => return Some(listener),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, sync::Arc};

    use keypool_client::{ApiError, ClientOptions, SyncError, SystemClock};
    use tokio::time::timeout;

    use super::{super::mailbox::MailboxPoller, *};

    /// The clock of the runtime stands still, and jumps to the next moment that something waits for.
    #[test]
    fn a_broken_line_is_opened_at_once_when_the_mailbox_answers_and_both_pauses_start_again() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let attempts = || std::iter::from_fn(|| server.accept().ok()).count();
        let (home, owner) = (tempfile::TempDir::new().unwrap(), "bob".parse().unwrap());
        let url = format!("http://{}", server.local_addr().unwrap());
        let options = ClientOptions::new(Arc::new(SystemClock));
        let client = MlsClient::open_at_server(home.path(), &owner, &url, options).unwrap();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().unwrap().block_on(async {
            let mut mail = MailboxPoller::new(&client);
            let mut pool_watcher = PoolWatcher::new(&client, mail.back());
            timeout(Duration::from_secs(1_790), pool_watcher.next()).await.unwrap_err();
            assert!((24..30).contains(&attempts()), "45 s of silence, and 30 s of pause");
            timeout(Duration::from_millis(1), pool_watcher.next()).await.unwrap_err();
            assert_eq!(attempts(), 0);
            for _ in 0..3 {
                let gone = ApiError::Unexpected { server: url.clone(), status: 502 };
                mail.has_come(Err(SyncError::Api(gone))).await;
            }
            assert_eq!(mail.next_pause(), Duration::from_secs(4));
            timeout(Duration::from_millis(1), pool_watcher.next()).await.unwrap_err();
            assert_eq!(attempts(), 0);
            mail.has_come(Ok(Vec::new())).await;
            timeout(Duration::from_millis(1), pool_watcher.next()).await.unwrap_err();
            assert_eq!(attempts(), 1);
            assert_eq!(mail.next_pause(), Duration::from_millis(500));
            timeout(Duration::from_millis(45_502), pool_watcher.next()).await.unwrap_err();
            assert_eq!(attempts(), 1, "45 s of silence, and the shortest pause");
        });
    }
}
