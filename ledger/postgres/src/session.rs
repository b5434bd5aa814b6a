//! The session: one connection to the primary, and the questions that it answers.
//!
//! A row of the primary may be one that no standby has: the wait for them was cancelled, or the primary has crashed
//! during it. So a commit counts only if its wait was not cancelled, which the server tells with a warning. And rows
//! are shown only after a commit behind them has counted: the barrier.

use std::{
    error::Error,
    future::{Future, poll_fn},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use keypool_ledger::{PublishOutcome, ReplicationError, StreamFrame, StreamStatus};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};
use tokio_postgres::{
    AsyncMessage, Client, Connection, Row, Socket, Statement, error::Severity, tls::TlsStream,
    types::ToSql,
};

use crate::fitness::standbys_asked;

/// How long an acknowledgement may take.
const ACK_WAIT: Duration = Duration::from_secs(2);
/// How long an answer that waits for no standby may take.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long the standbys may take to confirm a barrier.
pub(crate) const CONFIRM_WAIT: Duration = Duration::from_secs(2);
/// How many frames are read at a time at most.
const FRAMES_MAX: i64 = 4096;

/// A commit that writes a record to the log of PostgreSQL and nothing to any table. It is answered once the standbys
/// have all that was committed before.
pub(crate) const BARRIER: &str = "SELECT pg_logical_emit_message(true, 'keypool', '')::text, \
                                  current_setting('synchronous_standby_names')";

/// A connection to the primary, whose fitness was checked.
pub(crate) struct PostgresSession {
    client: Client,
    messages: ServerMessages,
    statements: LogStatements,
    /// How many synchronous standbys are demanded.
    standbys: usize,
    /// The address of the server.
    server: String,
    /// The number of the last frame that the standbys have for certain.
    confirmed: AtomicU64,
    driver: AbortHandle,
}

/// The messages of a server that answer no question.
#[derive(Clone)]
pub(crate) struct ServerMessages {
    /// How many warnings came.
    warnings: Arc<AtomicU64>,
    /// How often the stream has grown.
    growth: watch::Receiver<u64>,
}

/// The prepared statements of a log.
struct LogStatements {
    publish: Statement,
    read: Statement,
    last: Statement,
    status: Statement,
    barrier: Statement,
}

impl LogStatements {
    /// Prepares the statements, and listens for growth.
    async fn prepare(client: &Client, schema: &str) -> Result<Self, tokio_postgres::Error> {
        client.batch_execute(&format!("LISTEN \"{schema}\"")).await?;
        // The row of the head is locked until the commit, so servers that write at once go in turn; the second one
        // finds another number there. The key of the frames refuses a number that is there.
        let publish = format!(
            "WITH moved AS (UPDATE \"{schema}\".head SET sequence = sequence + 1 WHERE sequence = $1::bigint \
             RETURNING sequence), \
             written AS (INSERT INTO \"{schema}\".frames (sequence, frame) SELECT sequence, $2::bytea FROM moved \
             RETURNING sequence) \
             SELECT sequence, current_setting('synchronous_standby_names'), pg_notify('{schema}', '')::text FROM written"
        );
        let read = format!(
            "SELECT sequence, frame FROM (SELECT sequence, frame, sum(octet_length(frame)) OVER (ORDER BY sequence \
             ROWS UNBOUNDED PRECEDING) - octet_length(frame) AS bytes FROM (SELECT sequence, frame FROM \
             \"{schema}\".frames WHERE $1::bigint < sequence ORDER BY sequence LIMIT {FRAMES_MAX}) AS behind) AS summed \
             WHERE bytes < $2::bigint ORDER BY sequence"
        );
        let last = format!("SELECT sequence FROM \"{schema}\".head");
        // Without the role pg_monitor the state of a standby is not shown, only that it is connected.
        let status = format!(
            "SELECT sequence, sequence - coalesce((SELECT max(sequence) FROM \"{schema}\".frames), 0) \
             + coalesce((SELECT min(sequence) FROM \"{schema}\".frames), 1) - 1, \
             (SELECT count(*) FROM pg_stat_replication WHERE coalesce(state, 'streaming') = 'streaming') \
             FROM \"{schema}\".head"
        );
        Ok(Self {
            publish: client.prepare(&publish).await?,
            read: client.prepare(&read).await?,
            last: client.prepare(&last).await?,
            status: client.prepare(&status).await?,
            barrier: client.prepare(BARRIER).await?,
        })
    }
}

