//! Journals whose hashes are right and whose content is not: the checks behind the hashes.

use std::{fs, path::Path};

use keypool_ledger::{
    BackupError, Hash, JournalWriter, JournalWriterOptions, OpenError, Record, restore_backup,
};
use tempfile::TempDir;

use super::support::{all, fill, open, read_journal, refusal, segments};

/// The bytes of a segment before its first frame.
const HEADER_LEN: usize = 120;

/// A closed log with one frame in its first segment, and the segment's bytes.
fn filled() -> (TempDir, Vec<u8>) {
    let dir = TempDir::new().unwrap();
    fill(&open(dir.path()), 1);
    let bytes = fs::read(&segments(dir.path())[0]).unwrap();
    (dir, bytes)
}

fn put(dir: &Path, bytes: &[u8]) {
    fs::write(&segments(dir)[0], bytes).unwrap();
}

/// The hash that the journal of a segment computes for some bytes.
fn keyed_hash(segment: &[u8], bytes: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(segment[8..40].try_into().unwrap(), bytes).as_bytes()
}

/// Makes the hash of a segment's header right again.
fn seal_header(segment: &mut [u8]) {
    let hash = keyed_hash(segment, &segment[..88]);
    segment[88..HEADER_LEN].copy_from_slice(&hash);
}

/// The first segment with another first frame, whose hash is right.
fn with_frame(segment: &[u8], count: u32, body: &[u8]) -> Vec<u8> {
    with_frame_behind(segment, (1, Hash::ZERO), count, body)
}

/// The same with a number and a hash of the frame before it that the frame gives.
fn with_frame_behind(
    segment: &[u8],
    (first_seq, prev): (u64, Hash),
    count: u32,
    body: &[u8],
) -> Vec<u8> {
    let mut frame = keyed_hash(segment, b"the beginning of a frame")[..8].to_vec();
    frame.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    frame.extend(count.to_be_bytes());
    frame.extend(first_seq.to_be_bytes());
    frame.extend(prev.as_bytes());
    frame.extend(body);
    frame.extend(keyed_hash(segment, &frame));
    let mut forged = segment[..HEADER_LEN].to_vec();
    forged.extend(frame);
    forged.resize(segment.len(), 0);
    forged
}

/// The body of the first frame of a segment.
fn body_of(segment: &[u8]) -> &[u8] {
    let len = u32::from_be_bytes(segment[HEADER_LEN + 8..HEADER_LEN + 12].try_into().unwrap());
    &segment[HEADER_LEN + 56..][..usize::try_from(len).unwrap()]
}

