//! Who may open a log, and what is there after the process that had it open was killed.

use std::{
    env,
    fs::{self, DirBuilder},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    process::{Command, Stdio, id},
};

use keypool_ledger::{
    EventLog, JournalReader, JournalWriter, JournalWriterOptions, OpenError, SledLog,
    SledLogOptions, codec,
};
use tempfile::TempDir;

use super::support::{SMALL, all, copy, fill, open, read_journal, refusal, segments, try_append};

/// Tells a child process of this test binary where its log is.
const CHILD_DIR: &str = "KEYPOOL_LEDGER_TEST_CHILD_DIR";

#[test]
fn a_second_open_says_who_holds_the_log() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());

    let err = refusal(dir.path());

    assert!(matches!(err, OpenError::Locked { holder: Some(pid), .. } if pid == id()));
    assert_eq!(
        err.to_string(),
        format!(
            "{} is in use by process {}; stop that process or choose another directory",
            dir.path().display(),
            id()
        )
    );
    drop(log);
    open(dir.path());
}

#[test]
fn nobody_else_may_enter_the_directory() {
    let dir = TempDir::new().unwrap();
    let deep = dir.path().join("a/b");
    open(&deep);
    for path in [dir.path().join("a"), deep.clone(), deep.join("journal"), deep.join("sled")] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700, "{path:?}");
    }
    let wide = dir.path().join("wide");
    DirBuilder::new().mode(0o755).create(&wide).unwrap();
    open(&wide);
    let mode = fs::metadata(&wide).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o755, "a directory that was there is left as it is");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, []).unwrap();

    let err = refusal(&file);

    assert_eq!(err.to_string(), format!("{} cannot be read or written", file.display()));
}

#[test]
fn a_log_is_shown_by_its_directory_and_a_reader_without_its_records() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    assert_eq!(format!("{log:?}"), format!("SledLog {{ dir: {:?}, .. }}", dir.path()));
    let reader = JournalReader::open(&dir.path().join("journal")).unwrap();
    assert_eq!(format!("{reader:?}"), "JournalReader { .. }");
}

#[test]
fn a_log_tells_the_room_on_its_disk() {
    let dir = TempDir::new().unwrap();
    let space = open(dir.path()).free_space().unwrap();
    assert!(0 < space.free && space.free <= space.total, "{space:?}");
}

#[test]
fn an_empty_log_opens_again() {
    let dir = TempDir::new().unwrap();
    for _ in 0..3 {
        let log = SledLog::open(dir.path(), SledLogOptions::default()).unwrap();
        assert_eq!(log.head().unwrap().seq, 0);
    }
    assert_eq!(read_journal(dir.path()).unwrap(), []);
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = TempDir::new().unwrap();
    let mut acknowledged = 0;
    for n_kill in 0..20 {
        let n_more = 1 + (n_kill * 7) % 19;
        acknowledged = kill_after(dir.path(), n_more).max(acknowledged);
        let records = read_journal(dir.path()).unwrap();
        assert!(records.len() as u64 >= acknowledged, "the journal has it");
        let log = open(dir.path());
        assert_eq!(all(&log), records, "and so has the log");
        fill(&log, 1);
        acknowledged = all(&log).len() as u64;
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_a_damaged_database() {
    let dir = TempDir::new().unwrap();
    kill_after(dir.path(), 900);
    let records = read_journal(dir.path()).unwrap();
    let database = fs::read(dir.path().join("sled/db")).unwrap();
    let used_len = database.iter().rposition(|byte| *byte != 0).unwrap_or_default() + 1;
    for place in (0..used_len).step_by(used_len / 25 + 1) {
        let copied = TempDir::new().unwrap();
        copy(dir.path(), copied.path());
        let mut flipped = database.clone();
        flipped[place] ^= 0x10;
        fs::write(copied.path().join("sled/db"), flipped).unwrap();
        let found = open(copied.path()).read(1, usize::MAX);
        assert!(found.is_err() || found.unwrap() == records, "byte {place}");
        assert_eq!(all(&open(copied.path())), records, "byte {place}");
    }
}

/// Lets a child append until it has said so a number of times, and kills it.
pub(crate) fn kill_after(dir: &Path, n_more: usize) -> u64 {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "ledger::opening::child_that_appends_until_it_is_killed"])
        .args(["--ignored", "--nocapture", "--quiet"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said = lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok());
    assert_eq!(said.by_ref().take(n_more).count(), n_more, "the child has appended");
    child.kill().unwrap();
    child.wait().unwrap();
    // The child went on until the kill; what it has said meanwhile counts as well.
    let last: u64 = said.last().unwrap_or(0);
    last.max(n_more as u64)
}

#[test]
#[ignore = "a part of what_was_acknowledged_survives_kill_9, which starts it"]
fn child_that_appends_until_it_is_killed() {
    let Some(dir) = env::var_os(CHILD_DIR) else { return };
    let log = SledLog::open(Path::new(&dir), SMALL).unwrap();
    loop {
        let seq = try_append(&log, 300).unwrap();
        writeln!(io::stdout(), "acknowledged {seq}").unwrap();
    }
}

/// A closed log whose last record has other bytes in place of its envelope's.
fn written_by_another_version(dir: &Path, alter: fn(&mut Vec<u8>)) {
    let from = TempDir::new().unwrap();
    let log = open(from.path());
    fill(&log, 5);
    let mut records = all(&log);
    alter(&mut records[4].envelope_bytes);
    let options = JournalWriterOptions { segment_bytes: 4096, key: None };
    JournalWriter::create(dir, options).unwrap().append(&records).unwrap();
}

/// Checks that such a log is refused, that the reason is told, and that nothing is moved away.
fn told_as_newer(alter: fn(&mut Vec<u8>), what: &str) {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("data");
    written_by_another_version(&dir, alter);
    for _ in 0..2 {
        let refused = refusal(&dir);
        assert!(matches!(refused, OpenError::Newer { .. }), "{refused:?}");
        let said = refused.to_string();
        assert!(said.contains("was written by a newer version of keypool: record 5: "), "{said}");
        assert!(said.contains(what) && !said.contains("restore"), "{said}");
    }
    assert!(!dir.join("sled.damaged").exists());
}

#[test]
fn a_log_of_a_newer_version_is_told_as_one() {
    let newer_schema = |bytes: &mut Vec<u8>| {
        let next = codec::SCHEMA_PSEUDONYMS + 1;
        bytes[..2].copy_from_slice(&next.to_be_bytes());
    };
    let newer_event = |bytes: &mut Vec<u8>| {
        let place = bytes.windows(8).position(|part| part == b"uploaded").unwrap();
        bytes[place] = b'U';
    };
    told_as_newer(newer_schema, "has schema");
    told_as_newer(newer_event, "cannot read its event");
}

#[test]
fn a_journal_of_a_newer_format_is_told_as_one() {
    let dir = TempDir::new().unwrap();
    fill(&open(dir.path()), 5);
    let segment = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[7] = 3;
    let key = bytes[8..40].try_into().unwrap();
    let hash = blake3::keyed_hash(key, &bytes[..88]);
    bytes[88..120].copy_from_slice(hash.as_bytes());
    fs::write(&segment, bytes).unwrap();

    let refused = refusal(dir.path());

    assert_eq!(
        refused.to_string(),
        format!(
            "{} was written by a newer version of keypool: the segment has format 3; nothing is \
             damaged and nothing was changed, start that version again",
            segment.display()
        )
    );
}
