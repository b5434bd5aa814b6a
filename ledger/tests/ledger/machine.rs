//! A machine that has run out of something: descriptors, room on the disk, the right to write.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use keypool_ledger::{
    AppendError, BackupError, CopiedFile, EventLog, LogHealth, OpenError, PruneReport, ReadError,
    Record, SledLog, SledLogOptions, SnapshotStore,
    log::{find_command, find_package},
};
use rustix::{
    fs::{FallocateFlags, fallocate},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tempfile::TempDir;

use super::{
    support::{
        SMALL, all, command, fill, in_the_end, open, package, read_journal, segments, stream,
        try_append,
    },
    traces::traced,
};

/// Tells a child process of this test binary where its log is.
const CHILD_DIR: &str = "KEYPOOL_LEDGER_TEST_MACHINE_DIR";

/// Runs an ignored test in a process of its own, because it changes the limits of the process.
pub(crate) fn in_a_child(test: &str) {
    let dir = TempDir::new().unwrap();
    // A shell can ignore the signal that goes with the limit of a file's length, for its child too.
    let ended = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}");
}

/// The directory that such a test has for its log; `None` where it was not started so.
pub(crate) fn dir_of_a_child() -> Option<PathBuf> {
    env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// Sets the soft limit of a resource; `None` for the highest.
pub(crate) fn limit(resource: Resource, current: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: current.or(maximum), maximum }).unwrap();
}

/// Appends until the log refuses.
fn until_refused(log: &SledLog) -> AppendError {
    for _ in 0..100_000 {
        if let Err(error) = try_append(log, 40) {
            return error;
        }
    }
    panic!("the log never refused");
}

/// Checks that a log answers all questions about some records.
fn serves(log: &SledLog, records: &[Record]) {
    assert_eq!(log.read(1, records.len()).unwrap(), records);
    for record in records.iter().step_by(7) {
        let n = record.envelope.version;
        assert_eq!(find_command(log, command(n), 0).unwrap(), std::slice::from_ref(record));
        assert_eq!(find_package(log, &package(n)).unwrap().as_ref(), Some(record));
    }
}

/// Waits until a log takes events by itself.
fn is_writable_again(log: &SledLog) {
    in_the_end(|| match log.health() {
        LogHealth::Writable => Ok(()),
        health => Err(ReadError::Unavailable(format!("{health:?}").into())),
    });
}

#[test]
fn without_descriptors_events_are_refused_and_taken_again_when_there_are_some() {
    in_a_child("ledger::machine::child_without_descriptors");
}

#[test]
#[ignore = "a part of without_descriptors_events_are_refused_and_taken_again_when_there_are_some"]
fn child_without_descriptors() {
    let Some(dir) = dir_of_a_child() else { return };
    let log = open(&dir);
    fill(&log, 10);
    let n_open = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    // What is open stays open: the next descriptor has a number above the limit.
    limit(Resource::Nofile, Some(n_open.min(16)));

    let is_told = |append: fn(&SledLog) -> AppendError| {
        let lines = traced(|| {
            let refused = append(&log);
            assert!(matches!(refused, AppendError::NotWritten(_)), "{refused}");
        });
        lines.iter().any(|line| line.contains("the log refuses events for now"))
    };
    assert!(is_told(until_refused));
    assert!(!is_told(|log| try_append(log, 40).unwrap_err()), "it was told already");

    let LogHealth::Refusing { why } = log.health() else { panic!("{:?}", log.health()) };
    assert!(why.contains("Too many open files"), "{why}");
    let records = all(&log);
    assert!(10 < records.len(), "the segment that was made before was used");
    serves(&log, &records);
    assert!(try_append(&log, 40).is_err(), "it goes on to refuse");
    limit(Resource::Nofile, None);
    assert_eq!(try_append(&log, 40).unwrap(), records.len() as u64 + 1);
    assert_eq!(log.health(), LogHealth::Writable);
}

#[test]
fn after_a_failed_write_nothing_is_taken_until_the_log_is_opened_again() {
    in_a_child("ledger::machine::child_with_a_failed_write");
}

