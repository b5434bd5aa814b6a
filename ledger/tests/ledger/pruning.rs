//! Payloads that leave the journal while the log runs.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use keypool_ledger::{
    EventLog, Hash, JournalWriter, JournalWriterOptions, OpenError, PruneReport, Record, SledLog,
    log::{find_command, find_package},
    repair_journal, restore_backup,
};
use tempfile::TempDir;

use super::support::{
    all, batch, command, copy, fill, open, package, read_journal, refusal, segments, stream,
    try_append, uploaded,
};

/// Tells a child process of this test binary where its log is.
const CHILD_DIR: &str = "KEYPOOL_LEDGER_TEST_PRUNING_DIR";

fn prune(log: &SledLog, due: &BTreeSet<u64>) -> PruneReport {
    log.prune(due, &|| true).unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

/// Prunes everything up to a record, also where it stands in the segment that was being written.
fn prune_through(log: &SledLog, last: u64) -> PruneReport {
    let due: BTreeSet<u64> = (1..=last).collect();
    let first = prune(log, &due);
    try_append(log, 40).unwrap();
    let second = prune(log, &due);
    PruneReport {
        segments: first.segments + second.segments,
        payload_bytes: first.payload_bytes + second.payload_bytes,
        file_bytes: first.file_bytes + second.file_bytes,
    }
}

/// The records without the payloads of some.
fn without(records: &[Record], due: &BTreeSet<u64>) -> Vec<Record> {
    let mut records = records.to_vec();
    for record in records.iter_mut().filter(|record| due.contains(&record.seq)) {
        record.payload.clear();
    }
    records
}

/// Checks that a log answers all questions about its records.
fn serves(log: &SledLog, records: &[Record]) {
    assert!(all(log) == records);
    for record in records {
        let n = record.envelope.version;
        assert_eq!(log.read(record.seq, 1).unwrap(), std::slice::from_ref(record));
        assert_eq!(find_command(log, command(n), 0).unwrap(), std::slice::from_ref(record));
        assert_eq!(find_package(log, &package(n)).unwrap().as_ref(), Some(record));
    }
    assert!(log.read_stream(&stream("ann"), 0, usize::MAX).unwrap() == records);
    assert_eq!(log.stream_head(&stream("ann")).unwrap(), records.last().unwrap().stream_head());
}

fn bytes_of(dir: &Path) -> u64 {
    segments(dir).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

#[test]
fn pruned_payloads_are_gone_and_everything_else_is_found_as_before() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    for n in 0..90 {
        try_append(&log, [40, 0, 1500][n % 3]).unwrap();
    }
    let records = all(&log);
    // Not all of a segment, and those without a payload among them.
    let due: BTreeSet<u64> = (1..=70).filter(|seq| seq % 5 != 0).collect();
    let expected = without(&records, &due);
    let gone: usize = records.iter().map(|record| record.payload.len()).sum::<usize>()
        - expected.iter().map(|record| record.payload.len()).sum::<usize>();
    let before = bytes_of(dir.path());

    let report = prune(&log, &due);

    assert_eq!(report.payload_bytes, gone as u64);
    assert_eq!(report.file_bytes, before - bytes_of(dir.path()));
    assert!(gone as u64 <= report.file_bytes, "{report:?}");
    serves(&log, &expected);
    assert_eq!(prune(&log, &due), PruneReport::default(), "there is nothing left to do");
    serves(&log, &expected);
    drop(log);
    assert!(read_journal(dir.path()).unwrap() == expected);
    // With the index of before, and with one that is made anew.
    for _ in 0..2 {
        let log = open(dir.path());
        serves(&log, &expected);
        drop(log);
        fs::remove_dir_all(dir.path().join("sled")).unwrap();
    }
    let log = open(dir.path());
    assert_eq!(try_append(&log, 40).unwrap(), 91);
    // More of it goes later.
    let due: BTreeSet<u64> = (1..=80).collect();
    let expected = without(&all(&log), &due);
    assert!(0 < prune(&log, &due).payload_bytes);
    serves(&log, &expected);
    drop(log);
    serves(&open(dir.path()), &expected);
}

#[test]
fn frames_of_several_batches_stay_as_they_are() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    for n in 0..30 {
        let head = log.head().unwrap();
        let batches = (0..3).map(|of| {
            let name = ["ann", "bob", "eve"][of];
            let events = (0..2).map(|k| uploaded(100 * of as u64 + 2 * n + k, 90)).collect();
            batch(name, 2 * n, events)
        });
        assert!(log.append(head, batches.collect()).iter().all(Result::is_ok));
    }
    let due: BTreeSet<u64> = (1..=150).filter(|seq| seq % 4 == 1).collect();
    let expected = without(&all(&log), &due);
    prune(&log, &due);
    assert!(all(&log) == expected);
    drop(log);
    assert!(read_journal(dir.path()).unwrap() == expected);
    let log = open(dir.path());
    for record in &expected {
        let of = &record.envelope;
        let found = log.read_stream(&of.stream, of.version - 1, 1).unwrap();
        assert_eq!(&found, std::slice::from_ref(record));
    }
}

