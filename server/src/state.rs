//! The state that the handlers of one server share.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix_web::{HttpRequest, web};
use keypool_api::Code;
use keypool_ledger::{Clock, NamedLog, ReplicatedLog};
use keypool_projections::statement::LedgerId;
use tokio::sync::watch;

#[cfg(feature = "otlp")]
use crate::request_spans::RequestSpans;
use crate::{
    admin_guard::AdminGuard, authentication::BodyBudget, backup::DataFiles,
    backup_directory::BackupDirectory, cluster::ServerLog, connections::Connections, disk::Disk,
    erasing::ErasureFile, history_reads::HistoryReads, home_copies::HomeCopies,
    keypackage_store::KeyPackageStore, metrics::Metrics, open_requests::OpenRequests,
    operator_page::OperatorDesk, pools::Progress, problem::Failure, prune_turns::PruneTurns,
    quota::Addresses, refusals::RefusalRecord, registration::Registrar, stream_watch::StreamWatch,
    transparency::Ledger,
};

/// The store as the server runs it.
pub(crate) type Store = KeyPackageStore<Arc<NamedLog<Arc<dyn ServerLog>>>>;

/// The state that the handlers of one server share.
pub(crate) struct State {
    /// Set once the log has been replayed.
    pub(crate) store: OnceLock<Store>,
    /// The replicated log; set with the store, in a cluster alone.
    pub(crate) replica: OnceLock<Arc<ReplicatedLog>>,
    /// The last known state of the stream, in a cluster alone.
    pub(crate) stream_watch: StreamWatch,
    /// The published ledger; set with the store.
    pub(crate) ledger: OnceLock<Arc<Ledger>>,
    /// The record of refusals; set with the store.
    pub(crate) refusals: OnceLock<RefusalRecord>,
    /// How far the replay is until then.
    pub(crate) replaying: Arc<Progress>,
    /// The clock that signatures are checked against.
    pub(crate) clock: Arc<dyn Clock>,
    /// The names clients reach the server by, lower case, with the port unless it is the scheme's own.
    pub(crate) public_names: Vec<String>,
    /// Whether requests may name their caller instead of being signed.
    pub(crate) insecure_no_auth: bool,
    /// The registration policy.
    pub(crate) registrar: Arc<Registrar>,
    /// How many bytes a body may have.
    pub(crate) body_bytes_max: usize,
    /// How many bytes of bodies are held at a time.
    pub(crate) bodies: BodyBudget,
    /// How long a body may take to arrive.
    pub(crate) body_timeout: Duration,
    /// How many packages one upload may hold.
    pub(crate) batch_packages_max: usize,
    /// How many targets one request for packages may name.
    pub(crate) targets_max: usize,
    /// How many devices these may have in all.
    pub(crate) target_devices_max: usize,
    /// Access rule of the operator's listener.
    pub(crate) admin: AdminGuard,
    /// The operator's page.
    pub(crate) desk: OperatorDesk,
    /// The open connections.
    pub(crate) connections: Arc<Connections>,
    /// The streams that are open.
    pub(crate) streams: OpenRequests,
    /// The long polls of mailboxes that are open.
    pub(crate) polls: OpenRequests,
    /// How often each of them says that it is alive.
    pub(crate) stream_heartbeat: Duration,
    /// The files that belong into a backup beside the journal.
    pub(crate) data_files: DataFiles,
    /// The directory of backups without a directory of their own.
    pub(crate) backups: BackupDirectory,
    /// The turns of those who prune the log.
    pub(crate) prune_turns: PruneTurns,
    /// The room on the disk of the log.
    pub(crate) disk: Disk,
    /// The histories that are read.
    pub(crate) history_reads: HistoryReads,
    /// The copies of homes that were noticed.
    pub(crate) home_copies: HomeCopies,
    /// The counts of the addresses that requests come from.
    pub(crate) addresses: Addresses,
    /// The spans of requests for the operator's collector.
    #[cfg(feature = "otlp")]
    pub(crate) spans: RequestSpans,
    /// The counters for the operator.
    pub(crate) metrics: Metrics,
    /// The users that are to be erased.
    pub(crate) erasures: ErasureFile,
    /// Whether the server is to stop because of them.
    pub(crate) erasing: watch::Sender<bool>,
    /// Whether the server is stopping: requests that wait for events are answered then.
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

    /// The identity of the ledger that statements are for.
    pub(crate) fn ledger_id(&self) -> Result<LedgerId, Failure> {
        let ledger = self.ledger.get().ok_or_else(|| self.not_ready())?;
        LedgerId::of_verifier_key(&ledger.key().to_string()).ok_or_else(|| self.not_ready())
    }

    /// The ledgers that ended when the server went on with a restored copy of its data.
    pub(crate) fn earlier_ledgers(&self) -> Vec<LedgerId> {
        self.ledger.get().map(|ledger| ledger.earlier().to_vec()).unwrap_or_default()
    }

    /// The store, once the log has been replayed.
    pub(crate) fn store(&self) -> Result<&Store, Failure> {
        self.store.get().ok_or_else(|| self.not_ready())
    }

    /// Whether the server is stopping.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Why requests are not served yet, and how far it is until they are.
    fn not_ready(&self) -> Failure {
        let detail = match self.replaying.get() {
            (_, 0) => "the server is replaying its log".to_owned(),
            (read, of) => format!("the server is replaying its log: {read} of {of} records"),
        };
        Failure::new(Code::NotReady, detail)
    }

    /// The published ledger, once the log has been replayed.
    pub(crate) fn ledger(&self) -> Result<&Arc<Ledger>, Failure> {
        self.ledger.get().ok_or_else(|| self.not_ready())
    }
}

/// The names the operator has given, or the address and `localhost`; without the port too where it
/// is the scheme's own, `own_port`.
pub(crate) fn public_names(given: &[String], address: SocketAddr, own_port: u16) -> Vec<String> {
    if !given.is_empty() {
        return given.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
    }
    let mut names = vec![address.to_string(), format!("localhost:{}", address.port())];
    if address.ip().is_unspecified() {
        // Whoever is on this machine reaches it here.
        names.push(format!("127.0.0.1:{}", address.port()));
        names.push(format!("[::1]:{}", address.port()));
    }
    if address.port() == own_port {
        let host = address.to_string();
        names.extend(host.strip_suffix(&format!(":{own_port}")).map(str::to_owned));
        names.push("localhost".to_owned());
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_given_or_the_address_and_localhost() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let given = ["Keypool.example".to_owned()];
        assert_eq!(public_names(&given, at(80), 80), ["keypool.example"]);
        assert_eq!(public_names(&[], at(8080), 80), ["127.0.0.1:8080", "localhost:8080"]);
        let names = public_names(&[], at(80), 80);
        assert_eq!(names, ["127.0.0.1:80", "localhost:80", "127.0.0.1", "localhost"]);
        let names = public_names(&[], at(443), 443);
        assert_eq!(names, ["127.0.0.1:443", "localhost:443", "127.0.0.1", "localhost"]);
        assert_eq!(public_names(&[], at(80), 443), ["127.0.0.1:80", "localhost:80"]);
        let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 8080));
        assert_eq!(public_names(&[], v6, 80), ["[::1]:8080", "localhost:8080"]);
        let all = public_names(&[], SocketAddr::from(([0, 0, 0, 0], 8080)), 80);
        assert_eq!(all, ["0.0.0.0:8080", "localhost:8080", "127.0.0.1:8080", "[::1]:8080"]);
    }
}
