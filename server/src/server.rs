//! A running server: it binds, replays its log, serves, sweeps, and stops without losing anything.

mod background;

mod checking;

mod closing;

mod error;

mod disk_watch;

mod embedded;

mod opening;

mod preparing;

mod sweeper;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Weak, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use actix_web::{
    App, HttpServer,
    dev::ServerHandle,
    middleware::{Condition, from_fn},
    web::{Data, ServiceConfig},
};
use keypool_ledger::{Clock, Replication, SledLog};
use rustls::ServerConfig;
use tokio::sync::{mpsc as signals, watch};

use self::{
    background::Background,
    closing::{close, stop_all},
    disk_watch::look_at_disk,
    opening::{
        blocking, check_clock, open_or_restore, open_refusals, open_store, warn_of_local_name,
        warn_of_missing_backups,
    },
    preparing::{address_of, bind, bounds, state},
};
pub use self::{closing::CLOSE_TIMEOUT, error::StartError};
use crate::{
    cluster::OpenedLog,
    connections::close_stalled_readers,
    cors::cors,
    read_order::keep_order,
    registration::{Registrar, RegistrationError},
    request_log::observe,
    routes,
    settings::Settings,
    state::{State, Store},
    tls::{TlsCertificate, TlsError},
    transparency::{Follower, RunningFollower},
    webhook::{Receiver, Webhook},
};

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to close a connection.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection is kept without a request.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Connections that the operator may have open.
const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Streams of a device: its app, and one whose connection broke unnoticed.
const DEVICE_STREAMS_MAX: usize = 2;
/// Requests of a device that wait for its mailbox.
const DEVICE_POLLS_MAX: usize = 4;

/// A server that runs on a thread of its own, beside the rest of the process.
///
/// Dropping it stops it as [`Server::stop`] does, and waits.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    admin_address: SocketAddr,
    stop: signals::Sender<Ended>,
    ended: watch::Receiver<Option<Ended>>,
    thread: Option<JoinHandle<()>>,
    ledger_key: String,
    registrar: Arc<Registrar>,
    tls: Option<Arc<TlsCertificate>>,
    state: Weak<State>,
}

/// Why a server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to. Everything it has acknowledged is in the log, and the log is closed.
    Stopped,
    /// The log has refused a write, or a listener has failed. Acknowledged requests are in the log.
    Failed,
    /// It stopped so that users are erased, which the next start does before it opens the log.
    Erasing,
}

impl Server {
    /// Starts a server, and returns when it has replayed its log and takes requests.
    ///
    /// # Errors
    ///
    /// Returns a [`StartError`]; nothing is left running then.
    pub fn start(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        Self::start_with(settings, clock, None)
    }

    /// Starts a server of a cluster: its log is the stream that `replication` keeps, and other servers may write
    /// to it at the same time.
    ///
    /// The directory must be a copy of another server's, or that of a server which ran alone and whose journal
    /// was published.
    ///
    /// # Errors
    ///
    /// As [`Server::start`]; also if the stream cannot be reached, or contradicts the directory.
    pub fn start_in_cluster(
        settings: Settings,
        clock: Arc<dyn Clock>,
        replication: Arc<dyn Replication>,
    ) -> Result<Self, StartError> {
        Self::start_with(settings, clock, Some(replication))
    }

