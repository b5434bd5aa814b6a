//! What a journal does with files that are not as it has written them.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use keypool_ledger::{
    AppendError, EventLog, JournalReader, LogHealth, OpenError, SledLog,
    log::{append_at_head, find_command},
};
use tempfile::TempDir;

use super::support::{
    SMALL, all, batch, command, copy, fill, open, read_journal, refusal, segments, stream,
    try_append, uploaded,
};

/// The bytes of a segment before its first frame.
const HEADER_LEN: usize = 120;

/// A directory whose log has a number of frames, and is closed.
fn filled(n_events: u64) -> TempDir {
    let dir = TempDir::new().unwrap();
    fill(&open(dir.path()), n_events);
    dir
}

fn last_segment(dir: &Path) -> PathBuf {
    segments(dir).pop().unwrap()
}

/// Where the frames in a segment's bytes end: a length stands in the header of each.
fn used_len(bytes: &[u8]) -> usize {
    let mut end = HEADER_LEN;
    while bytes[end..].iter().any(|byte| *byte != 0) {
        let body_len = u32::from_be_bytes(bytes[end + 8..end + 12].try_into().unwrap());
        end += 56 + usize::try_from(body_len).unwrap() + 32;
    }
    end
}

/// Opens a log that must have a number of events, and shows that it can go on.
fn goes_on_after(dir: &Path, n_events: u64) {
    for n_events in [n_events, n_events + 1] {
        let log = open(dir);
        assert_eq!(all(&log).len() as u64, n_events);
        assert_eq!(try_append(&log, 40).unwrap(), n_events + 1);
    }
}

fn damaged(err: OpenError) -> (PathBuf, u64) {
    match err {
        OpenError::Damaged { file, offset, .. } => (file, offset),
        other => panic!("{other}"),
    }
}

#[test]
fn a_torn_tail_is_cut_wherever_it_was_torn() {
    let (before, after) = (filled(3), TempDir::new().unwrap());
    copy(before.path(), after.path());
    fill(&open(after.path()), 1);
    let path = last_segment(before.path());
    let (old, new) = (fs::read(&path).unwrap(), fs::read(last_segment(after.path())).unwrap());
    // The last byte of a hash may be a zero, as the bytes behind it are: without it the frame is whole.
    let end = new.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let begin = used_len(&old);
    for cut in begin..end {
        for torn in [&new[begin..cut], &[&vec![0; cut - begin], &new[cut..end - 1]].concat()] {
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .write_all_at(torn, begin as u64)
                .unwrap();
            let mut reader = JournalReader::open(&before.path().join("journal")).unwrap();
            assert_eq!(reader.by_ref().map(Result::unwrap).count(), 3);
            let told = reader.torn_tail().map(|tail| (tail.file.clone(), tail.offset, tail.bytes));
            let used = torn.iter().rposition(|byte| *byte != 0).map(|last| last as u64 + 1);
            let expected = used.map(|used| (path.clone(), begin as u64, used));
            assert_eq!(told, expected, "cut at {cut}");
            if cut % 61 == 0 {
                let dir = TempDir::new().unwrap();
                copy(before.path(), dir.path());
                open(dir.path());
                assert_eq!(fs::read(last_segment(dir.path())).unwrap(), old, "it is zeros again");
                goes_on_after(dir.path(), 3);
            }
            fs::write(&path, &old).unwrap();
        }
    }
}

#[test]
fn a_whole_frame_that_nobody_was_answered_for_is_kept() {
    let (before, after) = (filled(3), TempDir::new().unwrap());
    copy(before.path(), after.path());
    fill(&open(after.path()), 1);
    fs::copy(last_segment(after.path()), last_segment(before.path())).unwrap();

    goes_on_after(before.path(), 4);
}

#[test]
fn every_flipped_byte_is_noticed() {
    let dir = filled(5);
    let path = last_segment(dir.path());
    let bytes = fs::read(&path).unwrap();
    let end = used_len(&bytes);
    for place in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1 << (place % 8);
        fs::write(&path, &flipped).unwrap();
        let found = read_journal(dir.path());
        if place < end {
            let (file, offset) = damaged(found.unwrap_err());
            assert_eq!(file, path);
            let offset = usize::try_from(offset).unwrap();
            assert!(offset <= place, "{place} was noticed at {offset}");
            assert!(place < HEADER_LEN || offset >= HEADER_LEN);
        } else {
            assert_eq!(found.unwrap().len(), 5, "the byte {place} behind the end is left out");
        }
        if place % 401 == 0 {
            let copied = TempDir::new().unwrap();
            copy(dir.path(), copied.path());
            if place < end {
                damaged(refusal(copied.path()));
            } else {
                goes_on_after(copied.path(), 5);
            }
        }
    }
}

