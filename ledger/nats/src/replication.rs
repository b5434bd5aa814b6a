//! The adapter: a stream of NATS JetStream as a [`Replication`].

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use keypool_ledger::{PublishOutcome, Replication, ReplicationError, StreamFrame, StreamStatus};
use tokio::runtime::{Builder, Runtime};

use crate::{NatsError, NatsSettings, link::Link, reader::StreamReader, status::status_of};

/// A replicated log's stream on a cluster of NATS servers.
///
/// Its methods block, and may be called by any thread but those that run asynchronous tasks. The connection lives
/// on two threads of its own and is made again whenever it is lost, or leads to a server without the stream's leader.
pub struct NatsReplication {
    link: Arc<Link>,
    reader: Mutex<StreamReader>,
    threads: Threads,
}

/// The runtime of the connection, which may be dropped by any thread.
struct Threads(Option<Runtime>);

impl NatsReplication {
    /// Connects to the first server that answers, creates the stream `KP-<name>` if it is not there, and checks
    /// that server and stream are fit for a log.
    ///
    /// # Errors
    ///
    /// Returns a [`NatsError`]: at once if the next step is the operator's, and otherwise after the patience of the
    /// settings.
    pub fn connect(settings: &NatsSettings) -> Result<Self, NatsError> {
        if ![1, 3, 5].contains(&settings.replicas) {
            let why = "a stream has 3 or 5 replicas, or 1 for development";
            return Err(NatsError::Setting(why.to_owned()));
        }
        if settings.replicas == 1 {
            tracing::warn!("the stream has one replica: a lost disk loses acknowledged events");
        }
        let builder = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("keypool-nats")
            .enable_all()
            .build();
        let threads = Threads(Some(builder.map_err(NatsError::Threads)?));
        let link = Arc::new(threads.block_on(Link::connect(settings))?);
        let looking = Arc::clone(&link);
        threads.spawn(async move { looking.leave_servers_without_leader().await });
        Ok(Self { link, reader: Mutex::default(), threads })
    }
}

impl Replication for NatsReplication {
    fn publish(&self, after: u64, frame: &[u8]) -> PublishOutcome {
        self.threads.block_on(self.link.publish(after, frame))
    }

    fn frames(
        &self,
        after: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<StreamFrame>, ReplicationError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        self.threads.block_on(reader.read(&self.link, (after, bytes_max), wait))
    }

    fn last(&self) -> Result<u64, ReplicationError> {
        self.threads.block_on(self.link.last())
    }

    /// Asks the leader, so copies that other nodes have lost parts of do not show: poll `/jsz?streams=true` of each
    /// node for `num_deleted`, too.
    fn status(&self, wait: Duration) -> Result<StreamStatus, ReplicationError> {
        let info = self.threads.block_on(self.link.info(wait))?;
        Ok(status_of(&info, self.link.server_name()))
    }
}

impl fmt::Debug for NatsReplication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsReplication").field("stream", &self.link.stream).finish_non_exhaustive()
    }
}

impl Threads {
    #[expect(clippy::expect_used, reason = "the runtime is there until the drop")]
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.as_ref().expect("the runtime is there until the drop").block_on(future)
    }

    /// Starts a task that ends with the threads.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(task);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
