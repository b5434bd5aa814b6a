//! Watches the room on the disk while the server runs.

use std::time::Duration;

use actix_web::web::Data;

use super::opening::blocking;
use crate::{disk::DiskRoom, settings::Settings, state::State};

/// Time between two looks at the room of the log.
const DISK_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the room on the log's disk at an interval.
pub(super) async fn watch_disk(state: Data<State>, settings: Settings) {
    loop {
        actix_rt::time::sleep(DISK_INTERVAL).await;
        look_at_disk(&state, &settings).await;
    }
}

/// Reads the room on the log's disk.
pub(super) async fn look_at_disk(state: &State, settings: &Settings) {
    let dir = settings.data.clone();
    match blocking(move || DiskRoom::of(&dir)).await {
        Ok(Ok(room)) => state.disk.observe(room, settings.disk_low_water),
        Ok(Err(error)) => tracing::warn!(%error, "the room on the disk of the log cannot be read"),
        Err(_) => {}
    }
}
