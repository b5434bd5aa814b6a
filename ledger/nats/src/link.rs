//! The link: one connection to the NATS servers, and questions that are answered once.

use std::{
    error::Error,
    future::Future,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, Request,
    client::RequestErrorKind,
    connection::State,
    header::{NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_STREAM},
    jetstream::{
        Context, ErrorCode,
        context::{ContextBuilder, CreateStreamErrorKind, GetStreamErrorKind},
        publish::PublishAck,
        response::Response,
        stream::Info,
    },
};
use keypool_ledger::{PublishOutcome, ReplicationError, StreamFrame, log::BoxError};
use tokio::{sync::watch, time};

use crate::{NatsCredentials, NatsError, NatsSettings, fitness, status::status_of};

/// How long an acknowledgement may take.
const ACK_WAIT: Duration = Duration::from_secs(2);
/// How long a publish waits for a connection.
const CONNECTION_WAIT: Duration = Duration::from_millis(500);
/// How long an answer about the stream may take.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How long one attempt to connect to a server may take.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// After how much silence a server is pinged. The third ping without an answer ends the connection.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How long a lost connection waits at most until it is tried again.
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(250);
/// How long a failed connect rests.
const REST: Duration = Duration::from_millis(250);
/// How often a leader that knows less than this server is asked again, and the rest before each time.
const STALE_LOOKS: u32 = 20;
const STALE_REST: Duration = Duration::from_millis(500);
/// How often the stream's leader is looked for, and how often in vain until another server is tried. An election
/// takes some seconds.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const VAIN_LOOKS: u32 = 3;
/// The codes of a refusal because another frame came first.
const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];
/// The codes of a server that has no JetStream, or is not of a cluster.
const NO_JETSTREAM: [u64; 3] = [10039, 10074, 10076];
/// The code of a subject that another stream takes.
const SUBJECT_OVERLAP: u64 = 10065;
/// The code of a stream that exists with other settings.
const STREAM_EXISTS: u64 = 10058;

/// A connection to the NATS servers, made again whenever it is lost.
pub(crate) struct Link {
    client: Client,
    pub(crate) context: Context,
    pub(crate) stream: String,
    subject: String,
    /// How many connections there were.
    connections: watch::Receiver<u64>,
    /// The number of the last frame that the stream has for certain.
    seen: AtomicU64,
}

impl Link {
    /// Connects, creates the stream if it is not there, and checks servers and stream.
    pub(crate) async fn connect(settings: &NatsSettings) -> Result<Self, NatsError> {
        let mut last = None;
        let attempts = async {
            loop {
                match Self::try_connect(settings).await {
                    Err(error @ NatsError::Unreachable { .. }) => last = Some(error),
                    other => return other,
                }
                time::sleep(REST).await;
            }
        };
        match time::timeout(settings.patience, attempts).await {
            Ok(result) => result,
            Err(elapsed) => Err(last.unwrap_or_else(|| unreachable(settings, elapsed))),
        }
    }