    fn start_with(
        settings: Settings,
        clock: Arc<dyn Clock>,
        replication: Option<Arc<dyn Replication>>,
    ) -> Result<Self, StartError> {
        settings.check()?;
        let settings = settings.with_x509_roots()?;
        let tls = settings.open_tls()?;
        let bounds = bounds(&settings)?;
        let receiver = settings.webhook.clone();
        let receiver = receiver.map(|url| Receiver::new(url, settings.webhook_timeout));
        let receiver = receiver.transpose().map_err(StartError::Webhook)?;
        let listeners = (bind(settings.listen)?, bind(settings.admin_listen)?);
        close_stalled_readers(&listeners.0, settings.stalled_timeout)
            .map_err(|source| StartError::Listen { address: settings.listen, source })?;
        let address = address_of(&listeners.0, settings.listen)?;
        let admin_address = address_of(&listeners.1, settings.admin_listen)?;
        let state = Data::new(state(&settings, clock, (address, bounds))?);
        let registrar = Arc::clone(&state.registrar);
        let weak = Arc::downgrade(&state);
        let (started, starting) = mpsc::sync_channel(1);
        let (stop, stopping) = signals::channel(4);
        let (end, ended) = watch::channel(None);
        let config = tls.as_ref().map(TlsCertificate::server_config).transpose();
        let tls_config = config.map_err(|error| StartError::Setup(error.to_string()))?;
        let stop_sender = stop.clone();
        let run = RunningServer {
            settings,
            tls_config,
            receiver,
            replication,
            state,
            stop: stop_sender,
            stopping,
        };
        let thread = thread::Builder::new()
            .name("keypool-server".to_owned())
            .spawn(move || {
                let how = actix_rt::System::new().block_on(run.run(listeners, started));
                end.send_replace(Some(how));
            })
            .map_err(StartError::Threads)?;
        match starting.recv() {
            Ok(Ok(ledger_key)) => {
                let thread = Some(thread);
                let state = weak;
                Ok(Self {
                    address,
                    admin_address,
                    stop,
                    ended,
                    thread,
                    ledger_key,
                    registrar,
                    tls,
                    state,
                })
            }
            Ok(Err(error)) => {
                drop(thread.join());
                Err(error)
            }
            Err(_) => Err(StartError::Setup("its thread has ended early".to_owned())),
        }
    }

    /// The address that clients connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that the operator connects to.
    #[must_use]
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The URL of the API, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The key that checks the ledger's checkpoints and receipts: `NAME+HASH+BASE64` (C2SP
    /// signed-note).
    #[must_use]
    pub fn ledger_key(&self) -> &str {
        &self.ledger_key
    }

    /// The number of frontend keys; `None` without a file of them.
    #[must_use]
    pub fn frontend_keys(&self) -> Option<usize> {
        self.registrar.frontend_count()
    }

    /// Reads the operator's files again, and returns how many entries those of the registration policy have;
    /// `None` if it has none. Registered devices stay registered.
    ///
    /// # Errors
    ///
    /// Returns a [`RegistrationError`] if a file cannot be used: the versions read before stay in force.
    pub fn reload(&self) -> Result<Option<usize>, RegistrationError> {
        self.registrar.reload()
    }

    /// Reads the certificate of TLS and its key again, and returns whether there is one. Open connections keep theirs.
    ///
    /// # Errors
    ///
    /// Returns a [`TlsError`] if the files cannot be used: the pair read before stays in force.
    pub fn reload_certificate(&self) -> Result<bool, TlsError> {
        self.tls.as_ref().map(|tls| tls.reload()).transpose().map(|read| read.is_some())
    }

