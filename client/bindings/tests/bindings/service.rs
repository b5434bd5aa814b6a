//! The real server in this process, over HTTP on a free port, with a clock that can be moved.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use keypool_ledger::{Clock, SystemClock, Timestamp};
use keypool_server::{Server, Settings};
use tempfile::TempDir;

/// A server, and a folder for the homes of its devices.
pub(crate) struct Service {
    folder: TempDir,
    server: Server,
    clock: Arc<MovedClock>,
}

impl Service {
    pub(crate) fn start() -> Self {
        let (folder, clock) = (TempDir::new().unwrap(), Arc::new(MovedClock::default()));
        let settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: "127.0.0.1:0".parse().unwrap(),
            data: folder.path().join("server"),
            workers: Some(1),
            ..Settings::default().without_quotas()
        };
        let server = Server::start(settings, clock.clone()).unwrap();
        Self { folder, server, clock }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn homes(&self) -> PathBuf {
        self.folder.path().join("homes")
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

/// The machine's clock, and as many seconds more as it was moved.
#[derive(Default)]
struct MovedClock(AtomicU64);

impl MovedClock {
    fn ahead(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

impl Clock for MovedClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().after(self.ahead())
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic() + self.ahead()
    }
}
