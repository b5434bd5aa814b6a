//! The promises of an engine that replicates a journal, and those of the log over it, for the tests of any adapter.

use std::{cell::Cell, path::Path, sync::Arc, time::Duration};

use super::{
    check,
    servers::{all, append, batch, command, uploaded, wait_for},
};
use crate::{
    AppendError, Conflict, EventLog, JournalReader, PublishOutcome, ReplicatedLog, Replication,
    log::find_command, publish_journal,
};

/// How long a frame that is there may take to come.
const WAIT: Duration = Duration::from_secs(20);
/// How long a reader waits for a frame that does not come.
const NOTHING: Duration = Duration::from_millis(50);

/// The bytes of a frame that holds no records.
#[must_use]
pub fn empty_frame(n: u64, len: usize) -> Vec<u8> {
    n.to_be_bytes().into_iter().cycle().take(len).collect()
}

/// Publishes a frame of a length in bytes.
///
/// # Panics
///
/// Panics unless it is acknowledged.
pub fn publish_frame(stream: &(impl Replication + ?Sized), after: u64, len: usize) {
    let outcome = stream.publish(after, &empty_frame(after + 1, len));
    assert!(matches!(outcome, PublishOutcome::Written), "{after}: {outcome:?}");
}

/// Reads from a place to the end, checks that each frame is the next one, and returns the number of the last.
///
/// # Panics
///
/// Panics if the stream cannot be read, or a frame is another one.
pub fn read_to_end(stream: &(impl Replication + ?Sized), after: u64, bytes_max: usize) -> u64 {
    let mut last = after;
    loop {
        let wait = if last < stream.last().unwrap() { WAIT } else { NOTHING };
        let frames = stream.frames(last, bytes_max, wait).unwrap();
        if frames.is_empty() {
            return last;
        }
        for found in frames {
            assert_eq!(found.sequence, last + 1);
            assert_eq!(found.bytes, empty_frame(found.sequence, found.bytes.len()));
            last = found.sequence;
        }
    }
}

/// Checks that a frame gets the number behind the last one, or is refused, in the empty stream `cas`; and that frames
/// come by bytes, one by one and from any place, in the empty stream `places`.
///
/// # Panics
///
/// Panics at the first promise that is not kept.
pub fn check_frames(connect: impl Fn(&str) -> Arc<dyn Replication>) {
    let stream = connect("cas");
    assert_eq!(stream.last().unwrap(), 0);
    let refused = |after| matches!(stream.publish(after, b"other"), PublishOutcome::Refused);
    assert!(refused(1) && refused(u64::MAX), "the stream is empty");
    publish_frame(&*stream, 0, 10);
    assert!(refused(0) && refused(2), "the stream ends at 1");
    publish_frame(&*stream, 1, 10);
    assert!(refused(0) && refused(1));
    assert_eq!(stream.last().unwrap(), 2);
    assert_eq!(read_to_end(&*stream, 0, 1 << 20), 2);

    let stream = connect("places");
    assert_eq!(stream.frames(0, 1, NOTHING).unwrap(), [], "it is empty");
    (0..12).for_each(|after| publish_frame(&*stream, after, 3 << 20));
    (12..400).for_each(|after| publish_frame(&*stream, after, 300));
    assert_eq!(read_to_end(&*stream, 0, 16 << 20), 400);
    assert_eq!(read_to_end(&*stream, 398, 16 << 20), 400);
    let (mut largest, mut last) = (0, 0);
    while last < 12 {
        let frames = stream.frames(last, 8 << 20, WAIT).unwrap();
        largest = largest.max(frames.iter().map(|frame| frame.bytes.len()).sum());
        last = frames.last().unwrap().sequence;
    }
    assert!(largest < 12 << 20, "a question for 8 MiB ends at the next frame: {largest}");
    for after in [7, 399, 0, 200, 201, 202, 5] {
        let frames = stream.frames(after, 1, WAIT).unwrap();
        assert_eq!(frames.iter().map(|frame| frame.sequence).collect::<Vec<_>>(), [after + 1]);
    }
    assert_eq!(stream.frames(400, 1, NOTHING).unwrap(), []);
    publish_frame(&*stream, 400, 8_000_000);
    assert_eq!(read_to_end(&*stream, 400, 16 << 20), 401);
}

/// Checks the contract of every log over empty streams; `join` joins the stream of a name with an empty copy.
///
/// # Panics
///
/// Panics at the first promise that is not kept.
pub fn check_contract(join: impl Fn(&str) -> ReplicatedLog) {
    let count = Cell::new(0);
    check(|| {
        count.set(count.get() + 1);
        join(&format!("contract-{}", count.get()))
    });
}

/// Checks that two servers write an empty stream in turn, that one which is behind is refused, and that a third one
/// takes in the whole: 21 frames. `join` joins that stream with the copy of a name.
///
/// # Panics
///
/// Panics at the first promise that is not kept.
pub fn check_two_servers(join: impl Fn(&str) -> ReplicatedLog) {
    let [a, b] = ["a", "b"].map(&join);
    for n in 1..=20 {
        let (writer, other) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        append(writer, n, 100);
        wait_for(other, n);
    }
    let stale = a.head().unwrap();
    append(&b, 21, 100);
    let answer = a.append(stale, vec![batch("bob", 0, vec![uploaded(22, 9)])]).pop().unwrap();
    let Err(AppendError::Conflict(Conflict::Log { decided_at: 20, head: 21 })) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(find_command(&a, command(22), 0).unwrap(), []);
    assert_eq!(all(&a), all(&b));
    let fresh = join("fresh");
    assert_eq!(all(&fresh), all(&a));
    assert_eq!(all(&fresh).len(), 21);
}

/// Checks that a server goes on where it was in the empty stream `on`, and that its journal fills the empty stream
/// `other`. `join` joins the stream of the second name with the copy of the first one, a folder of `dir`.
///
/// # Panics
///
/// Panics at the first promise that is not kept.
pub fn check_refilling(
    join: impl Fn(&str, &str) -> ReplicatedLog,
    connect: impl Fn(&str) -> Arc<dyn Replication>,
    dir: &Path,
) {
    let log = join("first", "on");
    (1..=30).for_each(|n| append(&log, n, 2_000));
    drop(log);
    let other = join("second", "on");
    (31..=60).for_each(|n| append(&other, n, 2_000));
    let log = join("first", "on");
    assert_eq!(all(&log), all(&other));
    assert_eq!(all(&log).len(), 60);
    drop((log, other));
    let stream = connect("other");
    let records = || JournalReader::open(&dir.join("first/journal")).unwrap();
    for _ in 0..2 {
        assert_eq!(publish_journal(records(), &*stream, &|_| {}).unwrap(), 60);
        assert_eq!(stream.last().unwrap(), 1, "once");
    }
    let log = join("second", "other");
    append(&log, 61, 10);
    assert_eq!(all(&log).len(), 61);
}
