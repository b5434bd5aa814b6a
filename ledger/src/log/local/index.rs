//! The index: finds the locations of records in the journal by keys.
//!
//! The newest part is in memory, sorted. When it has grown it is written to the database as a *run*,
//! which is never changed; when there are many runs of one level they are merged into one of the next.
//! So a lookup asks a handful of runs however long the log is, most of which a filter answers for, and
//! an append writes nothing here at all. The newest part is read from the journal again at the next
//! open, and everything can be.

mod filter;
mod heads;
mod run;

use std::{
    collections::{BTreeSet, HashMap, hash_map},
    iter, mem,
    ops::ControlFlow,
    slice,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use self::run::{Extent, Merged, Run};
use super::{
    database::IndexDatabase,
    entry::{Fingerprint, Fingerprints, IndexEntry, IndexKey, RecordLocation, keys_of},
    journal::{Contents, JournalReader},
};
use crate::{Event, Key, OpenError, ReadError, Record, StreamHead, StreamId, codec};

/// How many runs of one level are merged into one of the next.
const FANOUT: usize = 8;

/// How an index is opened and built.
#[derive(Clone, Debug)]
pub(in crate::log) struct IndexSettings {
    pub(in crate::log) cache_bytes: u64,
    pub(in crate::log) seal_records: u64,
    pub(in crate::log) fingerprint_bits: u32,
    /// Ends long work.
    pub(in crate::log) ending: Arc<AtomicBool>,
}

/// The index of a log: finds the locations of records.
pub(super) struct Index {
    database: IndexDatabase,
    /// After how many records the newest part becomes a run.
    seal_records: u64,
    state: RwLock<IndexState>,
    /// Ends of histories that were looked up, and not written since.
    heads: Mutex<HashMap<StreamId, StreamHead>>,
    ending: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct IndexState {
    recent: Recent,
    /// The part that is becoming a run at this moment.
    sealing: Option<Arc<Recent>>,
    /// By the records they find.
    runs: Arc<Vec<Arc<Run>>>,
    /// Runs that were merged into others and may still be read by somebody.
    retired: Vec<Arc<Run>>,
    next_id: u64,
}

/// The locations of one or several records.
#[derive(Debug)]
enum Locations {
    One(RecordLocation),
    Several(Vec<RecordLocation>),
}

/// The newest part of an index.
#[derive(Debug, Default)]
struct Recent {
    locations: HashMap<Fingerprint, Locations>,
    heads: HashMap<StreamId, (StreamHead, RecordLocation)>,
    first_seq: u64,
    last_seq: u64,
}

impl Recent {
    fn add(
        &mut self,
        keys: impl Iterator<Item = Fingerprint>,
        record: &Record,
        location: RecordLocation,
    ) {
        if self.last_seq == 0 {
            self.first_seq = location.seq;
        }
        self.last_seq = location.seq;
        for fingerprint in keys {
            match self.locations.entry(fingerprint) {
                hash_map::Entry::Vacant(vacant) => drop(vacant.insert(Locations::One(location))),
                hash_map::Entry::Occupied(mut occupied) => match occupied.get_mut() {
                    Locations::One(first) => {
                        let several = Locations::Several(vec![*first, location]);
                        occupied.insert(several);
                    }
                    Locations::Several(several) => several.push(location),
                },
            }
        }
        self.heads.insert(record.envelope.stream.clone(), (record.stream_head(), location));
    }

    fn find(&self, fingerprint: Fingerprint) -> &[RecordLocation] {
        match self.locations.get(&fingerprint) {
            None => &[],
            Some(Locations::One(location)) => slice::from_ref(location),
            Some(Locations::Several(locations)) => locations,
        }
    }

    /// How many records it finds.
    fn records(&self) -> u64 {
        if self.last_seq == 0 { 0 } else { self.last_seq - self.first_seq + 1 }
    }

    /// All entries, those of the histories' ends too, in order.
    fn all(&self, fingerprints: &Fingerprints) -> Vec<IndexEntry> {
        let mut all = Vec::new();
        for fingerprint in self.locations.keys() {
            all.extend(
                self.find(*fingerprint)
                    .iter()
                    .map(|location| IndexEntry::new(*fingerprint, *location)),
            );
        }
        for (stream, (_, location)) in &self.heads {
            all.push(IndexEntry::new(fingerprints.of(IndexKey::Head(stream)), *location));
        }
        all.sort_unstable();
        all
    }
}

/// Why the index cannot be opened.
pub(super) enum IndexError {
    /// The journal cannot be read; nothing helps but a backup.
    Journal(OpenError),
    /// The database is of no use; a new one may be.
    Database(ReadError),
}

impl From<ReadError> for IndexError {
    fn from(error: ReadError) -> Self {
        Self::Database(error)
    }
}

impl Index {
    /// Opens the index of a database, and adds the records of the journal that it lacks.
    pub(super) fn open(
        database: IndexDatabase,
        journal: &Contents,
        settings: &IndexSettings,
    ) -> Result<Self, IndexError> {
        let mut runs = Vec::new();
        for extent in database.runs()? {
            let extent = Extent::decode(&extent).ok_or_else(|| database.damaged())?;
            runs.push(Arc::new(Run::open(&database, extent)?.ok_or_else(|| database.damaged())?));
        }
        runs.sort_by_key(|run| run.extent.first_seq);
        let mut next_seq = 1;
        for run in &runs {
            if run.extent.first_seq != next_seq {
                return Err(database.damaged().into());
            }
            next_seq = run.extent.last_seq.saturating_add(1);
        }
        let next_id = runs.iter().map(|run| run.extent.id + 1).max().unwrap_or_default();
        // A run that was being written when the process ended, or was merged and not removed yet.
        let known: BTreeSet<u64> = runs.iter().map(|run| run.extent.id).collect();
        database.remove_parts_but(&known)?;
        let state = IndexState { runs: Arc::new(runs), next_id, ..IndexState::default() };
        let index = Self {
            database,
            seal_records: settings.seal_records,
            state: RwLock::new(state),
            heads: Mutex::default(),
            ending: Arc::clone(&settings.ending),
        };
        index.fill(journal, next_seq)?;
        Ok(index)
    }

    /// Takes in the records of the journal from one on.
    fn fill(&self, journal: &Contents, from: u64) -> Result<(), IndexError> {
        let (mut filled, mut failure) = (0_u64, None);
        let mut reader = JournalReader::from(&journal.dir, from).map_err(IndexError::Journal)?;
        let visited = reader.visit(&mut |raw| {
            if raw.seq < from {
                return ControlFlow::Continue(());
            }
            if journal.last_seq < raw.seq {
                return ControlFlow::Break(());
            }
            filled += 1;
            match self.fill_one(&raw) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        visited.map_err(IndexError::Journal)?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        if self.seal_records <= filled {
            let dir = self.database.dir().display();
            tracing::info!(%dir, from, records = filled, "the index was filled from the journal");
        }
        Ok(())
    }

    fn fill_one(&self, raw: &crate::RawRecord<'_>) -> Result<(), IndexError> {
        if self.ending.load(Ordering::Relaxed) {
            return Err(ReadError::Unavailable("the log is being closed".into()).into());
        }
        let envelope = codec::decode(raw.envelope_bytes)
            .map_err(|err| IndexError::Journal(raw.unreadable(&err)))?;
        let envelope_bytes = raw.envelope_bytes.to_vec();
        // A user is found by the name, which is the payload.
        let is_name = matches!(envelope.event, Event::UserNamed {});
        let payload = if is_name { raw.payload.to_vec() } else { Vec::new() };
        let record = Record { seq: raw.seq, envelope, envelope_bytes, payload };
        let offset = u32::try_from(raw.offset).unwrap_or(u32::MAX);
        let location = RecordLocation::new(raw.seq, offset, &codec::chain_hash(raw.envelope_bytes));
        let full = {
            let mut state = self.write();
            state.recent.add(keys_of(self.fingerprints(), &record), &record, location);
            self.seal_records <= state.recent.records()
        };
        if full { Ok(self.tend()?) } else { Ok(()) }
    }

    pub(super) const fn database(&self) -> &IndexDatabase {
        &self.database
    }

    const fn fingerprints(&self) -> &Fingerprints {
        self.database.fingerprints()
    }

    /// Takes in new records, which stand at these locations. Returns whether there is something to
    /// [`Index::tend`] to.
    pub(super) fn add(&self, records: &[&Record], locations: &[RecordLocation]) -> bool {
        // Nobody reads while something is added: what can be worked out before is.
        let keys = records.iter().map(|record| keys_of(self.fingerprints(), record));
        let keys: Vec<_> = keys.collect();
        let mut state = self.write();
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        for ((record, location), keys) in records.iter().zip(locations).zip(keys) {
            heads.remove(&record.envelope.stream);
            state.recent.add(keys, record, *location);
        }
        self.seal_records <= state.recent.records()
    }

    /// The locations after a record that are found by a key, in the order of the log.
    pub(super) fn find_after(
        &self,
        key: IndexKey<'_>,
        after: u64,
    ) -> Result<Vec<RecordLocation>, ReadError> {
        let mut found = Vec::new();
        self.visit(key, after, |location| {
            found.push(location);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Whether a key may find anything after a record.
    pub(super) fn has_after(&self, key: Key<'_>, after: u64) -> Result<bool, ReadError> {
        Ok(!self.find_after(IndexKey::Key(key), after)?.is_empty())
    }

    /// Decides from memory whether a key may find a record after a position; it reads no disk.
    pub(super) fn may_have(&self, key: Key<'_>, after: u64) -> bool {
        let fingerprint = self.fingerprints().of(IndexKey::Key(key));
        let state = self.read();
        let mut newest = iter::once(&state.recent).chain(state.sealing.as_deref());
        newest.any(|part| part.find(fingerprint).iter().any(|at| after < at.seq))
            || state.runs.iter().any(|run| after < run.extent.last_seq && run.may_have(fingerprint))
    }

    /// Shows the locations after a record that are found by a key, in the order of the log, until `look` ends
    /// it: later runs are not read then.
    pub(super) fn visit(
        &self,
        key: IndexKey<'_>,
        after: u64,
        mut look: impl FnMut(RecordLocation) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<(), ReadError> {
        let fingerprint = self.fingerprints().of(key);
        let (newest, runs) = self.with(fingerprint);
        for run in runs.iter().filter(|run| after < run.extent.last_seq) {
            let locations = run.find(&self.database, fingerprint)?;
            for location in
                locations.iter().map(IndexEntry::location).filter(|location| after < location.seq)
            {
                if look(location)?.is_break() {
                    return Ok(());
                }
            }
        }
        for location in newest.into_iter().filter(|location| after < location.seq) {
            if look(location)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The locations in memory of a fingerprint, and the runs that may know of others, in the order of the log.
    fn with(&self, fingerprint: Fingerprint) -> (Vec<RecordLocation>, Vec<Arc<Run>>) {
        let (newest, runs) = {
            let state = self.read();
            let sealing = state.sealing.iter().flat_map(|sealing| sealing.find(fingerprint));
            let newest: Vec<RecordLocation> =
                sealing.chain(state.recent.find(fingerprint)).copied().collect();
            (newest, Arc::clone(&state.runs))
        };
        (newest, runs.iter().filter(|run| run.may_have(fingerprint)).cloned().collect())
    }

    /// Makes a run of the newest part when it has grown, and merges runs of which there are many.
    pub(super) fn tend(&self) -> Result<(), ReadError> {
        if !self.database.has_room() {
            return Ok(());
        }
        self.seal()?;
        while let Some(runs) = self.mergeable() {
            if self.ending.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.merge(&runs)?;
            drop(runs);
            self.remove_retired()?;
            self.seal()?;
        }
        self.remove_retired()
    }

    fn seal(&self) -> Result<(), ReadError> {
        let (recent, id) = {
            let mut state = self.write();
            if state.sealing.is_none() && self.seal_records <= state.recent.records() {
                // The next one will have as many: it need not grow while everybody waits.
                let next = Recent {
                    locations: HashMap::with_capacity(state.recent.locations.len()),
                    heads: HashMap::with_capacity(state.recent.heads.len()),
                    ..Recent::default()
                };
                state.sealing = Some(Arc::new(mem::replace(&mut state.recent, next)));
            }
            let Some(sealing) = state.sealing.clone() else { return Ok(()) };
            state.next_id += 1;
            (sealing, state.next_id - 1)
        };
        let Recent { first_seq, last_seq, .. } = *recent;
        let entries = recent.all(self.fingerprints());
        let count = entries.len() as u64;
        let extent = Extent { id, level: 0, first_seq, last_seq, entries: count, digest: 0 };
        let run = Run::write(&self.database, extent, entries.into_iter().map(Ok), count)?;
        self.database.install((id, &run.extent.encode()), &[])?;
        let mut state = self.write();
        Arc::make_mut(&mut state.runs).push(Arc::new(run));
        state.sealing = None;
        Ok(())
    }

    /// The first runs of one level, if there are enough of them to be merged.
    fn mergeable(&self) -> Option<Vec<Arc<Run>>> {
        let state = self.read();
        let same = |a: &Arc<Run>, b: &Arc<Run>| a.extent.level == b.extent.level;
        let found = state.runs.chunk_by(same).find(|runs| FANOUT <= runs.len());
        found.and_then(|runs| runs.first_chunk::<FANOUT>()).map(|runs| runs.to_vec())
    }

    fn merge(&self, runs: &[Arc<Run>]) -> Result<(), ReadError> {
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return Ok(()) };
        let id = {
            let mut state = self.write();
            state.next_id += 1;
            state.next_id - 1
        };
        let count = runs.iter().map(|run| run.extent.entries).sum();
        let extent = Extent {
            id,
            level: first.extent.level + 1,
            first_seq: first.extent.first_seq,
            last_seq: last.extent.last_seq,
            entries: count,
            digest: 0,
        };
        let mut entries = Merged::new(&self.database, runs);
        let until_the_end =
            iter::from_fn(
                || {
                    if self.ending.load(Ordering::Relaxed) { None } else { entries.next() }
                },
            );
        let merged = Run::write(&self.database, extent, until_the_end, count)?;
        if self.ending.load(Ordering::Relaxed) {
            return self.database.remove_parts(id);
        }
        let merged = Arc::new(merged);
        let old: Vec<u64> = runs.iter().map(|run| run.extent.id).collect();
        self.database.install((id, &merged.extent.encode()), &old)?;
        let mut state = self.write();
        let runs_now = Arc::make_mut(&mut state.runs);
        runs_now.retain(|run| !old.contains(&run.extent.id));
        runs_now.push(merged);
        runs_now.sort_by_key(|run| run.extent.first_seq);
        state.retired.extend(runs.iter().cloned());
        Ok(())
    }

    /// Removes merged runs that nobody reads any more.
    fn remove_retired(&self) -> Result<(), ReadError> {
        let retired = mem::take(&mut self.write().retired);
        for run in retired {
            match Arc::try_unwrap(run) {
                Ok(run) => self.database.remove_parts(run.extent.id)?,
                Err(run) => self.write().retired.push(run),
            }
        }
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, IndexState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, IndexState> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
