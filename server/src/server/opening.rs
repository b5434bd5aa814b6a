//! Opens the log and the ledger, where that keeps no requests waiting.

use std::{path::Path, sync::Arc};

use actix_web::web;
use keypool_api::REFUSALS_DIR;
use keypool_ledger::{Clock, MemoryIndex, SledLog, SledLogOptions};
use keypool_projections::DeliveryLimits;

use super::StartError;
use crate::{
    keypackage_store::KeyPackageStore,
    pools::{Pools, Progress},
    refusals::RefusalRecord,
    settings::Settings,
    state::Store,
    transparency::{Follower, LedgerError, Places, quarantine, set_aside},
};

/// Replays the log.
pub(super) fn open_store(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    replaying: &Progress,
) -> Result<(Store, Arc<SledLog>), StartError> {
    let options =
        SledLogOptions { ballast_bytes: settings.ballast_bytes, ..SledLogOptions::default() };
    let log = Arc::new(SledLog::open(&settings.data, options)?);
    let (limits, delivery) = (settings.limits, DeliveryLimits::STANDARD);
    let snapshots = Arc::clone(&log);
    let pools = Pools::open_with(Arc::clone(&log), snapshots, clock, limits, delivery, replaying)?;
    let pools = pools.with_memory_index(Arc::clone(&log) as Arc<dyn MemoryIndex>);
    let store = KeyPackageStore::new(pools, settings.admission.clone());
    let store = match settings.quotas {
        Some(quotas) => store.with_quotas(quotas).map_err(|error| {
            StartError::Setup(format!("what counts for the quotas cannot be read: {error}"))
        })?,
        None => store,
    };
    Ok((store, log))
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

/// Compares the log with the published checkpoint.
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
