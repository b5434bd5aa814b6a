//! The log: the store of all events, and the contract of its implementations.

mod staging;

mod memory;

mod local;

mod faulty;

#[cfg(feature = "conformance")]
pub mod conformance;

use crate::{
    CommandId, Event, EventEnvelope, Hash, KeyPackageRef, PoolId, ReservationId, StreamId,
    Timestamp, codec::DecodeError,
};

pub use self::{
    faulty::{Fault, Faulty},
    local::{
        DiskSpace, JournalReader, JournalWriter, JournalWriterOptions, LogHealth, OpenError,
        RawRecord, ReadLock, SledLog, SledLogOptions, TornTail,
    },
    memory::MemoryLog,
};

/// An append-only log of many histories.
///
/// Double spending is impossible because of these promises, which every implementation keeps and
/// `log::conformance` checks:
///
/// - each [`Batch`] is atomic over all the streams it names;
/// - of several batches that expect the same version of a stream, at most one succeeds;
/// - when an append returns `Ok`, its events survive a crash of the machine;
/// - the batches of one call are tried in order, each on the streams as those before it have left
///   them, and share one durability point (group commit);
/// - an outcome that nobody knows is an error of its own, [`AppendError::Unknown`], to be resolved
///   by looking for the command with [`EventLog::find`].
pub trait EventLog: Send + Sync {
    /// Appends batches, each all or nothing, and answers for each of them in order.
    ///
    /// The log gives the sequence number, the version, the chain hash and the payload's digest.
    ///
    /// # Errors
    ///
    /// For each batch [`AppendError`]: `Conflict` and `NotWritten` have written nothing of it,
    /// `Unknown` may have.
    fn append(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>>;

    /// Reads at most `limit` records from sequence number `from` on, in order.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read or holds what is no record.
    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError>;

    /// Reads at most `limit` records of one history that come after version `after`, in order.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read or holds what is no record.
    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError>;

    /// All records that one command caused, in order; none if it caused none.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read or holds what is no record.
    fn find(&self, command: CommandId) -> Result<Vec<Record>, ReadError>;

    /// The record that brought a package into its pool (`Uploaded`, or a client's `Created`).
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read or holds what is no record.
    fn find_package(&self, keypackage_ref: &KeyPackageRef) -> Result<Option<Record>, ReadError>;

    /// Everything that was recorded about one package, in order: its own small history. The first is
    /// what [`EventLog::find_package`] finds.
    ///
    /// As provided it reads the pool's history from there on; a log that can do better should.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read or holds what is no record.
    fn read_package(&self, keypackage_ref: &KeyPackageRef) -> Result<Vec<Record>, ReadError> {
        let Some(first) = self.find_package(keypackage_ref)? else { return Ok(Vec::new()) };
        let (stream, mut after) = (first.envelope.stream.clone(), first.envelope.version);
        let mut found = vec![first];
        loop {
            let page = self.read_stream(&stream, after, PAGE)?;
            let Some(last) = page.last() else { return Ok(found) };
            after = last.envelope.version;
            let about =
                |record: &Record| record.envelope.event.keypackage_ref() == Some(keypackage_ref);
            found.extend(page.into_iter().filter(about));
        }
    }

    /// Whether a package with an `init_key` was ever taken into a pool.
    ///
    /// As provided it reads the pool's whole history; a log that can do better should.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read or holds what is no record.
    fn knows_init_key(&self, pool: &PoolId, init_key: &Hash) -> Result<bool, ReadError> {
        let (stream, mut after) = (StreamId::Pool(pool.clone()), 0);
        loop {
            let page = self.read_stream(&stream, after, PAGE)?;
            let Some(last) = page.last() else { return Ok(false) };
            after = last.envelope.version;
            let has_it = |record: &Record| matches!(&record.envelope.event, Event::Uploaded(facts) if facts.init_key == *init_key);
            if page.iter().any(has_it) {
                return Ok(true);
            }
        }
    }

    /// The snapshot with a name. `None` if it was never kept or has been lost; a log that keeps nothing but
    /// its events always returns `None`.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    fn snapshot(&self, _name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(None)
    }