#[test]
fn the_segment_that_is_being_written_is_closed_and_pruned_when_it_is_no_longer_the_end() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    fill(&log, 3);
    let due = BTreeSet::from([1, 2, 3]);
    assert_eq!(prune(&log, &due), PruneReport::default());
    assert_eq!(segments(dir.path()).len(), 2, "another segment was begun");
    assert_eq!(prune(&log, &due), PruneReport::default(), "the last frame is the journal's end");
    assert_eq!(segments(dir.path()).len(), 2);
    fill(&log, 1);
    assert_eq!(prune(&log, &due).payload_bytes, 120);
    serves(&log, &without(&all(&log), &due));
    // A frame that is longer than a segment follows an empty one.
    prune(&log, &BTreeSet::from([4]));
    try_append(&log, 9000).unwrap();
    assert_eq!(prune(&log, &BTreeSet::from([4, 5])).payload_bytes, 40);
    assert!(open_again(log, dir.path()).len() == 5);
    let empty = TempDir::new().unwrap();
    assert_eq!(prune(&open(empty.path()), &due), PruneReport::default());
    let note = fs::read(empty.path().join("journal/acknowledged")).unwrap();
    assert!(note.iter().all(|byte| *byte == 0), "nothing was acknowledged");
}

fn open_again(log: SledLog, dir: &Path) -> Vec<Record> {
    drop(log);
    all(&open(dir))
}

#[test]
fn readers_go_on_while_segments_are_replaced_beneath_them() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    fill(&log, 200);
    let (records, done) = (all(&log), AtomicBool::new(false));
    thread::scope(|scope| {
        for offset in 0..3 {
            let (log, records, done) = (&log, &records, &done);
            scope.spawn(move || {
                for record in records.iter().cycle().skip(offset * 60) {
                    let n = record.envelope.version;
                    for found in [
                        log.read(record.seq, 1).unwrap().pop(),
                        find_package(log, &package(n)).unwrap(),
                        log.read_stream(&stream("ann"), n - 1, 1).unwrap().pop(),
                    ] {
                        let found = found.unwrap();
                        assert_eq!(found.envelope, record.envelope);
                        assert!(found.payload.is_empty() || found.payload == record.payload);
                    }
                    if done.load(Ordering::Acquire) {
                        break;
                    }
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                drop(log.append(log.head().unwrap(), Vec::new()));
                try_append(&log, 40).unwrap();
            }
        });
        for last in 1..=100 {
            prune(&log, &(1..=last * 2).collect());
        }
        done.store(true, Ordering::Release);
    });
    assert!(all(&log)[..150].iter().all(|record| record.payload.is_empty()));
}

#[test]
fn every_damage_to_a_pruned_segment_is_found() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    fill(&log, 40);
    prune_through(&log, 30);
    drop(log);
    let pruned = segments(dir.path())[1].clone();
    let bytes = fs::read(&pruned).unwrap();
    assert!(bytes.len() < 4096 && bytes[7] == 2, "it was pruned");
    for place in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1 << (place % 8);
        fs::write(&pruned, flipped).unwrap();
        let read = read_journal(dir.path());
        assert!(matches!(read, Err(OpenError::Damaged { .. })), "byte {place}: {read:?}");
    }
    for len in (0..bytes.len()).step_by(37) {
        fs::write(&pruned, &bytes[..len]).unwrap();
        assert!(matches!(refusal(dir.path()), OpenError::Damaged { .. }), "cut to {len} bytes");
    }
    fs::write(&pruned, &bytes).unwrap();
    assert_eq!(all(&open(dir.path())).len(), 41);
    // A slot of the note of the end may be lost as well.
    let note = dir.path().join("journal/acknowledged");
    for slot in [0, 512] {
        let mut bytes = fs::read(&note).unwrap();
        bytes[slot + 20] ^= 1;
        fs::write(&note, bytes).unwrap();
        assert_eq!(all(&open(dir.path())).len(), 41);
    }
}

