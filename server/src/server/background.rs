//! The tasks beside the requests: the sweep, the watches of the disk and of the stream, the pruning, and the
//! webhook.

use std::sync::Arc;

use actix_rt::task::JoinHandle;
use actix_web::web::Data;
use keypool_ledger::Replication;

use super::{disk_watch::watch_disk, sweeper::sweep};
use crate::{pruning::prune_log, settings::Settings, state::State, webhook::Webhook};

/// The tasks of a running server.
pub(super) struct Background {
    /// Tasks that can be stopped at any moment.
    tasks: Vec<JoinHandle<()>>,
    /// The task that ends by itself once the server stops.
    webhook: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts the tasks.
    pub(super) fn start(
        state: &Data<State>,
        settings: &Settings,
        (replication, webhook): (Option<Arc<dyn Replication>>, Option<Webhook>),
    ) -> Self {
        let sweeper = actix_rt::spawn(sweep(state.clone(), settings.sweep_interval));
        let disk_watch = actix_rt::spawn(watch_disk(state.clone(), settings.clone()));
        let mut tasks = vec![sweeper, disk_watch];
        if state.prune_turns.retain().is_some() {
            tasks.push(actix_rt::spawn(prune_log(state.clone(), settings.prune_interval)));
        }
        if let Some(replication) = replication {
            let (state, clock) = (state.clone(), Arc::clone(&state.clock));
            let looking = async move { state.stream_watch.look_on(replication, clock).await };
            tasks.push(actix_rt::spawn(looking));
        }
        Self { tasks, webhook: webhook.map(Webhook::start) }
    }

    /// Ends the tasks, once the state says that the server stops.
    pub(super) async fn end(self) {
        for task in self.tasks {
            task.abort();
            drop(task.await);
        }
        if let Some(webhook) = self.webhook {
            drop(webhook.await);
        }
    }
}