    /// Waits until the server ends, whether it was asked to or not.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        let how = ended.wait_for(Option::is_some).await.map(|how| *how);
        how.ok().flatten().unwrap_or(Ended::Failed)
    }

    /// Stops the server: requests under way are answered, new ones are not taken, and the log is
    /// closed when this returns.
    pub async fn stop(mut self) -> Ended {
        let _ = self.stop.try_send(Ended::Stopped);
        let how = self.ended().await;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        how
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.try_send(Ended::Stopped);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The state of the server's own thread.
struct RunningServer {
    settings: Settings,
    /// TLS of the public listener, if it has any.
    tls_config: Option<ServerConfig>,
    receiver: Option<Receiver>,
    /// The stream of the cluster, if it is in one.
    replication: Option<Arc<dyn Replication>>,
    state: Data<State>,
    stop: signals::Sender<Ended>,
    stopping: signals::Receiver<Ended>,
}

/// Settings of one of the two listeners.
struct Site {
    workers: usize,
    /// Connections of each worker at a time.
    connections: usize,
    routes: fn(&mut ServiceConfig),
    /// Set where connections are those of clients.
    is_public: bool,
}

/// The listeners, the followers of the log, and the ledger's key.
type Opened = ([ServerHandle; 2], RunningFollower, Option<Webhook>, String);
/// The ledger's key, once the server takes requests.
type Started = mpsc::SyncSender<Result<String, StartError>>;

impl RunningServer {
    /// Serves until it is asked to stop, and returns when the log is closed.
    async fn run(mut self, listeners: (TcpListener, TcpListener), started: Started) -> Ended {
        let opened = self.open(listeners).await;
        let (handles, following, webhook, ledger_key) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                drop(started.send(Err(error)));
                return Ended::Failed;
            }
        };
        let (names, data) = (&self.state.public_names, self.settings.data.display());
        tracing::info!(?names, %data, "ready");
        if self.settings.public_names.is_empty() && self.settings.listen.ip().is_unspecified() {
            tracing::warn!("signed requests name the server: say its names with --public-name");
        }
        warn_of_missing_backups(&self.settings);
        look_at_disk(&self.state, &self.settings).await;
        drop(started.send(Ok(ledger_key)));
        let background =
            Background::start(&self.state, &self.settings, (self.replication.clone(), webhook));
        let how = self.stopping.recv().await.unwrap_or(Ended::Failed);
        tracing::info!(?how, "stopping");
        self.state.stopping.send_replace(true);
        background.end().await;
        stop_all(&handles).await;
        if let Some(store) = self.state.store.get() {
            store.pools().close();
        }
        following.end().await;
        #[cfg(feature = "otlp")]
        let spans = self.state.spans.clone();
        close(self.state).await;
        #[cfg(feature = "otlp")]
        spans.end().await;
        how
    }

    /// Serves at both addresses, and opens the log behind them: until then the server is not ready.
    async fn open(&self, listeners: (TcpListener, TcpListener)) -> Result<Opened, StartError> {
        let workers = self
            .settings
            .workers
            .unwrap_or_else(|| thread::available_parallelism().map_or(1, std::num::NonZero::get));
        let connections = self.state.connections.bounds().accepted_by_each(workers);
        let public = Site { workers, connections, routes: routes::public, is_public: true };
        let (workers, connections) = (1, ADMIN_CONNECTIONS_MAX);
        let admin = Site { workers, connections, routes: routes::admin, is_public: false };
        let public = self.serve(listeners.0, public)?;
        let admin = self.serve(listeners.1, admin)?;
        let handles = [public, admin];
        match self.follow_log().await {
            Ok((following, webhook, key)) => Ok((handles, following, webhook, key)),
            Err(error) => {
                stop_all(&handles).await;
                Err(error)
            }
        }
    }

    /// Opens the log, and starts to follow it.
    async fn follow_log(&self) -> Result<(RunningFollower, Option<Webhook>, String), StartError> {
        let (store, follower) = self.open_log().await?;
        check_clock(&self.settings, &store).await;
        let ledger = follower.ledger();
        self.watch(store.pools().failed(), Ended::Failed);
        self.watch(self.state.erasing.subscribe(), Ended::Erasing);
        self.watch(ledger.refuted(), Ended::Failed);
        warn_of_local_name(&self.settings, &ledger.key());
        let key = ledger.key().to_string();
        let interval = self.settings.checkpoint_interval;
        let following = RunningFollower::start(follower, store.pools().written(), interval);
        drop(self.state.ledger.set(ledger));
        drop(self.state.store.set(store));
        let (receiver, state) = (self.receiver.clone(), self.state.clone());
        let open = |receiver| Webhook::open(receiver, state, &self.settings.data);
        Ok((following, receiver.map(open).transpose()?, key))
    }

    /// Replays the log, and compares it with the published checkpoint.
    async fn open_log(&self) -> Result<(Store, Follower<Arc<SledLog>>), StartError> {
        let (settings, clock) = (self.settings.clone(), Arc::clone(&self.state.clock));
        let replaying = Arc::clone(&self.state.replaying);
        let replication = self.replication.clone();
        let open = move || open_store(&settings, replication, clock, &replaying);
        let (store, OpenedLog { local, replica }) = blocking(open).await??;
        if let Err(error) = self.state.erasures.load_left() {
            tracing::error!(%error, "the file of users that are to be erased cannot be read");
        }
        let follower = open_or_restore(&self.settings, &store, local).await?;
        if let Some(replica) = replica {
            drop(self.state.replica.set(replica));
        }
        drop(self.state.refusals.set(open_refusals(&self.settings, &store)?));
        Ok((store, follower))
    }

    fn serve(
        &self,
        listener: TcpListener,
        Site { workers, connections, routes, is_public }: Site,
    ) -> Result<ServerHandle, StartError> {
        let state = self.state.clone();
        let connected = self.state.clone();
        let address = address_of(&listener, self.settings.listen)?;
        let origins = if is_public { self.settings.cors_origins.clone() } else { Vec::new() };
        let app = move || {
            let cors = Condition::new(!origins.is_empty(), cors(&origins));
            let app = App::new().app_data(state.clone()).wrap(from_fn(keep_order));
            app.wrap(cors).wrap(from_fn(observe)).configure(routes)
        };
        let server = HttpServer::new(app)
            .disable_signals()
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(HEAD_TIMEOUT)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            // A client that is gone leaves its stream and its place in the mailbox at once.
            .h1_allow_half_closed(false)
            .max_connections(connections)
            .workers(workers)
            .on_connect(move |connection, data| {
                if is_public {
                    let State { connections, addresses, metrics, .. } = connected.get_ref();
                    connections.admit(connection, (addresses, metrics), data);
                }
            })
            .shutdown_timeout(self.settings.shutdown_timeout.as_secs());
        let server = match self.tls_config.clone().filter(|_| is_public) {
            Some(config) => server.listen_rustls_0_23(listener, config),
            None => server.listen(listener),
        };
        let server = server.map_err(|source| StartError::Listen { address, source })?.run();
        let handle = server.handle();
        let stop = self.stop.clone();
        actix_rt::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "a listener failed");
                let _ = stop.try_send(Ended::Failed);
            }
        });
        Ok(handle)
    }

    /// Stops everything when the log has failed, since nothing more would be written, or when it is found to
    /// be another one than was published.
    fn watch(&self, mut given: watch::Receiver<bool>, how: Ended) {
        let stop = self.stop.clone();
        actix_rt::spawn(async move {
            if given.wait_for(|given| *given).await.is_ok() {
                let _ = stop.try_send(how);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::{TestRequest, call_service, init_service, read_body};
    use keypool_ledger::SystemClock;

    use super::*;

    #[actix_web::test]
    async fn until_the_log_is_replayed_the_server_lives_and_is_not_ready() {
        let address = SocketAddr::from(([127, 0, 0, 1], 8080));
        let settings = Settings::default();
        let at = (address, bounds(&settings).unwrap());
        let state = state(&settings, Arc::new(SystemClock), at).unwrap();
        let app = App::new().app_data(Data::new(state)).configure(routes::admin);
        let app = init_service(app).await;
        let fetch = async |path| {
            let request = TestRequest::get().uri(path).insert_header(("host", "localhost"));
            let request = request.to_request();
            let response = call_service(&app, request).await;
            let status = response.status().as_u16();
            (status, String::from_utf8(read_body(response).await.to_vec()).unwrap())
        };
        assert_eq!(fetch("/livez").await.0, 200);
        let (status, body) = fetch("/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains("\"not_ready\"") && body.contains("replaying its log"), "{body}");
        assert!(fetch("/metrics").await.1.contains("keypool_ready 0"));
        let (status, page) = fetch("/").await;
        assert_eq!(status, 503);
        assert!(page.contains("<h1>Not now</h1>") && page.contains("replaying its log"), "{page}");
    }
}
