//! The record of refusals beside the log: written by a thread of its own, never forced to the disk, and
//! bounded in bytes, in days and for each caller. A disk that takes no more costs lines of the record, and
//! nothing else.

mod bounds;
mod day_file;
mod forgetting;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use keypool_api::{CountedRefusals, RefusalLine, RefusedRequest};
use keypool_ledger::Timestamp;

pub(crate) use self::forgetting::forget_user;
use self::{
    bounds::{CallerBounds, Noted},
    day_file::DayFiles,
};

/// Lines that wait for the disk; more are dropped. A few callers alone do not fill it.
const QUEUE_LINES_MAX: usize = 4096;

/// The most days that are kept, as `--refusals-days` says.
const DAYS_MAX: u32 = 7;
/// How long a reader waits for the lines that are queued before it.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// A message to the thread that writes.
enum RecordMessage {
    /// A line, and its time.
    Line(Timestamp, RefusalLine),
    /// Time has passed: old days end.
    Tend(Timestamp),
    /// The lines before this message are written: say so.
    Report(SyncSender<()>),
}

/// The record of refusals of a running server.
#[derive(Debug)]
pub(crate) struct RefusalRecord {
    dir: PathBuf,
    bounds: Mutex<CallerBounds>,
    /// Bytes of the day that is written.
    day_bytes: Arc<AtomicU64>,
    /// The queue of the thread; `None` if nothing is recorded.
    queue: Option<SyncSender<RecordMessage>>,
    writer: Option<JoinHandle<()>>,
}

impl RefusalRecord {
    /// Opens the record in a folder of its own and removes the days before the last `days`. With 0 days nothing
    /// is recorded and the whole record is removed.
    ///
    /// # Errors
    ///
    /// Returns an [`io::Error`] if no thread can be started. A folder that cannot be written is no error.
    pub(crate) fn open(dir: &Path, days: u16, now: Timestamp) -> io::Result<Self> {
        let day_bytes = Arc::new(AtomicU64::new(0));
        let mut files = DayFiles::new(dir.to_owned(), days, Arc::clone(&day_bytes));
        files.tend(now);
        let (mut queue, mut writer) = (None, None);
        if 0 < days {
            let (sender, receiver) = sync_channel(QUEUE_LINES_MAX);
            let write = move || write_lines(&receiver, &mut files);
            writer = Some(thread::Builder::new().name("keypool-refusals".to_owned()).spawn(write)?);
            queue = Some(sender);
        }
        let bounds = Mutex::default();
        Ok(Self { dir: dir.to_owned(), bounds, day_bytes, queue, writer })
    }

    /// Records a refusal, or counts it if its caller had too many in this hour. Waits for no disk.
    pub(crate) fn note(&self, refusal: RefusedRequest) {
        if self.queue.is_none() {
            return;
        }
        let at = Timestamp::from_millis(refusal.at_ms);
        let day_bytes = self.day_bytes.load(Ordering::Relaxed);
        let noted = self.lock().note(refusal.caller.as_ref(), at, day_bytes);
        self.send_counts(at, noted.ended);
        match noted.verdict {
            Noted::Kept => self.send(RecordMessage::Line(at, RefusalLine::Refused(refusal))),
            Noted::Counted(count) => self.send_counts(at, count.into_iter().collect()),
        }
    }

    /// Ends days and hours that have passed.
    pub(crate) fn tend(&self, now: Timestamp) {
        let ended = self.lock().end_hour(now);
        self.send_counts(now, ended);
        self.send(RecordMessage::Tend(now));
    }

    /// Reads the file of a day, `YYYY-MM-DD`, with all that was noted before; `None` if nothing was recorded
    /// on it. Waits for the disk.
    ///
    /// # Errors
    ///
    /// Returns an [`io::Error`] if the file is there and cannot be read.
    pub(crate) fn read_day(&self, day: &str) -> io::Result<Option<Vec<u8>>> {
        let (sender, written) = sync_channel(1);
        self.send(RecordMessage::Report(sender));
        // A disk that does not answer has not written them: the file is read as it is.
        let _ = written.recv_timeout(REPORT_TIMEOUT);
        day_file::read(&self.dir, day)
    }

    /// The refusals of a request, of the days up to now, with all that was noted before. Reads the days one after the
    /// other, the last first, until one has them. Waits for the disk.
    ///
    /// # Errors
    ///
    /// Returns an [`io::Error`] if a file is there and cannot be read.
    pub(crate) fn of_request(
        &self,
        request_id: &str,
        now: Timestamp,
    ) -> io::Result<Vec<RefusedRequest>> {
        for days_ago in 0..DAYS_MAX {
            let at = now.before(Duration::from_hours(24).saturating_mul(days_ago));
            let Some(day) = day_file::day_of(at) else { break };
            let bytes = self.read_day(&day)?.unwrap_or_default();
            let found = refused_in(&bytes, request_id);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    fn send_counts(&self, at: Timestamp, counts: Vec<CountedRefusals>) {
        for count in counts {
            self.send(RecordMessage::Line(at, RefusalLine::Counted(count)));
        }
    }

    fn send(&self, message: RecordMessage) {
        if let Some(queue) = &self.queue {
            // A line for which there is no room is lost: nobody waits for the record.
            let _ = queue.try_send(message);
        }
    }

    fn lock(&self) -> MutexGuard<'_, CallerBounds> {
        self.bounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RefusalRecord {
    /// Writes the last counts, and waits for the lines under way.
    fn drop(&mut self) {
        let counts = self.lock().end();
        if let Some(queue) = self.queue.take() {
            for count in counts {
                let at = Timestamp::from_millis(count.from_ms);
                let _ = queue.try_send(RecordMessage::Line(at, RefusalLine::Counted(count)));
            }
        }
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
    }
}

/// The refusals of a request in the file of a day. Only lines with its id are decoded.
fn refused_in(bytes: &[u8], request_id: &str) -> Vec<RefusedRequest> {
    let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok());
    let named = lines.filter(|line| line.contains(request_id));
    let refused = named.filter_map(|line| match serde_json::from_str(line) {
        Ok(RefusalLine::Refused(refused)) if refused.request_id == request_id => Some(refused),
        _ => None,
    });
    refused.collect()
}

fn write_lines(queue: &Receiver<RecordMessage>, files: &mut DayFiles) {
    for message in queue {
        match message {
            RecordMessage::Line(at, line) => {
                if let Ok(mut bytes) = serde_json::to_vec(&line) {
                    bytes.push(b'\n');
                    files.append(at, &bytes);
                }
            }
            RecordMessage::Tend(now) => files.tend(now),
            // A reader that has given up needs no answer.
            RecordMessage::Report(reader) => drop(reader.try_send(())),
        }
    }
}
