//! The check of segments that were not checked when the journal was opened.

use std::path::{Path, PathBuf};

use super::scan::Scan;
use crate::log::local::directory::OpenError;

/// Checks every byte of the segments before a record, until it is told to stop; `pause` is called
/// after each.
pub(in crate::log::local) fn scrub(
    dir: &Path,
    before: u64,
    pause: &mut dyn FnMut() -> bool,
) -> Result<(), OpenError> {
    let mut scan = Scan::open(dir, 1, 0)?;
    let mut segment = PathBuf::new();
    while let Some(frame) = scan.next_frame()? {
        if before <= frame.last_seq().saturating_add(1) {
            return Ok(());
        }
        let (path, _) = scan.place_of(&frame);
        if path != segment {
            path.clone_into(&mut segment);
            if !pause() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;
    use crate::{
        CommandId, Event, Hash, JournalWriter, JournalWriterOptions, NewEvent, StreamHead,
        StreamId, Timestamp, log::seal,
    };

    /// A journal with records of which each stands in a segment of its own.
    fn written(records: u64) -> TempDir {
        let dir = TempDir::new().unwrap();
        let options = JournalWriterOptions { segment_bytes: 1, key: None };
        let mut writer = JournalWriter::create(dir.path(), options).unwrap();
        let mut head = StreamHead::default();
        for seq in 1..=records {
            let (at, command, request) = (Timestamp::default(), CommandId(Uuid::nil()), Hash::ZERO);
            let event = Event::ClockAccepted { from: at, to: at };
            let new = NewEvent { at, command, request, event, payload: Vec::new() };
            let record = seal(seq, &StreamId::Server, head, new).unwrap();
            head = record.stream_head();
            writer.append(&[record]).unwrap();
        }
        dir
    }

    #[test]
    fn scrubbing_pauses_at_each_segment_and_ends_when_it_is_told_to() {
        let dir = written(6);
        let journal = dir.path().join("journal");
        let pauses = |before, n_pauses_max| {
            let mut n_pauses = 0;
            let mut pause = || {
                n_pauses += 1;
                n_pauses < n_pauses_max
            };
            scrub(&journal, before, &mut pause).unwrap();
            n_pauses
        };
        assert_eq!([2, 5, 7].map(|before| pauses(before, 99)), [0, 3, 5]);
        assert_eq!([1, 2, 99].map(|n_pauses_max| pauses(7, n_pauses_max)), [1, 2, 5]);
    }
}