#[test]
fn a_damaged_frame_before_a_whole_one_is_no_torn_tail() {
    let dir = filled(3);
    let note = dir.path().join("journal/acknowledged");
    let old_note = fs::read(&note).unwrap();
    fill(&open(dir.path()), 2);
    // After a power cut the note may be older than the journal, and the database may be lost.
    fs::write(&note, old_note).unwrap();
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    let path = last_segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let frame_len = (used_len(&bytes) - HEADER_LEN) / 5;
    let fourth = HEADER_LEN + 3 * frame_len;
    for place in (fourth..fourth + frame_len).step_by(7) {
        bytes[place] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(damaged(refusal(dir.path())), (path.clone(), fourth as u64));
        bytes[place] ^= 1;
    }
    fs::write(&path, &bytes).unwrap();
    goes_on_after(dir.path(), 5);
}

#[test]
fn a_flipped_byte_in_the_middle_is_refused_with_its_file_and_frame() {
    let dir = filled(5);
    let path = last_segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let frame_len = (used_len(&bytes) - HEADER_LEN) / 5;
    bytes[HEADER_LEN + 2 * frame_len + 99] ^= 1;
    fs::write(&path, &bytes).unwrap();

    let err = refusal(dir.path());

    let what = "the hash of the frame does not match, where record 3 is expected";
    let (path, offset) = (path.display(), HEADER_LEN + 2 * frame_len);
    assert_eq!(
        err.to_string(),
        format!(
            "{path} is damaged at byte {offset}: {what}; \
             nothing was changed, restore it from a backup (keypool-ledger repair, or keypool-ledger \
             restore for the newest segment)"
        )
    );
    assert_eq!(refusal(dir.path()).to_string(), err.to_string(), "it stays refused");
}

#[test]
fn a_segment_cut_to_any_length_loses_nothing_quietly() {
    let dir = filled(5);
    let path = last_segment(dir.path());
    let bytes = fs::read(&path).unwrap();
    let end = used_len(&bytes);
    for len in 0..bytes.len() {
        fs::write(&path, &bytes[..len]).unwrap();
        match read_journal(dir.path()) {
            Ok(records) => assert!(len >= end && records.len() == 5, "cut to {len}"),
            Err(OpenError::LedgerTruncated { expected: 5, found }) => {
                assert!(len < end && found < 5);
            }
            Err(err) => assert!(len < end && damaged(err).0 == path),
        }
    }
    fs::write(&path, &bytes[..end]).unwrap();
    goes_on_after(dir.path(), 5);
    assert_eq!(fs::metadata(&path).unwrap().len(), SMALL.segment_bytes, "it is whole again");
}

#[test]
fn a_full_segment_cut_to_any_length_is_refused() {
    let dir = filled(20);
    let path = segments(dir.path()).remove(1);
    let bytes = fs::read(&path).unwrap();
    for len in 0..bytes.len() {
        fs::write(&path, &bytes[..len]).unwrap();
        assert_eq!(damaged(read_journal(dir.path()).unwrap_err()).0, path);
    }
}

#[test]
fn zeroed_stretches_are_refused() {
    let dir = filled(20);
    for path in segments(dir.path()) {
        let bytes = fs::read(&path).unwrap();
        let end = used_len(&bytes);
        for len in [64, 512, 4096] {
            for begin in (0..end).step_by(len) {
                let mut zeroed = bytes.clone();
                let stretch = begin..(begin + len).min(end);
                zeroed[stretch].fill(0);
                fs::write(&path, &zeroed).unwrap();
                match read_journal(dir.path()).unwrap_err() {
                    OpenError::Damaged { .. } | OpenError::LedgerTruncated { expected: 20, .. } => {
                    }
                    other => panic!("{other}"),
                }
            }
        }
        fs::write(&path, &bytes).unwrap();
    }
    assert_eq!(read_journal(dir.path()).unwrap().len(), 20);
}

