//! Keys that records are found by, and common questions to a log as functions over its six methods.

use super::{AppendError, Appended, Batch, Conflict, EventLog, ReadError, Record};
use crate::{
    CommandId, Event, Hash, KeyPackageRef, PoolId, ReservationId, StreamId, event::name_in,
};

/// A key that [`EventLog::find`] finds records by, in all histories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    /// The records that a command caused.
    Command(CommandId),
    /// The history of a package: the first record that brought it into a pool (`Uploaded`, or a client's
    /// `Created`), and all later records of the same stream that name the package.
    Package(&'a KeyPackageRef),
    /// The records that made a reservation (`Reserved`). A right log has one at most.
    Reservation(ReservationId),
    /// The records that brought a package with this `init_key` into this pool (`Uploaded`).
    InitKey(&'a PoolId, &'a Hash),
    /// The records that named a user so, in a log that hides names (`UserNamed`).
    UserName(&'a str),
}

impl<'a> Key<'a> {
    /// Begins a selection among the records of a log, for an engine without a better index.
    #[must_use]
    pub const fn selection(self) -> Selection<'a> {
        Selection { key: self, stream: None }
    }
}

/// A filter that recognizes the records of a [`Key`]. It is shown candidates in the order of the log, from
/// the first on: the history of a package depends on the record that brought it.
#[derive(Clone, Debug)]
pub struct Selection<'a> {
    key: Key<'a>,
    /// The stream of the record that brought the package.
    stream: Option<StreamId>,
}

impl Selection<'_> {
    /// Takes the next candidate if the key finds it.
    pub fn takes(&mut self, record: &Record) -> bool {
        let envelope = &record.envelope;
        match (self.key, &envelope.event) {
            (Key::Command(command), _) => envelope.command == command,
            (Key::Package(keypackage_ref), event) => {
                self.stream.is_none().then(|| self.stream = origin(record, keypackage_ref));
                event.keypackage_ref() == Some(keypackage_ref)
                    && self.stream.as_ref() == Some(&envelope.stream)
            }
            (Key::Reservation(sought), Event::Reserved { reservation, .. }) => {
                *reservation == sought
            }
            (Key::InitKey(pool, init_key), Event::Uploaded(facts)) => {
                envelope.stream.pool() == Some(pool) && facts.init_key == *init_key
            }
            (Key::UserName(name), Event::UserNamed {}) => name_in(&record.payload) == Some(name),
            (Key::Reservation(_) | Key::InitKey(..) | Key::UserName(_), _) => false,
        }
    }
}

/// The stream into which a record brings a package.
fn origin(record: &Record, keypackage_ref: &KeyPackageRef) -> Option<StreamId> {
    match &record.envelope.event {
        Event::Created(facts) | Event::Uploaded(facts)
            if facts.keypackage_ref == *keypackage_ref =>
        {
            Some(record.envelope.stream.clone())
        }
        _ => None,
    }
}

/// Finds all records after `after` that a command caused.
///
/// # Errors
///
/// Returns a [`ReadError`] if the log cannot be read or holds a damaged record.
pub fn find_command<L: EventLog + ?Sized>(
    log: &L,
    command: CommandId,
    after: u64,
) -> Result<Vec<Record>, ReadError> {
    log.find(Key::Command(command), after, usize::MAX)
}

/// Finds the record that brought a package into its pool.
///
/// # Errors
///
/// Returns a [`ReadError`] if the log cannot be read or holds a damaged record.
pub fn find_package<L: EventLog + ?Sized>(
    log: &L,
    keypackage_ref: &KeyPackageRef,
) -> Result<Option<Record>, ReadError> {
    Ok(log.find(Key::Package(keypackage_ref), 0, 1)?.pop())
}

/// Finds the record after `after` that made a reservation, in any pool.
///
/// # Errors
///
/// Returns a [`ReadError`] if the log cannot be read or holds a damaged record.
pub fn find_reservation<L: EventLog + ?Sized>(
    log: &L,
    reservation: ReservationId,
    after: u64,
) -> Result<Option<Record>, ReadError> {
    Ok(log.find(Key::Reservation(reservation), after, 1)?.pop())
}

/// Checks whether a package with an `init_key` was ever uploaded to a pool.
///
/// # Errors
///
/// Returns a [`ReadError`] if the log cannot be read or holds a damaged record.
pub fn knows_init_key<L: EventLog + ?Sized>(
    log: &L,
    pool: &PoolId,
    init_key: &Hash,
) -> Result<bool, ReadError> {
    Ok(!log.find(Key::InitKey(pool, init_key), 0, 1)?.is_empty())
}

/// Reads one record; `None` if the log has none at this position.
///
/// # Errors
///
/// Returns a [`ReadError`] if the log cannot be read or holds a damaged record.
pub fn read_record<L: EventLog + ?Sized>(
    log: &L,
    position: u64,
) -> Result<Option<Record>, ReadError> {
    let found = log.read(position.max(1), 1)?.pop();
    Ok(found.filter(|record| record.seq == position))
}

/// Appends batches wherever the log ends, for callers that decide nothing from it but the versions that the
/// batches expect.
pub fn append_at_head<L: EventLog + ?Sized>(
    log: &L,
    batches: &[Batch],
) -> Vec<Result<Appended, AppendError>> {
    loop {
        let head = match log.head() {
            Ok(head) => head,
            Err(error) => return not_written(batches, &error.to_string()),
        };
        let answers = log.append(head, batches.to_vec());
        let overtaken = |answer: &Result<Appended, AppendError>| {
            matches!(answer, Err(AppendError::Conflict(Conflict::Log { .. })))
        };
        if !answers.iter().any(overtaken) {
            return answers;
        }
    }
}

fn not_written(batches: &[Batch], cause: &str) -> Vec<Result<Appended, AppendError>> {
    batches.iter().map(|_| Err(AppendError::NotWritten(cause.into()))).collect()
}
