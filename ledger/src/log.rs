//! The log: the store of all events, and the contract of its implementations.

mod staging;

mod lookup;

mod snapshots;

mod shared;

mod memory;

mod memory_index;

#[cfg(feature = "local")]
mod local;

#[cfg(feature = "local")]
mod replicated;

mod faulty;

mod named;

#[cfg(feature = "conformance")]
pub mod conformance;

use crate::{CommandId, Event, EventEnvelope, Hash, StreamId, Timestamp, codec::DecodeError};

#[cfg(feature = "local")]
pub use self::local::{
    BackupError, BackupReport, CopiedFile, DiskSpace, JournalReader, JournalWriter,
    JournalWriterOptions, LogHealth, OpenError, PruneReport, RawRecord, ReadLock, RepairError,
    RepairReport, RepairedSegment, SledLog, SledLogOptions, TornTail, erase_payloads,
    repair_journal, restore_backup,
};
#[cfg(feature = "local")]
pub use self::replicated::{
    FRAME_BYTES_MAX, PublishError, PublishOutcome, ReplicaHealth, ReplicaProgress, ReplicatedLog,
    ReplicatedLogOptions, Replication, ReplicationError, StreamComparison, StreamFrame,
    StreamJoinError, StreamStatus, compare_journal, publish_journal,
};
pub use self::{
    faulty::{Fault, Faulty},
    lookup::{
        Key, Selection, append_at_head, find_command, find_package, find_reservation,
        knows_init_key, read_record,
    },
    memory::MemoryLog,
    memory_index::{MemoryIndex, NoMemoryIndex},
    named::{NameHider, NamedLog, NamedUser, Names},
    snapshots::{NoSnapshots, Snapshot, SnapshotStore},
    staging::seal,
};

/// An append-only log of many histories.
///
/// Double spending is impossible because of these promises, which every implementation keeps and
/// `log::conformance` checks:
///
/// - a call to [`EventLog::append`] is decided at a head of the log, and is appended only if the log still
///   ends there; otherwise every batch of it is a [`Conflict`] and nothing is written. So a caller that
///   looked for a key up to this head and found nothing knows that there is nothing before its own records:
///   a package, an init key, a reservation or a command is unique in the whole log although no stream's
///   version says so;
/// - each [`Batch`] is atomic over all the streams it names;
/// - of several batches that expect the same version of a stream, at most one succeeds;
/// - when an append returns `Ok`, its events survive a crash of the machine, and every read that begins
///   later on the same log finds them;
/// - the batches of one call are tried in order, each on the streams as those before it have left
///   them, and share one durability point (group commit);
/// - an outcome that nobody knows is an error of its own, [`AppendError::Unknown`] or
///   [`AppendError::InDoubt`], to be resolved by looking for the command with [`EventLog::find`].
///
/// No method is provided, so that a log that wraps another one forwards all of them or does not compile.
/// An engine outside this crate makes its records with [`seal`], and finds them with
/// [`Key::selection`] if it has no index.
pub trait EventLog: Send + Sync {
    /// Appends batches, each all or nothing, if the log ends at the head at which they were decided, and
    /// answers each of them in order.
    ///
    /// The log gives the sequence number, the version, the chain hash and the payload's digest. `decided_at`
    /// is a head that was read before anything that the batches were decided from; a caller that decides
    /// nothing from the log uses [`append_at_head`].
    ///
    /// # Errors
    ///
    /// For each batch [`AppendError`]: only `Unknown` and `InDoubt` may have written anything of it.
    fn append(
        &self,
        decided_at: LogHead,
        batches: Vec<Batch>,
    ) -> Vec<Result<Appended, AppendError>>;

    /// Reads at most `limit` records from sequence number `from` on, in order.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read or holds a damaged record.
    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError>;

    /// Reads at most `limit` records of one history that come after version `after`, in order.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read or holds a damaged record.
    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError>;

    /// Finds at most `limit` records by a key, of those after the position `after` (0 for all), in order.
    ///
    /// Long logs answer from memory if nothing is found after a recent position.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read or holds a damaged record.
    fn find(&self, key: Key<'_>, after: u64, limit: usize) -> Result<Vec<Record>, ReadError>;

    /// Reads the position of the last record of the log.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    fn head(&self) -> Result<LogHead, ReadError>;

    /// Reads the version, hash and time of the last event of a history.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError>;
}

/// Events to be appended together: all of them or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The events for each history. A stream is named at most once.
    pub writes: Vec<StreamWrite>,
}

