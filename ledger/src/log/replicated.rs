//! A log over a journal that an engine replicates, for several servers at once.
//!
//! Every server keeps the whole journal and its index on its own disk, and takes in each frame of the
//! replicated stream in order. Reads are answered there. An append is staged on the local copy and published
//! if the stream still ends where the copy does. It stands once the engine says so; after any other answer the
//! frame that the stream then has at that place decides: it is this append's, or another server came first.

mod frame;

mod opening;

mod publishing;

mod replica;

mod replication;

use std::{
    error::Error,
    fmt,
    iter::Peekable,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use self::{
    opening::{catch_up, join},
    replica::Replica,
};
pub use self::{
    publishing::{PublishError, StreamComparison, compare_journal, publish_journal},
    replication::{PublishOutcome, Replication, ReplicationError, StreamFrame, StreamStatus},
};
use super::{
    AppendError, Appended, Batch, BoxError, Conflict, EventLog, Key, LogHead, MemoryIndex,
    ReadError, Record, StreamHead, local::Cause, staging::Staging,
};
use crate::{Hash, SledLog, StreamId, time::Patience};

/// How many bytes the records of a frame may have, but for a batch that has more alone. An engine must take
/// messages of twice as many.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// How often the engine is asked for its end on behalf of requests.
const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// How a [`ReplicatedLog`] waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicatedLogOptions {
    /// How long an append goes on trying when no node answers. An engine takes some seconds to elect another
    /// leader. An append that follows one without an answer tries once, so that a queue of them ends soon.
    pub append_patience: Duration,
    /// How long an append waits for the frame behind its own place before it publishes once more.
    pub frame_wait: Duration,
    /// How long an open waits for frames that the stream has and does not deliver.
    pub open_patience: Duration,
}

impl Default for ReplicatedLogOptions {
    fn default() -> Self {
        Self {
            append_patience: Duration::from_secs(12),
            frame_wait: Duration::from_millis(500),
            open_patience: Duration::from_secs(30),
        }
    }
}

/// An [`EventLog`] that several servers share, each with a copy of its own.
///
/// Nothing but this log may append to the copy. An append that gets no answer is
/// [`AppendError::InDoubt`]: the log goes on, and a later look tells.
pub struct ReplicatedLog {
    replica: Arc<Replica>,
    options: ReplicatedLogOptions,
    /// Held by the append under way: they go in order.
    appending: Mutex<()>,
    /// Whether the last append ended without an answer of the engine.
    is_unanswered: AtomicBool,
    /// Since when the engine was asked for its end on behalf of a request.
    asked: Mutex<Option<Patience>>,
    follower: Option<JoinHandle<()>>,
}

/// The state of a replicated log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaHealth {
    /// The stream is followed.
    Following,
    /// The stream cannot be reached, or the local disk takes no frames. It is tried again.
    Interrupted {
        /// The reason, for people.
        why: String,
    },
    /// The stream contradicts the local copy. Nothing more is appended or taken in; reads go on.
    Contradicted {
        /// The reason, for people.
        why: String,
    },
}

/// How far a server has taken in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaProgress {
    /// The number of the last frame that was taken in.
    pub taken_in: u64,
    /// The number of the stream's last frame, as far as this server has heard.
    pub last: u64,
}

/// A contradiction between the stream and a server's copy of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamFault {
    #[error(
        "the stream ends at frame {last}, and this server has taken in frame {taken_in}: the engine has lost frames"
    )]
    Lost { last: u64, taken_in: u64 },
    #[error(
        "the stream has frame {found} where frame {expected} should be: the engine has lost frames"
    )]
    Gap { expected: u64, found: u64 },
    #[error(
        "frame {sequence} of the stream does not follow the frame before it: the engine has changed frames"
    )]
    Chain { sequence: u64 },
    #[error("frame {sequence} of the stream begins behind record {expected}: records are missing")]
    Position { sequence: u64, expected: u64 },
    #[error("frame {sequence} of the stream holds other records than this server's journal")]
    Other { sequence: u64 },
    #[error("frame {sequence} of the stream cannot be read")]
    Frame {
        sequence: u64,
        #[source]
        source: BoxError,
    },
    #[error("{0}")]
    Unfit(String),
    #[error("this server's journal does not take the stream's records")]
    Local(#[source] BoxError),
}

