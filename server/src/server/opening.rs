//! Opens the log and the ledger, where that keeps no requests waiting.

use std::{path::Path, sync::Arc};

use actix_web::web;
use keypool_api::REFUSALS_DIR;
use keypool_ledger::{
    Clock, EventLog, MemoryIndex, NamedLog, ReplicatedLog, ReplicatedLogOptions, Replication,
    SledLog, SledLogOptions,
};
use keypool_projections::DeliveryLimits;
use keypool_transparency::NoteKey;

use super::StartError;
use crate::{
    cluster::OpenedLog,
    erasing::erase_asked,
    keypackage_store::KeyPackageStore,
    pools::{ClockState, Pools, Progress},
    refusals::RefusalRecord,
    settings::{Settings, is_loopback},
    state::Store,
    transparency::{Follower, LedgerError, Places, prepare_identity, quarantine, set_aside},
};

/// The name of a ledger whose server has no public name.
const LOCAL_NAME: &str = "localhost";

/// Opens the log, and in a cluster takes in the records that other servers have written.
fn open_log(
    settings: &Settings,
    replication: Option<Arc<dyn Replication>>,
    replaying: &Progress,
) -> Result<OpenedLog, StartError> {
    let options =
        SledLogOptions { ballast_bytes: settings.ballast_bytes, ..SledLogOptions::default() };
    if let Err(error) = erase_asked(&settings.data, options) {
        // Others are not kept waiting for it; the next start tries again.
        let error: &dyn std::error::Error = &error;
        tracing::error!(
            error,
            "users that are to be erased could not be: the server starts with them, and the next start tries again"
        );
    }
    let local = Arc::new(SledLog::open(&settings.data, options)?);
    let Some(replication) = replication else { return Ok(OpenedLog { local, replica: None }) };
    let key = places(settings).key;
    if !key.is_file() {
        return Err(StartError::NoCopy(settings.data.clone()));
    }
    let told = |taken_in, last| {
        replaying.set(taken_in, last);
        true
    };
    let options = ReplicatedLogOptions::default();
    let replica = ReplicatedLog::open(Arc::clone(&local), replication, options, &told)?;
    Ok(OpenedLog { local, replica: Some(Arc::new(replica)) })
}

/// Replays the log.
pub(super) fn open_store(
    settings: &Settings,
    replication: Option<Arc<dyn Replication>>,
    clock: Arc<dyn Clock>,
    replaying: &Progress,
) -> Result<(Store, OpenedLog), StartError> {
    let opened = open_log(settings, replication, replaying)?;
    let log = Arc::clone(&opened.local);
    let records = log.head().map_err(LedgerError::from)?.seq;
    let (asked, usual) = (settings.ledger_name.as_deref(), usual_name(settings));
    prepare_identity(&places(settings), (asked, &usual), records, settings.accept_new_ledger)?;
    let (limits, delivery) = (settings.limits, DeliveryLimits::STANDARD);
    let snapshots = Arc::clone(&log);
    let named = NamedLog::open(opened.written(), settings.hide_names).map_err(LedgerError::from)?;
    if settings.hide_names && !named.hides() {
        return Err(StartError::NamesInLog(settings.data.clone()));
    }
    let named = Arc::new(named);
    let pools =
        Pools::open_with(Arc::clone(&named), snapshots, clock, limits, delivery, replaying)?;
    let pools = pools.with_memory_index(named as Arc<dyn MemoryIndex>);
    let store = KeyPackageStore::new(pools, settings.admission.clone());
    let store = match settings.quotas {
        Some(quotas) => store.with_quotas(quotas).map_err(|error| {
            StartError::Setup(format!("what counts for the quotas cannot be read: {error}"))
        })?,
        None => store,
    };
    if let Some(replica) = &opened.replica {
        replica.on_growth(store.pools().wake_follower());
    }
    Ok((store, opened))
}

/// The places of the ledger's files.
fn places(settings: &Settings) -> Places {
    let dir: &Path = &settings.data;
    Places {
        key: dir.join("checkpoint.key"),
        checkpoint: settings.checkpoint_file.clone().unwrap_or_else(|| dir.join("checkpoint")),
        tiles: dir.join("tiles"),
    }
}

/// The name of a new ledger, unless the operator says one.
fn usual_name(settings: &Settings) -> String {
    let first_name = settings.public_names.first().map(|name| name.trim().to_ascii_lowercase());
    first_name.unwrap_or_else(|| LOCAL_NAME.to_owned())
}

/// Warns of a ledger whose name would stand for every machine, on a server that others reach.
pub(super) fn warn_of_local_name(settings: &Settings, key: &NoteKey) {
    let is_reached = !settings.public_names.is_empty() || !is_loopback(settings.listen.ip());
    if key.name() == LOCAL_NAME && is_reached {
        tracing::warn!(
            "the ledger is named localhost since its first start, and its receipts and checkpoints do not tell \
             this server from another; a name is given at the very first start, by --ledger-name or --public-name"
        );
    }
}

/// Warns of a directory for backups that is not there, without which the server can do well for a while.
pub(super) fn warn_of_missing_backups(settings: &Settings) {
    if let Some(backups) = settings.backups.as_deref().filter(|dir| !dir.is_dir()) {
        let directory = backups.display();
        tracing::warn!(%directory, "there is no such directory for --backups: make it, or mount its disk");
    }
}

/// Compares the log with the published checkpoint.
fn open_ledger(
    settings: &Settings,
    log: Arc<SledLog>,
) -> Result<Follower<Arc<SledLog>>, LedgerError> {
    let usual = usual_name(settings);
    Follower::open(log, &places(settings), settings.ledger_name.as_deref(), &usual)
}

/// As [`open_ledger`]; and where the operator accepts that the newer copy is lost, begins another ledger
/// once all packages are withdrawn.
pub(super) async fn open_or_restore(
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

/// Accepts the machine's clock if the operator says so, and tells the next step if it is not trusted.
pub(super) async fn check_clock(settings: &Settings, store: &Store) {
    // Where requests are not signed no device can tell the time, and nothing is at stake.
    let accepts = settings.accept_clock || settings.insecure_no_auth;
    if accepts && let Err(error) = store.pools().accept_clock().await {
        tracing::error!(%error, "the clock could not be accepted");
    }
    let (log, wall) = (store.pools().now(), store.pools().wall_clock());
    match store.pools().clock_state() {
        ClockState::Fine => {}
        ClockState::Regressed { .. } => tracing::error!(
            %log, %wall,
            "the clock is behind the log: packages are not handed out or spent until it has caught up; \
             set it, or start with --accept-clock if it is right"
        ),
        ClockState::Leapt { .. } => tracing::error!(
            %log, %wall,
            "the clock is far ahead of the log: what depends on time is refused until devices agree with \
             it; set it, or start with --accept-clock if it is right"
        ),
    }
}

/// Opens the record of refusals, once the log's directory is this server's own.
pub(super) fn open_refusals(
    settings: &Settings,
    store: &Store,
) -> Result<RefusalRecord, StartError> {
    let dir = settings.data.join(REFUSALS_DIR);
    RefusalRecord::open(&dir, settings.refusals_days, store.pools().now())
        .map_err(StartError::Threads)
}

/// Does something where it keeps no requests waiting.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StartError> {
    web::block(work).await.map_err(|err| StartError::Setup(err.to_string()))
}
