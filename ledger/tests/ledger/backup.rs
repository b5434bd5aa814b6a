//! Backups of a log that goes on, and directories made from them.

use std::{
    cell::Cell,
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use keypool_ledger::{
    BackupError, BackupReport, CopiedFile, EventLog, OpenError, ReadError, Record, SledLog,
    restore_backup,
};
use tempfile::TempDir;

use super::support::{all, copy, fill, in_the_end, open, read_journal, segments, try_append};

/// Tells a child process of this test binary where its log and its backups are.
const CHILD_DIR: &str = "KEYPOOL_LEDGER_TEST_BACKUP_DIR";

/// Tells the threads of a test to end, also when the test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn restored(backup: &Path) -> Vec<Record> {
    let to = TempDir::new().unwrap();
    let data = to.path().join("data");
    restore_backup(backup, &data, &[]).unwrap();
    let log = open(&data);
    let records = all(&log);
    assert_eq!(try_append(&log, 40).unwrap(), records.len() as u64 + 1, "it goes on");
    records
}

/// The reason why a copy cannot have its name.
fn refusal(made: Result<BackupReport, BackupError>) -> String {
    let Err(error @ BackupError::Destination { .. }) = made else { panic!("{made:?}") };
    error.to_string()
}

#[test]
fn a_backup_has_what_was_acknowledged_before_it_while_the_log_goes_on() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir.path().join("data"));
    let (acknowledged, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let due = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                if acknowledged.load(Ordering::Acquire) < due.load(Ordering::Acquire) {
                    acknowledged.store(try_append(&log, 100).unwrap(), Ordering::Release);
                }
                thread::yield_now();
            }
        });
        let _end = Ending(&done);
        for round in 0..20 {
            let backup = dir.path().join(format!("backup-{round}"));
            let before = acknowledged.load(Ordering::Acquire);
            // So many events are appended while the backup is made; more would only make the test longer.
            due.store(before + 50, Ordering::Release);
            let made = log.backup(&backup, &[], &|| true).unwrap();
            assert!(before <= made.last_seq);
            let records = restored(&backup);
            assert_eq!(records.len() as u64, made.last_seq);
            assert_eq!(records, log.read(1, records.len()).unwrap());
        }
    });
    assert!(3 < segments(&dir.path().join("backup-19")).len(), "several segments are copied");
}

#[test]
fn a_backup_of_an_empty_log_is_an_empty_log() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir.path().join("data"));
    let made = log.backup(&dir.path().join("backup"), &[], &|| true).unwrap();
    assert_eq!(made, BackupReport { last_seq: 0, bytes: 4096 });
    let acknowledged = fs::read(dir.path().join("backup/journal/acknowledged")).unwrap();
    assert_eq!(acknowledged, [0; 1024], "nothing was acknowledged");
    assert_eq!(restored(&dir.path().join("backup")), []);
}

#[test]
fn the_files_beside_are_of_the_moment_before_the_end_and_for_their_owner_only() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir.path().join("data"));
    fill(&log, 3);
    let checkpoint = dir.path().join("checkpoint");
    fs::write(&checkpoint, 3_u64.to_be_bytes()).unwrap();
    let copied = |name: &str| CopiedFile { from: checkpoint.clone(), name: name.to_owned() };
    let beside = [copied("checkpoint"), copied("before/checkpoint")];
    let done = AtomicBool::new(false);
    let number = |path: &Path| u64::from_be_bytes(fs::read(path).unwrap().try_into().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| {
            let file = fs::File::options().write(true).open(&checkpoint).unwrap();
            while !done.load(Ordering::Acquire) {
                let seq = try_append(&log, 40).unwrap();
                file.write_all_at(&seq.to_be_bytes(), 0).unwrap();
            }
        });
        let _end = Ending(&done);
        for round in 0..20 {
            let backup = dir.path().join(format!("backup-{round}"));
            let made = log.backup(&backup, &beside, &|| true).unwrap();
            assert!(number(&backup.join("checkpoint")) <= made.last_seq);
            let data = dir.path().join(format!("data-{round}"));
            restore_backup(&backup, &data, &["checkpoint", "before/checkpoint", "gone"]).unwrap();
            assert_eq!(number(&data.join("checkpoint")), number(&backup.join("checkpoint")));
            let permissions =
                |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((permissions(&data), permissions(&data.join("checkpoint"))), (0o700, 0o600));
            assert!(data.join("before/checkpoint").exists() && !data.join("gone").exists());
        }
    });
    let gone = [CopiedFile { from: dir.path().join("gone"), name: "gone".to_owned() }];
    let refused = log.backup(&dir.path().join("none"), &gone, &|| true).unwrap_err();
    assert!(matches!(refused, BackupError::Io { .. }), "{refused}");
    assert!(!dir.path().join("none").exists() && !dir.path().join("none.unfinished").exists());
}

