//! Random appends leave the same records in every log, and the same after it was opened again.

use std::slice;

use keypool_ledger::{
    AppendError, Appended, Batch, Event, EventLog, Key, MemoryLog, StreamWrite,
    log::{append_at_head, find_command, find_package, find_reservation, read_record},
};
use quickcheck::{Arbitrary, Gen, quickcheck};
use tempfile::TempDir;

use super::{
    arbitrary::new_event,
    support::{all, open, read_journal, stream},
};

const NAMES: [&str; 3] = ["ann", "anna", "ann/phone"];

/// The batches of some calls. What a batch expects of a stream is counted from where it is.
#[derive(Clone, Debug)]
pub(crate) struct Calls(pub(crate) Vec<Vec<Batch>>);

impl Arbitrary for Calls {
    fn arbitrary(g: &mut Gen) -> Self {
        let n_calls = usize::arbitrary(g) % 12;
        let call = |g: &mut Gen| (0..usize::arbitrary(g) % 5).map(|_| batch(g)).collect();
        Self((0..n_calls).map(|_| call(g)).collect())
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let calls = self.0.clone();
        Box::new((0..calls.len()).map(move |n| {
            let mut fewer = calls.clone();
            fewer.remove(n);
            Self(fewer)
        }))
    }
}

fn batch(g: &mut Gen) -> Batch {
    let n_writes = usize::arbitrary(g) % 4;
    Batch { writes: (0..n_writes).map(|_| write(g)).collect() }
}

fn write(g: &mut Gen) -> StreamWrite {
    let name = *g.choose(&NAMES).unwrap();
    let expected = u64::from(u8::arbitrary(g) % 8 == 0);
    let n_events = usize::arbitrary(g) % 4;
    let payload = |g: &mut Gen| vec![7; *g.choose(&[0, 0, 3, 500, 7_000, 20_000]).unwrap()];
    let events = (0..n_events).map(|_| {
        let payload = payload(g);
        new_event(g, payload)
    });
    StreamWrite { stream: stream(name), expected, events: events.collect() }
}

/// Counts what the batches expect from where the log is; later batches of a call may be stale.
pub(crate) fn rebased(log: &impl EventLog, batches: &[Batch]) -> Vec<Batch> {
    let mut batches = batches.to_vec();
    for write in batches.iter_mut().flat_map(|batch| &mut batch.writes) {
        write.expected += log.stream_head(&write.stream).unwrap().version;
    }
    batches
}

/// What an answer says, without the words of its causes.
fn told(answers: &[Result<Appended, AppendError>]) -> Vec<String> {
    let tell = |answer: &Result<Appended, AppendError>| match answer {
        Ok(Appended { records }) => format!("{records:?}"),
        Err(AppendError::NotWritten(_)) => "not written".into(),
        Err(err) => err.to_string(),
    };
    answers.iter().map(tell).collect()
}

/// Checks that every way of reading gives the same in both logs.
pub(crate) fn same(a: &impl EventLog, b: &impl EventLog) {
    let records = all(a);
    assert_eq!(records, all(b));
    assert_eq!(a.head().unwrap(), b.head().unwrap());
    for name in NAMES {
        let stream = stream(name);
        assert_eq!(a.stream_head(&stream).unwrap(), b.stream_head(&stream).unwrap());
        for after in 0..4 {
            let [a, b] = [a.read_stream(&stream, after, 5), b.read_stream(&stream, after, 5)];
            assert_eq!(a.unwrap(), b.unwrap());
        }
    }
    for record in &records {
        let envelope = &record.envelope;
        assert_eq!(
            find_command(a, envelope.command, 0).unwrap(),
            find_command(b, envelope.command, 0).unwrap()
        );
        assert_eq!(read_record(a, record.seq).unwrap(), read_record(b, record.seq).unwrap());
        if let Some(package) = envelope.event.keypackage_ref() {
            assert_eq!(find_package(a, package).unwrap(), find_package(b, package).unwrap());
            let key = Key::Package(package);
            for (after, limit) in [(0, usize::MAX), (0, 2), (record.seq - 1, 1), (record.seq, 9)] {
                let [a, b] = [a.find(key, after, limit), b.find(key, after, limit)];
                assert_eq!(a.unwrap(), b.unwrap(), "{limit} after {after}");
            }
        }
        if let Event::Reserved { reservation, .. } = envelope.event {
            let [a, b] = [find_reservation(a, reservation, 0), find_reservation(b, reservation, 0)];
            assert_eq!(a.unwrap(), b.unwrap());
        }
        assert_eq!(a.read(record.seq, 1).unwrap(), slice::from_ref(record));
    }
}

quickcheck! {
    fn a_log_that_is_fed_with_sealed_records_is_the_same_log(calls: Calls) -> bool {
        let (memory, dir) = (MemoryLog::default(), TempDir::new().unwrap());
        let fed = open(dir.path());
        for batches in &calls.0 {
            let before = memory.head().unwrap().seq;
            append_at_head(&memory, &rebased(&memory, batches));
            fed.append_sealed(memory.read(before + 1, usize::MAX).unwrap()).unwrap();
        }
        same(&memory, &fed);
        drop(fed);
        same(&memory, &open(dir.path()));
        true
    }

    fn all_logs_are_the_same_log(calls: Calls) -> bool {
        let (memory, dir) = (MemoryLog::default(), TempDir::new().unwrap());
        let sled = open(dir.path());
        for batches in &calls.0 {
            let batches = rebased(&memory, batches);
            let answers = (append_at_head(&memory, &batches), append_at_head(&sled, &batches));
            assert_eq!(told(&answers.0), told(&answers.1));
        }
        same(&memory, &sled);
        drop(sled);
        assert_eq!(read_journal(dir.path()).unwrap(), all(&memory));
        same(&memory, &open(dir.path()));
        std::fs::remove_dir_all(dir.path().join("sled")).unwrap();
        same(&memory, &open(dir.path()));
        true
    }
}
