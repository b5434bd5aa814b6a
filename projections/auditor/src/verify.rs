//! Verification of a log's bytes: hashes, chains, versions, order, and its end.
//!
//! Records are read one after the other; the state is the head of each history, the mailboxes, and the
//! packages and messages whose bytes are missing.

mod missing;

use std::{collections::HashMap, ops::ControlFlow, path::PathBuf, sync::LazyLock};

use keypool_ledger::{
    Event, EventEnvelope, Hash, RawRecord, StreamHead, StreamId, Timestamp, codec,
};
use keypool_transparency::{Tree, TreeHash};
use serde::Serialize;

use self::missing::MissingPayloads;
use crate::{
    names::StreamName,
    source::{Source, SourceEnd, SourceError},
};

/// The digest of no bytes, which most events carry.
static NOTHING: LazyLock<Hash> = LazyLock::new(|| Hash::of(&[]));

/// How bad a finding is, and with which number the tool ends because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingSeverity {
    /// The bytes contradict a rule, but are as they were written.
    Rule,
    /// The bytes differ from those that were written.
    Damage,
    /// Two histories were told where there can be one.
    Equivocation,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub gravity: FindingSeverity,
    /// The rule, as in `I1` or `chain`.
    pub rule: &'static str,
    /// The positions of the events that show it.
    pub events: Vec<u64>,
    /// The fault, in whole sentences.
    pub what: String,
    /// The place of the fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<FileLocation>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileLocation {
    /// The file.
    pub file: PathBuf,
    /// The byte, from the file's beginning.
    pub offset: u64,
}

/// The end of the log as somebody has seen it before: how many records it had, and the tree hash over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How many records.
    pub size: u64,
    /// The tree hash over them.
    pub root: TreeHash,
}

/// The outcome of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationReport {
    /// How many records were read.
    pub records: u64,
    /// How many histories they belong to.
    pub histories: u64,
    /// How many packages' bytes are not there any more, which is allowed when they have ended.
    pub pruned: u64,
    /// The tree hash over all envelopes.
    pub root: TreeHash,
    /// Everything that is not as it must be, in the order of the log.
    pub findings: Vec<Finding>,
}

/// Reads a log's records in order and collects the faults.
#[derive(Debug, Default)]
pub struct Verifier {
    heads: HashMap<StreamId, StreamHead>,
    next_seq: Option<u64>,
    records: u64,
    missing: MissingPayloads,
    tree: Tree,
    seen: Vec<Seen>,
    findings: Vec<Finding>,
}

/// Reads a whole source and returns its faults.
///
/// `seen` are ends of this log that somebody remembers; `passed` is told how many bytes of the source
/// were read.
#[must_use]
pub fn verify(source: &Source, seen: &[Seen], passed: &mut dyn FnMut(u64)) -> VerificationReport {
    let mut verifier = Verifier::expecting(seen);
    let outcome = source.visit(&mut |raw| {
        passed((8 + raw.envelope_bytes.len() + raw.payload.len()) as u64);
        verifier.take(&raw);
        ControlFlow::Continue(())
    });
    verifier.finish(outcome)
}

impl Verifier {
    /// Begins, with the ends of the log that are remembered.
    #[must_use]
    pub fn expecting(seen: &[Seen]) -> Self {
        let mut seen = seen.to_vec();
        seen.sort_by_key(|seen| std::cmp::Reverse(seen.size));
        let mut verifier = Self { seen, ..Self::default() };
        verifier.compare_with_seen();
        verifier
    }

    /// Takes the next record, and returns its envelope, as it stands in the log, if it has one.
    pub fn take(&mut self, raw: &RawRecord<'_>) -> Option<EventEnvelope> {
        let expected = self.next_seq.unwrap_or(1);
        if raw.seq != expected {
            let what = format!("record {expected} should stand here; it is record {}.", raw.seq);
            self.find(FindingSeverity::Damage, "position", raw, &what);
        }
        self.next_seq = Some(raw.seq.saturating_add(1));
        self.records = self.records.saturating_add(1);
        self.tree.append(raw.envelope_bytes);
        self.compare_with_seen();
        match codec::decode(raw.envelope_bytes) {
            Ok(envelope) => {
                self.check_payload(raw, &envelope);
                self.check_chain(raw, &envelope);
                Some(envelope)
            }
            Err(err) => {
                self.find(FindingSeverity::Damage, "schema", raw, &format!("{err}."));
                None
            }
        }
    }

    fn check_payload(&mut self, raw: &RawRecord<'_>, envelope: &EventEnvelope) {
        let is_missing = raw.payload.is_empty() && envelope.payload != *NOTHING;
        if !raw.payload.is_empty() && Hash::of(raw.payload) != envelope.payload {
            let what = format!(
                "the {} bytes of the payload are not those whose digest the envelope carries.",
                raw.payload.len()
            );
            self.find(FindingSeverity::Damage, "payload", raw, &what);
        }
        self.missing.see(raw, envelope, is_missing);
    }