    async fn try_connect(settings: &NatsSettings) -> Result<Self, NatsError> {
        let (told, connections) = watch::channel(0);
        let options = options(settings, Arc::new(told))?;
        let connected = options.connect(&settings.servers[..]).await;
        let client = connected.map_err(|error| match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                NatsError::Refused { servers: settings.hosts(), source: error.into() }
            }
            _ => unreachable(settings, error),
        })?;
        let server = client.server_info();
        fitness::check_server(&server.version, server.max_payload).map_err(NatsError::Unfit)?;
        let context = ContextBuilder::new().timeout(ANSWER_WAIT).build(client.clone());
        let (stream, subject, seen) = (settings.stream(), settings.subject(), AtomicU64::new(0));
        let link = Self { client, context, stream, subject, connections, seen };
        link.join_stream(settings).await?;
        Ok(link)
    }

    /// Creates the stream if it is not there, and checks it.
    async fn join_stream(&self, settings: &NatsSettings) -> Result<(), NatsError> {
        let names = (self.stream.as_str(), self.subject.as_str());
        let wanted = fitness::config(names, settings.replicas, settings.ledger.as_deref());
        let found = match self.context.get_stream(&self.stream).await {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(answer)
                    if answer.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    let created = self.context.create_stream(wanted.clone()).await;
                    created.map_err(|error| match error.kind() {
                        CreateStreamErrorKind::JetStream(answer) => {
                            explain(settings, answer.error_code().0, error)
                        }
                        _ => unreachable(settings, error),
                    })?;
                    let again = self.context.get_stream(&self.stream).await;
                    again.map_err(|error| unreachable(settings, error))?
                }
                GetStreamErrorKind::JetStream(answer) => {
                    return Err(explain(settings, answer.error_code().0, error));
                }
                _ => return Err(unreachable(settings, error)),
            },
        };
        fitness::check_stream(found.cached_info(), &wanted).map_err(NatsError::Unfit)
    }

    /// Waits until there is a connection, and returns how many there were.
    pub(crate) async fn connected(&self, wait: Duration) -> Result<u64, ReplicationError> {
        let mut connections = self.connections.clone();
        let is_connected = || self.client.connection_state() == State::Connected;
        let waiting = async { while !is_connected() && connections.changed().await.is_ok() {} };
        let waited = time::timeout(wait, waiting).await;
        if is_connected() {
            return Ok(*self.connections.borrow());
        }
        drop(waited);
        Err(ReplicationError::Unreachable("there is no connection to any NATS server".into()))
    }

    /// Leaves a server that answers but does not reach the stream's leader: the network may have cut it off from the
    /// others. The next one is drawn at random.
    pub(crate) async fn leave_servers_without_leader(&self) {
        let mut vain = 0;
        loop {
            time::sleep(LOOK_EVERY).await;
            // Without a connection the client looks for one itself.
            let is_in_vain = self.client.connection_state() == State::Connected
                && !self.info(ANSWER_WAIT).await.is_ok_and(|info| self.is_led(&info));
            vain = if is_in_vain { vain + 1 } else { 0 };
            if vain == VAIN_LOOKS {
                let server = self.server_name();
                tracing::warn!(
                    server,
                    "the NATS server does not reach the leader of the stream: another one is tried"
                );
                drop(self.client.force_reconnect().await);
                vain = 0;
            }
        }
    }

    /// The name of the server at the other end.
    pub(crate) fn server_name(&self) -> String {
        self.client.server_info().server_name
    }

    /// Notes that the stream reaches to a frame.
    pub(crate) fn note(&self, sequence: u64) {
        self.seen.fetch_max(sequence, Ordering::AcqRel);
    }

    /// Publishes a frame. The outcome may be `NotSent` only before the client has the frame: without a connection
    /// the client keeps it, and sends it after the next connect.
    pub(crate) async fn publish(&self, after: u64, frame: &[u8]) -> PublishOutcome {
        if let Err(error) = self.connected(CONNECTION_WAIT).await {
            return PublishOutcome::NotSent(error.into());
        }
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SEQUENCE, after.to_string());
        headers.insert(NATS_EXPECTED_STREAM, self.stream.as_str());
        let payload = frame.to_vec().into();
        let request = Request::new().headers(headers).payload(payload).timeout(Some(ACK_WAIT));
        let sending = self.client.send_request(self.subject.clone(), request);
        let answer = match time::timeout(2 * ACK_WAIT, sending).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return not_answered(error.kind(), error.into()),
            Err(elapsed) => return PublishOutcome::NoAnswer(elapsed.into()),
        };
        let outcome = self.outcome(after, &answer.payload);
        if matches!(outcome, PublishOutcome::Written) {
            self.note(after + 1);
        }
        outcome
    }

    /// Reads an acknowledgement.
    fn outcome(&self, after: u64, answer: &[u8]) -> PublishOutcome {
        let refused = |answer: &async_nats::jetstream::Error| {
            WRONG_LAST_SEQUENCE.contains(&answer.error_code().0)
        };
        match serde_json::from_slice(answer) {
            Ok(Response::Ok(PublishAck { stream, sequence, .. }))
                if stream == self.stream && sequence == after + 1 =>
            {
                PublishOutcome::Written
            }
            Ok(Response::Ok(PublishAck { stream, sequence, .. })) => {
                let why = format!("it was acknowledged as message {sequence} of stream {stream}");
                PublishOutcome::NoAnswer(why.into())
            }
            Ok(Response::Err { error }) if refused(&error) => PublishOutcome::Refused,
            Ok(Response::Err { error }) => PublishOutcome::NoAnswer(error.into()),
            Err(error) => PublishOutcome::NoAnswer(error.into()),
        }
    }

    /// Asks the stream's leader for the number of the last frame.
    ///
    /// A leader that was paused may still believe in its office for a moment and know less than others have
    /// told. Such an answer counts only if it stays.
    pub(crate) async fn last(&self) -> Result<u64, ReplicationError> {
        let mut looks = 0;
        loop {
            let info = self.info(ANSWER_WAIT).await?;
            if !self.is_led(&info) {
                return Err(ReplicationError::Unreachable("no node leads the stream".into()));
            }
            let last = info.state.last_sequence;
            if self.seen.load(Ordering::Acquire) <= last || looks == STALE_LOOKS {
                self.note(last);
                return Ok(last);
            }
            looks += 1;
            time::sleep(STALE_REST).await;
        }
    }

    /// Asks any node for one frame; none if that node does not have it, or none answers.
    pub(crate) async fn frame(&self, sequence: u64) -> Option<StreamFrame> {
        let asking = async {
            let stream = self.context.get_stream_no_info(&self.stream).await.ok()?;
            stream.direct_get(sequence).await.ok()
        };
        let found = time::timeout(ANSWER_WAIT, asking).await.ok()??;
        self.note(found.sequence);
        Some(StreamFrame { sequence: found.sequence, bytes: found.payload.into() })
    }

    /// Whether a node leads the stream. A node that is cut off from the others describes it without a leader.
    fn is_led(&self, info: &Info) -> bool {
        status_of(info, self.server_name()).leader.is_some()
    }

    /// Asks the stream's leader for its settings and its state; where there is none, a node may answer.
    pub(crate) async fn info(&self, wait: Duration) -> Result<Info, ReplicationError> {
        let asking = async {
            self.connected(wait).await?;
            let stream = self.context.get_stream(&self.stream).await;
            stream.map_err(out_of_reach)
        };
        let found = time::timeout(wait, asking).await;
        found.map_err(out_of_reach)?.map(|stream| stream.cached_info().clone())
    }
}

