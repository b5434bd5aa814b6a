//! Publishing a journal: fills an empty stream with the records of a server that ran alone, or of a replica.

use std::{iter::Peekable, time::Duration};

use super::{FRAME_BYTES_MAX, Replication, ReplicationError, frame};
use crate::{Hash, OpenError, Record, log::local::error_chain, time::Patience};

/// How long one question for a frame waits.
const WAIT: Duration = Duration::from_secs(2);
/// How long one frame is tried.
const PATIENCE: Duration = Duration::from_secs(30);

/// The reason why a journal was not published, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The stream cannot be reached, or keeps no promises.
    #[error(transparent)]
    Stream(#[from] ReplicationError),
    /// A frame of the stream is missing or damaged.
    #[error("frame {sequence} of the stream is broken: {why}")]
    Broken {
        /// The number of the frame.
        sequence: u64,
        /// The reason, for people.
        why: String,
    },
    /// The stream holds something else than this journal.
    #[error(
        "frame {sequence} of the stream is not of this journal; publish into a stream with another name"
    )]
    OtherStream {
        /// The number of the frame.
        sequence: u64,
    },
}

/// Publishes every record of a journal into a stream, in order, and returns the position of the last one.
///
/// A server's own journal becomes a replicated one so, and a stream that has lost frames is filled from a
/// replica again, under another name. After an interruption it may be run again: frames that the stream has
/// are compared, and the others added. `tell` hears the position of the last record that stands in the stream.
///
/// # Errors
///
/// Returns a [`PublishError`]. The stream has a beginning of the journal then, or holds another one.
pub fn publish_journal(
    records: impl Iterator<Item = Result<Record, OpenError>>,
    replication: &dyn Replication,
    tell: &dyn Fn(u64),
) -> Result<u64, PublishError> {
    let last = replication.last()?;
    let (mut sequence, mut chain, mut position) = (0, Hash::ZERO, 0);
    let mut records = records.peekable();
    loop {
        let group = next_group(&mut records)?;
        let Some(end) = group.last() else { break };
        let frame = frame::encode(chain, &group);
        place(replication, (sequence, last), &frame, PATIENCE)?;
        (sequence, chain, position) = (sequence + 1, Hash::of(&frame), end.seq);
        tell(position);
    }
    if sequence < last {
        return Err(PublishError::OtherStream { sequence: sequence + 1 });
    }
    Ok(position)
}

/// The comparison of a stream with a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamComparison {
    /// How many records both have, from the first on, with the same bytes.
    pub same: u64,
    /// The position of the first record that differs, if one does.
    pub differs: Option<u64>,
    /// How many records the journal has.
    pub journal: u64,
    /// How many records the stream has until the first one that differs; payloads are not compared, since they may
    /// have been pruned.
    pub stream: u64,
}

/// Compares every frame of a stream with the records of a journal.
///
/// # Errors
///
/// Returns a [`PublishError`] if the journal or the stream cannot be read, or the stream is broken: a gap, a frame
/// that is none, or one that does not follow the frame before it, by its hash or by the positions of its records.
pub fn compare_journal(
    mut records: impl Iterator<Item = Result<Record, OpenError>>,
    replication: &dyn Replication,
) -> Result<StreamComparison, PublishError> {
    let last = replication.last()?;
    let mut found = StreamComparison { same: 0, differs: None, journal: 0, stream: 0 };
    let (mut sequence, mut chain) = (0, Hash::ZERO);
    while sequence < last && found.differs.is_none() {
        let frame = read_next(replication, sequence, PATIENCE)?;
        let here = sequence + 1;
        let broken = |why: String| PublishError::Broken { sequence: here, why };
        let contents = frame::decode(&frame).map_err(|error| broken(error_chain(&error)))?;
        if contents.chain != chain {
            return Err(broken("it does not follow the frame before it".to_owned()));
        }
        (sequence, chain) = (sequence + 1, Hash::of(&frame));
        for published in contents.records {
            if published.seq != found.stream + 1 {
                return Err(broken(format!(
                    "it has record {} behind record {}",
                    published.seq, found.stream
                )));
            }
            found.stream = published.seq;
            let Some(stored) = records.next().transpose()? else { continue };
            found.journal = stored.seq;
            if (stored.seq, &stored.envelope_bytes) != (published.seq, &published.envelope_bytes) {
                found.differs = Some(published.seq);
                break;
            }
            found.same = stored.seq;
        }
    }
    for record in records {
        found.journal = record?.seq;
    }
    Ok(found)
}