    /// At most `limit` snapshots whose names begin with `prefix`, in the order of their names, behind the
    /// name `after`.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    fn snapshots(
        &self,
        _prefix: &[u8],
        _after: Option<&[u8]>,
        _limit: usize,
    ) -> Result<Vec<Snapshot>, ReadError> {
        Ok(Vec::new())
    }

    /// Keeps what was folded from the events under names, instead of what was kept there before: all of
    /// it or none. It is a cache beside the log: it may be lost at any time, whole or back to an older
    /// state, and a log that keeps nothing but its events does nothing.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if it cannot be kept. Nothing is lost then but time at the next start.
    fn keep_snapshots(&self, _snapshots: Vec<Snapshot>) -> Result<(), ReadError> {
        Ok(())
    }

    /// The record that made a reservation (`Reserved`), whichever pool it is in.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read or holds what is no record.
    fn find_reservation(&self, reservation: ReservationId) -> Result<Option<Record>, ReadError>;

    /// Like [`EventLog::find`], but searches only records after `after`. Long logs answer this from memory.
    ///
    /// # Errors
    ///
    /// As [`EventLog::find`].
    fn find_after(&self, command: CommandId, after: u64) -> Result<Vec<Record>, ReadError> {
        let mut found = self.find(command)?;
        found.retain(|record| after < record.seq);
        Ok(found)
    }

    /// Like [`EventLog::find_reservation`], but searches only records after `after`.
    ///
    /// # Errors
    ///
    /// As [`EventLog::find_reservation`].
    fn find_reservation_after(
        &self,
        reservation: ReservationId,
        after: u64,
    ) -> Result<Option<Record>, ReadError> {
        Ok(self.find_reservation(reservation)?.filter(|record| after < record.seq))
    }

    /// Whether the log takes events, and the reason if it does not.
    ///
    /// After [`AppendError::NotWritten`] it tells an append that may be tried again in a moment from a log
    /// that has failed. A log that never refuses is always writable.
    fn health(&self) -> LogHealth {
        LogHealth::Writable
    }

    /// The position of the last record of the log.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    fn head(&self) -> Result<LogHead, ReadError>;

    /// The version, hash and time of the last event of a history.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError>;

    /// The payload of one record; `None` if there is no such record or it has been pruned.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`] if the log cannot be read.
    fn payload(&self, seq: u64) -> Result<Option<Vec<u8>>, ReadError>;
}

/// Something folded from the events, kept beside them so that it need not be folded again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The name it is kept under, at most 512 bytes.
    pub name: Vec<u8>,
    /// Its bytes; empty to delete the snapshot with this name.
    pub bytes: Vec<u8>,
}

/// How many records are read at a time where a whole history is looked through.
const PAGE: usize = 1024;

/// Events to be appended together: all of them or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The events for each history. A stream is named at most once.
    pub writes: Vec<StreamWrite>,
}

/// The part of a batch that goes to one history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamWrite {
    /// Whose history.
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

/// A record of the log: an envelope with its exact bytes, its payload and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The position in the log, from 1, without gaps.
    pub seq: u64,
    /// The event and where it belongs.
    pub envelope: EventEnvelope,
    /// The stored bytes of the envelope: what the chain hashes.
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
/// The three cases call for three reactions: decide again; try later, unless [`EventLog::health`] says that
/// the log has failed; find out before deciding.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another append came first, or the batch names a stream twice. Nothing was written.
    #[error("history {stream} is at version {found}, not at {expected}")]
    Conflict {
        /// Whose history.
        stream: StreamId,
        /// The version the batch expected.
        expected: u64,
        /// The version the history is at.
        found: u64,
    },
    /// The log refused, for now or until it is opened again: see [`EventLog::health`]. Nothing was written.
    #[error("the events were not written")]
    NotWritten(#[source] BoxError),
    /// The log did not say. The events may or may not have been written.
    #[error("it is not known whether the events were written")]
    Unknown(#[source] BoxError),
}

/// Why the log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The engine cannot be reached.
    #[error("the log cannot be read")]
    Unavailable(#[source] BoxError),
    /// The log holds something that is no record.
    #[error("record {seq} of the log is damaged")]
    Damaged {
        /// Its position.
        seq: u64,
        /// The fault of its bytes.
        #[source]
        source: DecodeError,
    },
}

/// Any error of an engine beneath the log.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A log that several owners share is the same log.
impl<L: EventLog + ?Sized> EventLog for std::sync::Arc<L> {
    fn append(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        (**self).append(batches)
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        (**self).read(from, limit)
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        (**self).read_stream(stream, after, limit)
    }

    fn find(&self, command: CommandId) -> Result<Vec<Record>, ReadError> {
        (**self).find(command)
    }

    fn find_package(&self, keypackage_ref: &KeyPackageRef) -> Result<Option<Record>, ReadError> {
        (**self).find_package(keypackage_ref)
    }

    fn read_package(&self, keypackage_ref: &KeyPackageRef) -> Result<Vec<Record>, ReadError> {
        (**self).read_package(keypackage_ref)
    }

    fn knows_init_key(&self, pool: &PoolId, init_key: &Hash) -> Result<bool, ReadError> {
        (**self).knows_init_key(pool, init_key)
    }

    fn snapshot(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        (**self).snapshot(name)
    }

    fn snapshots(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Snapshot>, ReadError> {
        (**self).snapshots(prefix, after, limit)
    }

    fn keep_snapshots(&self, snapshots: Vec<Snapshot>) -> Result<(), ReadError> {
        (**self).keep_snapshots(snapshots)
    }

    fn find_reservation(&self, reservation: ReservationId) -> Result<Option<Record>, ReadError> {
        (**self).find_reservation(reservation)
    }

    fn find_after(&self, command: CommandId, after: u64) -> Result<Vec<Record>, ReadError> {
        (**self).find_after(command, after)
    }

    fn find_reservation_after(
        &self,
        reservation: ReservationId,
        after: u64,
    ) -> Result<Option<Record>, ReadError> {
        (**self).find_reservation_after(reservation, after)
    }

    fn health(&self) -> LogHealth {
        (**self).health()
    }

    fn head(&self) -> Result<LogHead, ReadError> {
        (**self).head()
    }

    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
        (**self).stream_head(stream)
    }

    fn payload(&self, seq: u64) -> Result<Option<Vec<u8>>, ReadError> {
        (**self).payload(seq)
    }
}