impl ServerMessages {
    /// How many warnings came so far.
    pub(crate) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Acquire)
    }
}

/// Serves a connection until it ends.
pub(crate) fn drive<T>(mut connection: Connection<Socket, T>) -> (ServerMessages, JoinHandle<()>)
where
    T: TlsStream + Unpin + Send + 'static,
{
    let (grow, growth) = watch::channel(0);
    let warnings = Arc::new(AtomicU64::new(0));
    let messages = ServerMessages { warnings: Arc::clone(&warnings), growth };
    let driver = tokio::spawn(async move {
        // A warning is counted before the answer that follows it is passed on.
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            match message {
                Ok(AsyncMessage::Notification(_)) => grow.send_modify(|count| *count += 1),
                Ok(AsyncMessage::Notice(notice)) => {
                    let told = notice.parsed_severity();
                    if !matches!(told, Some(Severity::Debug | Severity::Log | Severity::Info)) {
                        tracing::warn!(%notice, "the PostgreSQL server warns");
                        warnings.fetch_add(1, Ordering::AcqRel);
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "the connection to the PostgreSQL server is lost");
                    return;
                }
            }
        }
    });
    (messages, driver)
}

impl PostgresSession {
    /// Makes ready a connection whose server and tables were checked, and whose barrier was confirmed.
    pub(crate) async fn new(
        client: Client,
        (messages, driver): (ServerMessages, AbortHandle),
        (server, schema, standbys): (&str, &str, usize),
    ) -> Result<Self, tokio_postgres::Error> {
        let statements = LogStatements::prepare(&client, schema).await?;
        let (server, confirmed) = (server.to_owned(), AtomicU64::new(0));
        Ok(Self { client, messages, statements, standbys, server, confirmed, driver })
    }

    /// Whether the connection is there.
    pub(crate) fn is_open(&self) -> bool {
        !self.client.is_closed() && !self.driver.is_finished()
    }

    /// Gives the connection up. Nothing is cancelled: a commit that waits for standbys goes on waiting, unseen, and
    /// holds the lock of the head meanwhile.
    fn abandon(&self) {
        self.driver.abort();
    }

    /// Publishes a frame behind frame `after`.
    pub(crate) async fn publish(&self, after: u64, frame: &[u8]) -> PublishOutcome {
        let Ok(place) = i64::try_from(after) else { return PublishOutcome::Refused };
        let warnings = self.messages.warnings();
        let asking = async {
            let values: [&(dyn ToSql + Sync); 2] = [&place, &frame];
            self.client.query_opt(&self.statements.publish, &values).await
        };
        let row = match timeout(ACK_WAIT, asking).await {
            Ok(Ok(row)) => row,
            Ok(Err(error)) if is_rolled_back(&error) => {
                return PublishOutcome::NotSent(error.into());
            }
            Ok(Err(error)) => {
                self.abandon();
                return PublishOutcome::NoAnswer(error.into());
            }
            Err(elapsed) => {
                self.abandon();
                return PublishOutcome::NoAnswer(elapsed.into());
            }
        };
        let Some(row) = row else { return PublishOutcome::Refused };
        if let Err(why) = self.check_wait(&row, warnings) {
            return PublishOutcome::NoAnswer(why.into());
        }
        self.confirmed.fetch_max(after.saturating_add(1), Ordering::AcqRel);
        PublishOutcome::Written
    }