/// Reads the frame behind frame `after`.
fn read_next(
    replication: &dyn Replication,
    after: u64,
    patience: Duration,
) -> Result<Vec<u8>, PublishError> {
    let patience = Patience::of(patience);
    let mut later = "";
    loop {
        for frame in replication.frames(after, 1, WAIT)? {
            if frame.sequence == after + 1 {
                return Ok(frame.bytes);
            }
            if after < frame.sequence {
                later = ", and later ones do";
            }
        }
        if patience.is_over() {
            let why = format!("it does not come{later}");
            return Err(PublishError::Broken { sequence: after + 1, why });
        }
    }
}

/// The next records, as many as a frame has room for. The same journal is always divided alike.
fn next_group(
    records: &mut Peekable<impl Iterator<Item = Result<Record, OpenError>>>,
) -> Result<Vec<Record>, OpenError> {
    let (mut group, mut bytes) = (Vec::new(), 0);
    let len = |record: &Result<Record, OpenError>| record.as_ref().map_or(0, frame::encoded_len);
    while let Some(record) =
        records.next_if(|next| group.is_empty() || bytes + len(next) <= FRAME_BYTES_MAX)
    {
        bytes += len(&record);
        group.push(record?);
    }
    Ok(group)
}

/// Makes sure that a frame stands in the stream behind frame `after`, and publishes it unless the stream
/// reaches to `last`, which is behind that.
fn place(
    replication: &dyn Replication,
    (after, last): (u64, u64),
    frame: &[u8],
    patience: Duration,
) -> Result<(), PublishError> {
    let patience = Patience::of(patience);
    loop {
        if last <= after {
            let answer = replication.publish(after, frame);
            tracing::trace!(?answer, after, "a frame was published");
        }
        let frames = replication.frames(after, 1, WAIT)?;
        match frames.into_iter().find(|there| there.sequence == after + 1) {
            Some(there) if there.bytes == frame => return Ok(()),
            Some(_) => return Err(PublishError::OtherStream { sequence: after + 1 }),
            None if patience.is_over() => {
                let why = format!("frame {} was published and does not come back", after + 1);
                return Err(ReplicationError::Unreachable(why.into()).into());
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PublishOutcome, StreamFrame, StreamStatus};

    /// A stream that delivers frames with these numbers whenever it is asked for some.
    struct Delivers(&'static [u64]);

    impl Replication for Delivers {
        fn publish(&self, _after: u64, _frame: &[u8]) -> PublishOutcome {
            PublishOutcome::Refused
        }

        fn frames(
            &self,
            _after: u64,
            _bytes_max: usize,
            _wait: Duration,
        ) -> Result<Vec<StreamFrame>, ReplicationError> {
            let frame = |sequence: &u64| StreamFrame { sequence: *sequence, bytes: vec![7] };
            Ok(self.0.iter().map(frame).collect())
        }

        fn last(&self) -> Result<u64, ReplicationError> {
            Ok(9)
        }

        fn status(&self, _wait: Duration) -> Result<StreamStatus, ReplicationError> {
            Err(ReplicationError::Unreachable("it has no nodes".into()))
        }
    }

    #[test]
    fn a_frame_that_does_not_come_is_told_apart_from_one_that_later_frames_pass() {
        let read = |numbers| read_next(&Delivers(numbers), 4, Duration::ZERO);
        assert_eq!(read(&[3, 4, 5]).unwrap(), [7]);
        let missing = |numbers| match read(numbers) {
            Err(PublishError::Broken { sequence: 5, why }) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(missing(&[]), "it does not come");
        assert_eq!(missing(&[3, 4]), "it does not come");
        assert_eq!(missing(&[6]), "it does not come, and later ones do");
    }

    #[test]
    fn a_frame_stands_in_the_stream_once_it_comes_back_with_its_bytes() {
        let place = |numbers, frame| place(&Delivers(numbers), (4, 4), frame, Duration::ZERO);
        place(&[3, 5], &[7]).unwrap();
        let other = place(&[3, 5], &[8]);
        assert!(matches!(other, Err(PublishError::OtherStream { sequence: 5 })), "{other:?}");
        for numbers in [&[][..], &[4], &[6]] {
            let Err(PublishError::Stream(error)) = place(numbers, &[7]) else {
                panic!("{numbers:?}")
            };
            let why = error_chain(&error);
            assert!(why.ends_with("frame 5 was published and does not come back"), "{why}");
        }
    }
}