/// The reason why a server could not join a replicated stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamJoinError {
    /// The local journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The stream cannot be reached, or is not fit.
    #[error(transparent)]
    Stream(#[from] ReplicationError),
    /// The stream is empty, and the directory is not.
    #[error(
        "the stream is empty, and this directory has {records} records: publish them into it with `keypool-server \
         publish`"
    )]
    EmptyStream {
        /// How many records the directory has.
        records: u64,
    },
    /// The stream ends before the directory does.
    #[error(
        "the stream ends at record {stream}, and this directory has {records}: the engine has lost records, or it \
         is another cluster's stream"
    )]
    Behind {
        /// The last position in the stream.
        stream: u64,
        /// The last position in the directory.
        records: u64,
    },
    /// The stream contradicts the directory, or itself.
    #[error("the stream cannot be followed")]
    Contradiction(#[source] Arc<dyn Error + Send + Sync>),
    /// The frames that the stream has do not come, or the disk does not take them.
    #[error(
        "the stream has {last} frames and none comes after frame {sequence}{}",
        why.as_ref().map(|why| format!(": {why}")).unwrap_or_default()
    )]
    Stuck {
        /// The number of the last frame that was taken in.
        sequence: u64,
        /// The number of the stream's last frame.
        last: u64,
        /// The reason, if it is known.
        why: Option<String>,
    },
    /// The open was ended before the copy was complete.
    #[error("the stream was not taken in to its end, because the server is stopping")]
    Ended,
    /// The thread that follows the stream cannot be started.
    #[error("the thread that follows the stream cannot be started")]
    Thread(#[source] std::io::Error),
}

/// The outcome of one published frame.
enum Settled {
    /// It stands in the stream.
    Written,
    /// Another server's frame stands there.
    Overtaken,
    /// Nothing of it was or will be written.
    NotWritten(Cause),
    /// It may be written yet.
    InDoubt(Cause),
    /// The local journal has failed.
    Failed(Cause),
}

impl ReplicatedLog {
    /// Joins the stream with a local journal, and takes in the frames that it lacks.
    ///
    /// `goes_on` is told the number of the frame that was reached and that of the last one, and ends the open by
    /// returning false.
    ///
    /// # Errors
    ///
    /// Returns a [`StreamJoinError`]. The local journal is a beginning of the stream then, or was not changed.
    pub fn open(
        local: Arc<SledLog>,
        replication: Arc<dyn Replication>,
        options: ReplicatedLogOptions,
        goes_on: &dyn Fn(u64, u64) -> bool,
    ) -> Result<Self, StreamJoinError> {
        let replica = Arc::new(join(local, replication)?);
        catch_up(&replica, options.open_patience, goes_on)?;
        let following = Arc::clone(&replica);
        let follower = thread::Builder::new()
            .name("keypool-replica".to_owned())
            .spawn(move || following.follow())
            .map_err(StreamJoinError::Thread)?;
        Ok(Self {
            replica,
            options,
            appending: Mutex::default(),
            is_unanswered: AtomicBool::new(false),
            asked: Mutex::default(),
            follower: Some(follower),
        })
    }

    /// Has `listener` told the position of the last record each time frames were taken in, this server's own
    /// included. The first listener counts.
    pub fn on_growth(&self, listener: impl Fn(u64) + Send + Sync + 'static) {
        self.replica.listener.get_or_init(|| Box::new(listener));
    }

    /// The local copy, for reading, and for a server's own files: backups, pruning, snapshots.
    #[must_use]
    pub fn local(&self) -> &Arc<SledLog> {
        &self.replica.local
    }

