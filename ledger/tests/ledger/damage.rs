//! Damage to the files of sled, of every kind and after every end: the journal makes it good.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use keypool_ledger::{
    EventLog, ReadError, SledLog,
    log::{find_command, find_package},
};
use tempfile::TempDir;

use super::{
    opening::kill_after,
    support::{
        SMALL, command, copy, fill, in_the_end, open, package, read_journal, stream, try_append,
    },
};

/// Tells a child process of this test binary where its log is.
const CHILD_DIR: &str = "KEYPOOL_LEDGER_TEST_DAMAGED_DIR";

/// Something done to a file.
type Damage = (String, Box<dyn Fn(&Path)>);

/// Damages at several places of a file.
fn damages(file: &Path, places: usize) -> Vec<Damage> {
    let bytes = fs::read(file).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or_default() + 1;
    let mut found: Vec<Damage> = Vec::new();
    let mut add = |kind: String, bytes: Vec<u8>| {
        found.push((kind, Box::new(move |path: &Path| fs::write(path, &bytes).unwrap())));
    };
    for place in (0..used).step_by(used / places + 1) {
        let mut flipped = bytes.clone();
        flipped[place] ^= 0x10;
        add(format!("flip at {place}"), flipped);
        let mut zeroed = bytes.clone();
        let until = (place + 4096).min(bytes.len());
        zeroed[place..until].fill(0);
        add(format!("zeros at {place}"), zeroed);
        add(format!("cut at {place}"), bytes[..place].to_vec());
    }
    let noise = |n: usize| Vec::from(blake3_of(n));
    add("nonsense".into(), (0..=bytes.len() / 32).flat_map(noise).collect());
    add("nothing".into(), Vec::new());
    found.push(("removed".into(), Box::new(|path| fs::remove_file(path).unwrap())));
    found.push((
        "a directory".into(),
        Box::new(|path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ));
    found
}

fn blake3_of(n: usize) -> [u8; 32] {
    *keypool_ledger::Hash::of(&n.to_be_bytes()).as_bytes()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("sled")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).collect()
}

/// Damages copies of a log in every way, and has each of them served by a child.
fn every_damage_is_made_good(original: &Path) {
    for file in files(original) {
        let places = if file.ends_with("db") { places() } else { 2 };
        for (kind, damage) in damages(&file, places) {
            let copied = TempDir::new().unwrap();
            copy(original, copied.path());
            damage(&copied.path().join("sled").join(file.file_name().unwrap()));
            serve_in_a_child(copied.path(), &format!("{}: {kind}", file.display()));
        }
    }
}

/// How many places of the database's largest file are damaged: a few, or as many as a night allows.
fn places() -> usize {
    env::var("KEYPOOL_TEST_PLACES").ok().and_then(|places| places.parse().ok()).unwrap_or(8)
}

fn serve_in_a_child(dir: &Path, what: &str) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "ledger::damage::child_that_serves_a_damaged_log"])
        .args(["--ignored", "--nocapture", "--quiet"])
        .env(CHILD_DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = child.stderr.take().unwrap();
    let said = thread::spawn(move || std::io::read_to_string(said).unwrap());
    let status = within_a_minute(child, what);
    assert!(status, "{what}: {}", said.join().unwrap());
}

/// Waits for a child; one that hangs is killed.
fn within_a_minute(child: Child, what: &str) -> bool {
    let pid = child.id().to_string();
    let (tell, told) = channel();
    let waiting = thread::spawn(move || {
        let mut child = child;
        tell.send(child.wait().unwrap().success()).unwrap();
    });
    let ended = told.recv_timeout(Duration::from_mins(1));
    if ended.is_err() {
        Command::new("kill").args(["-9", &pid]).status().unwrap();
    }
    waiting.join().unwrap();
    ended.unwrap_or_else(|_| panic!("{what}: the child hangs"))
}

#[test]
#[ignore = "a part of the tests of this file, which start it"]
fn child_that_serves_a_damaged_log() {
    let Some(dir) = env::var_os(CHILD_DIR) else { return };
    let dir = Path::new(&dir);
    let records = read_journal(dir).unwrap();
    for n_more in 0..2 {
        let log = SledLog::open(dir, SMALL).unwrap();
        assert_eq!(log.read(1, records.len()).unwrap(), records);
        let end = records.len() as u64 + n_more;
        assert_eq!(in_the_end(|| log.stream_head(&stream("ann"))).version, end);
        for record in records.iter().step_by(37) {
            let n = record.envelope.version;
            assert_eq!(
                in_the_end(|| find_command(&log, command(n), 0)),
                std::slice::from_ref(record)
            );
            let found = in_the_end(|| find_package(&log, &package(n)));
            assert_eq!(found.as_ref(), Some(record));
            let read = in_the_end(|| log.read_stream(&stream("ann"), n - 1, 3));
            assert_eq!(read[0], *record);
            assert_eq!(in_the_end(|| find_command(&log, command(n + 1_000_000), 0)), []);
        }
        let append = || try_append(&log, 40).map_err(|error| ReadError::Unavailable(error.into()));
        assert_eq!(in_the_end(append), end + 1);
    }
}

#[test]
fn every_damage_to_sled_after_a_clean_end_is_made_good() {
    let dir = TempDir::new().unwrap();
    fill(&open(dir.path()), 900);
    every_damage_is_made_good(dir.path());
}

#[test]
fn every_damage_to_sled_after_a_kill_is_made_good() {
    let dir = TempDir::new().unwrap();
    kill_after(dir.path(), 900);
    every_damage_is_made_good(dir.path());
}

#[test]
fn damage_while_the_log_is_open_gives_no_wrong_answer() {
    for len in [0, 1 << 20] {
        let dir = TempDir::new().unwrap();
        fill(&open(dir.path()), 900);
        let log = open(dir.path());
        let records = log.read(1, 900).unwrap();
        for file in files(dir.path()) {
            fs::write(file, vec![0xa5; len]).unwrap();
        }
        for record in records.iter().rev() {
            let n = record.envelope.version;
            assert_eq!(
                in_the_end(|| find_command(&log, command(n), 0)),
                std::slice::from_ref(record)
            );
            assert_eq!(in_the_end(|| find_package(&log, &package(n))).as_ref(), Some(record));
        }
        assert_eq!(in_the_end(|| log.stream_head(&stream("ann"))).version, 900);
        drop(log);
        let log = open(dir.path());
        assert_eq!(in_the_end(|| log.read_stream(&stream("ann"), 0, 999)), records);
    }
}