#[test]
fn a_missing_segment_is_named() {
    let dir = filled(20);
    let paths = segments(dir.path());
    assert!(paths.len() > 2, "the log has gone on to further segments");
    for path in &paths {
        let bytes = fs::read(path).unwrap();
        fs::remove_file(path).unwrap();
        let err = read_journal(dir.path()).unwrap_err();
        if Some(path) == paths.last() {
            assert!(matches!(err, OpenError::LedgerTruncated { expected: 20, .. }), "{err}");
        } else {
            assert_eq!(damaged(err).0, *path);
        }
        assert!(SledLog::open(dir.path(), SMALL).is_err());
        fs::write(path, bytes).unwrap();
    }
    fs::rename(dir.path().join("journal"), dir.path().join("gone")).unwrap();
    assert!(matches!(refusal(dir.path()), OpenError::LedgerTruncated { expected: 20, found: 0 }));
}

#[test]
fn segments_in_the_wrong_order_are_refused() {
    let dir = filled(20);
    let paths = segments(dir.path());
    let aside = dir.path().join("aside");
    for (from, to) in [(&paths[0], &aside), (&paths[1], &paths[0]), (&aside, &paths[1])] {
        fs::rename(from, to).unwrap();
    }
    assert_eq!(damaged(read_journal(dir.path()).unwrap_err()), (paths[0].clone(), 0));
}

#[test]
fn a_segment_of_another_journal_is_refused() {
    let (dir, other) = (filled(20), filled(20));
    let n = segments(dir.path()).len() - 1;
    for n in [0, 1, n] {
        let copied = TempDir::new().unwrap();
        copy(dir.path(), copied.path());
        fs::copy(&segments(other.path())[n], &segments(copied.path())[n]).unwrap();
        damaged(read_journal(copied.path()).unwrap_err());
    }
}

#[test]
fn a_package_cannot_pass_for_a_frame() {
    let (before, after, other) = (filled(1), TempDir::new().unwrap(), filled(3));
    let forged = fs::read(last_segment(other.path())).unwrap();
    copy(before.path(), after.path());
    let mut event = uploaded(2, 0);
    event.payload = forged[HEADER_LEN..used_len(&forged)].to_vec();
    let log = open(after.path());
    append_at_head(&log, &[batch("ann", 1, vec![event])]).pop().unwrap().unwrap();
    drop(log);
    let mut torn = fs::read(last_segment(after.path())).unwrap();
    let begin = used_len(&fs::read(last_segment(before.path())).unwrap());
    torn[begin] ^= 0xff;
    fs::write(last_segment(before.path()), torn).unwrap();

    // Behind the damaged beginning stand whole frames, but of another journal.
    goes_on_after(before.path(), 1);
}

#[test]
fn the_note_of_what_was_acknowledged_may_be_lost_but_not_together_with_a_frame() {
    let dir = filled(3);
    let note = dir.path().join("journal/acknowledged");
    let bytes = fs::read(&note).unwrap();
    let lost = |n: usize| match n {
        0 => fs::remove_file(&note).unwrap(),
        1 => fs::write(&note, []).unwrap(),
        2 => fs::write(&note, &bytes[..600]).unwrap(),
        _ => fs::write(&note, vec![0xff; bytes.len()]).unwrap(),
    };
    for n in 0..4 {
        lost(n);
        goes_on_after(dir.path(), 3 + 2 * n as u64);
        assert_eq!(fs::metadata(&note).unwrap().len(), 1024, "it is made anew");
    }
    let path = last_segment(dir.path());
    let mut segment = fs::read(&path).unwrap();
    let end = used_len(&segment);
    segment[end] = 1;
    fs::write(&path, &segment).unwrap();
    for n in 0..4 {
        lost(n);
        assert_eq!(damaged(refusal(dir.path())).0, note, "nobody can say what the byte was");
    }
}

#[test]
fn every_flipped_byte_of_the_note_is_noticed_or_harmless() {
    let dir = filled(3);
    let note = dir.path().join("journal/acknowledged");
    let path = last_segment(dir.path());
    let (bytes, segment) = (fs::read(&note).unwrap(), fs::read(&path).unwrap());
    let mut torn = segment.clone();
    torn[used_len(&segment)] = 1;
    for place in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1 << (place % 8);
        fs::write(&note, &flipped).unwrap();
        fs::write(&path, &segment).unwrap();
        assert_eq!(read_journal(dir.path()).unwrap().len(), 3);
        fs::write(&path, &torn).unwrap();
        assert_eq!(damaged(read_journal(dir.path()).unwrap_err()).0, note, "byte {place}");
    }
}

