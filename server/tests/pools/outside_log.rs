//! A log that is implemented outside the ledger's crate: servers share an engine that stores bytes and
//! compares its length before it appends, and each has a replica that only its own appends bring up to date.

use std::sync::{Arc, Mutex, MutexGuard};

use keypool_ledger::{
    AppendError, Appended, Batch, Conflict, EventLog, Key, LogHead, ReadError, Record, StreamHead,
    StreamId, StreamWrite, codec,
    log::{conformance, seal},
};

/// The envelope and the payload of each record, as bytes.
type Engine = Mutex<Vec<(Vec<u8>, Vec<u8>)>>;

/// The log of one server.
#[derive(Default)]
pub(crate) struct OutsideLog {
    engine: Arc<Engine>,
    replica: Mutex<Vec<Record>>,
    /// The action that is carried out during the next read of a history.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl OutsideLog {
    /// Another server's log on the same engine, up to date.
    pub(crate) fn beside(&self) -> Self {
        let other = Self { engine: Arc::clone(&self.engine), ..Self::default() };
        other.catch_up();
        other
    }

    /// Copies the records that others have appended into the replica.
    pub(crate) fn catch_up(&self) {
        copy(&self.engine.lock().unwrap(), &mut self.replica());
    }

    /// Has something happen between the next read of a history and its answer.
    pub(crate) fn during_next_read(&self, meanwhile: impl FnOnce() + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Some(Box::new(meanwhile));
    }

    fn replica(&self) -> MutexGuard<'_, Vec<Record>> {
        self.replica.lock().unwrap()
    }
}

/// Copies the records that a replica lacks.
fn copy(engine: &[(Vec<u8>, Vec<u8>)], replica: &mut Vec<Record>) {
    for (envelope_bytes, payload) in &engine[replica.len()..] {
        let (seq, envelope) = (replica.len() as u64 + 1, codec::decode(envelope_bytes).unwrap());
        let (envelope_bytes, payload) = (envelope_bytes.clone(), payload.clone());
        replica.push(Record { seq, envelope, envelope_bytes, payload });
    }
}

/// The records of one history, in order.
fn of_stream<'a>(records: &'a [Record], stream: &StreamId) -> impl Iterator<Item = &'a Record> {
    records.iter().filter(move |record| record.envelope.stream == *stream)
}

/// Seals a batch behind the records that are there; a refused one leaves them as they were.
fn stage(records: &mut Vec<Record>, batch: Batch) -> Result<Vec<Record>, AppendError> {
    let before = records.len();
    let staged = batch.writes.into_iter().try_for_each(|write| stage_write(records, before, write));
    let new = records.split_off(before);
    staged?;
    records.extend(new.iter().cloned());
    Ok(new)
}

fn stage_write(
    records: &mut Vec<Record>,
    before: usize,
    StreamWrite { stream, expected, events }: StreamWrite,
) -> Result<(), AppendError> {
    let named = of_stream(&records[before..], &stream).next().is_some();
    let mut head = head_of(records, &stream);
    if named || head.version != expected {
        return Err(Conflict::Stream { stream, expected, found: head.version }.into());
    }
    for event in events {
        let record = seal(records.len() as u64 + 1, &stream, head, event);
        let record = record.map_err(|error| AppendError::NotWritten(error.into()))?;
        head = record.stream_head();
        records.push(record);
    }
    Ok(())
}

fn head_of(records: &[Record], stream: &StreamId) -> StreamHead {
    of_stream(records, stream).last().map(Record::stream_head).unwrap_or_default()
}

impl EventLog for OutsideLog {
    fn append(
        &self,
        decided_at: LogHead,
        batches: Vec<Batch>,
    ) -> Vec<Result<Appended, AppendError>> {
        let (mut engine, mut replica) = (self.engine.lock().unwrap(), self.replica());
        copy(&engine, &mut replica);
        let end = LogHead { seq: engine.len() as u64 };
        if let Err(conflict) = end.check(decided_at) {
            return batches.iter().map(|_| Err(conflict.clone().into())).collect();
        }
        let answers = batches.into_iter().map(|batch| {
            let records = stage(&mut replica, batch)?;
            let bytes = |record: &Record| (record.envelope_bytes.clone(), record.payload.clone());
            engine.extend(records.iter().map(bytes));
            Ok(Appended { records })
        });
        answers.collect()
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        let behind = |record: &&Record| from <= record.seq;
        Ok(self.replica().iter().filter(behind).take(limit).cloned().collect())
    }

    fn read_stream(
        &self,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let behind = |record: &&Record| after < record.envelope.version;
        let found =
            of_stream(&self.replica(), stream).filter(behind).take(limit).cloned().collect();
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(happen) = meanwhile {
            happen();
        }
        Ok(found)
    }

    fn find(&self, key: Key<'_>, after: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        let (replica, mut selection) = (self.replica(), key.selection());
        let found = replica.iter().filter(|record| selection.takes(record));
        Ok(found.filter(|record| after < record.seq).take(limit).cloned().collect())
    }

    fn head(&self) -> Result<LogHead, ReadError> {
        Ok(LogHead { seq: self.replica().len() as u64 })
    }

    fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
        Ok(head_of(&self.replica(), stream))
    }
}

#[test]
fn a_log_outside_the_ledgers_crate_keeps_the_contract() {
    conformance::check(OutsideLog::default);
}