#[test]
fn no_backup_is_made_where_something_is_or_in_the_log_itself() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let log = open(&data);
    fill(&log, 30);
    let (full, empty, file) =
        (dir.path().join("full"), dir.path().join("empty"), dir.path().join("file"));
    fs::create_dir(&full).unwrap();
    fs::write(full.join("something"), []).unwrap();
    fs::create_dir(&empty).unwrap();
    fs::write(&file, []).unwrap();
    let before = read_journal(&data).unwrap();

    assert!(
        refusal(log.backup(&full, &[], &|| true))
            .contains("it is not empty; choose a new directory")
    );
    assert!(refusal(log.backup(&file, &[], &|| true)).contains("is no directory"));
    assert!(refusal(log.backup(&data, &[], &|| true)).contains("it is not empty"));
    assert!(
        refusal(log.backup(&data.join("backup"), &[], &|| true)).contains("choose one outside")
    );
    assert!(
        refusal(log.backup(&data.join("journal/backup"), &[], &|| true))
            .contains("choose one outside")
    );
    let beside_the_manifest = Path::new("src");
    assert!(refusal(log.backup(beside_the_manifest, &[], &|| true)).contains("it is not empty"));
    let too_long = dir.path().join("n".repeat(300));
    let refused = log.backup(&too_long, &[], &|| true).unwrap_err();
    assert!(matches!(&refused, BackupError::Io { path, .. } if *path == too_long), "{refused:?}");
    let missing = dir.path().join("no/such");
    assert!(refusal(log.backup(&missing, &[], &|| true)).contains("make it first"));
    assert!(
        refusal(log.backup(&dir.path().join("b.unfinished"), &[], &|| true))
            .contains("another one")
    );
    assert!(refusal(log.backup(Path::new("/"), &[], &|| true)).contains("name a new directory"));
    std::os::unix::fs::symlink(&data, dir.path().join("link")).unwrap();
    let through = dir.path().join("link/backup");
    assert!(refusal(log.backup(&through, &[], &|| true)).contains("choose one outside"));
    let strange = dir.path().join("new.unfinished");
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join("letters"), []).unwrap();
    assert!(refusal(log.backup(&dir.path().join("new"), &[], &|| true)).contains("is in the way"));
    assert!(strange.join("letters").exists(), "nothing of others is removed");

    log.backup(&empty, &[], &|| true).unwrap();
    assert_eq!(restored(&empty), before);
    assert_eq!(read_journal(&data).unwrap(), before);
}

#[test]
fn a_backup_that_is_to_end_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir.path().join("data"));
    fill(&log, 2000);
    let asked = Cell::new(0);
    log.backup(&dir.path().join("whole"), &[], &|| {
        asked.set(asked.get() + 1);
        true
    })
    .unwrap();
    let asked = asked.get();
    assert_eq!(asked, segments(&dir.path().join("whole")).len() - 1 + 1, "and in the check");
    for last in [0, 1, asked / 2, asked - 1] {
        let rest = Cell::new(last);
        let refused = log.backup(&dir.path().join("backup"), &[], &|| {
            rest.replace(rest.get().saturating_sub(1)) != 0
        });
        assert!(matches!(refused, Err(BackupError::Interrupted)), "{refused:?}");
        assert_eq!(named(dir.path(), "backup"), Vec::<PathBuf>::new());
    }
}

#[test]
fn of_two_backups_to_one_place_one_is_made_and_whole() {
    let dir = TempDir::new().unwrap();
    let log = open(&dir.path().join("data"));
    fill(&log, 300);
    for round in 0..20 {
        let (to, start) = (dir.path().join(format!("backup-{round}")), Barrier::new(2));
        let backup = || {
            start.wait();
            log.backup(&to, &[], &|| true)
        };
        let made = thread::scope(|scope| {
            let (one, other) = (scope.spawn(backup), scope.spawn(backup));
            [one.join().unwrap(), other.join().unwrap()]
        });
        assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1, "{made:?}");
        let refused = made.iter().find_map(|made| made.as_ref().err()).unwrap();
        let is_told = matches!(refused, BackupError::Busy { .. } | BackupError::Destination { .. });
        assert!(is_told, "{refused}: {refused:?}");
        assert_eq!(restored(&to).len(), 300);
        assert!(!dir.path().join(format!("backup-{round}.unfinished")).exists());
    }
}

