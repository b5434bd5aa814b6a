//! The reader: frames behind any place, from a cursor that is kept between two questions, or one by one.

use std::time::Duration;

use keypool_ledger::{ReplicationError, StreamFrame};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    cursor::{Pulled, StreamCursor},
    link::Link,
};

/// A question for fewer bytes than this is answered with one frame, without a cursor.
const ONE_FRAME_BYTES: usize = 64 << 10;
/// How long a question waits for a new cursor before it asks for the one frame. During an election of the cluster's
/// leader there is none for some seconds.
const CURSOR_WAIT: Duration = Duration::from_millis(250);
/// How many frames may be read one by one until a cursor that comes late is of no use.
const LATE_MAX: u64 = 1000;
/// How long a reader rests after a cursor was lost, so that it makes few of them.
const LOST_REST: Duration = Duration::from_millis(50);

/// Reads frames in order, and remembers where it was.
#[derive(Default)]
pub(crate) struct StreamReader {
    cursor: Option<StreamCursor>,
    opening: Option<OpeningCursor>,
}

/// A cursor that is being made.
struct OpeningCursor {
    after: u64,
    connection: u64,
    task: JoinHandle<Result<StreamCursor, ReplicationError>>,
}

impl Drop for OpeningCursor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StreamReader {
    /// Reads the frames that follow frame `after`.
    ///
    /// A frame of another number than expected is returned, for the caller to judge, and the cursor is given up.
    pub(crate) async fn read(
        &mut self,
        link: &Link,
        (after, bytes_max): (u64, usize),
        wait: Duration,
    ) -> Result<Vec<StreamFrame>, ReplicationError> {
        let connection = link.connected(wait).await?;
        let kept = self.cursor.take().filter(|cursor| cursor.comes_to(after, connection));
        if let Some(mut cursor) = kept {
            cursor.pass_over(after);
            return self.pull(link, cursor, bytes_max, wait).await;
        }
        if bytes_max < ONE_FRAME_BYTES
            && let Some(frame) = link.frame(after + 1).await
        {
            return Ok(vec![frame]);
        }
        match self.open(link, after, connection).await {
            Ok(Some(cursor)) => self.pull(link, cursor, bytes_max, wait).await,
            Ok(None) => Ok(link.frame(after + 1).await.into_iter().collect()),
            Err(error) => link.frame(after + 1).await.map(|frame| vec![frame]).ok_or(error),
        }
    }

    /// Reads from a cursor, and keeps it if it can go on.
    async fn pull(
        &mut self,
        link: &Link,
        mut cursor: StreamCursor,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<StreamFrame>, ReplicationError> {
        let mut frames = Vec::new();
        let pulled = timeout(wait, cursor.fill(&mut frames, bytes_max)).await;
        if let Some(last) = frames.last() {
            link.note(last.sequence);
        }
        let is_lost = match pulled {
            Ok(pulled) => pulled? == Pulled::Lost,
            Err(_) => frames.is_empty() && cursor.is_silent(wait),
        };
        if !is_lost {
            self.cursor = Some(cursor);
        } else if frames.is_empty() {
            sleep(LOST_REST.min(wait)).await;
        }
        Ok(frames)
    }

    /// Makes a cursor behind frame `after`, or goes on with one that is being made; none if it takes long.
    async fn open(
        &mut self,
        link: &Link,
        after: u64,
        connection: u64,
    ) -> Result<Option<StreamCursor>, ReplicationError> {
        let is_of_use = |opening: &OpeningCursor| {
            let read_since = after.checked_sub(opening.after);
            opening.connection == connection && read_since.is_some_and(|read| read < LATE_MAX)
        };
        let opening = self.opening.take().filter(is_of_use);
        let mut opening = opening.unwrap_or_else(|| {
            let place = (after, connection);
            let cursor = StreamCursor::open(link.context.clone(), link.stream.clone(), place);
            OpeningCursor { after, connection, task: tokio::spawn(cursor) }
        });
        let Ok(opened) = timeout(CURSOR_WAIT, &mut opening.task).await else {
            self.opening = Some(opening);
            return Ok(None);
        };
        let opened = opened.map_err(|error| ReplicationError::Unreachable(error.into()))?;
        opened.map(|mut cursor| {
            cursor.pass_over(after);
            Some(cursor)
        })
    }
}
