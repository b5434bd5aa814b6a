//! The real server on a free port, devices that speak to it, a mail service that can fail on plan, a
//! tunnel that loses answers, and apps that are killed at any moment.

// Named in full, since another crate's tests include this file as well.
#[path = "service/backup.rs"]
mod backup;
#[path = "service/mail.rs"]
mod mail;
#[path = "service/tunnel.rs"]
mod tunnel;

use std::{
    fmt::Debug,
    future::Future,
    net::TcpListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use keypool_client::{MlsClient, PoolConfig};
use keypool_ledger::{Clock, GroupId, NamedLog, SledLog, SledLogOptions, SystemClock, Timestamp};
use keypool_projections::Limits;
use keypool_server::pools::Pools;
use keypool_server::{AdmissionRules, KeyPackageStore, Server, Settings};
use tempfile::TempDir;
use tokio::sync::Notify;

pub(crate) use self::{
    mail::{Fault, Mail},
    tunnel::Tunnel,
};
use super::support::copy;

/// Something a test does once, at a planned moment.
pub(crate) type Hook = Box<dyn FnOnce() + Send>;

/// The side of an awaited answer on which an app is killed: before it happens, or after it has happened
/// and before the app hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Before,
    After,
}

/// When an app is killed: at a request to the server, a Commit or a Welcome, each counted from 0.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kill {
    Request(usize, Side),
    Commit(usize, Side),
    Welcome(Side),
}

/// A server, and the state that its devices share.
pub(crate) struct Service {
    pub(crate) folder: TempDir,
    pub(crate) server: Server,
    pub(crate) clock: Arc<MovableClock>,
    pub(crate) mail: Mail,
    pub(crate) tunnel: Tunnel,
}

