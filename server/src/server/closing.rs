//! The end of a server: listeners are stopped, and the log is closed.

use std::{sync::Arc, time::Duration};

use actix_web::{dev::ServerHandle, web::Data};

use crate::state::State;

/// How often it is looked whether the threads that answered requests have gone.
const WORKERS_GONE_TRIES: u32 = 1000;
/// Time between two of these looks.
const WORKERS_GONE_PAUSE: Duration = Duration::from_millis(5);
/// Time for the log to close when requests are answered: for these looks, and ten seconds for the disk.
pub const CLOSE_TIMEOUT: Duration =
    WORKERS_GONE_PAUSE.saturating_mul(WORKERS_GONE_TRIES).saturating_add(Duration::from_secs(10));

/// Stops both listeners at the same time, so that one timeout is enough for both.
pub(super) async fn stop_all(handles: &[ServerHandle; 2]) {
    let [public, admin] = handles;
    tokio::join!(public.stop(true), admin.stop(true));
}

/// Closes the log, once no thread uses it any more.
pub(super) async fn close(state: Data<State>) {
    let mut state = state.into_inner();
    for _ in 0..WORKERS_GONE_TRIES {
        match Arc::try_unwrap(state) {
            Ok(state) => return drop(state),
            Err(shared) => state = shared,
        }
        actix_rt::time::sleep(WORKERS_GONE_PAUSE).await;
    }
    tracing::warn!("a request is still under way; the log is closed when the process ends");
}
