//! The sweep: records the effects of time, and lets counts and days end, while the server runs.

use std::time::Duration;

use actix_web::web::Data;

use crate::state::State;

/// Records the effects of time now and then.
pub(super) async fn sweep(state: Data<State>, interval: Duration) {
    loop {
        actix_rt::time::sleep(interval).await;
        state.metrics.upkeep();
        state.addresses.sweep(state.clock.now());
        state.connections.report();
        let Some(store) = state.store.get() else { continue };
        if let Some(refusals) = state.refusals.get() {
            refusals.tend(store.pools().now());
        }
        match store.cleanup_expired().await {
            Ok(0) => {}
            Ok(pools) => tracing::info!(pools, "recorded lapses and expiries"),
            Err(error) => tracing::warn!(%error, "the sweep was not recorded"),
        }
    }
}
