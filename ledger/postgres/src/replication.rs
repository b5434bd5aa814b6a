//! The adapter: a table in PostgreSQL as a [`Replication`].

use std::{fmt, future::Future, time::Duration};

use keypool_ledger::{PublishOutcome, Replication, ReplicationError, StreamFrame, StreamStatus};
use tokio::runtime::{Builder, Runtime};

use crate::{PostgresError, PostgresSettings, link::PostgresLink};

/// A replicated log's stream in PostgreSQL.
///
/// Its methods block, and may be called by any thread but those that run asynchronous tasks. The connection lives on
/// two threads of its own, and is made again, to the primary of the moment, whenever it is lost.
pub struct PostgresReplication {
    link: PostgresLink,
    threads: PostgresThreads,
}

/// The runtime of the connection, which may be dropped by any thread.
struct PostgresThreads(Option<Runtime>);

impl PostgresReplication {
    /// Connects to the primary, creates the schema `keypool_<name>` if it is not there, and checks that server and
    /// tables are fit for a log.
    ///
    /// # Errors
    ///
    /// Returns a [`PostgresError`]: at once if the next step is the operator's, and otherwise after the patience of the
    /// settings.
    pub fn connect(settings: &PostgresSettings) -> Result<Self, PostgresError> {
        if settings.standbys == 0 {
            tracing::warn!(
                "no synchronous standby is demanded: a lost disk loses acknowledged events"
            );
        }
        let builder = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("keypool-postgres")
            .enable_all()
            .build();
        let threads = PostgresThreads(Some(builder.map_err(PostgresError::Threads)?));
        let link = threads.block_on(PostgresLink::connect(settings))?;
        Ok(Self { link, threads })
    }
}

impl Replication for PostgresReplication {
    fn publish(&self, after: u64, frame: &[u8]) -> PublishOutcome {
        self.threads.block_on(self.link.publish(after, frame))
    }

    fn frames(
        &self,
        after: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<StreamFrame>, ReplicationError> {
        self.threads.block_on(self.link.frames((after, bytes_max), wait))
    }

    fn last(&self) -> Result<u64, ReplicationError> {
        self.threads.block_on(self.link.last())
    }

    /// Asks the primary. `lost` counts missing rows at both ends of the table; readers notice those between. Whether a
    /// standby is up to date is known to the role `pg_monitor` only, so any that is connected counts.
    fn status(&self, wait: Duration) -> Result<StreamStatus, ReplicationError> {
        self.threads.block_on(self.link.status(wait))
    }
}

impl fmt::Debug for PostgresReplication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresReplication").field("link", &self.link).finish_non_exhaustive()
    }
}

impl PostgresThreads {
    #[expect(clippy::expect_used, reason = "the runtime is there until the drop")]
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.as_ref().expect("the runtime is there until the drop").block_on(future)
    }
}

impl Drop for PostgresThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
