//! A log that lives as long as the process: the reference that other logs are compared with.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    AppendError, Appended, Batch, EventLog, Key, LogHead, ReadError, Record, Snapshot,
    SnapshotStore, StreamHead, staging::Staging,
};
use crate::StreamId;

/// An [`EventLog`] in memory.
#[derive(Debug, Default)]
pub struct MemoryLog(Mutex<Records>);

#[derive(Debug, Default)]
struct Records {
    /// All records; the one with sequence number `n` stands at `n - 1`.
    all: Vec<Record>,
    /// The indexes in `all` of each history's records.
    streams: HashMap<StreamId, Vec<usize>>,
    snapshots: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Records {
    const fn head(&self) -> LogHead {
        LogHead { seq: self.all.len() as u64 }
    }

    fn head_of(&self, stream: &StreamId) -> StreamHead {
        let last = self.streams.get(stream).and_then(|indexes| indexes.last());
        last.and_then(|index| self.all.get(*index)).map(Record::stream_head).unwrap_or_default()
    }

    fn push(&mut self, record: Record) {
        let index = self.all.len();
        self.streams.entry(record.envelope.stream.clone()).or_default().push(index);
        self.all.push(record);
    }
}

impl MemoryLog {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventLog for MemoryLog {
    fn append(
        &self,
        decided_at: LogHead,
        batches: Vec<Batch>,
    ) -> Vec<Result<Appended, AppendError>> {
        let mut held = self.records();
        if let Err(conflict) = held.head().check(decided_at) {
            return batches.iter().map(|_| Err(conflict.clone().into())).collect();
        }
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
        let indexes = records.streams.get(stream).map(Vec::as_slice).unwrap_or_default();
        let skipped = usize::try_from(after).unwrap_or(usize::MAX);
        let indexes = indexes.iter().skip(skipped).take(limit);
        Ok(indexes.filter_map(|index| records.all.get(*index)).cloned().collect())
    }

    fn find(&self, key: Key<'_>, after: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        let mut selection = key.selection();
        let records = self.records();
        let found = records.all.iter().filter(|record| selection.takes(record));
        Ok(found.filter(|record| after < record.seq).take(limit).cloned().collect())
    }

    fn head(&self) -> Result<LogHead, ReadError> {
        Ok(self.records().head())
    }

    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
        Ok(self.records().head_of(stream))
    }
}

impl SnapshotStore for MemoryLog {
    fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.records().snapshots.get(name).cloned())
    }

    fn list(
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

    fn put(&self, snapshots: Vec<Snapshot>) -> Result<(), ReadError> {
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
}