#[test]
#[ignore = "a part of after_a_failed_write_nothing_is_taken_until_the_log_is_opened_again"]
fn child_with_a_failed_write() {
    let Some(dir) = dir_of_a_child() else { return };
    let log = open(&dir);
    fill(&log, 3);
    limit(Resource::Fsize, Some(200));
    let first = try_append(&log, 40).unwrap_err();
    limit(Resource::Fsize, None);
    let second = try_append(&log, 40).unwrap_err();

    assert!(matches!(first, AppendError::Unknown(_)), "{first}");
    let AppendError::Failed(cause) = second else { panic!("{second}") };
    assert_eq!(
        cause.to_string(),
        "the log accepts no more events since an earlier error; free the disk and restart"
    );
    let LogHealth::Failed { why } = log.health() else { panic!("{:?}", log.health()) };
    assert!(why.starts_with("write failed for "), "{why}");
    assert_eq!(all(&log).len(), 3, "what was acknowledged can be read");
    assert_eq!(find_package(&log, &package(4)).unwrap(), None);
    let doubtful = find_command(&log, command(3), 0).unwrap_err();
    assert!(matches!(doubtful, ReadError::Unavailable(_)), "{doubtful:?}");
    assert_eq!(log.prune(&BTreeSet::from([1, 2, 3]), &|| true).unwrap(), PruneReport::default());
    assert_eq!(segments(&dir).len(), 1, "no segment is begun any more");
    drop(log);
    assert_eq!(try_append(&open(&dir), 40).unwrap(), 4);
}

/// The system's calls that write to a file, which fail for the database's files once a file says so.
const FAILING_CALLS: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int fd) {
    char link[64], path[4096] = {0};
    const char *flag = getenv("KEYPOOL_LEDGER_TEST_EIO");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return flag && access(flag, F_OK) == 0 && readlink(link, path, sizeof path - 1) > 0 && strstr(path, "/sled/");
}

