//! The files of the record: one for each day, by the server's time in UTC.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use keypool_ledger::Timestamp;

/// Bytes of a day; further lines of it are lost.
pub(super) const DAY_BYTES_MAX: u64 = 16 << 20;
/// The first second of the year 10000: days from there on have no name.
const NAMELESS_S: u64 = 253_402_300_800;

/// The files of the record, as the thread that writes them sees them.
#[derive(Debug)]
pub(super) struct DayFiles {
    dir: PathBuf,
    days: u16,
    /// The day that is written.
    day: String,
    /// Its file, once a line was written.
    file: Option<File>,
    /// Bytes in it.
    bytes: Arc<AtomicU64>,
    /// Whether lines are lost, which is told once.
    fails: bool,
}

impl DayFiles {
    pub(super) fn new(dir: PathBuf, days: u16, bytes: Arc<AtomicU64>) -> Self {
        Self { dir, days, day: String::new(), file: None, bytes, fails: false }
    }

    /// Begins another day if it has come, and removes the days that are too old.
    pub(super) fn tend(&mut self, now: Timestamp) {
        let Some(day) = day_of(now) else { return };
        if day == self.day {
            return;
        }
        (self.day, self.file, self.fails) = (day, None, false);
        let len = fs::metadata(file_in(&self.dir, &self.day)).map_or(0, |found| found.len());
        self.bytes.store(len, Ordering::Relaxed);
        if let Err(error) = self.remove_old(now)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, "old days of the record of refusals cannot be removed");
        }
    }

    fn remove_old(&self, now: Timestamp) -> io::Result<()> {
        let kept = Duration::from_hours(24).saturating_mul(u32::from(self.days).saturating_sub(1));
        let oldest = day_of(now.before(kept)).unwrap_or_default();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let day = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
            if day.is_some_and(|day| is_day(day) && (self.days == 0 || *day < *oldest)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Appends a line. A disk that does not take it is told once a day, and costs the line.
    pub(super) fn append(&mut self, at: Timestamp, line: &[u8]) {
        self.tend(at);
        if self.day.is_empty() {
            return;
        }
        match self.try_append(line) {
            Ok(()) => self.fails = false,
            Err(error) => {
                // The next line opens the file again, and ends a torn one.
                self.file = None;
                if !self.fails {
                    let dir = self.dir.display();
                    tracing::warn!(%error, %dir, "refusals are not recorded; the server goes on");
                }
                self.fails = true;
            }
        }
    }

    fn try_append(&mut self, line: &[u8]) -> io::Result<()> {
        let len = line.len() as u64;
        if DAY_BYTES_MAX < self.bytes.load(Ordering::Relaxed).saturating_add(len) {
            return Err(io::Error::other("the record of this day is full"));
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(open(&self.dir, &self.day)?),
        };
        file.write_all(line)?;
        self.bytes.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }
}

/// Opens the file of a day for appending, after the end of its last whole line.
fn open(dir: &Path, day: &str) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let path = file_in(dir, day);
    let mut file = File::options().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut last = [b'\n'];
    if 0 < file.seek(SeekFrom::End(0))? {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// Reads the file of a day; `None` if there is none, or the text is no day.
pub(super) fn read(dir: &Path, day: &str) -> io::Result<Option<Vec<u8>>> {
    if !is_day(day) {
        return Ok(None);
    }
    match fs::read(file_in(dir, day)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn file_in(dir: &Path, day: &str) -> PathBuf {
    dir.join(format!("{day}.jsonl"))
}

/// The day of a moment in UTC, as `2027-01-15`; `None` beyond the year 9999.
pub(super) fn day_of(at: Timestamp) -> Option<String> {
    let secs = Some(at.as_secs()).filter(|secs| *secs < NAMELESS_S)?;
    let moment = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(secs));
    moment.to_string().split('T').next().map(str::to_owned)
}

fn is_day(text: &str) -> bool {
    let fits = |(place, byte): (usize, u8)| match place {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    text.len() == 10 && text.bytes().enumerate().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;
    /// The beginning of 2027-01-15.
    const START: u64 = 1_799_971_200;

    fn files(dir: &Path, days: u16) -> DayFiles {
        DayFiles::new(dir.join("refusals"), days, Arc::default())
    }

    fn days_in(dir: &Path) -> Vec<String> {
        let listed = fs::read_dir(dir.join("refusals")).unwrap();
        let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn days_are_kept_for_a_week_and_other_files_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut written = files(dir.path(), 7);
        for day in 0..9 {
            written.append(Timestamp::from_secs(START + day * DAY), b"{}\n");
        }
        fs::write(dir.path().join("refusals/notes.txt"), "").unwrap();
        let kept = days_in(dir.path());
        assert_eq!((kept[0].as_str(), kept.len()), ("2027-01-17.jsonl", 8), "{kept:?}");
        // Without a refusal days end as well.
        written.tend(Timestamp::from_secs(START + 10 * DAY));
        assert_eq!(days_in(dir.path()).len(), 6);
        // Switched off, the record is removed.
        files(dir.path(), 0).tend(Timestamp::from_secs(START + 10 * DAY));
        assert_eq!(days_in(dir.path()), ["notes.txt"]);
    }

    #[test]
    fn a_torn_line_ends_before_the_next_and_a_full_day_takes_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let at = Timestamp::from_secs(START);
        files(dir.path(), 7).append(at, b"{\"torn\":");
        let mut again = files(dir.path(), 7);
        again.append(at, b"{}\n");
        let record = |day: &str| read(&dir.path().join("refusals"), day).unwrap();
        assert_eq!(record("2027-01-15").unwrap(), b"{\"torn\":\n{}\n");
        assert_eq!((record("2027-01-16"), record("../journal")), (None, None));
        again.bytes.store(DAY_BYTES_MAX, Ordering::Relaxed);
        again.append(at, b"{}\n");
        assert_eq!(record("2027-01-15").unwrap().len(), 12);
        again.append(Timestamp::MAX, b"{}\n");
        assert_eq!(days_in(dir.path()), ["2027-01-15.jsonl"]);
    }
}
