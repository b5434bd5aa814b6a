//! A log that lives as long as the process: the reference that other logs are compared with.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    AppendError, Appended, Batch, EventLog, LogHead, ReadError, Record, Snapshot, StreamHead,
};
use crate::{CommandId, Event, KeyPackageRef, ReservationId, StreamId, log::staging::Staging};

/// An [`EventLog`] in memory.
#[derive(Debug, Default)]
pub struct MemoryLog(Mutex<Records>);

#[derive(Debug, Default)]
struct Records {
    /// All records; the one with sequence number `n` stands at `n - 1`.
    all: Vec<Record>,
    /// The places in `all` of each history's records.
    streams: HashMap<StreamId, Vec<usize>>,
    snapshots: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Records {
    fn head_of(&self, stream: &StreamId) -> StreamHead {
        let last = self.streams.get(stream).and_then(|places| places.last());
        last.and_then(|place| self.all.get(*place)).map(Record::stream_head).unwrap_or_default()
    }

    fn push(&mut self, record: Record) {
        let place = self.all.len();
        self.streams.entry(record.envelope.stream.clone()).or_default().push(place);
        self.all.push(record);
    }
}

impl MemoryLog {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventLog for MemoryLog {
    fn append(&self, batches: Vec<Batch>) -> Vec<Result<Appended, AppendError>> {
        let mut held = self.records();
        let mut staging = Staging::after(held.all.len() as u64);
        let mut answers = Vec::with_capacity(batches.len());
        for batch in batches {
            let staged = staging.stage(batch, |stream| Ok(held.head_of(stream)));
            answers.push(staged.map(|records| {
                records.iter().cloned().for_each(|record| held.push(record));
                Appended { records }
            }));
        }
        answers
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        let skipped = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
        Ok(self.records().all.iter().skip(skipped).take(limit).cloned().collect())
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let records = self.records();
        let places = records.streams.get(stream).map(Vec::as_slice).unwrap_or_default();
        let skipped = usize::try_from(after).unwrap_or(usize::MAX);
        let places = places.iter().skip(skipped).take(limit);
        Ok(places.filter_map(|place| records.all.get(*place)).cloned().collect())
    }

    fn find(&self, command: CommandId) -> Result<Vec<Record>, ReadError> {
        let caused = |record: &&Record| record.envelope.command == command;
        Ok(self.records().all.iter().filter(caused).cloned().collect())
    }

    fn find_package(&self, keypackage_ref: &KeyPackageRef) -> Result<Option<Record>, ReadError> {
        let brought = |record: &&Record| match &record.envelope.event {
            Event::Created(facts) | Event::Uploaded(facts) => {
                facts.keypackage_ref == *keypackage_ref
            }
            _ => false,
        };
        Ok(self.records().all.iter().find(brought).cloned())
    }

    fn find_reservation(&self, sought: ReservationId) -> Result<Option<Record>, ReadError> {
        let made = |record: &&Record| match &record.envelope.event {
            Event::Reserved { reservation, .. } => *reservation == sought,
            _ => false,
        };
        Ok(self.records().all.iter().find(made).cloned())
    }

    fn snapshot(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.records().snapshots.get(name).cloned())
    }

    fn snapshots(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Snapshot>, ReadError> {
        let records = self.records();
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let behind = records.snapshots.range::<[u8], _>((from, Bound::Unbounded));
        let named = behind.take_while(|(name, _)| name.starts_with(prefix));
        let kept = named.map(|(name, bytes)| Snapshot { name: name.clone(), bytes: bytes.clone() });
        Ok(kept.take(limit).collect())
    }

    fn keep_snapshots(&self, snapshots: Vec<Snapshot>) -> Result<(), ReadError> {
        let mut records = self.records();
        for Snapshot { name, bytes } in snapshots {
            if bytes.is_empty() {
                records.snapshots.remove(&name);
            } else {
                records.snapshots.insert(name, bytes);
            }
        }
        Ok(())
    }

    fn head(&self) -> Result<LogHead, ReadError> {
        Ok(LogHead { seq: self.records().all.len() as u64 })
    }

    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
        Ok(self.records().head_of(stream))
    }

    fn payload(&self, seq: u64) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.read(seq.max(1), 1)?.pop().filter(|record| record.seq == seq).map(|r| r.payload))
    }
}
