//! Reading a journal from beginning to end, and telling a torn tail from damage.
//!
//! A frame that was being written when the machine stopped is a *torn tail*: nobody was answered,
//! and it is left out. Everything else that is not as it was written is damage.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    acknowledged::{self, Acknowledged},
    frame::{Frame, FramedRecord, JournalKey, SegmentHeader, marker, newer_format},
};
use crate::{Hash, log::local::directory::OpenError};

/// The end of the last segment's name.
const SUFFIX: &str = ".seg";

/// Bytes behind the last whole frame, which nobody was answered for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub file: PathBuf,
    /// The offset of the bytes in it.
    pub offset: u64,
    /// How many there are, up to the last one that is not zero.
    pub bytes: u64,
}

/// The name of the segment that begins with a sequence number.
pub(in crate::log::local) fn segment_path(dir: &Path, first_seq: u64) -> PathBuf {
    dir.join(format!("{first_seq:020}{SUFFIX}"))
}

/// The segments of a journal in order, each with the sequence number in its name.
pub(super) fn list_segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>, OpenError> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).map_err(OpenError::io(dir))? {
        let path = entry.map_err(OpenError::io(dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(digits) = name.strip_suffix(SUFFIX) {
            let first_seq = digits.parse().ok().filter(|seq| segment_path(dir, *seq) == path);
            let wrong = || OpenError::damaged(&path, 0, "a segment does not have such a name");
            segments.push((first_seq.ok_or_else(wrong)?, path));
        }
    }
    segments.sort();
    Ok(segments)
}

/// The segment that is being read.
#[derive(Debug, Default)]
struct SegmentReader {
    path: PathBuf,
    bytes: Vec<u8>,
    /// The offset of the next frame.
    offset: usize,
    /// How long the file should be.
    file_len: u64,
    /// The hash that the next segment carries, where it is not that of the last frame: payloads of the
    /// segment were pruned.
    closing: Option<Hash>,
}

/// A reader of frames, one after the other, that changes nothing.
#[derive(Debug)]
pub(super) struct Scan {
    dir: PathBuf,
    /// The segments not read yet, the next one last.
    ahead: Vec<(u64, PathBuf)>,
    segment: SegmentReader,
    key: Option<JournalKey>,
    /// The hash of the last frame; `None` before the first segment.
    prev: Option<Hash>,
    next_seq: u64,
    acknowledged: Acknowledged,
    torn: Option<TornTail>,
}

/// The end of a journal that has been read.
#[derive(Debug)]
pub(super) struct JournalEnd {
    pub(super) last_seq: u64,
    pub(super) hash: Hash,
    /// The last segment's key, path, end of its last frame and length; `None` without segments.
    pub(super) segment: Option<(JournalKey, PathBuf, u64, u64)>,
    /// Whether the last segment's file is shorter than it was made.
    pub(super) shortened: bool,
    pub(super) torn: Option<TornTail>,
    pub(super) acknowledged: Acknowledged,
}

impl Scan {
    /// Begins with the segment that holds record `from`, or with the first.
    ///
    /// `witness` is a sequence number that is known from elsewhere to have been acknowledged.
    pub(super) fn open(dir: &Path, from: u64, witness: u64) -> Result<Self, OpenError> {
        let acknowledged = Acknowledged { witness, ..Acknowledged::read(dir)? };
        let mut ahead = list_segments(dir)?;
        match ahead.first() {
            Some((first_seq, _)) if *first_seq != 1 => {
                let missing = segment_path(dir, 1);
                return Err(OpenError::damaged(&missing, 0, "the first segment is missing"));
            }
            _ => {}
        }
        let start = ahead.iter().rposition(|(first_seq, _)| *first_seq <= from).unwrap_or(0);
        ahead.drain(..start);
        Ok(Self::over(dir, ahead, acknowledged))
    }

    /// Reads these segments, each with its first record, in order.
    pub(super) fn over(
        dir: &Path,
        mut ahead: Vec<(u64, PathBuf)>,
        acknowledged: Acknowledged,
    ) -> Self {
        ahead.reverse();
        Self {
            dir: dir.to_owned(),
            next_seq: ahead.last().map_or(1, |(first_seq, _)| *first_seq),
            ahead,
            segment: SegmentReader::default(),
            key: None,
            prev: None,
            acknowledged,
            torn: None,
        }
    }

    /// The next frame; `None` behind the last.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, OpenError> {
        while self.segment.is_at_end() && !self.ahead.is_empty() {
            self.enter_segment()?;
        }
        if self.torn.is_some() || self.segment.is_at_end() {
            return self.finish().map(|()| None);
        }
        match self.decode_next() {
            Ok(frame) => {
                self.check_acknowledged(&frame)?;
                self.segment.offset += frame.len;
                self.next_seq = frame.last_seq().saturating_add(1);
                self.prev = Some(frame.hash);
                Ok(Some(frame))
            }
            Err(what) => {
                self.torn = Some(self.judge(what)?);
                self.finish().map(|()| None)
            }
        }
    }

    /// The end of the journal; to be called behind the last frame.
    pub(super) fn end(self) -> JournalEnd {
        let shortened = self.segment.is_shortened();
        let SegmentReader { path, offset, file_len, closing, .. } = self.segment;
        JournalEnd {
            last_seq: self.next_seq - 1,
            hash: closing.or(self.prev).unwrap_or_default(),
            segment: self.key.map(|key| (key, path, offset as u64, file_len)),
            shortened,
            torn: self.torn,
            acknowledged: self.acknowledged,
        }
    }

    /// The key of the journal; zeros before the first segment was read.
    pub(super) fn key(&self) -> JournalKey {
        self.key.unwrap_or_default()
    }

    /// The records of the frame that was read last.
    pub(super) fn records(&self, frame: &Frame) -> Vec<FramedRecord<'_>> {
        frame.records(self.bytes_of(frame)).unwrap_or_default()
    }

    /// The bytes that begin with the frame that was read last.
    pub(super) fn bytes_of(&self, frame: &Frame) -> &[u8] {
        let begin = self.segment.offset.saturating_sub(frame.len);
        self.segment.bytes.get(begin..).unwrap_or_default()
    }

    /// The place of the frame that was read last, for messages.
    pub(super) fn place_of(&self, frame: &Frame) -> (&Path, usize) {
        (&self.segment.path, self.segment.offset.saturating_sub(frame.len))
    }

    /// The tail that was left out; known behind the last frame.
    pub(super) fn torn(&self) -> Option<&TornTail> {
        self.torn.as_ref()
    }

    /// The reason to doubt the journal's end although all its frames are whole.
    pub(super) fn doubt(&self) -> Option<&'static str> {
        let cut =
            self.segment.is_shortened().then_some("the last segment is shorter than it was made");
        cut.or(self.acknowledged.doubt)
    }

    /// Decodes the frame at the present place and checks that it belongs there.
    fn decode_next(&self) -> Result<Frame, &'static str> {
        let key = self.key.unwrap_or_default();
        let frame = Frame::decode(&key, self.segment.rest())?;
        if Some(frame.prev) != self.prev || frame.first_seq != self.next_seq {
            return Err("the frame does not follow the one before it");
        }
        Ok(frame)
    }

    /// Reads the next segment and checks that it follows the one before.
    fn enter_segment(&mut self) -> Result<(), OpenError> {
        let Some((first_seq, path)) = self.ahead.pop() else { return Ok(()) };
        if first_seq != self.next_seq {
            let missing = segment_path(&self.dir, self.next_seq);
            let what = format!(
                "records {} to {} are missing: this segment, or the end of {}",
                self.next_seq,
                first_seq.saturating_sub(1),
                self.segment.path.display()
            );
            return Err(OpenError::damaged(&missing, 0, what));
        }
        let mut bytes = fs::read(&path).map_err(OpenError::io(&path))?;
        if let Some(format) = newer_format(&bytes) {
            let what = format!("the segment has format {format}");
            return Err(OpenError::Newer { file: path, what });
        }
        let header =
            SegmentHeader::decode(&bytes).map_err(|what| OpenError::damaged(&path, 0, what))?;
        let follows = header.first_seq == first_seq
            && self.segment.closing.or(self.prev).is_none_or(|prev| prev == header.prev)
            && self.key.is_none_or(|key| key == header.key)
            && (first_seq > 1 || header.prev == Hash::ZERO);
        if !follows {
            let what = "the segment is another one than its name says or is of another journal";
            return Err(OpenError::damaged(&path, 0, what));
        }
        let (found, made) = (bytes.len() as u64, header.file_len);
        if found > made || (found < made && !self.ahead.is_empty()) {
            let what = format!("the file has {found} bytes; it was made with {made}");
            return Err(OpenError::Damaged { file: path, offset: found.min(made), what });
        }
        if let Some(pruned) = header.pruned {
            if found != made || !pruned.has_offsets(&header.key, &bytes) {
                let what = "the offsets of its records are not those that were written";
                return Err(OpenError::Damaged {
                    file: path,
                    offset: pruned.frames_end,
                    what: what.to_owned(),
                });
            }
            bytes.truncate(usize::try_from(pruned.frames_end).unwrap_or(usize::MAX));
        }
        (self.key, self.prev) = (Some(header.key), Some(header.prev));
        let (offset, closing) = (header.len(), header.pruned.map(|pruned| pruned.closing));
        self.segment = SegmentReader { path, bytes, offset, file_len: header.file_len, closing };
        Ok(())
    }

    /// Checks the frame that was acknowledged last when it comes by.
    fn check_acknowledged(&self, frame: &Frame) -> Result<(), OpenError> {
        let Some((seq, hash)) = self.acknowledged.last else { return Ok(()) };
        let passed_by = frame.first_seq <= seq && seq < frame.last_seq();
        if passed_by || (seq == frame.last_seq() && frame.hash != hash) {
            let what = format!("it names another frame for record {seq} than the journal holds");
            return Err(OpenError::damaged(&acknowledged::path_in(&self.dir), 0, what));
        }
        Ok(())
    }

    /// Decides whether bytes that are no frame are a torn tail or damage.
    fn judge(&self, what: &'static str) -> Result<TornTail, OpenError> {
        let SegmentReader { path, offset, .. } = &self.segment;
        let last_seq = self.next_seq - 1;
        if !self.ahead.is_empty() || last_seq < self.acknowledged.seq() || self.frame_follows() {
            let what = format!("{what}, where record {} is expected", self.next_seq);
            return Err(OpenError::damaged(path, *offset, what));
        }
        if let Some(doubt) = self.acknowledged.doubt {
            let what = format!(
                "{doubt}, and it alone could say whether the bytes from {offset} of {} on, \
                 which are no whole frame, were acknowledged",
                path.display()
            );
            return Err(OpenError::damaged(&acknowledged::path_in(&self.dir), 0, what));
        }
        let rest = self.segment.rest();
        let used = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Ok(TornTail { file: path.clone(), offset: *offset as u64, bytes: used as u64 })
    }

    /// Whether a whole frame stands somewhere behind the present place.
    ///
    /// A frame is written only when the one before it is on the disk, so then that one was whole.
    fn frame_follows(&self) -> bool {
        let key = self.key.unwrap_or_default();
        let marker = marker(&key);
        let mut rest = self.segment.rest();
        while let Some((_, behind)) = rest.split_first() {
            rest = behind;
            if rest.starts_with(&marker) && Frame::decode(&key, rest).is_ok() {
                return true;
            }
        }
        false
    }

    /// Checks that nothing which was acknowledged is behind the end.
    fn finish(&self) -> Result<(), OpenError> {
        let (expected, found) = (self.acknowledged.seq(), self.next_seq - 1);
        if found < expected {
            return Err(OpenError::LedgerTruncated { expected, found });
        }
        Ok(())
    }
}

impl SegmentReader {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.offset..).unwrap_or_default()
    }

    /// Whether the file is shorter than it was made.
    fn is_shortened(&self) -> bool {
        self.closing.is_none() && (self.bytes.len() as u64) < self.file_len
    }

    /// Whether only the zeros follow that the file was made of.
    fn is_at_end(&self) -> bool {
        self.rest().iter().all(|byte| *byte == 0)
    }
}
