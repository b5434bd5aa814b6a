//! What the engine's one tree holds: the keys, the values, and how records become them.
//!
//! ```text
//! r first-seq part        a run: some records that were committed together, cut into parts
//! s stream first-version  → first seq, count     where some events of a history stand
//! c command first-seq     → count                what one command caused
//! p ref seq                                      what brought a package into its pool
//! v reservation seq                              what made a reservation
//! h stream                → version, hash, at    where a history ends
//! m                       → layout, head seq     where the log ends
//! ```
//!
//! Numbers are big-endian, so that the order of the keys is theirs; names have their length before
//! them, so that none is a prefix of another.

use std::ops::{Bound, RangeBounds};

use super::{
    Record, StreamHead,
    packing::{Unpacker, packed_len, put_record, put_u32, put_u64},
};
use crate::{CommandId, Event, Hash, KeyPackageRef, ReservationId, StreamId, Timestamp};

/// The number of this layout; an engine that holds another one is built anew.
const LAYOUT: u8 = 1;
/// A run is closed when it has this many bytes; only a single record makes a longer one.
const RUN_BYTES_MAX: usize = 6 * 1024;
/// The longest part of a run, in bytes.
///
/// The engine writes a page, which may hold 17 values, into a file of its own that it never forces
/// to the disk when the page has more than 128 KiB.
const PART_BYTES_MAX: usize = 6 * 1024;
/// The bytes of the check that leads each run.
const CHECK_LEN: usize = 16;

/// A key and its value.
pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// The key of where the log ends.
pub(super) const HEAD: [u8; 1] = *b"m";

/// A stretch of the log: `count` records from `first_seq` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first_seq: u64,
    pub(super) count: u64,
}

/// Everything that makes some new records, which end the log, readable and findable.
pub(super) fn entries(records: &[&Record]) -> Vec<Entry> {
    let mut entries = Vec::new();
    if let Some(last) = records.last() {
        entries.push((HEAD.to_vec(), head_value(last.seq)));
    }
    for run in runs(records) {
        put_run(&mut entries, run);
    }
    for part in records.chunk_by(|a, b| a.envelope.stream == b.envelope.stream) {
        put_history(&mut entries, part);
    }
    for part in records.chunk_by(|a, b| a.envelope.command == b.envelope.command) {
        let Some(first) = part.first() else { continue };
        let mut key = command_key(first.envelope.command);
        put_u64(&mut key, first.seq);
        entries.push((key, number(part.len() as u64)));
    }
    for record in records {
        let mut key = match &record.envelope.event {
            Event::Created(facts) | Event::Uploaded(facts) => package_key(&facts.keypackage_ref),
            Event::Reserved { reservation, .. } => reservation_key(*reservation),
            _ => continue,
        };
        put_u64(&mut key, record.seq);
        entries.push((key, Vec::new()));
    }
    entries
}

/// Cuts records into runs of a readable length.
fn runs<'a, 'r>(mut records: &'a [&'r Record]) -> Vec<&'a [&'r Record]> {
    let mut runs = Vec::new();
    while !records.is_empty() {
        let lens = records.iter().map(|record| packed_len(record));
        let ends = lens.scan(0_usize, |end, len| {
            *end = end.saturating_add(len);
            Some(*end)
        });
        let n_fitting = ends.take_while(|end| *end <= RUN_BYTES_MAX).count().max(1);
        let (run, rest) = records.split_at_checked(n_fitting).unwrap_or((records, &[]));
        runs.push(run);
        records = rest;
    }
    runs
}

fn put_run(entries: &mut Vec<Entry>, run: &[&Record]) {
    let Some(first) = run.first() else { return };
    let mut packed = Vec::new();
    put_u32(&mut packed, run.len());
    for record in run {
        put_record(&mut packed, record);
    }
    let mut value = check(&packed).to_vec();
    value.extend(packed);
    for (part, bytes) in (0_u32..).zip(value.chunks(PART_BYTES_MAX)) {
        let mut key = run_key(first.seq);
        key.extend(part.to_be_bytes());
        entries.push((key, bytes.to_vec()));
    }
}

fn put_history(entries: &mut Vec<Entry>, part: &[&Record]) {
    let (Some(first), Some(last)) = (part.first(), part.last()) else { return };
    let mut span = number(first.seq);
    put_u64(&mut span, part.len() as u64);
    entries.push((stream_key(&first.envelope.stream, first.envelope.version), span));
    let StreamHead { version, hash, at } = last.stream_head();
    let mut head = number(version);
    head.extend(hash.as_bytes());
    put_u64(&mut head, at.as_millis());
    entries.push((stream_head_key(&first.envelope.stream), head));
}

