//! What the server tells of the pool as it happens, listened to all the while; a line that breaks is opened
//! again after a pause, and nobody is told of that: the refresh that comes anyway asks.

use std::{future::Future, pin::Pin, time::Duration};

use keypool_client::{MlsClient, PoolListener, PoolNews, ServerDelivery};
use tokio::time::{Sleep, sleep};

use super::pause::Pause;

/// The longest pause between attempts to listen.
const PAUSE_MAX: Duration = Duration::from_secs(30);

type Listener<'a> = PoolListener<'a, ServerDelivery>;

/// The pool, being listened to. Dropping it ends that at once.
pub(super) struct Ears<'a> {
    client: &'a MlsClient<ServerDelivery>,
    listening: Pin<Box<dyn Future<Output = Option<Listener<'a>>> + 'a>>,
    /// The pause after the next line that breaks.
    pause: Pause,
    /// The pause that is to be over before a line that broke is opened again.
    pausing: Option<Pin<Box<Sleep>>>,
}

impl<'a> Ears<'a> {
    /// Begins to listen.
    pub(super) fn new(client: &'a MlsClient<ServerDelivery>) -> Self {
        let listening = Box::pin(until_news(client, None));
        Self { client, listening, pause: Pause::up_to(PAUSE_MAX), pausing: None }
    }

    /// Waits until something was told that a refresh is worth. Cancelling this loses nothing.
    pub(super) async fn next(&mut self) {
        loop {
            if let Some(pausing) = &mut self.pausing {
                pausing.await;
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

    /// Listens at once where a broken line waits to be opened again: the server answers.
    pub(super) fn server_is_back(&mut self) {
        self.pause.reset();
        self.pausing = None;
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

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, sync::Arc};

    use keypool_client::ClientOptions;
    use keypool_ledger::SystemClock;
    use tokio::time::timeout;

    use super::*;

    /// The clock of the runtime stands still, and jumps to the next moment that something waits for.
    #[test]
    fn a_broken_line_is_opened_at_once_when_the_server_is_back() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let attempts = || std::iter::from_fn(|| server.accept().ok()).count();
        let (home, owner) = (tempfile::TempDir::new().unwrap(), "bob".parse().unwrap());
        let url = format!("http://{}", server.local_addr().unwrap());
        let options = ClientOptions::new(Arc::new(SystemClock));
        let client = MlsClient::open_at_server(home.path(), &owner, &url, options).unwrap();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().unwrap().block_on(async {
            let mut ears = Ears::new(&client);
            timeout(Duration::from_secs(1_790), ears.next()).await.unwrap_err();
            assert!((24..30).contains(&attempts()), "45 s of silence, and 30 s of pause");
            timeout(Duration::from_millis(1), ears.next()).await.unwrap_err();
            assert_eq!(attempts(), 0);
            ears.server_is_back();
            timeout(Duration::from_millis(1), ears.next()).await.unwrap_err();
            assert_eq!(attempts(), 1);
        });
    }
}
