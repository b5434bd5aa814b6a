//! Opening: finds the frame at which the local copy ends, and takes in those that follow.

use std::{sync::Arc, time::Duration};

use super::{
    Replication, ReplicationError, StreamFault, StreamJoinError,
    frame::{self, FrameContents},
    replica::Replica,
};
use crate::{EventLog, Hash, SledLog, time::Patience};

/// How long one question for a frame waits.
const WAIT: Duration = Duration::from_secs(2);
/// How long a frame that the stream has may take to come.
const FRAME_PATIENCE: Duration = Duration::from_secs(10);

/// Finds the frame that holds the last record of the local journal, and opens a replica in front of it. The
/// journal's part of that frame is compared when the frame is taken in.
pub(super) fn join(
    local: Arc<SledLog>,
    replication: Arc<dyn Replication>,
) -> Result<Replica, StreamJoinError> {
    let head = local.head()?.seq;
    let last = replication.last()?;
    let at = match (head, last) {
        (0, _) => (0, Hash::ZERO),
        (records, 0) => return Err(StreamJoinError::EmptyStream { records }),
        _ => before_holder(&*replication, head, last)?,
    };
    let replica = Replica::new(local, replication, at);
    replica.state().known = last;
    Ok(replica)
}

/// Takes frames in until the copy has all that were in the stream at the beginning. `goes_on` is told the
/// number of the frame that was reached and that of the last one, and may end it. `for_each` is the time that
/// the next frame may take.
pub(super) fn catch_up(
    replica: &Replica,
    for_each: Duration,
    goes_on: &dyn Fn(u64, u64) -> bool,
) -> Result<(), StreamJoinError> {
    let last = replica.state().known;
    let mut patience = Patience::of(for_each);
    loop {
        let (was, fault) = {
            let state = replica.state();
            (state.sequence, state.fault.clone())
        };
        if let Some(fault) = fault {
            return Err(StreamJoinError::Contradiction(fault));
        }
        if last <= was {
            return Ok(());
        }
        if !goes_on(was, last) {
            return Err(StreamJoinError::Ended);
        }
        let asked = replica.take_in_next(WAIT);
        let (now, trouble) = {
            let state = replica.state();
            (state.sequence, state.trouble.clone())
        };
        if was < now {
            patience = Patience::of(for_each);
        } else if patience.is_over() {
            asked?;
            return Err(StreamJoinError::Stuck { sequence: now, last, why: trouble });
        }
    }
}

/// Returns the number and the hash of the frame before the one that holds a record.
fn before_holder(
    replication: &dyn Replication,
    position: u64,
    last: u64,
) -> Result<(u64, Hash), StreamJoinError> {
    // The first frame begins at or before the record, and the one behind the last does not.
    let (mut low, mut high) = (1, last + 1);
    while low + 1 < high {
        let middle = low.midpoint(high);
        if read_frame(replication, middle)?.first() <= position {
            low = middle;
        } else {
            high = middle;
        }
    }
    let holder = read_frame(replication, low)?;
    if holder.last() < position {
        return Err(StreamJoinError::Behind { stream: holder.last(), records: position });
    }
    Ok((low - 1, holder.chain))
}

fn read_frame(
    replication: &dyn Replication,
    sequence: u64,
) -> Result<FrameContents, StreamJoinError> {
    let patience = Patience::of(FRAME_PATIENCE);
    loop {
        let frames = replication.frames(sequence - 1, 1, WAIT)?;
        if let Some(found) = frames.into_iter().find(|frame| frame.sequence == sequence) {
            let broken = |source: frame::FrameError| {
                StreamJoinError::Contradiction(Arc::new(StreamFault::Frame {
                    sequence,
                    source: source.into(),
                }))
            };
            return frame::decode(&found.bytes).map_err(broken);
        }
        if patience.is_over() {
            let why = format!("frame {sequence} of the stream did not come");
            return Err(ReplicationError::Unreachable(why.into()).into());
        }
    }
}