/// The records of a run whose parts have been put together; `None` if they are not what they were.
///
/// The envelope bytes and the payload of each.
pub(super) fn unpack_run(value: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let (stored, packed) = value.split_first_chunk::<CHECK_LEN>()?;
    if *stored != check(packed) {
        return None;
    }
    let mut rest = Unpacker(packed);
    let records = (0..rest.u32()?).map(|_| rest.record()).collect::<Option<Vec<_>>>()?;
    rest.is_empty().then_some(records)
}

fn check(packed: &[u8]) -> [u8; CHECK_LEN] {
    Hash::of(packed).as_bytes().first_chunk().copied().unwrap_or_default()
}

/// What all parts of one run, and the first of the runs from there on, begin with.
pub(super) fn run_key(first_seq: u64) -> Vec<u8> {
    key(b'r', &[], first_seq)
}

/// The first sequence number of the run that a key belongs to.
pub(super) fn run_of(key: &[u8]) -> Option<u64> {
    let mut rest = Unpacker(key.strip_prefix(b"r")?);
    rest.u64()
}

/// All keys of the runs that begin at or before a sequence number.
pub(super) fn runs_up_to(seq: u64) -> impl RangeBounds<Vec<u8>> {
    (Bound::Included(run_key(0)), Bound::Excluded(run_key(seq.saturating_add(1))))
}

/// All keys of the runs that begin in a range of sequence numbers.
pub(super) fn runs_between(first: u64, last: u64) -> impl RangeBounds<Vec<u8>> {
    (Bound::Included(run_key(first)), Bound::Excluded(run_key(last.saturating_add(1))))
}

/// Where the part of a history that begins with a version is found.
pub(super) fn stream_key(stream: &StreamId, first_version: u64) -> Vec<u8> {
    key(b's', stream.to_string().as_bytes(), first_version)
}

/// The keys of a history's parts that begin in a range of versions.
pub(super) fn stream_parts(stream: &StreamId, first: u64, last: u64) -> impl RangeBounds<Vec<u8>> {
    (Bound::Included(stream_key(stream, first)), Bound::Included(stream_key(stream, last)))
}

/// The first version of a history's part and where it stands.
pub(super) fn read_stream_part(key: &[u8], value: &[u8]) -> Option<(u64, Span)> {
    let version = key.last_chunk().copied().map(u64::from_be_bytes)?;
    let mut rest = Unpacker(value);
    Some((version, Span { first_seq: rest.u64()?, count: rest.u64()? }))
}

/// What the keys of all that a command caused begin with.
pub(super) fn command_key(command: CommandId) -> Vec<u8> {
    let mut key = vec![b'c'];
    key.extend(command.0.as_bytes());
    key
}

/// Where something stands that a command caused.
pub(super) fn read_command_part(key: &[u8], value: &[u8]) -> Option<Span> {
    let first_seq = read_seq(key)?;
    Some(Span { first_seq, count: Unpacker(value).u64()? })
}

/// What the keys of the records that brought a package begin with.
pub(super) fn package_key(keypackage_ref: &KeyPackageRef) -> Vec<u8> {
    let mut key = vec![b'p'];
    put_u32(&mut key, keypackage_ref.as_bytes().len());
    key.extend(keypackage_ref.as_bytes());
    key
}

/// What the keys of the records that made a reservation begin with.
pub(super) fn reservation_key(reservation: ReservationId) -> Vec<u8> {
    let mut key = vec![b'v'];
    key.extend(reservation.0.as_bytes());
    key
}

/// The sequence number that a key ends with.
pub(super) fn read_seq(key: &[u8]) -> Option<u64> {
    key.last_chunk().copied().map(u64::from_be_bytes)
}

/// Where it is noted where a history ends.
pub(super) fn stream_head_key(stream: &StreamId) -> Vec<u8> {
    [b"h".as_slice(), stream.to_string().as_bytes()].concat()
}

/// Where a history ends.
pub(super) fn read_stream_head(value: &[u8]) -> Option<StreamHead> {
    let mut rest = Unpacker(value);
    let (version, hash) = (rest.u64()?, Hash::from_bytes(rest.array()?));
    Some(StreamHead { version, hash, at: Timestamp::from_millis(rest.u64()?) })
}

fn head_value(seq: u64) -> Vec<u8> {
    let mut value = vec![LAYOUT];
    put_u64(&mut value, seq);
    value
}

/// Where the log ends; `None` if another layout or something else wrote it.
pub(super) fn read_head(value: &[u8]) -> Option<u64> {
    let mut rest = Unpacker(value);
    (rest.array()? == [LAYOUT]).then_some(rest.u64()?)
}

fn key(kind: u8, name: &[u8], number: u64) -> Vec<u8> {
    let mut key = vec![kind];
    if !name.is_empty() {
        put_u32(&mut key, name.len());
        key.extend(name);
    }
    put_u64(&mut key, number);
    key
}

fn number(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}
