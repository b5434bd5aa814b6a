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
enum PruneError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log cannot be written, or is damaged.
    #[error(transparent)]
    Write(#[from] OpenError),
}

/// Prunes the log now and then.
pub(super) async fn prune_log(state: Data<State>, retain: Duration, interval: Duration) {
    loop {
        actix_rt::time::sleep(interval).await;
        let pruning = state.clone();
        let Ok(pruned) = web::block(move || prune(&pruning, retain)).await else { return };
        match pruned {
            Ok(PruneReport { segments: 0, .. }) => {}
            Ok(PruneReport { segments, payload_bytes, file_bytes }) => {
                state.metrics.pruned(payload_bytes);
                tracing::info!(segments, payload_bytes, file_bytes, "payloads have left the log");
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "payloads stay in the log for now");
            }
        }
    }
}

/// Removes the payloads that have been over for a time, by the time of the log's last event.
fn prune(state: &State, retain: Duration) -> Result<PruneReport, PruneError> {
    let Some(store) = state.store.get() else { return Ok(PruneReport::default()) };
    let log = store.pools().log().inner();
    let (mut retention, mut next_seq) = (Retention::default(), 1);
    loop {
        if state.is_stopping() {
            return Ok(PruneReport::default());
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