    /// Reads the frames behind frame `after`, and confirms those that may be on the primary alone.
    pub(crate) async fn frames(
        &self,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<StreamFrame>, ReplicationError> {
        let place = i64::try_from(after).unwrap_or(i64::MAX);
        let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let rows =
            self.answer(self.client.query(&self.statements.read, &[&place, &bytes_max])).await?;
        let frame = |row: &Row| {
            let sequence = u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or_default();
            Ok(StreamFrame { sequence, bytes: row.try_get(1)? })
        };
        let frames: Result<Vec<_>, tokio_postgres::Error> = rows.iter().map(frame).collect();
        let frames = frames.map_err(unreachable)?;
        let last = frames.last().map_or(0, |frame| frame.sequence);
        if self.confirmed.load(Ordering::Acquire) < last {
            self.confirm().await?;
            self.confirmed.fetch_max(last, Ordering::AcqRel);
        }
        Ok(frames)
    }

    /// Waits until the stream has grown since the last call, for `wait` at most.
    pub(crate) async fn grown(&self, growth: &mut watch::Receiver<u64>, wait: Duration) -> bool {
        timeout(wait, growth.changed()).await.is_ok()
    }

    /// Notes how far the stream has grown.
    pub(crate) fn growth(&self) -> watch::Receiver<u64> {
        self.messages.growth.clone()
    }

    /// Reads the number of the last frame, and makes sure that this server can still write, so that no other does.
    pub(crate) async fn last(&self) -> Result<u64, ReplicationError> {
        let row = self.answer(self.client.query_one(&self.statements.last, &[])).await?;
        let last: i64 = row.try_get(0).map_err(unreachable)?;
        self.confirm().await?;
        let last = u64::try_from(last).unwrap_or_default();
        self.confirmed.fetch_max(last, Ordering::AcqRel);
        Ok(last)
    }

    /// Reads the state of the stream, of which `servers` should have a copy. It also makes sure that this server can
    /// still write; otherwise it leads nothing.
    pub(crate) async fn status(&self, servers: usize) -> Result<StreamStatus, ReplicationError> {
        let row = self.answer(self.client.query_one(&self.statements.status, &[])).await?;
        let number = |index| {
            let number: i64 = row.try_get(index).map_err(unreachable)?;
            Ok(u64::try_from(number).unwrap_or_default())
        };
        let leader = self.confirm().await.is_ok().then(|| self.server.clone());
        let standbys = usize::try_from(number(2)?).unwrap_or(usize::MAX);
        Ok(StreamStatus {
            last: number(0)?,
            lost: number(1)?,
            leader,
            current_replicas: standbys.saturating_add(1),
            replicas: servers,
        })
    }

    /// Waits until the standbys have everything that was committed here before.
    async fn confirm(&self) -> Result<(), ReplicationError> {
        let warnings = self.messages.warnings();
        let asking = self.client.query_one(&self.statements.barrier, &[]);
        match timeout(CONFIRM_WAIT, asking).await {
            Ok(Ok(row)) => self.check_wait(&row, warnings).map_err(unreachable),
            Ok(Err(error)) => {
                self.abandon();
                Err(unreachable(error))
            }
            Err(_) => {
                self.abandon();
                Err(unreachable("the synchronous standbys do not confirm"))
            }
        }
    }

    /// Checks that a commit has waited for as many standbys as are demanded. Other servers would not have it, and a
    /// connection that was made anew tells the reason.
    fn check_wait(&self, row: &Row, warnings: u64) -> Result<(), String> {
        if self.messages.warnings() != warnings {
            return Err("the wait for the synchronous standbys was cancelled".to_owned());
        }
        let names: &str = row.try_get(1).map_err(|error| error.to_string())?;
        if standbys_asked(names) < self.standbys {
            self.abandon();
            return Err(format!("synchronous_standby_names has become {names:?}"));
        }
        Ok(())
    }

    async fn answer<T>(
        &self,
        asking: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, ReplicationError> {
        match timeout(ANSWER_WAIT, asking).await {
            Ok(answer) => answer.map_err(unreachable),
            Err(elapsed) => {
                self.abandon();
                Err(unreachable(elapsed))
            }
        }
    }
}

impl Drop for PostgresSession {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Whether an error says for certain that the transaction was not committed: the server goes on with the session.
fn is_rolled_back(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
}

fn unreachable(error: impl Into<Box<dyn Error + Send + Sync>>) -> ReplicationError {
    ReplicationError::Unreachable(error.into())
}