/// The reason why a journal is damaged, for people.
fn damage_of(error: &OpenError) -> String {
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn a_segment_with_another_beginning_is_refused_although_its_hash_is_right() {
    let (dir, whole) = filled();
    for (place, byte) in [(0, b'k'), (6, b'S'), (7, 0)] {
        let mut forged = whole.clone();
        forged[place] = byte;
        seal_header(&mut forged);
        put(dir.path(), &forged);
        let said = damage_of(&read_journal(dir.path()).unwrap_err());
        assert!(said.contains("it does not begin like a journal segment"), "{said}");
    }
    put(dir.path(), &whole);
    assert_eq!(read_journal(dir.path()).unwrap().len(), 1);
}

#[test]
fn a_frame_that_its_records_do_not_fill_is_refused_although_its_hash_is_right() {
    let (dir, whole) = filled();
    let body = body_of(&whole);
    assert!(with_frame(&whole, 1, body) == whole, "the forged frame is made like a real one");
    let and_more = [body, b"!"].concat();
    for (count, body) in [(0, &[0; 4][..]), (1, &[0; 4]), (0, body), (2, body), (1, &and_more)] {
        put(dir.path(), &with_frame(&whole, count, body));
        let said = damage_of(&read_journal(dir.path()).unwrap_err());
        assert!(said.contains("the frame's records do not fill it, where record 1"), "{said}");
        assert_eq!(damage_of(&refusal(dir.path())), said);
    }
}

#[test]
fn a_frame_that_does_not_follow_is_refused_although_its_hash_is_right() {
    let (dir, whole) = filled();
    for behind in [(2, Hash::ZERO), (1, Hash::of(b"another"))] {
        put(dir.path(), &with_frame_behind(&whole, behind, 1, body_of(&whole)));
        let said = damage_of(&read_journal(dir.path()).unwrap_err());
        assert!(said.contains("the frame does not follow the one before it"), "{said}");
    }
}

#[test]
fn a_header_that_does_not_follow_is_refused_although_its_hash_is_right() {
    let dir = TempDir::new().unwrap();
    fill(&open(dir.path()), 20);
    let alterations: [fn(&mut Vec<u8>); 3] = [
        |header| header[40..48].copy_from_slice(&9_u64.to_be_bytes()),
        |header| header[48..80].fill(9),
        |header| header[8..40].fill(9),
    ];
    // No segment comes before the first one, whose key is the journal's.
    for (path, alterations) in segments(dir.path()).iter().zip([&alterations[..2], &alterations]) {
        let whole = fs::read(path).unwrap();
        for alter in alterations {
            let mut forged = whole.clone();
            alter(&mut forged);
            seal_header(&mut forged);
            fs::write(path, &forged).unwrap();
            let said = damage_of(&read_journal(dir.path()).unwrap_err());
            assert!(said.contains("the segment is another one than its name says"), "{said}");
        }
        fs::write(path, &whole).unwrap();
    }
}

#[test]
fn a_mark_of_a_frame_in_a_torn_tail_is_no_frame() {
    let (dir, whole) = filled();
    let mut torn = whole.clone();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let marker = keyed_hash(&whole, b"the beginning of a frame")[..8].to_vec();
    torn[end + 40..end + 48].copy_from_slice(&marker);
    put(dir.path(), &torn);
    assert_eq!(all(&open(dir.path())).len(), 1);
    assert!(fs::read(&segments(dir.path())[0]).unwrap() == whole, "the tail is cut");
}

/// Writes a journal of some records, with positions and frames as they must be.
fn written(dir: &Path, records: impl IntoIterator<Item = Record>) {
    let options = JournalWriterOptions { segment_bytes: 4096, key: None };
    let mut writer = JournalWriter::create(dir, options).unwrap();
    for (seq, record) in (1..).zip(records) {
        writer.append(&[Record { seq, ..record }]).unwrap();
    }
}

#[test]
fn a_copy_of_a_history_that_is_not_whole_is_refused_although_its_frames_are_right() {
    let (dir, from) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fill(&open(from.path()), 3);
    let [first, second, third] = all(&open(from.path())).try_into().unwrap();
    let paid = Record { payload: b"another payload".to_vec(), ..second.clone() };
    let refused = |name: &str, records: [&Record; 3]| {
        let data = dir.path().join(name);
        written(&data, records.map(Record::clone));
        let refused = restore_backup(&data, &dir.path().join("copy"), &[]).unwrap_err();
        let BackupError::Log(OpenError::Damaged { what, .. }) = refused else {
            panic!("{refused}")
        };
        what
    };
    let payload = "record 2: its payload has another digest than its envelope says";
    assert_eq!(refused("payload", [&first, &paid, &third]), payload);
    let follows = "it does not follow the record before it in its history";
    assert_eq!(refused("missing", [&first, &third, &second]), format!("record 2: {follows}"));
    assert_eq!(refused("twice", [&first, &second, &second]), format!("record 3: {follows}"));
}

#[test]
fn a_second_record_with_the_version_of_the_last_one_is_a_contradiction() {
    let (dir, from) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fill(&open(from.path()), 2);
    let [first, second] = all(&open(from.path())).try_into().unwrap();
    let data = dir.path().join("data");
    written(&data, [first, second.clone(), second]);
    let refused = refusal(&data);
    assert!(
        matches!(refused, OpenError::Contradiction { version: 2, seq: 3, .. }),
        "{refused}: {refused:?}"
    );
}
