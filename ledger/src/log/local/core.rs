//! The heart of a log: its journal, its index, and how far readers see.

use std::{
    collections::BTreeSet,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{
    AppendError, Hash, Key, OpenError, ReadError, Record, StreamId,
    log::local::{
        database::Note,
        entry::{BLOCK, IndexKey, RecordLocation},
        health::{LogHealth, Reported, error_chain},
        index::{Index, IndexSettings},
        journal::{CommitError, Contents, Journal, PruneReport, Segments, prune_segment},
    },
};

/// State that the methods and threads of a log share.
pub(super) struct Core {
    dir: PathBuf,
    writer: Mutex<Journal>,
    segments: Arc<Segments>,
    health: Arc<Reported>,
    /// `None` while it is being built anew.
    index: RwLock<Option<Arc<Index>>>,
    settings: IndexSettings,
    /// Which journal this is.
    journal: Hash,
    /// The last record that readers may see. The index fills up behind it.
    visible: AtomicU64,
    /// Whether the outcome of an append is not known until the log is opened again.
    in_doubt: AtomicBool,
    /// Held while payloads are pruned.
    pruning: Mutex<()>,
}

impl Core {
    pub(super) fn new(dir: &Path, journal: Journal, index: Index, settings: IndexSettings) -> Self {
        Self {
            dir: dir.to_owned(),
            segments: journal.segments(),
            health: journal.health(),
            journal: journal.id(),
            visible: AtomicU64::new(journal.last_seq()),
            writer: Mutex::new(journal),
            index: RwLock::new(Some(Arc::new(index))),
            settings,
            in_doubt: AtomicBool::new(false),
            pruning: Mutex::default(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn settings(&self) -> &IndexSettings {
        &self.settings
    }

    /// Has the threads of the log end at the next occasion.
    pub(super) fn end(&self) {
        self.settings.ending.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.settings.ending.load(Ordering::Relaxed)
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Journal> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index.
    ///
    /// # Errors
    ///
    /// Returns [`ReadError::Unavailable`] while it is being built anew.
    pub(super) fn index(&self) -> Result<Arc<Index>, ReadError> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner).clone();
        let rebuilding = "the index is being built anew from the journal; try again in a moment";
        index.ok_or_else(|| ReadError::Unavailable(rebuilding.into()))
    }

    /// Takes the index away, so that nothing is appended until there is another, and returns the part of
    /// the journal that the other one has to find.
    pub(super) fn take_index(&self) -> (Option<Arc<Index>>, Contents) {
        let journal = self.writer();
        let index = self.index.write().unwrap_or_else(PoisonError::into_inner).take();
        (index, journal.contents())
    }

    pub(super) fn put_index(&self, index: Index) {
        *self.index.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(index));
    }

    /// Whether events are taken.
    pub(super) fn health(&self) -> LogHealth {
        match (self.health.get(), self.index()) {
            (LogHealth::Writable, Err(error)) => LogHealth::Refusing { why: error_chain(&error) },
            (health, _) => health,
        }
    }

    /// Makes the next segment of the journal after one could not be made.
    pub(super) fn recover(&self) {
        if let LogHealth::Refusing { .. } = self.health.get() {
            self.writer().recover();
        }
    }

    /// The last record that readers may see.
    pub(super) fn visible(&self) -> u64 {
        self.visible.load(Ordering::Acquire)
    }

    /// Makes sure that the outcome of every append is known.
    pub(super) fn check_certain(&self) -> Result<(), ReadError> {
        if self.in_doubt.load(Ordering::Acquire) {
            let cause = "the outcome of an append is not known until the log is opened again";
            return Err(ReadError::Unavailable(cause.into()));
        }
        Ok(())
    }

    /// Writes accepted batches: to the journal, then to the index, then readers may see them. Returns
    /// whether the index has grown.
    pub(super) fn commit(
        &self,
        journal: &mut Journal,
        staged: &[Result<Vec<Record>, AppendError>],
    ) -> Result<bool, CommitError> {
        let accepted = staged.iter().flatten().filter(|records| !records.is_empty());
        let batches: Vec<&[Record]> = accepted.map(Vec::as_slice).collect();
        if batches.is_empty() {
            return Ok(false);
        }
        // It cannot be taken away meanwhile: the journal is held.
        let index = self.index().map_err(|error| CommitError::NotWritten(Arc::new(error)))?;
        let locations = journal.append(&batches);
        if let Err(CommitError::Unknown(_)) = locations {
            self.in_doubt.store(true, Ordering::Release);
        }
        let locations = locations?;
        let records: Vec<&Record> = batches.into_iter().flatten().collect();
        let Some(last) = records.last() else { return Ok(false) };
        let grown = index.add(&records, &locations);
        self.visible.store(journal.last_seq(), Ordering::Release);
        let note = Note { journal: self.journal, seq: last.seq, envelope: last.stream_head().hash };
        if let Err(error) = index.database().set_note(&note) {
            // Nobody depends on it: what is acknowledged stands in the journal.
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "the database does not write");
        }
        Ok(grown)
    }

    /// Removes the payloads of records from closed segments, one segment after the other while `goes_on` says
    /// so.
    pub(super) fn prune(
        &self,
        due: &BTreeSet<u64>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<PruneReport, OpenError> {
        let _pruning = self.pruning.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = PruneReport::default();
        let Some(last_due) = due.last() else { return Ok(report) };
        let closed = self.writer().prunable_segments(*last_due)?;
        let dir = self.dir.join("journal");
        for segment in closed {
            if self.is_ending() || !goes_on() {
                break;
            }
            report.add(prune_segment(&self.segments, &dir, (segment, due), None)?);
        }
        Ok(report)
    }

    /// Reads records in order; no index is needed.
    pub(super) fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.segments.records(from.max(1), self.visible(), limit)
    }

    /// Reads the record that stands at a location of the index.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`]. If the journal is whole there, it is the index that is damaged.
    pub(super) fn record_at(
        &self,
        index: &Index,
        location: RecordLocation,
    ) -> Result<Record, ReadError> {
        match self.segments.record_at(location) {
            Err(ReadError::Damaged { .. })
                if self.visible() < location.seq || self.read(location.seq, 1).is_ok() =>
            {
                Err(index.database().damaged())
            }
            read => read,
        }
    }

    /// Reads a history that ends at a version.
    pub(super) fn read_stream(
        &self,
        index: &Index,
        (stream, head): (&StreamId, u64),
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let mut records = Vec::new();
        let mut next = after.saturating_add(1);
        while next <= head && records.len() < limit {
            let visible = self.visible();
            let found = self.block_of(index, (stream, next), limit - records.len(), visible)?;
            if found.is_empty() {
                // Another writer's events may not be visible yet; anything else is damage.
                let hidden = visible < self.visible();
                return if hidden { Ok(records) } else { Err(index.database().damaged()) };
            }
            next = next.saturating_add(found.len() as u64);
            records.extend(found);
        }
        Ok(records)
    }

    /// The records of a history from a version on to the end of its block, at most `limit`.
    fn block_of(
        &self,
        index: &Index,
        (stream, first): (&StreamId, u64),
        limit: usize,
        visible: u64,
    ) -> Result<Vec<Record>, ReadError> {
        let mut locations = index.find_after(IndexKey::History(stream, first), 0)?;
        locations.retain(|location| location.seq <= visible);
        // So many earlier versions of the block stand before it: there is no version 0. Records of other
        // histories with the same fingerprint only move it further back.
        let earlier = usize::try_from(first - (first / BLOCK * BLOCK).max(1)).unwrap_or(usize::MAX);
        let from = locations.get(earlier..).unwrap_or_default();
        self.successive(index, from, (stream, first), limit)
    }

    /// The records at some locations that are the versions of a history from one on, at most `limit`.
    fn successive(
        &self,
        index: &Index,
        locations: &[RecordLocation],
        (stream, first): (&StreamId, u64),
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let mut records = Vec::new();
        for location in locations {
            if limit <= records.len() {
                break;
            }
            let record = self.record_at(index, *location)?;
            let next = first.saturating_add(records.len() as u64);
            if record.envelope.stream == *stream && record.envelope.version == next {
                records.push(record);
            }
        }
        Ok(records)
    }

    /// Finds at most `limit` records after a position by a key, in order.
    pub(super) fn find(
        &self,
        index: &Index,
        key: Key<'_>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Record>, ReadError> {
        let from = match key {
            // Its history begins with the record that brought it, however old that is.
            Key::Package(_) if after == 0 || index.has_after(key, after)? => 0,
            _ => after,
        };
        let visible = self.visible();
        let (mut selection, mut found) = (key.selection(), Vec::new());
        index.visit(IndexKey::Key(key), from, |location| {
            if limit <= found.len() {
                return Ok(ControlFlow::Break(()));
            }
            let record =
                (location.seq <= visible).then(|| self.record_at(index, location)).transpose()?;
            let takes = |record: &Record| selection.takes(record) && after < record.seq;
            found.extend(record.filter(takes));
            let full = limit <= found.len();
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(found)
    }
}
