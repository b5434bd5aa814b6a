//! The part of a log that answers from memory, for callers that must not wait for a disk.

use std::sync::Arc;

use super::Key;
use crate::StreamId;

/// A view of a log's index that never waits for a disk. It is given to the shell beside the log, like a
/// [`SnapshotStore`](super::SnapshotStore): an engine without one is asked where waiting is allowed.
pub trait MemoryIndex: Send + Sync {
    /// Decides whether [`EventLog::find`](super::EventLog::find) may find a record after the position `after`
    /// by a key. `false` is certain for every record that was visible before the call; `true` means that
    /// only the log can tell.
    fn may_have(&self, key: Key<'_>, after: u64) -> bool;

    /// Decides whether [`EventLog::stream_head`](super::EventLog::stream_head) answers from memory.
    fn has_head(&self, stream: &StreamId) -> bool;
}

/// A [`MemoryIndex`] that knows nothing: each question goes to the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMemoryIndex;

impl MemoryIndex for NoMemoryIndex {
    fn may_have(&self, _key: Key<'_>, _after: u64) -> bool {
        true
    }

    fn has_head(&self, _stream: &StreamId) -> bool {
        false
    }
}

/// An index that several owners share is the same index.
impl<I: MemoryIndex + ?Sized> MemoryIndex for Arc<I> {
    fn may_have(&self, key: Key<'_>, after: u64) -> bool {
        (**self).may_have(key, after)
    }

    fn has_head(&self, stream: &StreamId) -> bool {
        (**self).has_head(stream)
    }
}
