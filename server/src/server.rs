//! A running server: it binds, replays its log, serves, sweeps, and stops without losing anything.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, OnceLock, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use actix_web::{
    App, HttpServer,
    dev::ServerHandle,
    middleware::from_fn,
    web::{self, Data, ServiceConfig},
};
use keypool_ledger::{Clock, OpenError, SledLog, SledLogOptions};
use keypool_projections::{DeliveryLimits, Pools, Progress, ReplayError};
use tokio::sync::{mpsc as signals, watch};

use crate::{
    keypackage_store::KeyPackageStore,
    metrics::Metrics,
    observation::observe,
    quota::Addresses,
    registration::{Registrar, RegistrationError},
    routes,
    settings::{Settings, SettingsError},
    state::{State, Store, public_names},
    streams::Streams,
    transparency::{Follower, Following, LedgerError, Places, quarantine, set_aside},
};

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to close a connection.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection is kept without a request.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often it is looked whether the threads that answered requests have gone.
const WORKERS_GONE_TRIES: u32 = 1000;

/// A server that runs on a thread of its own, beside whatever the process does.
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
}

/// Why a server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to. Everything it has acknowledged is in the log, and the log is closed.
    Stopped,
    /// The log has refused a write, or a listener has failed. What was acknowledged is in the log.
    Failed,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The address cannot be listened at: it may be in use.
    #[error("cannot listen at {address} (is another server running there?)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log is not one of pools.
    #[error("the log cannot be replayed; restore its directory from a backup")]
    Replay(#[from] ReplayError),
    /// The log is not the one that was published, or what proves it is not there.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The machine did not give what a server needs.
    #[error("the server's threads could not be started")]
    Threads(#[source] io::Error),
    /// The counters could not be set up, or the server's thread has panicked: a bug.
    #[error("the server could not be set up: {0}")]
    Setup(String),
}

impl Server {
    /// Starts a server, and returns when it has replayed its log and takes requests.
    ///
    /// # Errors
    ///
    /// Returns a [`StartError`]; nothing is left running then.
    pub fn start(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        settings.check()?;
        let listeners = (bind(settings.listen)?, bind(settings.admin_listen)?);
        let address = address_of(&listeners.0, settings.listen)?;
        let admin_address = address_of(&listeners.1, settings.admin_listen)?;
        let state = Data::new(state(&settings, clock, address)?);
        let registrar = Arc::clone(&state.registrar);
        let (started, starting) = mpsc::sync_channel(1);
        let (stop, stopping) = signals::channel(4);
        let (end, ended) = watch::channel(None);
        let run = Run { settings, state, stop: stop.clone(), stopping };
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
                Ok(Self { address, admin_address, stop, ended, thread, ledger_key, registrar })
            }
            Ok(Err(error)) => {
                drop(thread.join());
                Err(error)
            }
            Err(_) => Err(StartError::Setup("its thread has ended early".to_owned())),
        }
    }

    /// Where clients connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the operator connects.
    #[must_use]
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// The URL of the API, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The key that checks the ledger's checkpoints and receipts: `NAME+HASH+BASE64` (C2SP
    /// signed-note).
    #[must_use]
    pub fn ledger_key(&self) -> &str {
        &self.ledger_key
    }

    /// Reads the file again that says who may register, and returns how many entries it has; `None` if there
    /// is none. Who is registered already stays so.
    ///
    /// # Errors
    ///
    /// Returns a [`RegistrationError`] if the file cannot be used: what was read before stays in force.
    pub fn reload(&self) -> Result<Option<usize>, RegistrationError> {
        self.registrar.reload()
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

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|source| StartError::Listen { address, source })
}

fn address_of(listener: &TcpListener, asked: SocketAddr) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Listen { address: asked, source })
}

fn state(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    address: SocketAddr,
) -> Result<State, StartError> {
    Ok(State {
        store: OnceLock::new(),
        ledger: OnceLock::new(),
        replaying: Arc::default(),
        clock,
        public_names: public_names(&settings.public_names, address),
        insecure_no_auth: settings.insecure_no_auth,
        registrar: Arc::new(Registrar::open(&settings.registration).map_err(SettingsError::from)?),
        body_bytes_max: settings.body_bytes_max,
        body_timeout: settings.body_timeout,
        batch_packages_max: settings.batch_packages_max,
        targets_max: settings.targets_max,
        target_devices_max: settings.target_devices_max,
        streams: Streams::at_most(settings.streams_max),
        stream_heartbeat: settings.stream_heartbeat,
        addresses: Addresses::new(settings.quotas, settings.trusted_proxies.clone()),
        metrics: Metrics::new().map_err(|error| StartError::Setup(error.to_string()))?,
        stopping: watch::Sender::new(false),
    })
}