    /// Checks that the record follows the one before it in its history.
    fn check_chain(&mut self, raw: &RawRecord<'_>, envelope: &EventEnvelope) {
        let hash = codec::chain_hash(raw.envelope_bytes);
        let (version, at) = (envelope.version, envelope.at);
        let new = StreamHead { version, hash, at };
        let head = if let Some(head) = self.heads.get_mut(&envelope.stream) {
            std::mem::replace(head, new)
        } else {
            self.heads.insert(envelope.stream.clone(), new);
            StreamHead::default()
        };
        let stream = StreamName(&envelope.stream);
        let expected = head.version.saturating_add(1);
        if version != expected {
            let what = format!("it has version {version} of {stream}, where {expected} follows.");
            self.find(FindingSeverity::Damage, "version", raw, &what);
        } else if envelope.prev != head.hash {
            let what = if expected == 1 {
                format!("it is the first of {stream}, but names one before it.")
            } else {
                format!(
                    "its link does not match version {} of {stream}: that one, or this one, was \
                     changed, or one between them is gone.",
                    head.version
                )
            };
            self.find(FindingSeverity::Damage, "chain", raw, &what);
        }
        self.check_time(raw, envelope, head.at);
    }

    /// Checks that time has not fallen since the event before in the history, but where a clock that had
    /// run ahead was set back between them.
    fn check_time(&mut self, raw: &RawRecord<'_>, envelope: &EventEnvelope, before: Timestamp) {
        let (stream, at) = (&envelope.stream, envelope.at);
        if let (StreamId::Server, Event::ClockAccepted { to, .. }) = (stream, &envelope.event) {
            self.heads.values_mut().for_each(|head| head.at = head.at.min(*to));
        } else if at < before {
            let (back, stream) = (before.since(at).as_millis(), StreamName(stream));
            let what = format!(
                "it was recorded {back} ms before the one it follows in {stream}, and the clock was \
                 not set back between them."
            );
            self.find(FindingSeverity::Rule, "clock", raw, &what);
        }
    }

    /// Compares the log so far with the ends that are remembered of this length.
    fn compare_with_seen(&mut self) {
        while let Some(seen) = self.seen.pop_if(|seen| seen.size == self.records) {
            if self.tree.root() == seen.root {
                continue;
            }
            let what = format!(
                "the first {} records have the tree hash {}; {} is what was seen of them before. \
                 Somebody was shown another history.",
                seen.size,
                self.tree.root(),
                seen.root
            );
            let (gravity, rule) = (FindingSeverity::Equivocation, "checkpoint");
            let events = vec![seen.size];
            self.findings.push(Finding { gravity, rule, events, what, place: None });
        }
    }

    fn find(
        &mut self,
        gravity: FindingSeverity,
        rule: &'static str,
        raw: &RawRecord<'_>,
        what: &str,
    ) {
        self.findings.push(found(gravity, rule, raw, what));
    }

    /// Returns the findings, those of the source's end included.
    #[must_use]
    pub fn finish(mut self, outcome: Result<SourceEnd, SourceError>) -> VerificationReport {
        if outcome.is_ok() {
            self.findings.extend(self.missing.judge());
            self.findings.sort_by_key(|finding| finding.events.last().copied());
        }
        match outcome {
            Ok(end) => self.check_end(end),
            Err(error) => self.findings.push(Finding::of(&error, self.records)),
        }
        for seen in std::mem::take(&mut self.seen) {
            let what = format!(
                "the log has {} records, but {} were seen before: its end was cut off.",
                self.records, seen.size
            );
            let (gravity, rule) = (FindingSeverity::Damage, "end");
            let events = vec![self.records];
            self.findings.push(Finding { gravity, rule, events, what, place: None });
        }
        VerificationReport {
            records: self.records,
            histories: self.heads.len() as u64,
            pruned: self.missing.allowed,
            root: self.tree.root(),
            findings: self.findings,
        }
    }

    fn check_end(&mut self, end: SourceEnd) {
        let (gravity, events) = (FindingSeverity::Damage, vec![self.records]);
        let last = self.records;
        let mut found = |rule, what, place| {
            let events = events.clone();
            self.findings.push(Finding { gravity, rule, events, what, place });
        };
        if let Some(torn) = end.torn {
            let what = format!(
                "after record {last}: {} bytes that are no whole frame. A server that stopped while it \
                 was writing leaves such bytes, nobody was answered for them, and its next start cuts \
                 them off.",
                torn.bytes
            );
            found("end", what, Some(FileLocation { file: torn.file, offset: torn.offset }));
        }
        if let Some(doubt) = end.doubt {
            let what = format!("{doubt}: whether records after {last} are gone cannot be said.");
            found("end", what, None);
        }
        if let Some(manifest) = end.manifest {
            let (told, root) = (manifest.histories, self.tree.root().to_string());
            if (told, &manifest.root) != (self.heads.len() as u64, &root) {
                let what = "the manifest is that of other records.".to_owned();
                found("manifest", what, None);
            }
        }
    }
}

/// Something that is wrong with a record.
fn found(gravity: FindingSeverity, rule: &'static str, raw: &RawRecord<'_>, what: &str) -> Finding {
    let place = Some(FileLocation { file: raw.file.to_owned(), offset: raw.offset });
    let what = format!("record {}: {what}", raw.seq);
    Finding { gravity, rule, events: vec![raw.seq], what, place }
}

impl Finding {
    /// The finding that a source could not be read further, after so many records.
    #[must_use]
    pub fn of(error: &SourceError, after: u64) -> Self {
        let place = match error {
            SourceError::Damaged { file, offset, .. } => {
                Some(FileLocation { file: file.clone(), offset: *offset })
            }
            _ => None,
        };
        let what = match error {
            SourceError::Damaged { what, .. } => what.clone(),
            other => other.to_string(),
        };
        let what = format!("after record {after}: {what}. What follows was not looked at.");
        Self { gravity: FindingSeverity::Damage, rule: "bytes", events: vec![after], what, place }
    }
}