#[test]
fn a_record_is_found_although_the_offsets_of_its_segment_are_damaged() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    fill(&log, 40);
    prune_through(&log, 30);
    let records = all(&log);
    for segment in segments(dir.path()).iter().take(3) {
        let bytes = fs::read(segment).unwrap();
        let from = bytes.len() - 32 - 4;
        overwrite(segment, from, &[0xff; 4]);
    }
    serves(&log, &records);
    assert_eq!(log.health(), keypool_ledger::LogHealth::Writable);
}

/// Overwrites bytes of a file from a place on.
fn overwrite(file: &Path, place: usize, bytes: &[u8]) {
    let file = fs::File::options().write(true).open(file).unwrap();
    file.write_all_at(bytes, place as u64).unwrap();
}

#[test]
fn a_record_of_a_pruned_segment_is_found_although_no_frame_begins_where_one_should() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    fill(&log, 40);
    prune_through(&log, 30);
    let records = all(&log);
    for segment in segments(dir.path()).iter().take(3) {
        overwrite(segment, 200, &[0xff; 8]);
    }
    for record in &records {
        let found = find_package(&log, &package(record.envelope.version)).unwrap();
        assert_eq!(found.as_ref(), Some(record));
    }
}

#[test]
fn a_damaged_segment_is_not_pruned() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    fill(&log, 60);
    let damaged = segments(dir.path())[1].clone();
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[800] ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    let refused = log.prune(&(1..=60).collect(), &|| true).unwrap_err();
    assert!(matches!(&refused, OpenError::Damaged { file, .. } if *file == damaged), "{refused}");
    assert!(fs::read(&damaged).unwrap() == bytes);
    assert_eq!(try_append(&log, 40).unwrap(), 61);
}

#[test]
fn a_pruned_log_is_backed_up_and_repaired() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let log = open(&path("data"));
    fill(&log, 80);
    log.backup(&path("whole"), &[], &|| true).unwrap();
    prune_through(&log, 60);
    log.backup(&path("pruned"), &[], &|| true).unwrap();
    let records = all(&log);
    drop(log);
    restore_backup(&path("pruned"), &path("restored"), &[]).unwrap();
    serves(&open(&path("restored")), &records);

    let damaged = segments(&path("data"))[1].clone();
    for (from, pruned) in [("pruned", true), ("whole", false)] {
        let mut bytes = fs::read(&damaged).unwrap();
        bytes[150] ^= 1;
        fs::write(&damaged, bytes).unwrap();
        let report = repair_journal(&path("data"), &path(from)).unwrap();
        assert_eq!(report.repaired.len(), 1);
        let found = all(&open(&path("data")));
        assert_eq!(found.len(), records.len());
        assert_eq!(found == records, pruned, "an older backup brings the payloads back");
    }
    let log = open(&path("data"));
    prune_through(&log, 60);
    assert!(all(&log)[..60].iter().all(|record| record.payload.is_empty()));
    drop(log);
    let mut bytes = fs::read(&segments(&path("whole"))[1]).unwrap();
    bytes[150] ^= 1;
    fs::write(&segments(&path("whole"))[1], bytes).unwrap();
    repair_journal(&path("whole"), &path("pruned")).unwrap();
    assert_eq!(all(&open(&path("whole"))).len(), 80);
}

#[test]
fn nothing_is_lost_when_a_log_that_prunes_is_killed() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let mut expected: Vec<Hash> = Vec::new();
    for round in 0..20 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "ledger::pruning::child_that_prunes_until_it_is_killed"])
            .args(["--ignored", "--nocapture", "--quiet"])
            .env(CHILD_DIR, &data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut said = lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok());
        let acknowledged: u64 = said.by_ref().nth(10 + round).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let records = read_journal(&data).unwrap();
        assert!(acknowledged <= records.len() as u64);
        let chain: Vec<Hash> = records.iter().map(|record| record.stream_head().hash).collect();
        assert!(chain.starts_with(&expected), "every envelope is the one that was acknowledged");
        expected = chain;
        let log = open(&data);
        serves(&log, &records);
        assert!(segments(&data).iter().all(|path| !path.to_string_lossy().contains("new")));
    }
    let pruned = read_journal(&data).unwrap();
    assert!(pruned.iter().filter(|record| record.payload.is_empty()).count() > 20);
}

