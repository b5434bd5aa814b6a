//! Small events, batches and answers of the suite.

use uuid::Uuid;

use crate::{
    AppendError, Appended, Batch, CommandId, Conflict, Event, EventLog, GroupId, Hash,
    KeyPackageRef, NewEvent, PackageFacts, Record, ReservationId, StreamId, StreamWrite, Timestamp,
    log::append_at_head,
};

pub(super) fn numbers_are_whole(records: &[Record]) {
    for (seq, record) in (1..).zip(records) {
        assert_eq!(record.seq, seq);
    }
}

/// Appends one batch at the head.
pub(super) fn one(log: &impl EventLog, batch: Batch) -> Result<Appended, AppendError> {
    append_at_head(log, &[batch]).pop().unwrap()
}

pub(super) fn append(
    log: &impl EventLog,
    name: &str,
    expected: u64,
    events: Vec<NewEvent>,
) -> Result<Appended, AppendError> {
    one(log, batch(name, expected, events))
}

pub(super) fn batch(name: &str, expected: u64, events: Vec<NewEvent>) -> Batch {
    Batch { writes: vec![write(name, expected, events)] }
}

pub(super) fn write(name: &str, expected: u64, events: Vec<NewEvent>) -> StreamWrite {
    StreamWrite { stream: stream(name), expected, events }
}

pub(super) fn conflicts(answer: &Result<Appended, AppendError>) {
    let is_conflict = matches!(answer, Err(AppendError::Conflict(Conflict::Stream { .. })));
    assert!(is_conflict, "not a conflict of a history: {answer:?}");
}

pub(super) fn seqs(answer: &Result<Appended, AppendError>) -> Vec<u64> {
    answer.as_ref().unwrap().records.iter().map(|record| record.seq).collect()
}

pub(super) fn stream(name: &str) -> StreamId {
    StreamId::Pool(name.parse().unwrap())
}

pub(super) fn command(n: u8) -> CommandId {
    CommandId(Uuid::from_u128(n.into()))
}

pub(super) fn package(n: u8) -> KeyPackageRef {
    KeyPackageRef::new(&[n; 32]).unwrap()
}

pub(super) fn facts(n: u8) -> PackageFacts {
    PackageFacts {
        keypackage_ref: package(n),
        not_before: Timestamp::default(),
        not_after: Timestamp::MAX,
        ciphersuite: 1,
        credential: Hash::of(b"credential"),
        init_key: Hash::of(&[n]),
        last_resort: false,
        capabilities: None,
    }
}

/// An event about package `n` by command `n`.
pub(super) fn new_event(n: u8, at: u64, event: Event, payload: Vec<u8>) -> NewEvent {
    let at = Timestamp::from_millis(at);
    NewEvent { at, command: command(n), request: Hash::of(&[n]), event, payload }
}

pub(super) fn uploaded(n: u8, at: u64) -> NewEvent {
    new_event(n, at, Event::Uploaded(facts(n)), vec![n; 400])
}

pub(super) fn expired(n: u8, at: u64) -> NewEvent {
    new_event(n, at, Event::Expired { keypackage_ref: package(n) }, Vec::new())
}

pub(super) fn reserved(n: u8, reservation: u128) -> NewEvent {
    let event = Event::Reserved {
        keypackage_ref: package(n),
        reservation: self::reservation(reservation),
        generation: 1,
        holder: "carol".parse().unwrap(),
        group: GroupId::new(b"group").unwrap(),
        deadline: Timestamp::from_secs(60),
    };
    new_event(n, 1, event, Vec::new())
}

/// The positions of records.
pub(super) fn positions(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.seq).collect()
}

pub(super) fn reservation(n: u128) -> ReservationId {
    ReservationId(Uuid::from_u128(n))
}