/// The part of a batch that goes to one history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamWrite {
    /// The name of the history.
    pub stream: StreamId,
    /// The version the history must be at: the number of its events.
    pub expected: u64,
    /// The events to append.
    pub events: Vec<NewEvent>,
}

/// An event that has not been recorded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// When it happened; not before the last event of the history.
    pub at: Timestamp,
    /// The request that caused it.
    pub command: CommandId,
    /// The digest of that request.
    pub request: Hash,
    /// The event.
    pub event: Event,
    /// The bytes that go with it; empty for most.
    pub payload: Vec<u8>,
}

/// A record of the log: an envelope with its exact bytes, its payload and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The position in the log, from 1, without gaps.
    pub seq: u64,
    /// The event and where it belongs.
    pub envelope: EventEnvelope,
    /// The stored bytes of the envelope, which the chain hashes.
    pub envelope_bytes: Vec<u8>,
    /// The bytes that go with it; empty for most, and for a pruned payload.
    pub payload: Vec<u8>,
}

/// The records that a successful append has written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// The records, in the order of the batch.
    pub records: Vec<Record>,
}

/// The end of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogHead {
    /// The sequence number of the last record; 0 for an empty log.
    pub seq: u64,
}

/// The end of a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamHead {
    /// The version of the last event; 0 for a history that has none.
    pub version: u64,
    /// The chain hash of the last envelope; zeros for a history that has none.
    pub hash: Hash,
    /// When the last event was recorded.
    pub at: Timestamp,
}

/// The reason why a batch was not appended.
///
/// Each case calls for another reaction: decide again; try later; open the log again; find out before
/// deciding.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another append came first, or the batch names a stream twice. Nothing was written.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The log refused for now. Nothing was written.
    #[error("the events were not written")]
    NotWritten(#[source] BoxError),
    /// The log takes no more events until it is opened again. Nothing was written.
    #[error("the events were not written, and the log takes no more until it is opened again")]
    Failed(#[source] BoxError),
    /// The log did not say, and takes no more events until it is opened again. The events may or may not have
    /// been written.
    #[error("it is not known whether the events were written")]
    Unknown(#[source] BoxError),
    /// The log did not say, and goes on. The events may be written yet, unless other events come first; a
    /// later look tells.
    #[error("it is not known yet whether the events are written")]
    InDoubt(#[source] BoxError),
}

/// An append that was decided on a log or a history that has changed since.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The log does not end at the head at which the whole call was decided.
    #[error("the log ends at record {head}, and the append was decided at record {decided_at}")]
    Log {
        /// The position at which the call was decided.
        decided_at: u64,
        /// The position of the last record.
        head: u64,
    },
    /// A history is not at the version that the batch expects.
    #[error("history {stream} is at version {found}, not at {expected}")]
    Stream {
        /// The name of the history.
        stream: StreamId,
        /// The version the batch expected.
        expected: u64,
        /// The version the history is at.
        found: u64,
    },
    /// A sealed record does not carry the hash of the last record of its history.
    #[error("version {version} of history {stream} does not follow the record before it")]
    Chain {
        /// The name of the history.
        stream: StreamId,
        /// The version of the sealed record.
        version: u64,
    },
}

/// The reason why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The engine cannot be reached.
    #[error("the log cannot be read")]
    Unavailable(#[source] BoxError),
    /// The bytes at a position are no record.
    #[error("record {seq} of the log is damaged")]
    Damaged {
        /// Its position.
        seq: u64,
        /// The fault of its bytes.
        #[source]
        source: DecodeError,
    },
}

/// Any error of a library beneath, such as a log's engine.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl LogHead {
    /// Checks that the log still ends where a call to [`EventLog::append`] was decided.
    ///
    /// # Errors
    ///
    /// Returns [`Conflict::Log`] if it does not.
    pub const fn check(self, decided_at: Self) -> Result<(), Conflict> {
        if self.seq == decided_at.seq {
            return Ok(());
        }
        Err(Conflict::Log { decided_at: decided_at.seq, head: self.seq })
    }
}