#define CALL(name, parameters, ...)                                                            \
    ssize_t name parameters {                                                                  \
        ssize_t (*call) parameters = dlsym(RTLD_NEXT, #name);                                  \
        if (!fails(fd)) return call(__VA_ARGS__);                                              \
        dprintf(2, "EIO for " #name "\n");                                                      \
        errno = EIO;                                                                           \
        return -1;                                                                             \
    }

CALL(write, (int fd, const void *bytes, size_t n), fd, bytes, n)
CALL(pwrite, (int fd, const void *bytes, size_t n, off_t at), fd, bytes, n, at)
CALL(pwrite64, (int fd, const void *bytes, size_t n, off64_t at), fd, bytes, n, at)
#define SYNC(name)                                                                             \
    int name(int fd) {                                                                         \
        int (*call)(int) = dlsym(RTLD_NEXT, #name);                                            \
        if (!fails(fd)) return call(fd);                                                       \
        errno = EIO;                                                                           \
        return -1;                                                                             \
    }
SYNC(fsync)
SYNC(fdatasync)
"#;

/// Tells the calls the file that makes them fail.
const EIO_FLAG: &str = "KEYPOOL_LEDGER_TEST_EIO";

/// Compiles the calls to a library that a process can be started with.
fn failing_calls(dir: &Path) -> PathBuf {
    let (source, library) = (dir.join("calls.c"), dir.join("calls.so"));
    fs::write(&source, FAILING_CALLS).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
    let ended = compiler.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    library
}

#[test]
fn a_disk_that_fails_while_the_log_is_closed_ends_nothing_and_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let ended = Command::new(env::current_exe().unwrap())
        .args(["--exact", "ledger::machine::child_with_a_failing_disk", "--ignored", "--nocapture"])
        .env("LD_PRELOAD", failing_calls(dir.path()))
        .env(EIO_FLAG, dir.path().join("eio"))
        .env(CHILD_DIR, &data)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("EIO for pwrite"), "the database was to be written at the end: {said}");
    assert!(ended.status.success(), "{said}");

    let log = open(&data);
    let records = all(&log);
    assert_eq!(records.len(), 300);
    serves(&log, &records);
    assert_eq!(try_append(&log, 40).unwrap(), 301);
}

#[test]
#[ignore = "a part of a_disk_that_fails_while_the_log_is_closed_ends_nothing_and_loses_nothing"]
fn child_with_a_failing_disk() {
    let (Some(dir), Some(flag)) = (env::var_os(CHILD_DIR), env::var_os(EIO_FLAG)) else { return };
    let log = open(Path::new(&dir));
    fill(&log, 300);
    fs::write(flag, []).unwrap();
    drop(log);
}

/// On a small disk of its own.
mod small_disk {
    use std::io::Write;

    use super::*;

    /// A small disk of its own.
    struct Disk(TempDir);

    impl Disk {
        /// Mounts one of so many MiB.
        fn mount(mib: u32) -> Self {
            let dir = TempDir::new().unwrap();
            let size = format!("size={mib}m");
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path());
            let ended = mount.output().unwrap();
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
            Self(dir)
        }

        fn data(&self) -> PathBuf {
            self.0.path().join("data")
        }

        /// Takes all the room there is but so much.
        fn fill_but(&self, left: u64) {
            let mut filler = fs::File::create(self.0.path().join("filler")).unwrap();
            while filler.write_all(&[1; 4096]).is_ok() {}
            let taken = filler.metadata().unwrap().len();
            filler.set_len(taken.saturating_sub(left)).unwrap();
        }

        fn free(&self) {
            fs::remove_file(self.0.path().join("filler")).unwrap();
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
        }
    }

    const SMALL_DISK: SledLogOptions = SledLogOptions { segment_bytes: 64 << 10, ..SMALL };
    const WITH_BALLAST: SledLogOptions = SledLogOptions { ballast_bytes: 12 << 20, ..SMALL_DISK };

    #[test]
    #[ignore = "mounts a disk, which takes root: .ci/run runs it in a mount namespace"]
    fn a_full_disk_refuses_events_and_takes_them_again_when_there_is_room() {
        let disk = Disk::mount(32);
        let log = SledLog::open(&disk.data(), SMALL_DISK).unwrap();
        fill(&log, 100);
        assert!(8 << 20 < log.free_space().unwrap().free);
        assert_eq!(log.free_space().unwrap().total, 32 << 20);
        disk.fill_but(0);

        let refused = until_refused(&log);

        assert!(matches!(refused, AppendError::NotWritten(_)), "{refused}");
        let LogHealth::Refusing { why } = log.health() else { panic!("{:?}", log.health()) };
        assert!(why.contains("No space left on device"), "{why}");
        assert!(log.free_space().unwrap().free < 1 << 20);
        let refused = log.put(Vec::new()).unwrap_err();
        assert!(matches!(refused, ReadError::Unavailable(_)), "no snapshot is taken: {refused}");
        let records = all(&log);
        serves(&log, &records);
        disk.free();
        is_writable_again(&log);
        assert_eq!(
            in_the_end(|| try_append(&log, 40).map_err(unavailable)),
            records.len() as u64 + 1
        );
        serves(&log, &records);
    }

    #[test]
    #[ignore = "mounts a disk, which takes root: .ci/run runs it in a mount namespace"]
    fn a_write_that_finds_no_room_is_refused_and_leaves_nothing() {
        let disk = Disk::mount(32);
        let data = disk.data();
        let log = SledLog::open(&data, SMALL_DISK).unwrap();
        fill(&log, 3);
        // As on a file system that gives a file new blocks whenever it is written.
        let segment = fs::File::options().write(true).open(&segments(&data)[0]).unwrap();
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&segment, hole, 4096, (64 << 10) - 4096).unwrap();
        disk.fill_but(0);

        let refused = until_refused(&log);

        assert!(matches!(refused, AppendError::NotWritten(_)), "{refused}");
        let LogHealth::Refusing { why } = log.health() else { panic!("{:?}", log.health()) };
        assert!(why.starts_with("write failed for "), "{why}");
        let records = all(&log);
        serves(&log, &records);
        disk.free();
        is_writable_again(&log);
        assert_eq!(try_append(&log, 40).unwrap(), records.len() as u64 + 1);
        drop(log);
        let log = SledLog::open(&data, SMALL_DISK).unwrap();
        assert_eq!(all(&log).len(), records.len() + 1);
        serves(&log, &records);
    }

    fn unavailable(error: AppendError) -> ReadError {
        ReadError::Unavailable(error.into())
    }

    /// The paths of everything in a log's directory.
    fn files(data: &Path) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                paths.extend(files(&entry));
            }
            paths.push(entry);
        }
        paths.sort();
        paths
    }

    #[test]
    #[ignore = "mounts a disk, which takes root: .ci/run runs it in a mount namespace"]
    fn a_full_disk_at_a_start_is_not_called_damage_and_nothing_is_moved_away() {
        let disk = Disk::mount(32);
        let data = disk.data();
        fill(&SledLog::open(&data, SMALL_DISK).unwrap(), 300);
        let records = read_journal(&data).unwrap();
        disk.fill_but(0);

        for damaged in [false, true] {
            if damaged {
                fs::write(data.join("sled/db"), vec![0; 100]).unwrap();
                disk.fill_but(0);
            }
            let before = files(&data);
            let refused = SledLog::open(&data, SMALL_DISK).unwrap_err();
            let OpenError::DiskFull { free, .. } = &refused else {
                panic!("{refused}: {refused:?}")
            };
            let expected = format!(
                "the disk of {} is full: {} KiB are free; nothing was changed, free some space on it \
             and start again",
                data.display(),
                free / 1024
            );
            assert_eq!(refused.to_string(), expected);
            assert_eq!(files(&data), before);
        }

        disk.free();
        let log = SledLog::open(&data, SMALL_DISK).unwrap();
        serves(&log, &records);
        assert_eq!(try_append(&log, 40).unwrap(), 301);
    }

    #[test]
    #[ignore = "mounts a disk, which takes root: .ci/run runs it in a mount namespace"]
    fn the_ballast_lets_a_full_disk_start_and_comes_back_when_there_is_room() {
        let disk = Disk::mount(48);
        let (data, ballast) = (disk.data(), disk.data().join("ballast"));
        fill(&SledLog::open(&data, WITH_BALLAST).unwrap(), 300);
        assert_eq!(fs::metadata(&ballast).unwrap().len(), 12 << 20);
        // The number of the process that holds the lock finds no room either.
        fs::write(data.join("lock"), []).unwrap();
        disk.fill_but(0);
        let records = read_journal(&data).unwrap();

        let log = SledLog::open(&data, WITH_BALLAST).unwrap();

        assert!(!ballast.exists(), "it was given up");
        serves(&log, &records);
        assert_eq!(try_append(&log, 40).unwrap(), 301);
        disk.free();
        in_the_end(|| match fs::metadata(&ballast) {
            Ok(found) if found.len() == 12 << 20 => Ok(()),
            other => Err(ReadError::Unavailable(format!("{other:?}").into())),
        });
        drop(log);
        let log = SledLog::open(&data, SMALL_DISK).unwrap();
        assert!(!ballast.exists(), "none is kept without the option");
        assert_eq!(log.stream_head(&stream("ann")).unwrap().version, 301);
    }

    #[test]
    #[ignore = "mounts a disk, which takes root: .ci/run runs it in a mount namespace"]
    fn a_log_closes_in_time_on_a_full_disk() {
        let disk = Disk::mount(32);
        let log = SledLog::open(&disk.data(), SMALL_DISK).unwrap();
        fill(&log, 300);
        disk.fill_but(0);
        let (tell, told) = channel();
        let closing = thread::spawn(move || {
            drop(log);
            tell.send(()).unwrap();
        });
        told.recv_timeout(Duration::from_mins(1)).unwrap();
        closing.join().unwrap();
        disk.free();
        let log = SledLog::open(&disk.data(), SMALL_DISK).unwrap();
        assert_eq!(try_append(&log, 40).unwrap(), 301);
    }

    #[test]
    #[ignore = "mounts a disk, which takes root: .ci/run runs it in a mount namespace"]
    fn a_backup_that_finds_no_room_leaves_nothing_and_the_log_goes_on() {
        let (disk, data) = (Disk::mount(32), TempDir::new().unwrap());
        let log = SledLog::open(data.path(), SMALL_DISK).unwrap();
        fill(&log, 300);
        let backup = disk.0.path().join("backup");
        let file = data.path().join("long");
        fs::write(&file, vec![1; 3 << 20]).unwrap();
        let beside = [CopiedFile { from: file, name: "long".to_owned() }];
        // Found out at once, and in the middle of a file.
        for left in [4 << 20, 2 << 20] {
            disk.fill_but(left);
            let refused = log.backup(&backup, &beside, &|| true).unwrap_err();
            assert!(matches!(refused, BackupError::NoRoom { .. }), "{refused}: {refused:?}");
            assert!(!backup.exists() && !disk.0.path().join("backup.unfinished").exists());
            assert_eq!(fs::read_dir(disk.0.path()).unwrap().count(), 1, "only the filler is there");
            disk.free();
        }
        assert_eq!(log.health(), LogHealth::Writable);
        log.backup(&backup, &beside, &|| true).unwrap();
        assert_eq!(read_journal(&backup).unwrap(), all(&log));
    }

    #[test]
    #[ignore = "mounts a disk, which takes root: .ci/run runs it in a mount namespace"]
    fn pruning_that_finds_no_room_loses_nothing_and_goes_on_when_there_is_some() {
        let disk = Disk::mount(32);
        let data = disk.data();
        let log = SledLog::open(&data, SMALL_DISK).unwrap();
        fill(&log, 900);
        let (records, due) = (all(&log), (1..=900).collect());
        disk.fill_but(0);

        let refused = log.prune(&due, &|| true).unwrap_err();

        assert!(matches!(refused, OpenError::DiskFull { .. }), "{refused}: {refused:?}");
        serves(&log, &records);
        let names = fs::read_dir(data.join("journal")).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert!(!names.iter().any(|name| name.to_string_lossy().contains("pruned")), "{names:?}");
        disk.free();
        is_writable_again(&log);
        assert!(0 < log.prune(&due, &|| true).unwrap().payload_bytes);
        assert_eq!(all(&log).len(), records.len());
    }
}
