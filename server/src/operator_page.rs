//! The operator's page on the admin listener: the server as its source, the reading of the log for it, and the
//! browsers that have signed in.

mod actions;

mod desk;

mod sessions;

use std::{error::Error, path::Path, time::Duration};

use actix_rt::time::sleep;
use actix_web::web::{self, Data};
use keypool_api::RefusedRequest;
use keypool_ledger::{EventLog, PoolId, ReadError, Timestamp};
use keypool_operator_page::PageSource;
use keypool_projections::{Limits, PoolState, directory::DeviceChange};

pub(crate) use self::{actions::carry_out, desk::OperatorDesk, sessions::session_of};
use crate::{
    problem::Failure,
    routes::operations::metrics_text,
    state::{State, Store},
};

/// The least time between two looks at the log, and the most.
const LOOKS_APART: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// How many changes of a user's device list are shown.
const CHANGES_MAX: usize = 1000;

/// The server as the source of its page.
pub(crate) struct LivePageSource<'a> {
    state: &'a State,
    store: &'a Store,
}

impl<'a> LivePageSource<'a> {
    /// The source, once the log has been replayed.
    pub(crate) fn of(state: &'a State) -> Result<Self, Failure> {
        Ok(Self { state, store: state.store()? })
    }
}

impl PageSource for LivePageSource<'_> {
    fn log(&self) -> &dyn EventLog {
        self.store.pools().log()
    }

    fn pool(&self, pool: &PoolId) -> Option<PoolState> {
        self.store.pools().pool(pool).map(|view| view.state.clone())
    }

    fn now(&self) -> Timestamp {
        self.store.pools().now()
    }

    fn limits(&self) -> Limits {
        self.store.pools().limits()
    }

    fn retention(&self) -> Option<Duration> {
        self.state.prune_turns.retain()
    }

    fn backups(&self) -> Option<&Path> {
        self.state.backups.path()
    }

    fn metrics(&self) -> String {
        metrics_text(self.state)
    }

    fn device_changes(&self, user: &str) -> Result<Vec<DeviceChange>, ReadError> {
        let changes = self.store.pools().device_changes(user, 0, CHANGES_MAX)?;
        Ok(changes.map(|known| known.changes).unwrap_or_default())
    }

    fn refusals_of(&self, request_id: &str) -> Vec<RefusedRequest> {
        let Some(record) = self.state.refusals.get() else { return Vec::new() };
        let found = record.of_request(request_id, self.state.clock.now());
        found.unwrap_or_else(|error| {
            tracing::warn!(%error, "the record of refusals cannot be read for the operator's page");
            Vec::new()
        })
    }
}

/// Whether a path is one of the page.
pub(crate) fn is_page_path(path: &str) -> bool {
    path == "/" || path.starts_with("/page/")
}

/// Starts to read the log for the page, unless that has begun. A server whose page nobody opens reads nothing.
pub(crate) fn start_following(state: &Data<State>) {
    if state.store.get().is_some() && state.desk.begin_following() {
        actix_rt::spawn(follow(state.clone()));
    }
}

/// Reads the log for the page as it grows, until the server stops.
async fn follow(state: Data<State>) {
    let Some(mut written) = state.store.get().map(|store| store.pools().written()) else { return };
    let mut stopping = state.stopping.subscribe();
    let mut is_failing = false;
    while !*stopping.borrow() {
        written.mark_unchanged();
        let reader = state.clone();
        let look = web::block(move || match LivePageSource::of(&reader) {
            Ok(source) => reader.desk.page.follow(&source),
            Err(_) => Ok(false),
        });
        let Ok(looked) = look.await else { return };
        if let Err(error) = &looked
            && !is_failing
        {
            let error: &dyn Error = error;
            tracing::error!(
                error,
                "the log cannot be read for the operator's page; it is tried again"
            );
        }
        is_failing = looked.is_err();
        if matches!(looked, Ok(true)) {
            continue;
        }
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = sleep(LOOKS_APART.0) => {}
        }
        tokio::select! {
            _ = stopping.wait_for(|stopping| *stopping) => return,
            changed = written.changed(), if !is_failing => if changed.is_err() { return },
            () = sleep(LOOKS_APART.1) => {}
        }
    }
}