    /// Asks the engine whether the stream ends before a position. False also if the engine was asked a moment
    /// ago, so that nobody has it asked at will.
    ///
    /// # Errors
    ///
    /// Returns a [`ReplicationError`] if the engine cannot be asked.
    pub fn ends_before(&self, position: u64) -> Result<bool, ReplicationError> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_some_and(|asked| !asked.is_over()) {
            return Ok(false);
        }
        *asked = Some(Patience::of(ASKED_AGAIN));
        drop(asked);
        self.replica.check_last()?;
        let ReplicaProgress { taken_in, last } = self.progress();
        let head = self.replica.local.head().map_or(u64::MAX, |head| head.seq);
        Ok(last <= taken_in && head < position)
    }

    /// Reads whether the stream is followed. It never waits for a disk or a network.
    #[must_use]
    pub fn health(&self) -> ReplicaHealth {
        self.replica.health()
    }

    /// Reads how far the stream was taken in.
    #[must_use]
    pub fn progress(&self) -> ReplicaProgress {
        let state = self.replica.state();
        ReplicaProgress { taken_in: state.sequence, last: state.known }
    }

    /// Publishes a frame behind frame `after` until the stream tells which frame stands there.
    fn settle(&self, after: u64, frame: &[u8], records: &[&Record]) -> Settled {
        if 2 * FRAME_BYTES_MAX < frame.len() {
            return Settled::NotWritten(unexplained(
                "the events are too long to be written together",
            ));
        }
        let patience = Patience::of(self.options.append_patience);
        let is_hasty = self.is_unanswered.load(Ordering::Relaxed);
        let mut sent = false;
        loop {
            let answer = self.replica.replication.publish(after, frame);
            sent |= !matches!(answer, PublishOutcome::NotSent(_));
            let is_answered = matches!(answer, PublishOutcome::Written | PublishOutcome::Refused);
            let why: Cause = match answer {
                PublishOutcome::Written => {
                    // It need not come back: most copies have it, and the next frame's chain rests on it.
                    let bytes = frame.to_vec();
                    self.replica.take_in(vec![StreamFrame { sequence: after + 1, bytes }]);
                    unexplained("it was acknowledged, and the copy here does not take it in")
                }
                PublishOutcome::Refused => unexplained("it was refused"),
                PublishOutcome::NoAnswer(why) | PublishOutcome::NotSent(why) => why.into(),
            };
            let state = self.replica.wait_behind(after, self.options.frame_wait);
            let (is_decided, fault) = (after < state.sequence, state.fault.clone());
            drop(state);
            if is_decided {
                self.is_unanswered.store(false, Ordering::Relaxed);
                return if self.replica.has(records) {
                    Settled::Written
                } else {
                    Settled::Overtaken
                };
            }
            let why: Cause = match fault {
                Some(fault) if matches!(*fault, StreamFault::Local(_)) => {
                    return Settled::Failed(fault);
                }
                Some(fault) => fault,
                None if !patience.is_over() && (is_answered || !is_hasty) => continue,
                None => {
                    self.is_unanswered.store(true, Ordering::Relaxed);
                    why
                }
            };
            return if sent { Settled::InDoubt(why) } else { Settled::NotWritten(why) };
        }
    }

    /// Publishes staged batches, in as few frames as have room for them, and answers each batch.
    fn publish(
        &self,
        decided_at: LogHead,
        (mut sequence, mut chain): (u64, Hash),
        staged: Vec<Result<Vec<Record>, AppendError>>,
    ) -> Vec<Result<Appended, AppendError>> {
        let mut answers = Vec::with_capacity(staged.len());
        let mut staged = staged.into_iter().peekable();
        let mut failed = None;
        while staged.peek().is_some() {
            let group = next_group(&mut staged);
            let records: Vec<&Record> = group.iter().flatten().flatten().collect();
            if failed.is_none() && !records.is_empty() {
                let frame = frame::encode(chain, records.iter().copied());
                match self.settle(sequence, &frame, &records) {
                    Settled::Written => (sequence, chain) = (sequence + 1, Hash::of(&frame)),
                    other => failed = Some(other),
                }
            }
            answers.extend(group.into_iter().map(|staged| {
                let records = staged?;
                match &failed {
                    Some(failed) if !records.is_empty() => Err(self.failure(failed, decided_at)),
                    _ => Ok(Appended { records }),
                }
            }));
        }
        answers
    }

    fn failure(&self, settled: &Settled, decided_at: LogHead) -> AppendError {
        let boxed = |cause: &Cause| -> BoxError { Box::new(Arc::clone(cause)) };
        match settled {
            Settled::Written | Settled::Overtaken => {
                let head = self.replica.local.head().map_or(0, |head| head.seq);
                Conflict::Log { decided_at: decided_at.seq, head }.into()
            }
            Settled::NotWritten(cause) => AppendError::NotWritten(boxed(cause)),
            Settled::InDoubt(cause) => AppendError::InDoubt(boxed(cause)),
            Settled::Failed(cause) => AppendError::Failed(boxed(cause)),
        }
    }
}

