//! The pruning: lets payloads that are over leave the log, while the server runs.

use std::{collections::BTreeSet, thread, time::Duration};

use actix_web::web::{self, Data};
use keypool_ledger::{Clock, EventLog, OpenError, PruneReport, ReadError, SystemClock};
use keypool_projections::retention::Retention;

use crate::state::State;

/// How many records are read at once.
const PAGE: usize = 512;
/// How many times as long as it has worked it rests, so that requests do not wait for the disk.
const REST_PER_WORK: u32 = 4;
/// The pause before a segment is written again.
const SEGMENT_PAUSE: Duration = Duration::from_millis(100);

/// Why payloads were not pruned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PruneError {
    /// The operator has not said how long payloads stay.
    #[error(
        "the server keeps every payload: nothing leaves the log unless it is started with --retain"
    )]
    NotRetaining,
    /// The log is being pruned already.
    #[error("the log is being pruned at the moment")]
    Busy,
    /// The log has not been replayed yet, or the server is stopping.
    #[error("the server is starting or stopping")]
    NotReady,
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log cannot be written, or is damaged.
    #[error(transparent)]
    Write(#[from] OpenError),
}

/// Prunes the log now and then.
pub(crate) async fn prune_log(state: Data<State>, interval: Duration) {
    loop {
        actix_rt::time::sleep(interval).await;
        match prune_now(&state).await {
            Ok(_) | Err(PruneError::Busy) => {}
            Err(PruneError::NotReady) if state.is_stopping() => return,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "payloads stay in the log for now");
            }
        }
    }
}

/// Prunes the log, on a thread that may wait for the disk. Once begun it goes on, also if nobody waits for it.
///
/// # Errors
///
/// Returns a [`PruneError`] if the log keeps everything, is being pruned, or cannot be read or written.
pub(crate) async fn prune_now(state: &Data<State>) -> Result<PruneReport, PruneError> {
    let retain = state.prune_turns.retain().ok_or(PruneError::NotRetaining)?;
    if state.store.get().is_none() || state.is_stopping() {
        return Err(PruneError::NotReady);
    }
    let turn = state.prune_turns.take().ok_or(PruneError::Busy)?;
    let state = state.clone();
    let pruned = web::block(move || {
        let _turn = turn;
        let report = prune(&state, retain)?;
        if 0 < report.segments {
            let PruneReport { segments, payload_bytes, file_bytes } = report;
            state.metrics.pruned(payload_bytes);
            tracing::info!(segments, payload_bytes, file_bytes, "payloads have left the log");
        }
        Ok(report)
    });
    pruned.await.map_err(|_| PruneError::NotReady)?
}

/// Removes the payloads that have been over for a time, by the time of the log's last event.
fn prune(state: &State, retain: Duration) -> Result<PruneReport, PruneError> {
    let store = state.store.get().ok_or(PruneError::NotReady)?;
    let log = store.pools().log().inner().local();
    let (mut retention, mut next_seq) = (Retention::default(), 1);
    loop {
        if state.is_stopping() {
            return Err(PruneError::NotReady);
        }
        let begun = SystemClock.monotonic();
        let page = log.read(next_seq, PAGE)?;
        let Some(last) = page.last() else { break };
        next_seq = last.seq.saturating_add(1);
        for record in &page {
            retention.see(record.seq, &record.envelope, !record.payload.is_empty());
        }
        let worked = SystemClock.monotonic().saturating_sub(begun);
        thread::sleep(worked.saturating_mul(REST_PER_WORK));
    }
    let due: BTreeSet<u64> = retention.prunable(retain).into_iter().collect();
    let goes_on = || {
        thread::sleep(SEGMENT_PAUSE);
        !state.is_stopping()
    };
    Ok(log.prune(&due, &goes_on)?)
}
