//! Logs behind pointers: a log that several owners share, or that is borrowed, is the same log.

use std::sync::Arc;

use super::{AppendError, Appended, Batch, EventLog, Key, LogHead, ReadError, Record, StreamHead};
use crate::StreamId;

macro_rules! forward {
    ($pointer:ty) => {
        impl<L: EventLog + ?Sized> EventLog for $pointer {
            fn append(
                &self,
                decided_at: LogHead,
                batches: Vec<Batch>,
            ) -> Vec<Result<Appended, AppendError>> {
                (**self).append(decided_at, batches)
            }

            fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
                (**self).read(from, limit)
            }

            fn read_stream(
                &self,
                stream: &StreamId,
                after: u64,
                limit: usize,
            ) -> Result<Vec<Record>, ReadError> {
                (**self).read_stream(stream, after, limit)
            }

            fn find(
                &self,
                key: Key<'_>,
                after: u64,
                limit: usize,
            ) -> Result<Vec<Record>, ReadError> {
                (**self).find(key, after, limit)
            }

            fn head(&self) -> Result<LogHead, ReadError> {
                (**self).head()
            }

            fn stream_head(&self, stream: &StreamId) -> Result<StreamHead, ReadError> {
                (**self).stream_head(stream)
            }
        }
    };
}

forward!(Arc<L>);
forward!(&L);