#[test]
#[ignore = "a part of nothing_is_lost_when_a_log_that_prunes_is_killed, which starts it"]
fn child_that_prunes_until_it_is_killed() {
    let Some(dir) = env::var_os(CHILD_DIR).map(PathBuf::from) else { return };
    let log = open(&dir);
    thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                let seq = try_append(&log, 300).unwrap();
                writeln!(std::io::stdout(), "acknowledged {seq}").unwrap();
            }
        });
        let mut due = BTreeSet::new();
        loop {
            // One record more each time, so that the same segments are written again and again.
            let next = due.last().copied().unwrap_or_else(|| log.head().unwrap().seq / 2) + 1;
            due.insert(next.min(log.head().unwrap().seq));
            prune(&log, &due);
        }
    });
}

#[test]
fn the_disk_becomes_flat_under_a_constant_load_but_for_the_envelopes() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    let (mut sizes, mut payloads) = (Vec::new(), Vec::new());
    // Each day brings as much as the one before, and payloads are kept for three days.
    for day in 1..=12_u64 {
        for _ in 0..30 {
            try_append(&log, 1800).unwrap();
        }
        let due: BTreeSet<u64> = (1..=(day.saturating_sub(3)) * 30).collect();
        prune(&log, &due);
        sizes.push(bytes_of(dir.path()));
        payloads.push(all(&log).iter().map(|record| record.payload.len()).sum::<usize>());
    }
    assert_eq!(payloads[3..].iter().min(), payloads[3..].iter().max(), "{payloads:?}");
    // An envelope, its frame and its offset stay, and each has a segment of its own here.
    let envelopes: usize = all(&log).iter().map(|record| record.envelope_bytes.len()).sum();
    let a_day = envelopes as u64 / 12 + 30 * 344;
    for pair in sizes[3..].windows(2) {
        assert!(pair[1] - pair[0] <= a_day, "{a_day}: {sizes:?}");
    }
    assert!(a_day < (sizes[1] - sizes[0]) / 5, "{a_day}: {sizes:?}");
}

/// The journal of the fixture.
fn pruned_fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/logs/pruned-1")
}

/// Makes the journal of the fixture again.
fn make_pruned(dir: &Path) {
    let options = JournalWriterOptions { segment_bytes: 4096, key: Some([7; 32]) };
    let from = TempDir::new().unwrap();
    let log = open(from.path());
    fill(&log, 24);
    let mut writer = JournalWriter::create(dir, options).unwrap();
    all(&log).chunks(2).for_each(|frame| writer.append(frame).unwrap());
    drop(writer);
    prune(&open(dir), &(1..=24).filter(|seq| seq % 3 != 0).collect());
}

#[test]
#[ignore = "writes the fixture: see fixtures/README.md"]
fn write_the_pruned_journal() {
    let dir = TempDir::new().unwrap();
    make_pruned(dir.path());
    copy(&dir.path().join("journal"), &pruned_fixture().join("journal"));
}

#[test]
fn the_pruned_journal_of_the_fixtures_is_read_and_made_again_byte_for_byte() {
    let (fixture, dir) = (pruned_fixture(), TempDir::new().unwrap());
    make_pruned(&dir.path().join("made"));
    let files = |dir: &Path| {
        let files = segments(dir).into_iter();
        let files =
            files.map(|path| (path.file_name().unwrap().to_owned(), fs::read(path).unwrap()));
        files.collect::<Vec<_>>()
    };
    assert!(files(&fixture) == files(&dir.path().join("made")));
    let records = read_journal(&fixture).unwrap();
    copy(&fixture, &dir.path().join("copied"));
    assert!(all(&open(&dir.path().join("copied"))) == records);
    let pruned = records.iter().filter(|record| record.payload.is_empty()).count();
    assert!(0 < pruned && pruned < 24, "{pruned}");
}
