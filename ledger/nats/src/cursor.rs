//! The cursor: a place in the stream, and a consumer that delivers the frames behind it in order.

use std::{future::poll_fn, pin::Pin, time::Duration};

use async_nats::{
    Message, StatusCode, Subscriber,
    jetstream::{
        self, Context,
        consumer::{
            AckPolicy, Consumer, DeliverPolicy, ReplayPolicy,
            pull::{BatchConfig, Config},
        },
    },
};
use futures_core::Stream;
use keypool_ledger::{FRAME_BYTES_MAX, ReplicationError, StreamFrame, log::BoxError};
use tokio::time;

/// How often the consumer tells that it has nothing.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// After how much silence the consumer counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How long one request for frames stays with the consumer.
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// How long the consumer outlives its last reader.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// How long the consumer may take to come up.
const OPEN_WAIT: Duration = Duration::from_secs(5);
/// How many messages one request asks for; the connection buffers some more.
const PULL_MESSAGES: usize = 50_000;

/// A place in the stream, and the consumer that reads on from there.
pub(crate) struct StreamCursor {
    context: Context,
    consumer: Consumer<Config>,
    subscriber: Subscriber,
    inbox: String,
    /// The number of the frame that comes next.
    next: u64,
    /// The connection on which the consumer was asked.
    connection: u64,
    /// How many requests were made.
    pulls: u64,
    /// How many messages of the last request may come yet.
    pending: usize,
    /// How long nothing was heard.
    silence: Duration,
}

/// Whether a cursor can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulled {
    /// Frames were read.
    Frames,
    /// The consumer is gone, or has skipped frames.
    Lost,
}

impl StreamCursor {
    /// Creates a consumer behind frame `after`. It lives in the memory of one node, and the cluster needs a leader
    /// of its own to create it, beside that of the stream.
    pub(crate) async fn open(
        context: Context,
        stream: String,
        (after, connection): (u64, u64),
    ) -> Result<Self, ReplicationError> {
        let config = Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            inactive_threshold: IDLE_MAX,
            num_replicas: 1,
            memory_storage: true,
            ..Config::default()
        };
        let client = context.client();
        let opening = async {
            let consumer = context.create_consumer_on_stream(config, &stream).await?;
            let inbox = client.new_inbox();
            let subscriber = client.subscribe(format!("{inbox}.*")).await?;
            Ok::<_, BoxError>((consumer, inbox, subscriber))
        };
        let opened = time::timeout(OPEN_WAIT, opening).await;
        let opened = opened.unwrap_or_else(|elapsed| Err(elapsed.into()));
        let (consumer, inbox, subscriber) = opened.map_err(ReplicationError::Unreachable)?;
        let (next, pulls, pending, silence) = (after + 1, 0, 0, Duration::ZERO);
        Ok(Self { context, consumer, subscriber, inbox, next, connection, pulls, pending, silence })
    }

    /// Whether the cursor comes to the frame behind frame `after`, on the connection of this number.
    pub(crate) const fn comes_to(&self, after: u64, connection: u64) -> bool {
        self.next <= after + 1 && self.connection == connection
    }

    /// Passes over the frames up to `after`, which were read in another way.
    pub(crate) const fn pass_over(&mut self, after: u64) {
        self.next = after + 1;
    }

    /// Notes that nothing came for a while, and says whether the consumer counts as lost.
    pub(crate) fn is_silent(&mut self, wait: Duration) -> bool {
        self.silence += wait;
        SILENCE_MAX < self.silence
    }

    /// Waits for a frame, and takes with it those that have come already. A frame of another number than
    /// expected is the last one that it takes.
    pub(crate) async fn fill(
        &mut self,
        frames: &mut Vec<StreamFrame>,
        bytes_max: usize,
    ) -> Result<Pulled, ReplicationError> {
        let mut bytes = 0;
        loop {
            if self.pending == 0 {
                self.pull(bytes_max).await?;
            }
            let message = if frames.is_empty() {
                self.next_message().await
            } else {
                match time::timeout(Duration::ZERO, self.next_message()).await {
                    Ok(message) => message,
                    Err(_) => return Ok(Pulled::Frames),
                }
            };
            self.silence = Duration::ZERO;
            let Some(message) = message else { return Ok(Pulled::Lost) };
            match message.status {
                None | Some(StatusCode::OK) => {}
                Some(_) if self.goes_on(&message) => continue,
                Some(_) => return Ok(Pulled::Lost),
            }
            let Some(frame) = self.frame(message) else { return Ok(Pulled::Lost) };
            self.pending = self.pending.saturating_sub(1);
            if frame.sequence < self.next {
                continue;
            }
            let (is_next, len) = (frame.sequence == self.next, frame.bytes.len());
            frames.push(frame);
            if !is_next {
                return Ok(Pulled::Lost);
            }
            (self.next, bytes) = (self.next + 1, bytes + len);
            if bytes_max <= bytes {
                return Ok(Pulled::Frames);
            }
        }
    }

    async fn next_message(&mut self) -> Option<Message> {
        poll_fn(|cx| Pin::new(&mut self.subscriber).poll_next(cx)).await
    }

    /// Reads a message as a frame; none if it does not say its number.
    fn frame(&self, message: Message) -> Option<StreamFrame> {
        let message = jetstream::Message { message, context: self.context.clone() };
        let sequence = message.info().ok()?.stream_sequence;
        Some(StreamFrame { sequence, bytes: message.message.payload.into() })
    }

    /// Whether the consumer is still there after a status: a heartbeat, or the end of a request.
    fn goes_on(&mut self, message: &Message) -> bool {
        let is_end = match message.status {
            Some(StatusCode::IDLE_HEARTBEAT) => return true,
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => true,
            Some(StatusCode::REQUEST_TERMINATED) => {
                let ends = ["Message Size Exceeds MaxBytes", "Batch Completed"];
                let told = message.description.as_deref().unwrap_or_default();
                ends.iter().any(|end| told.eq_ignore_ascii_case(end))
            }
            _ => false,
        };
        // An earlier request may end after a later one was made.
        if is_end && message.subject.as_str() == self.reply() {
            self.pending = 0;
        }
        is_end
    }

    /// The subject to which the last request is answered.
    fn reply(&self) -> String {
        format!("{}.{}", self.inbox, self.pulls)
    }

    /// Asks the consumer for the next messages.
    async fn pull(&mut self, bytes_max: usize) -> Result<(), ReplicationError> {
        self.pulls += 1;
        // A message always fits: a consumer stands still before one that does not.
        let max_bytes = bytes_max.max(self.context.client().max_payload() + FRAME_BYTES_MAX);
        let (batch, expires, idle_heartbeat) = (PULL_MESSAGES, Some(PULL_EXPIRES), HEARTBEAT);
        let request =
            BatchConfig { batch, max_bytes, expires, idle_heartbeat, ..BatchConfig::default() };
        let asked = self.consumer.request_batch(request, self.reply().into()).await;
        asked.map_err(|error| ReplicationError::Unreachable(error.into()))?;
        self.pending = batch;
        Ok(())
    }
}