/// A reason that has no error beneath.
fn unexplained(why: &str) -> Cause {
    BoxError::from(why).into()
}

/// The next staged batches that one frame has room for, at least one.
fn next_group(
    staged: &mut Peekable<impl Iterator<Item = Result<Vec<Record>, AppendError>>>,
) -> Vec<Result<Vec<Record>, AppendError>> {
    let len = |batch: &Result<Vec<Record>, AppendError>| {
        batch.iter().flatten().map(frame::encoded_len).sum::<usize>()
    };
    let (mut group, mut bytes) = (Vec::new(), 0);
    while let Some(batch) =
        staged.next_if(|next| group.is_empty() || bytes + len(next) <= FRAME_BYTES_MAX)
    {
        bytes += len(&batch);
        group.push(batch);
    }
    group
}

impl EventLog for ReplicatedLog {
    fn append(
        &self,
        decided_at: LogHead,
        batches: Vec<Batch>,
    ) -> Vec<Result<Appended, AppendError>> {
        let _turn = self.appending.lock().unwrap_or_else(PoisonError::into_inner);
        // Heads, positions and the end of the stream are of one look at the copy: all that is published rests
        // on frame `at`.
        let state = self.replica.state();
        let local = &self.replica.local;
        let refusal = match &state.fault {
            Some(fault) => Some(Settled::NotWritten(Arc::clone(fault) as Cause)),
            None if local.head().is_ok_and(|head| head == decided_at) => None,
            None => Some(Settled::Overtaken),
        };
        if let Some(refusal) = refusal {
            drop(state);
            return batches.iter().map(|_| Err(self.failure(&refusal, decided_at))).collect();
        }
        let mut staging = Staging::after(decided_at.seq);
        let head_of = |stream: &StreamId| local.stream_head(stream);
        let staged = batches.into_iter().map(|batch| staging.stage(batch, head_of)).collect();
        let at = (state.sequence, state.chain);
        drop(state);
        self.publish(decided_at, at, staged)
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.replica.local.read(from, limit)
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        self.replica.local.read_stream(stream, after, limit)
    }

    fn find(&self, key: Key<'_>, after: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.replica.local.find(key, after, limit)
    }

    fn head(&self) -> Result<LogHead, ReadError> {
        self.replica.local.head()
    }

    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
        self.replica.local.stream_head(stream)
    }
}

impl MemoryIndex for ReplicatedLog {
    fn may_have(&self, key: Key<'_>, after: u64) -> bool {
        self.replica.local.may_have(key, after)
    }

    fn has_head(&self, stream: &StreamId) -> bool {
        self.replica.local.has_head(stream)
    }
}

impl Drop for ReplicatedLog {
    fn drop(&mut self) {
        self.replica.end();
        let follower = self.follower.take();
        // A listener may have been the last owner.
        let is_other = |follower: &JoinHandle<()>| follower.thread().id() != thread::current().id();
        if let Some(follower) = follower.filter(is_other) {
            drop(follower.join());
        }
    }
}

impl fmt::Debug for ReplicatedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicatedLog").field("local", self.local()).finish_non_exhaustive()
    }
}