/// What the server's own thread works with.
struct Run {
    settings: Settings,
    state: Data<State>,
    stop: signals::Sender<Ended>,
    stopping: signals::Receiver<Ended>,
}

/// The ledger's key, once the server takes requests.
type Started = mpsc::SyncSender<Result<String, StartError>>;

impl Run {
    /// Serves until it is asked to stop, and returns when the log is closed.
    async fn run(mut self, listeners: (TcpListener, TcpListener), started: Started) -> Ended {
        let opened = self.open(listeners).await;
        let (handles, following, ledger_key) = match opened {
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
        drop(started.send(Ok(ledger_key)));
        let sweeper = actix_rt::spawn(sweep(self.state.clone(), self.settings.sweep_interval));
        let how = self.stopping.recv().await.unwrap_or(Ended::Failed);
        tracing::info!(?how, "stopping");
        self.state.stopping.send_replace(true);
        sweeper.abort();
        drop(sweeper.await);
        stop_all(&handles).await;
        if let Some(store) = self.state.store.get() {
            store.pools().close();
        }
        following.end().await;
        close(self.state).await;
        how
    }

    /// Serves at both addresses, and opens the log behind them: until then the server is not ready.
    async fn open(
        &self,
        listeners: (TcpListener, TcpListener),
    ) -> Result<([ServerHandle; 2], Following, String), StartError> {
        let workers = self.settings.workers;
        let public = self.serve(listeners.0, workers, routes::public)?;
        let admin = self.serve(listeners.1, Some(1), routes::admin)?;
        let handles = [public, admin];
        match self.open_log().await {
            Ok((store, follower)) => {
                let ledger = follower.ledger();
                self.watch(store.pools().failed());
                self.watch(ledger.refuted());
                let key = ledger.key().to_string();
                let interval = self.settings.checkpoint_interval;
                let following = Following::start(follower, store.pools().written(), interval);
                drop(self.state.ledger.set(ledger));
                drop(self.state.store.set(store));
                Ok((handles, following, key))
            }
            Err(error) => {
                stop_all(&handles).await;
                Err(error)
            }
        }
    }

    /// Replays the log, and holds it against what was published of it.
    async fn open_log(&self) -> Result<(Store, Follower<Arc<SledLog>>), StartError> {
        let (settings, clock) = (self.settings.clone(), Arc::clone(&self.state.clock));
        let replaying = Arc::clone(&self.state.replaying);
        let (store, log) = blocking(move || open_store(&settings, clock, &replaying)).await??;
        let follower = open_or_restore(&self.settings, &store, log).await?;
        Ok((store, follower))
    }

    fn serve(
        &self,
        listener: TcpListener,
        workers: Option<usize>,
        routes: fn(&mut ServiceConfig),
    ) -> Result<ServerHandle, StartError> {
        let state = self.state.clone();
        let address = address_of(&listener, self.settings.listen)?;
        let app =
            move || App::new().app_data(state.clone()).wrap(from_fn(observe)).configure(routes);
        let server = HttpServer::new(app)
            .disable_signals()
            .keep_alive(KEEP_ALIVE)
            .client_request_timeout(HEAD_TIMEOUT)
            .client_disconnect_timeout(DISCONNECT_TIMEOUT)
            .max_connections(self.settings.connections_max)
            .shutdown_timeout(self.settings.shutdown_timeout.as_secs());
        let server = match workers {
            Some(count) => server.workers(count),
            None => server,
        };
        let server =
            server.listen(listener).map_err(|source| StartError::Listen { address, source })?.run();
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

    /// Stops everything when the log has failed, for what comes next would not be written, or when it
    /// is found to be another one than was published.
    fn watch(&self, mut failed: watch::Receiver<bool>) {
        let stop = self.stop.clone();
        actix_rt::spawn(async move {
            if failed.wait_for(|failed| *failed).await.is_ok() {
                let _ = stop.try_send(Ended::Failed);
            }
        });
    }
}

fn open_store(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    replaying: &Progress,
) -> Result<(Store, Arc<SledLog>), StartError> {
    let log = Arc::new(SledLog::open(&settings.data, SledLogOptions::default())?);
    let (limits, delivery) = (settings.limits, DeliveryLimits::STANDARD);
    let pools = Pools::open_with(Arc::clone(&log), clock, limits, delivery, replaying)?;
    let store = KeyPackageStore::new(pools, settings.admission.clone());
    let store = match settings.quotas {
        Some(quotas) => store.with_quotas(quotas).map_err(|error| {
            StartError::Setup(format!("what counts for the quotas cannot be read: {error}"))
        })?,
        None => store,
    };
    Ok((store, log))
}

/// Where the ledger's files are.
fn places(settings: &Settings) -> Places {
    let dir: &Path = &settings.data;
    Places {
        key: dir.join("checkpoint.key"),
        checkpoint: settings.checkpoint_file.clone().unwrap_or_else(|| dir.join("checkpoint")),
        tiles: dir.join("tiles"),
    }
}

/// Holds the log against what was published of it.
fn open_ledger(
    settings: &Settings,
    log: Arc<SledLog>,
) -> Result<Follower<Arc<SledLog>>, LedgerError> {
    let first_name = settings.public_names.first().map(|name| name.trim().to_ascii_lowercase());
    let usual = first_name.as_deref().unwrap_or("localhost");
    Follower::open(log, &places(settings), settings.ledger_name.as_deref(), usual)
}

/// As [`open_ledger`]; and where the operator accepts that the newer copy is lost, begins another ledger
/// once all packages are withdrawn.
async fn open_or_restore(
    settings: &Settings,
    store: &Store,
    log: Arc<SledLog>,
) -> Result<Follower<Arc<SledLog>>, StartError> {
    let (asked, at) = (settings.clone(), Arc::clone(&log));
    match blocking(move || open_ledger(&asked, at)).await? {
        Err(error) if error.is_restored_copy() && settings.accept_restore => {
            let withdrawn = quarantine(store).await;
            let withdrawn = withdrawn.map_err(|error| StartError::Setup(error.to_string()))?;
            let settings = settings.clone();
            let begin = move || {
                let places = places(&settings);
                let name = set_aside(&places)?;
                tracing::warn!(%error, withdrawn, name, "an older copy is gone on with");
                Follower::open(log, &places, None, &name)
            };
            Ok(blocking(begin).await??)
        }
        opened => Ok(opened?),
    }
}

/// Does something where it keeps no requests waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StartError> {
    web::block(work).await.map_err(|err| StartError::Setup(err.to_string()))
}

/// Records now and then what time has done.
async fn sweep(state: Data<State>, interval: Duration) {
    loop {
        actix_rt::time::sleep(interval).await;
        state.metrics.upkeep();
        state.addresses.sweep(state.clock.now());
        let Some(store) = state.store.get() else { continue };
        match store.cleanup_expired().await {
            Ok(0) => {}
            Ok(pools) => tracing::info!(pools, "recorded lapses and expiries"),
            Err(error) => tracing::warn!(%error, "the sweep was not recorded"),
        }
    }
}

async fn stop_all(handles: &[ServerHandle; 2]) {
    let [public, admin] = handles;
    public.stop(true).await;
    admin.stop(true).await;
}

/// Closes the log, once no thread uses it any more.
async fn close(state: Data<State>) {
    let mut state = state.into_inner();
    for _ in 0..WORKERS_GONE_TRIES {
        match Arc::try_unwrap(state) {
            Ok(state) => return drop(state),
            Err(shared) => state = shared,
        }
        actix_rt::time::sleep(Duration::from_millis(5)).await;
    }
    tracing::warn!("a request is still under way; the log is closed when the process ends");
}

#[cfg(test)]
mod tests {
    use actix_web::test::{TestRequest, call_service, init_service, read_body};
    use keypool_ledger::SystemClock;

    use super::*;

    #[actix_web::test]
    async fn until_the_log_is_replayed_the_server_lives_and_is_not_ready() {
        let address = SocketAddr::from(([127, 0, 0, 1], 8080));
        let state = state(&Settings::default(), Arc::new(SystemClock), address).unwrap();
        let app = App::new().app_data(Data::new(state)).configure(routes::admin);
        let app = init_service(app).await;
        let fetch = async |path| {
            let request = TestRequest::get().uri(path).to_request();
            let response = call_service(&app, request).await;
            let status = response.status().as_u16();
            (status, String::from_utf8(read_body(response).await.to_vec()).unwrap())
        };
        assert_eq!(fetch("/livez").await.0, 200);
        let (status, body) = fetch("/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains("\"not_ready\"") && body.contains("replaying its log"), "{body}");
        assert!(fetch("/metrics").await.1.contains("keypool_ready 0"));
    }
}