#[test]
fn a_damaged_log_is_not_copied_and_a_damaged_backup_not_restored() {
    let dir = TempDir::new().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
    let log = open(&data);
    fill(&log, 60);
    log.backup(&backup, &[], &|| true).unwrap();
    let closed = segments(&data)[1].clone();
    let file = fs::File::options().read(true).write(true).open(&closed).unwrap();
    let damage = |place: u64| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, place).unwrap();
        file.write_all_at(&[byte[0] ^ 4], place).unwrap();
    };
    for place in [3, 60, 130, 700, 2000] {
        damage(place);
        let refused = log.backup(&dir.path().join("other"), &[], &|| true).unwrap_err();
        let BackupError::Log(OpenError::Damaged { file, .. }) = &refused else {
            panic!("{refused}: {refused:?}")
        };
        assert!(file.ends_with(closed.file_name().unwrap()));
        damage(place);
    }
    drop(log);
    for segment in segments(&backup) {
        let used = fs::read(&segment).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
        for place in (0..=used).step_by(97) {
            let copied = TempDir::new().unwrap();
            copy(&backup, copied.path());
            let segment = copied.path().join("journal").join(segment.file_name().unwrap());
            let mut bytes = fs::read(&segment).unwrap();
            bytes[place] ^= 0x20;
            fs::write(&segment, bytes).unwrap();
            let to = dir.path().join("restored");
            let refused = restore_backup(copied.path(), &to, &[]).unwrap_err();
            assert!(matches!(refused, BackupError::Log(_)), "{refused}: {refused:?}");
            assert!(!to.exists() && !dir.path().join("restored.unfinished").exists());
        }
    }
    assert_eq!(restored(&backup).len(), 60);
}

#[test]
fn nothing_is_restored_over_a_log_or_from_one_that_is_in_use() {
    let dir = TempDir::new().unwrap();
    let (data, backup) = (dir.path().join("data"), dir.path().join("backup"));
    let log = open(&data);
    fill(&log, 10);
    let in_use = restore_backup(&data, &dir.path().join("new"), &[]).unwrap_err();
    assert!(matches!(in_use, BackupError::Log(OpenError::Locked { .. })), "{in_use}");
    log.backup(&backup, &[], &|| true).unwrap();
    fill(&log, 10);
    drop(log);
    assert!(refusal(restore_backup(&backup, &data, &[])).contains("it is not empty"));
    assert!(refusal(restore_backup(&backup, &backup.join("data"), &[])).contains("outside"));
    assert_eq!(all(&open(&data)).len(), 20, "the log is as it was");
    // A directory that is no log gives none.
    fs::create_dir(dir.path().join("nothing")).unwrap();
    let none = restore_backup(&dir.path().join("nothing"), &dir.path().join("new"), &[]);
    assert!(matches!(none, Err(BackupError::Io { .. })), "{none:?}");
}

/// A child that appends, and makes one backup after the other meanwhile.
fn child(dir: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "ledger::backup::child_that_makes_backups_until_it_is_killed"])
        .args(["--ignored", "--nocapture", "--quiet"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Names in a directory that begin with a word.
fn named(dir: &Path, word: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let begins = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(word);
    entries.filter(begins).collect()
}

#[test]
fn killed_at_any_moment_a_backup_is_whole_or_has_no_name() {
    let dir = TempDir::new().unwrap();
    let (mut whole, mut interrupted) = (0, 0);
    for round in 0..20 {
        let mut child = child(dir.path());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut said = lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok());
        let acknowledged: u64 = said.by_ref().nth(5 + round * 2).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let records = read_journal(&dir.path().join("data")).unwrap();
        assert!(acknowledged <= records.len() as u64);
        for path in named(dir.path(), "backup-") {
            if path.extension().is_some() {
                interrupted += 1;
                // The next one to the same place takes its place.
                let to = path.with_extension("");
                let log = in_the_end(|| {
                    SledLog::open(&dir.path().join("data"), super::support::SMALL)
                        .map_err(|error| ReadError::Unavailable(error.into()))
                });
                log.backup(&to, &[], &|| true).unwrap();
                assert_eq!(restored(&to), all(&log));
                assert!(!path.exists());
                fs::remove_dir_all(to).unwrap();
            } else {
                whole += 1;
                let copied = restored(&path);
                assert_eq!(copied, records[..copied.len()]);
                fs::remove_dir_all(path).unwrap();
            }
        }
    }
    assert!(0 < whole && 0 < interrupted, "{whole} whole, {interrupted} interrupted");
}

#[test]
#[ignore = "a part of killed_at_any_moment_a_backup_is_whole_or_has_no_name, which starts it"]
fn child_that_makes_backups_until_it_is_killed() {
    let Some(dir) = env::var_os(CHILD_DIR).map(PathBuf::from) else { return };
    let log = open(&dir.join("data"));
    thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                let seq = try_append(&log, 100).unwrap();
                writeln!(std::io::stdout(), "acknowledged {seq}").unwrap();
            }
        });
        for round in 0.. {
            log.backup(&dir.join(format!("backup-{round}")), &[], &|| true).unwrap();
        }
    });
}