#[test]
fn a_note_of_another_journal_is_refused() {
    let (dir, other) = (filled(3), filled(3));
    let note = dir.path().join("journal/acknowledged");
    fs::copy(other.path().join("journal/acknowledged"), &note).unwrap();

    assert_eq!(damaged(refusal(dir.path())).0, note);
}

#[test]
fn a_frame_longer_than_a_segment_gets_one_of_its_own() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    for payload_len in [40, 20_000, 40, 300_000, 5_000, 40] {
        try_append(&log, payload_len).unwrap();
    }
    let (before, n_segments) = (all(&log), segments(dir.path()).len());
    drop(log);

    assert_eq!(n_segments, 6, "each long frame fills a segment, and the rest fit in one");
    assert_eq!(read_journal(dir.path()).unwrap(), before);
    goes_on_after(dir.path(), 6);
}

#[test]
fn a_segment_that_was_being_made_is_forgotten() {
    let dir = filled(3);
    let unfinished = dir.path().join("journal/00000000000000000004.new");
    fs::write(&unfinished, [7; 99]).unwrap();

    goes_on_after(dir.path(), 3);
    assert!(!unfinished.exists());
}

#[test]
fn a_segment_that_cannot_be_made_is_no_failed_write() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path());
    fill(&log, 2);
    // A directory stands where a frame that is longer than a segment needs its own.
    let obstacle = dir.path().join("journal/long.new");
    fs::create_dir(&obstacle).unwrap();

    let upload =
        |n, len| append_at_head(&log, &[batch("ann", 2, vec![uploaded(n, len)])]).pop().unwrap();
    let refused = upload(3, 9_000).unwrap_err();

    assert!(matches!(refused, AppendError::NotWritten(_)));
    let LogHealth::Refusing { why } = log.health() else { panic!("{:?}", log.health()) };
    assert!(why.starts_with("making a segment failed for "), "{why}");
    assert_eq!(all(&log).len(), 2, "what was acknowledged can be read");
    assert_eq!(find_command(&log, command(3), 0).unwrap(), [], "nothing of it was written");
    assert_eq!(log.stream_head(&stream("ann")).unwrap().version, 2);
    fs::remove_dir(&obstacle).unwrap();
    upload(4, 9_000).unwrap();
    assert_eq!(log.health(), LogHealth::Writable);
    drop(log);
    goes_on_after(dir.path(), 3);
}

#[test]
fn a_note_that_cannot_be_read_is_no_missing_one() {
    let dir = filled(3);
    let note = dir.path().join("journal/acknowledged");
    fs::remove_file(&note).unwrap();
    fs::create_dir(&note).unwrap();
    for refused in [read_journal(dir.path()).unwrap_err(), refusal(dir.path())] {
        assert!(matches!(&refused, OpenError::Io { path, .. } if *path == note), "{refused:?}");
    }
}

#[test]
fn the_older_slot_of_the_note_is_written_and_the_newer_one_stays() {
    let dir = filled(0);
    let note = dir.path().join("journal/acknowledged");
    let slots = || {
        let bytes = fs::read(&note).unwrap();
        let seq_of = |slot: &[u8]| u64::from_be_bytes(slot[..8].try_into().unwrap());
        (seq_of(&bytes[..512]), seq_of(&bytes[512..]))
    };
    assert_eq!(slots(), (0, 0));
    for expected in [(1, 0), (1, 2), (3, 2), (3, 4), (5, 4)] {
        fill(&open(dir.path()), 1);
        assert_eq!(slots(), expected);
    }
    fill(&open(dir.path()), 3);
    assert_eq!(slots(), (7, 8), "in one process too");
}

#[test]
fn a_record_that_an_open_has_shown_counts_as_acknowledged() {
    let dir = TempDir::new().unwrap();
    let note = dir.path().join("journal/acknowledged");
    fill(&open(dir.path()), 3);
    let older = fs::read(&note).unwrap();
    fill(&open(dir.path()), 1);
    // As after a power cut: the note is not forced to the disk.
    fs::write(&note, older).unwrap();
    assert_eq!(all(&open(dir.path())).len(), 4);
    fs::remove_dir_all(dir.path().join("sled")).unwrap();
    let segment = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[last] ^= 1;
    fs::write(&segment, bytes).unwrap();

    let refused = refusal(dir.path());

    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
}
