//! Copies of the stream, and the helpers that the tests of every engine share, by the names that they have here.

use std::{path::Path, sync::Arc};

pub(crate) use keypool_ledger::log::conformance::{
    engines::{empty_frame as frame, publish_frame as written, read_to_end as read_all},
    servers::{DEADLINE, all, append, eventually},
};
use keypool_ledger::{
    ReplicatedLog, ReplicatedLogOptions, SledLog, SledLogOptions, StreamJoinError,
};
use keypool_nats::NatsReplication;

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
pub(crate) fn join(dir: &Path, stream: NatsReplication) -> Result<ReplicatedLog, StreamJoinError> {
    let options = ReplicatedLogOptions { append_patience: DEADLINE, ..Default::default() };
    ReplicatedLog::open(Arc::new(open(dir)), Arc::new(stream), options, &|_, _| true)
}
