//! The bytes that last: the records of all servers, with their indexes.

use std::collections::HashMap;

use keypool_ledger::{
    AppendError, Batch, CommandId, Conflict, Event, Hash, Key, KeyPackageRef, PoolId, Record,
    ReservationId, StreamHead, StreamId, log::seal,
};

/// All records that were ever written, in order. Nothing of it is ever taken back.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    pub(crate) records: Vec<Record>,
    streams: HashMap<StreamId, Vec<usize>>,
    commands: HashMap<CommandId, Vec<usize>>,
    packages: HashMap<KeyPackageRef, (StreamId, Vec<usize>)>,
    reservations: HashMap<ReservationId, Vec<usize>>,
    init_keys: HashMap<(PoolId, Hash), Vec<usize>>,
    /// How many records there were after each batch: a server has all of a batch or nothing.
    ends: Vec<usize>,
    /// Records that a server has sent, and that stand in the log yet unless others come first.
    pub(crate) late: Option<Vec<Record>>,
}

impl Engine {
    /// Writes the records of a batch.
    pub(crate) fn write(&mut self, batch: Vec<Record>) {
        for record in batch {
            self.push(record);
        }
        self.ends.push(self.records.len());
    }

    /// The ends of the batches behind so many records.
    pub(crate) fn ends_after(&self, known: usize) -> &[usize] {
        &self.ends[self.ends.partition_point(|end| *end <= known)..]
    }

    fn push(&mut self, record: Record) {
        let (at, envelope) = (self.records.len(), &record.envelope);
        self.streams.entry(envelope.stream.clone()).or_default().push(at);
        self.commands.entry(envelope.command).or_default().push(at);
        match &envelope.event {
            Event::Uploaded(facts) => {
                if let Some(pool) = envelope.stream.pool() {
                    self.init_keys.entry((pool.clone(), facts.init_key)).or_default().push(at);
                }
                let brought = || (envelope.stream.clone(), Vec::new());
                self.packages.entry(facts.keypackage_ref.clone()).or_insert_with(brought);
            }
            Event::Reserved { reservation, .. } => {
                self.reservations.entry(*reservation).or_default().push(at);
            }
            _ => {}
        }
        let named = envelope.event.keypackage_ref().and_then(|named| self.packages.get_mut(named));
        if let Some((stream, places)) = named
            && *stream == envelope.stream
        {
            places.push(at);
        }
        self.records.push(record);
    }

    /// The places of the records that a key finds.
    pub(crate) fn places(&self, key: Key<'_>) -> &[usize] {
        let places = match key {
            Key::Command(command) => self.commands.get(&command),
            Key::Package(keypackage_ref) => {
                self.packages.get(keypackage_ref).map(|(_, places)| places)
            }
            Key::Reservation(id) => self.reservations.get(&id),
            Key::InitKey(pool, init_key) => self.init_keys.get(&(pool.clone(), *init_key)),
            Key::UserName(_) => None,
        };
        places.map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn found(&self, key: Key<'_>) -> impl Iterator<Item = &Record> {
        self.places(key).iter().map(|at| &self.records[*at])
    }

    pub(crate) fn of_stream(&self, stream: &StreamId) -> &[usize] {
        self.streams.get(stream).map(Vec::as_slice).unwrap_or_default()
    }

    /// The head of a stream as a server knows it that has so many records.
    pub(crate) fn head_of(&self, stream: &StreamId, known: usize) -> StreamHead {
        let places = self.of_stream(stream);
        let last = places[..places.partition_point(|at| *at < known)].last();
        last.map(|at| self.records[*at].stream_head()).unwrap_or_default()
    }

    /// Seals batches behind the last record, each behind those before it. Nothing is written.
    pub(crate) fn stage(&self, batches: Vec<Batch>) -> Vec<Result<Vec<Record>, AppendError>> {
        let mut heads: HashMap<StreamId, StreamHead> = HashMap::new();
        let mut seq = self.records.len() as u64;
        let mut stage_one = |batch| {
            let staged = self.stage_one(batch, &mut heads, seq)?;
            seq += staged.len() as u64;
            Ok(staged)
        };
        batches.into_iter().map(&mut stage_one).collect()
    }

    fn stage_one(
        &self,
        batch: Batch,
        heads: &mut HashMap<StreamId, StreamHead>,
        mut seq: u64,
    ) -> Result<Vec<Record>, AppendError> {
        let (mut staged, mut changed) = (Vec::new(), HashMap::new());
        for write in batch.writes {
            let stream = write.stream;
            let known = heads.get(&stream).copied();
            let mut head = known.unwrap_or_else(|| self.head_of(&stream, usize::MAX));
            if head.version != write.expected || changed.contains_key(&stream) {
                let (expected, found) = (write.expected, head.version);
                return Err(Conflict::Stream { stream, expected, found }.into());
            }
            for event in write.events {
                seq += 1;
                let record = seal(seq, &stream, head, event).unwrap();
                head = record.stream_head();
                staged.push(record);
            }
            changed.insert(stream, head);
        }
        heads.extend(changed);
        Ok(staged)
    }
}
