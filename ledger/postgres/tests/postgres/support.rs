//! Logs over a stream, frames, and small events and waits that the tests of every engine share.

use std::{path::Path, sync::Arc, time::Duration};

pub(crate) use keypool_ledger::log::conformance::servers::{
    DEADLINE, all, append, batch, command, eventually, now, uploaded, wait_for,
};
use keypool_ledger::{
    PublishOutcome, ReplicatedLog, ReplicatedLogOptions, Replication, SledLog, SledLogOptions,
    StreamJoinError,
};
use keypool_postgres::PostgresReplication;

/// Small files.
const SMALL: SledLogOptions = SledLogOptions {
    segment_bytes: 1 << 20,
    cache_bytes: 1 << 20,
    check_bytes: u64::MAX,
    seal_records: 1024,
    fingerprint_bits: 128,
    ballast_bytes: 0,
};

pub(crate) fn open(dir: &Path) -> SledLog {
    SledLog::open(dir, SMALL).unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

/// Joins a stream with the journal in a directory.
pub(crate) fn join(
    dir: &Path,
    stream: PostgresReplication,
) -> Result<ReplicatedLog, StreamJoinError> {
    let options = ReplicatedLogOptions { append_patience: DEADLINE, ..Default::default() };
    ReplicatedLog::open(Arc::new(open(dir)), Arc::new(stream), options, &|_, _| true)
}

/// The bytes of a frame that holds no records.
pub(crate) fn frame(n: u64, len: usize) -> Vec<u8> {
    n.to_be_bytes().into_iter().cycle().take(len).collect()
}

/// Publishes a frame, which must be acknowledged.
pub(crate) fn written(stream: &impl Replication, after: u64, len: usize) {
    let outcome = stream.publish(after, &frame(after + 1, len));
    assert!(matches!(outcome, PublishOutcome::Written), "{after}: {outcome:?}");
}

/// Reads from a place on until nothing comes, and checks that each frame is the next one.
pub(crate) fn read_all(stream: &impl Replication, after: u64, bytes_max: usize) -> u64 {
    let mut last = after;
    loop {
        let frames = stream.frames(last, bytes_max, Duration::ZERO).unwrap();
        if frames.is_empty() {
            return last;
        }
        for found in frames {
            assert_eq!(found.sequence, last + 1);
            assert_eq!(found.bytes, frame(found.sequence, found.bytes.len()));
            last = found.sequence;
        }
    }
}
