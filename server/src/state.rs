//! What every handler of one server shares.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix_web::{HttpRequest, web};
use keypool_ledger::{Clock, SledLog};
use keypool_projections::{Progress, wire::Code};
use tokio::sync::watch;

use crate::{
    keypackage_store::KeyPackageStore, metrics::Metrics, problem::Failure, quota::Addresses,
    transparency::Ledger,
};

/// The store as the server runs it.
pub(crate) type Store = KeyPackageStore<Arc<SledLog>>;

/// What every handler of one server shares.
pub(crate) struct State {
    /// Set once the log has been replayed.
    pub(crate) store: OnceLock<Store>,
    /// What is published of the log; set with the store.
    pub(crate) ledger: OnceLock<Arc<Ledger>>,
    /// How far the replay is until then.
    pub(crate) replaying: Arc<Progress>,
    /// Where the time comes from that signatures are checked against.
    pub(crate) clock: Arc<dyn Clock>,
    /// The names clients reach the server by, lower case, with the port unless it is the scheme's own.
    pub(crate) public_names: Vec<String>,
    /// Whether requests may name their caller instead of being signed.
    pub(crate) insecure_no_auth: bool,
    /// How many bytes a body may have.
    pub(crate) body_bytes_max: usize,
    /// How long a body may take to arrive.
    pub(crate) body_timeout: Duration,
    /// How many packages one upload may hold.
    pub(crate) batch_packages_max: usize,
    /// How many targets one request for packages may name.
    pub(crate) targets_max: usize,
    /// How many devices these may have in all.
    pub(crate) target_devices_max: usize,
    /// What is counted of the addresses that requests come from.
    pub(crate) addresses: Addresses,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// Whether the server is stopping: whoever waits for something to come waits no longer.
    pub(crate) stopping: watch::Sender<bool>,
}

impl State {
    /// The state of the server that received a request.
    pub(crate) fn of(request: &HttpRequest) -> Result<&Self, Failure> {
        let state = request.app_data::<web::Data<Self>>();
        state.map(web::Data::get_ref).ok_or_else(|| {
            tracing::error!("the application has no state");
            Failure::new(Code::Internal, "an internal error occurred")
        })
    }

    /// The store, once the log has been replayed.
    pub(crate) fn store(&self) -> Result<&Store, Failure> {
        self.store.get().ok_or_else(|| self.not_ready())
    }

    /// Why requests are not served yet, and how far it is until they are.
    fn not_ready(&self) -> Failure {
        let detail = match self.replaying.get() {
            (_, 0) => "the server is replaying its log".to_owned(),
            (read, of) => format!("the server is replaying its log: {read} of {of} records"),
        };
        Failure::new(Code::NotReady, detail)
    }

    /// What is published of the log, once it has been replayed.
    pub(crate) fn ledger(&self) -> Result<&Arc<Ledger>, Failure> {
        self.ledger.get().ok_or_else(|| self.not_ready())
    }
}
