//! Finding the ends of histories, which every append is checked against.

use std::{iter, sync::PoisonError};

use super::{Index, IndexState};
use crate::{
    ReadError, Record, StreamHead, StreamId,
    log::local::entry::{IndexEntry, IndexKey, RecordLocation},
};

/// How many ends are remembered beside those of histories that were written lately.
const HEADS_MAX: usize = 65_536;

impl Index {
    /// Finds the end of a history; `record_at` reads the record that stands at a location.
    pub(in crate::log) fn head(
        &self,
        stream: &StreamId,
        record_at: impl Fn(RecordLocation) -> Result<Record, ReadError>,
    ) -> Result<StreamHead, ReadError> {
        // Held to the end, so that nothing is written between the look and the note.
        let state = self.read();
        let sealing = state.sealing.as_ref().map(|sealing| &sealing.heads);
        let newest = state.recent.heads.get(stream);
        if let Some((head, _)) = newest.or_else(|| sealing.and_then(|heads| heads.get(stream))) {
            return Ok(*head);
        }
        if let Some(head) = self.heads.lock().unwrap_or_else(PoisonError::into_inner).get(stream) {
            return Ok(*head);
        }
        let head = self.sealed_head(&state, stream, record_at)?;
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        if HEADS_MAX <= heads.len() {
            heads.clear();
        }
        heads.insert(stream.clone(), head);
        Ok(head)
    }

    /// Decides whether the end of a history is in memory.
    pub(in crate::log) fn has_head(&self, stream: &StreamId) -> bool {
        let state = self.read();
        let mut newest = iter::once(&state.recent).chain(state.sealing.as_deref());
        newest.any(|part| part.heads.contains_key(stream))
            || self.heads.lock().unwrap_or_else(PoisonError::into_inner).contains_key(stream)
    }

    /// Finds the end of a history that has no record in memory.
    fn sealed_head(
        &self,
        state: &IndexState,
        stream: &StreamId,
        record_at: impl Fn(RecordLocation) -> Result<Record, ReadError>,
    ) -> Result<StreamHead, ReadError> {
        let fingerprint = self.fingerprints().of(IndexKey::Head(stream));
        for run in state.runs.iter().rev().filter(|run| run.may_have(fingerprint)) {
            let Some(last) = run.find(&self.database, fingerprint)?.pop() else { continue };
            let record = record_at(last.location())?;
            // A merge keeps the last of several ends with one fingerprint, so an older one of this
            // history proves nothing once another history's has been met.
            return if record.envelope.stream == *stream {
                self.confirmed(state, (stream, record.seq, record.stream_head()), record_at)
            } else {
                self.head_by_versions(state, stream, record_at)
            };
        }
        self.confirmed(state, (stream, 0, StreamHead::default()), record_at)
    }

    /// Finds the end of a history through the entries of its versions, of which none is ever dropped.
    fn head_by_versions(
        &self,
        state: &IndexState,
        stream: &StreamId,
        record_at: impl Fn(RecordLocation) -> Result<Record, ReadError>,
    ) -> Result<StreamHead, ReadError> {
        let mut head = StreamHead::default();
        loop {
            let mut next = head;
            for location in
                self.sealed(state, IndexKey::History(stream, head.version.saturating_add(1)), 0)?
            {
                let record = record_at(location)?;
                if record.envelope.stream == *stream && next.version < record.envelope.version {
                    next = record.stream_head();
                }
            }
            // The last block is full where its last version is the end, so the one behind it is empty.
            if next == head {
                return Ok(head);
            }
            head = next;
        }
    }

    /// Refuses an end behind which the history goes on: the database has lost or mixed up an entry.
    fn confirmed(
        &self,
        state: &IndexState,
        (stream, seq, head): (&StreamId, u64, StreamHead),
        record_at: impl Fn(RecordLocation) -> Result<Record, ReadError>,
    ) -> Result<StreamHead, ReadError> {
        let next = IndexKey::History(stream, head.version.saturating_add(1));
        for location in self.sealed(state, next, seq)? {
            if record_at(location)?.envelope.stream == *stream {
                return Err(self.database.damaged());
            }
        }
        Ok(head)
    }

    /// Locations behind a record in the runs that a key leads to, in the order of the log.
    fn sealed(
        &self,
        state: &IndexState,
        key: IndexKey<'_>,
        after: u64,
    ) -> Result<Vec<RecordLocation>, ReadError> {
        let fingerprint = self.fingerprints().of(key);
        let mut found = Vec::new();
        let behind = state.runs.iter().filter(|run| after < run.extent.last_seq);
        for run in behind.filter(|run| run.may_have(fingerprint)) {
            found.extend(run.find(&self.database, fingerprint)?.iter().map(IndexEntry::location));
        }
        found.retain(|location| after < location.seq);
        Ok(found)
    }
}
