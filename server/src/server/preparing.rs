//! The parts of a server that are there before it serves: connections it may have, listeners, and state.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, OnceLock},
};

use keypool_ledger::Clock;
use tokio::sync::watch;

use super::{DEVICE_POLLS_MAX, DEVICE_STREAMS_MAX, StartError};
#[cfg(feature = "otlp")]
use crate::request_spans::RequestSpans;
use crate::{
    admin_guard::AdminGuard,
    authentication::BodyBudget,
    backup::DataFiles,
    backup_directory::BackupDirectory,
    connections::{Bounds, Connections, TooFewDescriptors, raise_descriptor_limit},
    disk::Disk,
    erasing::ErasureFile,
    history_reads::HistoryReads,
    home_copies::HomeCopies,
    metrics::Metrics,
    open_requests::OpenRequests,
    openapi::served_routes,
    operator_page::OperatorDesk,
    prune_turns::PruneTurns,
    quota::Addresses,
    registration::Registrar,
    settings::{Settings, SettingsError},
    state::{State, public_names},
    stream_watch::StreamWatch,
};

/// Computes the connections this process may have, once it may open as many files as the system lets it.
pub(super) fn bounds(settings: &Settings) -> Result<Bounds, TooFewDescriptors> {
    let descriptors = raise_descriptor_limit();
    let bounds =
        Bounds::within(descriptors, settings.connections_max, settings.address_connections_max)?;
    if bounds.served_max < settings.connections_max {
        let (descriptors, connections) = (descriptors, bounds.served_max);
        tracing::warn!(descriptors, connections, "the limit of open files bounds the connections");
    }
    Ok(bounds)
}

/// Binds a listener.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|source| StartError::Listen { address, source })
}

/// Returns the address of a listener, which may have been asked to choose a port.
pub(super) fn address_of(
    listener: &TcpListener,
    asked: SocketAddr,
) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Listen { address: asked, source })
}

/// The port of the scheme by which clients are served, which its URLs leave out.
const fn own_port(settings: &Settings) -> u16 {
    if settings.tls_cert.is_some() { 443 } else { 80 }
}

/// The state of a server that has not opened its log yet.
pub(super) fn state(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    (address, bounds): (SocketAddr, Bounds),
) -> Result<State, StartError> {
    let registrar =
        Registrar::open(&settings.registration, clock.now()).map_err(SettingsError::from)?;
    #[cfg(feature = "otlp")]
    let spans = RequestSpans::start(settings.otlp_endpoint.as_ref()).map_err(StartError::Setup)?;
    Ok(State {
        store: OnceLock::new(),
        replica: OnceLock::new(),
        stream_watch: StreamWatch::default(),
        ledger: OnceLock::new(),
        refusals: OnceLock::new(),
        replaying: Arc::default(),
        clock,
        public_names: public_names(&settings.public_names, address, own_port(settings)),
        insecure_no_auth: settings.insecure_no_auth,
        registrar: Arc::new(registrar),
        body_bytes_max: settings.body_bytes_max,
        bodies: BodyBudget::of_bytes(settings.bodies_bytes_max),
        body_timeout: settings.body_timeout,
        batch_packages_max: settings.batch_packages_max,
        targets_max: settings.targets_max,
        target_devices_max: settings.target_devices_max,
        admin: AdminGuard::open(settings.admin_token_file.as_deref())?,
        desk: OperatorDesk::default(),
        connections: Arc::new(Connections::new(bounds)),
        streams: OpenRequests::at_most(settings.streams_max, DEVICE_STREAMS_MAX),
        polls: OpenRequests::at_most(usize::MAX, DEVICE_POLLS_MAX),
        stream_heartbeat: settings.stream_heartbeat,
        data_files: DataFiles::new(&settings.data, settings.checkpoint_file.as_deref()),
        backups: BackupDirectory::at(settings.backups.as_deref()),
        prune_turns: PruneTurns::after(settings.retain),
        disk: Disk::default(),
        history_reads: HistoryReads::default(),
        home_copies: HomeCopies::default(),
        addresses: Addresses::new(settings.quotas.as_ref(), &settings.trusted_proxies),
        #[cfg(feature = "otlp")]
        spans,
        metrics: Metrics::new(served_routes())
            .map_err(|error| StartError::Setup(error.to_string()))?,
        erasures: ErasureFile::of(&settings.data),
        erasing: watch::Sender::new(false),
        stopping: watch::Sender::new(false),
    })
}