impl Service {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// A server with other settings than the usual.
    pub(crate) fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = TempDir::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let clock = Arc::new(MovableClock::default());
        let mut settings = settings(&folder.path().join("server"), &address.to_string());
        change(&mut settings);
        let server = Server::start(settings, clock.clone()).unwrap();
        let tunnel = Tunnel::open(listener, server.address());
        Self { folder, server, clock, mail: Mail::default(), tunnel }
    }

    /// The server stops, something is done to its log below its doors, and it starts again.
    pub(crate) async fn beneath(
        self,
        does: impl AsyncFnOnce(&MovableClock, &KeyPackageStore<Arc<NamedLog<SledLog>>>),
    ) -> Self {
        let Self { folder, server, clock, mail, tunnel } = self;
        server.stop().await;
        let data = folder.path().join("server");
        let log = SledLog::open(&data, SledLogOptions::default()).unwrap();
        let log = Arc::new(NamedLog::open(log, hides_names()).unwrap());
        let pools = Pools::open(Arc::clone(&log), clock.clone(), Limits::STANDARD).unwrap();
        let store = KeyPackageStore::new(pools, AdmissionRules::default());
        does(&clock, &store).await;
        drop((store, log));
        let settings = settings(&data, &tunnel.authority());
        let server = Server::start(settings, clock.clone()).unwrap();
        tunnel.lead_to(server.address());
        Self { folder, server, clock, mail, tunnel }
    }

    /// The server stops, and two start that both believe to be it: each has its log and its key. The
    /// devices speak to the first.
    pub(crate) async fn fork(self) -> (Self, Server) {
        let Self { folder, server, clock, mail, tunnel } = self;
        server.stop().await;
        let (one, other) = (folder.path().join("server"), folder.path().join("other server"));
        std::fs::create_dir(&other).unwrap();
        copy(&one, &other);
        let start = |data: &Path| {
            Server::start(settings(data, &tunnel.authority()), clock.clone()).unwrap()
        };
        let (server, other) = (start(&one), start(&other));
        tunnel.lead_to(server.address());
        (Self { folder, server, clock, mail, tunnel }, other)
    }

    /// A registered device with a pool of that many packages and none of last resort; its home is kept by
    /// its name.
    pub(crate) async fn device(&self, name: &str, packages: usize) -> MlsClient<Mail> {
        let device = self.open_sized(name, packages);
        device.register().await.unwrap();
        if packages > 0 {
            device.connection().refresh_now(self.clock.now()).await.unwrap();
        }
        drop(device);
        self.open(name)
    }

    /// A device that was registered before, after a restart of its app.
    pub(crate) fn open(&self, name: &str) -> MlsClient<Mail> {
        self.open_sized(name, PoolConfig::default().target)
    }

    fn open_sized(&self, name: &str, packages: usize) -> MlsClient<Mail> {
        let config = PoolConfig {
            target: packages.max(1),
            low_watermark: (packages.max(1) - 1).min(8),
            last_resort: false,
            ..PoolConfig::default()
        };
        self.open_at(&self.folder.path().join(name), name, config)
    }

    /// Runs the app until it is killed. Its home is then the content of its disk at that moment.
    pub(crate) async fn kill<O: Debug>(
        &self,
        name: &str,
        kill: Kill,
        client: MlsClient<Mail>,
        does: impl AsyncFnOnce(&MlsClient<Mail>) -> O,
    ) {
        self.kill_any(name, kill, client, does).await;
    }

    /// As [`Service::kill`], over any Delivery Service.
    pub(crate) async fn kill_any<C, O: Debug>(
        &self,
        name: &str,
        kill: Kill,
        client: C,
        does: impl AsyncFnOnce(&C) -> O,
    ) {
        let kept = self.kill_perhaps(name, kill, client, does).await;
        assert!(kept.is_none(), "{kill:?}: not killed");
    }

    /// As [`Service::kill_any`], unless the app is done before: then it goes on, and is returned.
    pub(crate) async fn kill_perhaps<C, O>(
        &self,
        name: &str,
        kill: Kill,
        client: C,
        does: impl AsyncFnOnce(&C) -> O,
    ) -> Option<C> {
        let (home, left) = (self.folder.path().join(name), self.folder.path().join("left"));
        let died = Arc::new(Notify::new());
        let (tell, from, to) = (Arc::clone(&died), home.clone(), left.clone());
        let hook: Hook = Box::new(move || {
            std::fs::create_dir(&to).unwrap();
            copy(&from, &to);
            tell.notify_one();
        });
        match kill {
            Kill::Request(number, side) => self.tunnel.kill(number, side, hook),
            Kill::Commit(number, side) => self.mail.kill_at_commit(number, side, hook),
            Kill::Welcome(side) => self.mail.kill_at_welcome(side, hook),
        }
        let is_dead = tokio::select! {
            () = died.notified() => true,
            _ = does(&client) => false,
        };
        // Both may have happened at once.
        if !is_dead && !left.exists() {
            return Some(client);
        }
        drop(client);
        std::fs::remove_dir_all(&home).unwrap();
        std::fs::rename(&left, &home).unwrap();
        None
    }

    /// A device with its home in that folder.
    pub(crate) fn open_at(&self, home: &Path, name: &str, config: PoolConfig) -> MlsClient<Mail> {
        let (owner, mail, url) = (name.parse().unwrap(), self.mail.clone(), self.tunnel.url());
        let clock: Arc<dyn Clock> = self.clock.clone();
        MlsClient::open_with(home, &owner, &url, mail, (clock, config)).unwrap()
    }
}

/// The settings of a server that is reached by a name.
pub(crate) fn settings(data: &Path, public_name: &str) -> Settings {
    Settings {
        hide_names: hides_names(),
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: "127.0.0.1:0".parse().unwrap(),
        data: data.to_owned(),
        public_names: vec![public_name.to_owned()],
        workers: Some(1),
        ..Settings::default().without_quotas()
    }
}

/// Whether the logs of these tests hide names: `just test-hidden` asks for it.
fn hides_names() -> bool {
    std::env::var_os("KEYPOOL_TEST_HIDE_NAMES").is_some()
}

/// Runs a future to its end.
pub(crate) fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

pub(crate) fn group(name: &str) -> GroupId {
    GroupId::new(name.as_bytes()).unwrap()
}

/// The machine's clock, and as much more as a test has moved it.
#[derive(Debug, Default)]
pub(crate) struct MovableClock(AtomicU64);

impl MovableClock {
    pub(crate) fn advance(&self, span: Duration) {
        self.0.fetch_add(span.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for MovableClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().after(Duration::from_secs(self.0.load(Ordering::SeqCst)))
    }

    /// The time that a test lets pass has passed.
    fn monotonic(&self) -> Duration {
        SystemClock.monotonic() + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}