fn out_of_reach(error: impl Error + Send + Sync + 'static) -> ReplicationError {
    ReplicationError::Unreachable(error.into())
}

fn unreachable(settings: &NatsSettings, error: impl Into<BoxError>) -> NatsError {
    NatsError::Unreachable { servers: settings.hosts(), source: error.into() }
}

/// The outcome of a publish that got no acknowledgement.
fn not_answered(kind: RequestErrorKind, error: BoxError) -> PublishOutcome {
    match kind {
        // A server has said that nobody takes the subject, or the client has refused to send.
        RequestErrorKind::NoResponders
        | RequestErrorKind::MaxPayloadExceeded
        | RequestErrorKind::InvalidSubject => PublishOutcome::NotSent(error),
        RequestErrorKind::TimedOut | RequestErrorKind::Other => PublishOutcome::NoAnswer(error),
    }
}

/// Tells errors that stay from those that may pass.
fn explain(settings: &NatsSettings, code: u64, error: impl Into<BoxError>) -> NatsError {
    let stream = settings.stream();
    match code {
        code if NO_JETSTREAM.contains(&code) => NatsError::Unfit(format!(
            "the NATS servers at {} cannot keep {} copies of a stream: enable JetStream and form a cluster of as many \
             servers, or grant JetStream to this account",
            settings.hosts(),
            settings.replicas
        )),
        SUBJECT_OVERLAP | STREAM_EXISTS => NatsError::Unfit(format!(
            "the stream {stream} cannot be created, because another stream takes its subject {}: remove the subject \
             there, or use another name for the cluster",
            settings.subject()
        )),
        _ => unreachable(settings, error),
    }
}

/// The options of the client. Each new connection is counted in `connections`.
fn options(
    settings: &NatsSettings,
    connections: Arc<watch::Sender<u64>>,
) -> Result<ConnectOptions, NatsError> {
    let mut options = ConnectOptions::new()
        .name("keypool-server")
        .connection_timeout(CONNECT_WAIT)
        .ping_interval(PING_EVERY)
        .require_tls(settings.requires_tls())
        .ignore_discovered_servers()
        .reconnect_delay_callback(|attempts| {
            let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
            Duration::from_millis(10).saturating_mul(attempts).min(RECONNECT_DELAY_MAX)
        })
        .event_callback(move |event| hear(&connections, event));
    if let Some(path) = &settings.tls.root_certificates {
        readable(path)?;
        options = options.add_root_certificates(path.clone());
    }
    if let Some((certificate, key)) = &settings.tls.client_certificate {
        readable(certificate)?;
        readable(key)?;
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    match &settings.credentials {
        NatsCredentials::OfAddress => Ok(match settings.user.clone() {
            Some((user, password)) => options.user_and_password(user, password),
            None => options,
        }),
        NatsCredentials::NkeySeed(path) => Ok(options.nkey(readable(path)?.trim().to_owned())),
        NatsCredentials::CredentialsFile(path) => {
            options.credentials(&readable(path)?).map_err(|source| file_error(path, source))
        }
    }
}

/// Reads a small file of text.
fn readable(path: &Path) -> Result<String, NatsError> {
    std::fs::read_to_string(path).map_err(|source| file_error(path, source))
}

fn file_error(path: &Path, source: io::Error) -> NatsError {
    NatsError::File { path: path.to_owned(), source }
}

/// Notes a change of the connection.
fn hear(connections: &watch::Sender<u64>, event: Event) -> impl Future<Output = ()> + use<> {
    match event {
        Event::Connected => {
            connections.send_modify(|count| *count += 1);
            tracing::info!("connected to a NATS server");
        }
        Event::Disconnected => tracing::warn!("the connection to the NATS server is lost"),
        event => tracing::debug!(%event, "the NATS connection has changed"),
    }
    std::future::ready(())
}
