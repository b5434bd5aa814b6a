//! What the tests share: small events, logs in temporary directories, and looks into their files.

use std::{
    cell::RefCell,
    fmt::{Debug, Display},
    fs,
    path::{Path, PathBuf},
    thread,
};

use keypool_ledger::{
    AppendError, Appended, Batch, Clock, CommandId, Event, EventLog, Hash, JournalReader,
    KeyPackageRef, NewEvent, OpenError, PackageFacts, Record, SledLog, SledLogOptions, StreamId,
    StreamWrite, SystemClock, Timestamp, log::append_at_head,
};
use tempfile::TempDir;
use uuid::Uuid;

/// Small files, so that a test of every byte of them takes no minutes.
pub(crate) const SMALL: SledLogOptions = SledLogOptions {
    segment_bytes: 4096,
    cache_bytes: 1 << 20,
    check_bytes: u64::MAX,
    seal_records: 8,
    fingerprint_bits: 128,
    ballast_bytes: 0,
};

/// Makes logs in directories that live as long as this does.
#[derive(Default)]
pub(crate) struct SledLogs(RefCell<Vec<TempDir>>);

impl SledLogs {
    pub(crate) fn make(&self) -> SledLog {
        let dir = TempDir::new().unwrap();
        let log = open(dir.path());
        self.0.borrow_mut().push(dir);
        log
    }
}

pub(crate) fn open(dir: &Path) -> SledLog {
    SledLog::open(dir, SMALL).unwrap_or_else(|err| panic!("{err}: {err:?}"))
}

/// Opens a log that must not open, and says why it did not.
pub(crate) fn refusal(dir: &Path) -> OpenError {
    SledLog::open(dir, SMALL).err().unwrap_or_else(|| panic!("the log has opened"))
}

pub(crate) fn stream(name: &str) -> StreamId {
    StreamId::Pool(name.parse().unwrap())
}

pub(crate) fn command(n: u64) -> CommandId {
    CommandId(Uuid::from_u128(n.into()))
}

pub(crate) fn package(n: u64) -> KeyPackageRef {
    KeyPackageRef::new(Hash::of(&n.to_be_bytes()).as_bytes()).unwrap()
}

pub(crate) fn facts(n: u64) -> PackageFacts {
    PackageFacts {
        keypackage_ref: package(n),
        not_before: Timestamp::default(),
        not_after: Timestamp::from_secs(1_000_000),
        ciphersuite: 1,
        credential: Hash::of(b"credential"),
        init_key: Hash::of(&n.to_le_bytes()),
        last_resort: false,
        capabilities: None,
    }
}

/// An upload of package `n` by command `n`, with a payload of a length.
pub(crate) fn uploaded(n: u64, payload_len: usize) -> NewEvent {
    let payload = n.to_be_bytes().into_iter().cycle().take(payload_len).collect();
    let event = Event::Uploaded(facts(n));
    NewEvent { at: Timestamp::default(), command: command(n), request: Hash::ZERO, event, payload }
}

pub(crate) fn batch(name: &str, expected: u64, events: Vec<NewEvent>) -> Batch {
    Batch { writes: vec![StreamWrite { stream: stream(name), expected, events }] }
}

/// Appends one event to a pool, wherever it is, and returns its sequence number.
pub(crate) fn try_append(log: &SledLog, payload_len: usize) -> Result<u64, AppendError> {
    let expected = log.stream_head(&stream("ann")).unwrap().version;
    let event = uploaded(expected + 1, payload_len);
    let answer = append_at_head(log, &[batch("ann", expected, vec![event])]).pop().unwrap();
    answer.map(|Appended { records }| records[0].seq)
}

/// Fills a log with a number of frames of one event each.
pub(crate) fn fill(log: &SledLog, n_events: u64) {
    for _ in 0..n_events {
        try_append(log, 40).unwrap();
    }
}

pub(crate) fn all(log: &impl EventLog) -> Vec<Record> {
    log.read(1, usize::MAX).unwrap()
}

/// Copies a directory with everything in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, to).unwrap();
        }
    }
}

/// The segments of the log in a directory, in order.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("journal")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}

/// Reads a journal without opening the log.
pub(crate) fn read_journal(dir: &Path) -> Result<Vec<Record>, OpenError> {
    JournalReader::open(&dir.join("journal"))?.collect()
}

/// Reads until the log can answer: it may be building its index anew.
pub(crate) fn in_the_end<T, E: Debug + Display>(read: impl Fn() -> Result<T, E>) -> T {
    let deadline = SystemClock.now().as_millis() + 60_000;
    loop {
        match read() {
            Ok(found) => return found,
            Err(error) => assert!(SystemClock.now().as_millis() < deadline, "{error}: {error:?}"),
        }
        thread::yield_now();
    }
}

/// Opens the log's sled files. A log that was just dropped closes them in a thread of its own, so this
/// waits until their lock is free.
pub(crate) fn open_sled(log: &Path) -> sled::Db {
    in_the_end(|| sled::open(log.join("sled")))
}
