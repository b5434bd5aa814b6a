//! The frames of a replicated stream.

use std::{sync::Arc, time::Duration};

use keypool_ledger::{
    EventLog, Hash, PublishOutcome, Record, ReplicatedLog, ReplicatedLogOptions, Replication,
    ReplicationError, SledLog, SledLogOptions, StreamFrame, StreamStatus, compare_journal,
};

use super::{
    base_journal::{BaseJournal, base_journals, temporary_dir},
    edits::edit,
    input::InputReader,
};

/// How many frames an input has at most.
const FRAMES_MAX: usize = 8;
/// The bytes of a frame before its chain, and those of the chain.
const CHAIN: std::ops::Range<usize> = 1..33;

/// A stream that holds the frames of an input.
struct FrameStream(Vec<StreamFrame>);

impl Replication for FrameStream {
    fn publish(&self, _after: u64, _frame: &[u8]) -> PublishOutcome {
        PublishOutcome::Refused
    }

    fn frames(
        &self,
        after: u64,
        _bytes_max: usize,
        _wait: Duration,
    ) -> Result<Vec<StreamFrame>, ReplicationError> {
        let behind: Vec<StreamFrame> =
            self.0.iter().filter(|frame| after < frame.sequence).cloned().collect();
        // There will never be more.
        if behind.is_empty() {
            Err(ReplicationError::Unfit("the end".to_owned()))
        } else {
            Ok(behind)
        }
    }

    fn last(&self) -> Result<u64, ReplicationError> {
        Ok(self.0.last().map_or(0, |frame| frame.sequence))
    }

    fn status(&self, _wait: Duration) -> Result<StreamStatus, ReplicationError> {
        let (last, replicas) = (self.last()?, 1);
        Ok(StreamStatus { last, lost: 0, leader: None, current_replicas: replicas, replicas })
    }
}

/// Reads a stream of frames and compares it with a journal; or takes it in, as a new server of a cluster does. The
/// records that are taken in are those of the frames.
pub fn frames(bytes: &[u8]) {
    let mut input = InputReader::new(bytes);
    let is_joined = input.number(15) == 15;
    let base = &base_journals()[1];
    let stream = FrameStream(frames_of(&mut input, base));
    if is_joined {
        return join(stream);
    }
    let records = || base.records.iter().cloned().map(Ok);
    let Ok(found) = compare_journal(records(), &stream) else { return };
    assert!(found.same <= found.journal, "no more is the same than there is");
    assert!(found.same <= found.stream, "the stream has what is the same");
    assert!(found.journal <= base.records.len() as u64);
}

fn join(stream: FrameStream) {
    let dir = temporary_dir();
    let options = SledLogOptions { segment_bytes: 4096, ..SledLogOptions::default() };
    let local = Arc::new(SledLog::open(dir.path(), options).expect("a new log opens"));
    let options = ReplicatedLogOptions {
        open_patience: Duration::from_secs(1),
        ..ReplicatedLogOptions::default()
    };
    let bytes: usize = stream.0.iter().map(|frame| frame.bytes.len()).sum();
    let joined = ReplicatedLog::open(Arc::clone(&local), Arc::new(stream), options, &|_, _| true);
    drop(joined);
    let records = local.read(1, usize::MAX).expect("the copy can be read");
    let taken_in: usize = records.iter().map(|r| r.envelope_bytes.len() + r.payload.len()).sum();
    assert!(taken_in <= bytes, "the copy has no more than the stream");
}

/// The frames that an input holds: those of a journal with changes, and others, chained or not.
fn frames_of(input: &mut InputReader<'_>, base: &BaseJournal) -> Vec<StreamFrame> {
    let (mut frames, mut chain, mut begin) = (Vec::new(), Hash::ZERO, 0);
    for sequence in 1..=input.number(FRAMES_MAX) as u64 {
        let end = base.records.len().min(begin + input.number(4));
        let mut bytes = encode(chain, &base.records[begin..end]);
        edit(input, &mut bytes);
        if input.flag()
            && let Some(place) = bytes.get_mut(CHAIN)
        {
            place.copy_from_slice(chain.as_bytes());
        }
        chain = Hash::of(&bytes);
        begin = end;
        frames.push(StreamFrame { sequence, bytes });
    }
    frames
}

/// A frame, format 2: see `ledger/src/log/replicated/frame.rs`.
fn encode(chain: Hash, records: &[Record]) -> Vec<u8> {
    let mut bytes = vec![2];
    bytes.extend(chain.as_bytes());
    bytes.extend(records.first().map_or(0, |record| record.seq).to_le_bytes());
    for part in records.iter().flat_map(|record| [&record.envelope_bytes, &record.payload]) {
        bytes.extend(u32::try_from(part.len()).unwrap().to_le_bytes());
        bytes.extend(part);
    }
    bytes
}
