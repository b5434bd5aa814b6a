//! The contract of an engine that replicates a journal, such as NATS JetStream.

use std::time::Duration;

use crate::log::BoxError;

/// A journal that several servers share: one stream of frames, numbered from 1 without gaps, of which no
/// frame is ever changed or removed.
///
/// Methods block; an adapter brings its own runtime. [`ReplicatedLog`](super::ReplicatedLog) takes
/// [`PublishOutcome::Written`] at its word. After any other answer [`Replication::frames`] decides, by the frame that
/// stands there. A frame that was acknowledged and is not in the stream is found by the chain of the next one, or by an
/// end before it, and stops the log.
pub trait Replication: Send + Sync {
    /// Publishes a frame if the stream ends at frame `after`: compare-and-set over the whole stream.
    ///
    /// The same call may be repeated. At most one frame gets the number `after + 1`.
    fn publish(&self, after: u64, frame: &[u8]) -> PublishOutcome;

    /// Reads the frames that follow frame `after`, at least one if there is any.
    ///
    /// Returns frames of about `bytes_max` bytes in all, and none if none came within `wait`. They should
    /// be in order and without a gap; the caller asks again otherwise.
    ///
    /// # Errors
    ///
    /// Returns a [`ReplicationError`].
    fn frames(
        &self,
        after: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<StreamFrame>, ReplicationError>;

    /// Reads the number of the stream's last frame, 0 if it has none, from a node that knows it for certain.
    ///
    /// # Errors
    ///
    /// Returns a [`ReplicationError`].
    fn last(&self) -> Result<u64, ReplicationError>;

    /// Reads the state of the stream that operators watch, from a node that knows it. Returns after `wait` at the
    /// latest.
    ///
    /// # Errors
    ///
    /// Returns [`ReplicationError::Unreachable`] if no node answers within `wait`.
    fn status(&self, wait: Duration) -> Result<StreamStatus, ReplicationError>;
}

/// The state of a stream, as the node that leads it knows it. Other nodes may have lost frames that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamStatus {
    /// The number of the last frame, 0 if there is none.
    pub last: u64,
    /// The number of frames that the leader has lost. A number other than 0 is an alarm.
    pub lost: u64,
    /// The name of the node that leads the stream; `None` during an election.
    pub leader: Option<String>,
    /// The number of nodes whose copy is up to date, the leader included.
    pub current_replicas: usize,
    /// The number of nodes that should have a copy.
    pub replicas: usize,
}

/// A frame of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFrame {
    /// Its number, from 1.
    pub sequence: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The answer of an engine to a frame.
#[derive(Debug)]
pub enum PublishOutcome {
    /// The frame is durable on a majority of the nodes.
    Written,
    /// Another frame probably came first. An engine may say so although it has written the frame.
    Refused,
    /// Nothing was sent, and nothing of this call can be written later.
    NotSent(BoxError),
    /// The frame may be written now, later, or never.
    NoAnswer(BoxError),
}

/// The reason why a stream could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// No node answers, or too few of them do. It may pass.
    #[error("the replicated stream cannot be reached")]
    Unreachable(#[source] BoxError),
    /// The stream is not one that keeps its promises: other settings, deleted frames, another version.
    #[error("the replicated stream is not fit for a log: {0}")]
    Unfit(String),
}
