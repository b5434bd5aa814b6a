//! The link: a session with the primary of the moment, made again whenever it is lost.

use std::{fmt, sync::Arc, time::Duration};

use keypool_ledger::{PublishOutcome, ReplicationError, StreamFrame, StreamStatus};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    PostgresError, PostgresSettings,
    connecting::{Connected, connect},
    error::error_line,
    session::PostgresSession,
};

/// How long a question waits for a session.
const SESSION_WAIT: Duration = Duration::from_millis(500);
/// How long the first failed connect rests; twice as long each time after, until the longest rest.
const REST_MIN: Duration = Duration::from_millis(50);
const REST_MAX: Duration = Duration::from_secs(1);
/// How often a reader looks although no growth was told.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A session with the primary, made again whenever it is lost.
pub(crate) struct PostgresLink {
    schema: String,
    /// How many servers the settings name.
    servers: usize,
    state: watch::Receiver<LinkState>,
}

/// The session of the moment, or the reason why there is none.
#[derive(Clone, Default)]
struct LinkState {
    session: Option<Arc<PostgresSession>>,
    why: Option<String>,
}

impl LinkState {
    fn open_session(&self) -> Option<Arc<PostgresSession>> {
        self.session.clone().filter(|session| session.is_open())
    }
}

impl PostgresLink {
    /// Connects to the primary, and keeps the connection from then on.
    pub(crate) async fn connect(settings: &PostgresSettings) -> Result<Self, PostgresError> {
        settings.check()?;
        let mut last = None;
        let attempts = async {
            let mut rest = REST_MIN;
            loop {
                match connect(settings).await {
                    Err(error @ PostgresError::Unreachable { .. }) => last = Some(error),
                    other => return other,
                }
                sleep(rest).await;
                rest = (rest * 2).min(REST_MAX);
            }
        };
        let connected = match timeout(settings.patience, attempts).await {
            Ok(result) => result?,
            Err(elapsed) => {
                let (servers, source) = (settings.hosts(), elapsed.into());
                return Err(last.unwrap_or(PostgresError::Unreachable { servers, source }));
            }
        };
        let (tell, state) = watch::channel(LinkState::default());
        let (schema, servers) = (settings.schema(), settings.n_servers());
        tokio::spawn(keep(settings.clone(), connected, tell));
        Ok(Self { schema, servers, state })
    }

    /// Waits for a session.
    async fn session(&self, wait: Duration) -> Result<Arc<PostgresSession>, ReplicationError> {
        let mut state = self.state.clone();
        let waiting = state.wait_for(|state| state.open_session().is_some());
        if let Ok(Ok(state)) = timeout(wait, waiting).await
            && let Some(session) = state.open_session()
        {
            return Ok(session);
        }
        let why = self.state.borrow().why.clone();
        let why = why.unwrap_or_else(|| "there is no connection to PostgreSQL".to_owned());
        Err(ReplicationError::Unreachable(why.into()))
    }

    /// Publishes a frame behind frame `after`.
    pub(crate) async fn publish(&self, after: u64, frame: &[u8]) -> PublishOutcome {
        match self.session(SESSION_WAIT).await {
            Ok(session) => session.publish(after, frame).await,
            Err(error) => PublishOutcome::NotSent(error.into()),
        }
    }

    /// Reads the frames behind a frame, and waits for the first one.
    pub(crate) async fn frames(
        &self,
        (after, bytes_max): (u64, usize),
        wait: Duration,
    ) -> Result<Vec<StreamFrame>, ReplicationError> {
        let session = self.session(SESSION_WAIT.max(wait)).await?;
        let (mut growth, mut left) = (session.growth(), wait);
        loop {
            growth.mark_unchanged();
            let frames = session.frames(after, bytes_max).await?;
            if !frames.is_empty() || left.is_zero() {
                return Ok(frames);
            }
            let step = left.min(LOOK_EVERY);
            if !session.grown(&mut growth, step).await {
                left = left.saturating_sub(step);
            }
            if !session.is_open() {
                let why = "the connection to PostgreSQL was lost";
                return Err(ReplicationError::Unreachable(why.into()));
            }
        }
    }

    /// Reads the number of the last frame.
    pub(crate) async fn last(&self) -> Result<u64, ReplicationError> {
        self.session(SESSION_WAIT).await?.last().await
    }

    /// Reads the state of the stream.
    pub(crate) async fn status(&self, wait: Duration) -> Result<StreamStatus, ReplicationError> {
        let asking = async { self.session(wait).await?.status(self.servers).await };
        match timeout(wait, asking).await {
            Ok(status) => status,
            Err(elapsed) => Err(ReplicationError::Unreachable(elapsed.into())),
        }
    }
}

impl fmt::Debug for PostgresLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLink").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Keeps a session: whenever its connection ends, another one is made, until nobody has the link any more.
async fn keep(settings: PostgresSettings, first: Connected, tell: watch::Sender<LinkState>) {
    let mut connected = Some(first);
    let mut rest = REST_MIN;
    while !tell.is_closed() {
        if let Some((session, driver)) = connected.take() {
            tell.send_replace(LinkState { session: Some(Arc::new(session)), why: None });
            drop(driver.await);
            tell.send_replace(LinkState::default());
            rest = REST_MIN;
        }
        match connect(&settings).await {
            Ok(again) => connected = Some(again),
            Err(error) => {
                let why = Some(error_line(&error));
                tell.send_modify(|state| state.why = why);
                sleep(rest).await;
                rest = (rest * 2).min(REST_MAX);
            }
        }
    }
}
