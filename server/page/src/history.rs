//! A pool at a moment of its history, the pool now, and the events in sentences.

use std::collections::BTreeMap;

use keypool_ledger::{
    CommandId, Event, EventLog, KeyPackageRef, PoolId, ReadError, Record, RuleSettings, StreamId,
    Timestamp,
};
use keypool_projections::{
    Limits, PoolState,
    explanation::{PackageStory, device_sentence},
};

use crate::source::PageSource;

/// How many events are read at a time.
const PAGE_EVENTS: usize = 4096;
/// How many events of a history are folded at most.
pub(crate) const HISTORY_EVENTS_MAX: u64 = 50_000;
/// How many events of a history are folded at most to show the pool now: for more the server is asked.
const FOLDED_NOW_MAX: u64 = 20_000;
/// How many events are told before and after the chosen one.
const TOLD_AROUND: u64 = 12;

/// A pool's history, folded up to a chosen moment and up to its end.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) pool: PoolId,
    /// How many events were folded; of the end of a longer history, how many there are.
    pub(crate) len: u64,
    /// Whether the history is longer than the page folds: it goes on beyond them, or they were not folded.
    pub(crate) is_cut: bool,
    /// The pool right after the chosen event.
    pub(crate) chosen: PoolMoment,
    /// The pool now.
    pub(crate) now: PoolMoment,
    /// The events around the chosen one.
    pub(crate) told: Vec<ToldEvent>,
}

/// A pool at a moment.
#[derive(Clone, Debug)]
pub(crate) struct PoolMoment {
    /// The version of the pool's history.
    pub(crate) version: u64,
    pub(crate) at: Timestamp,
    pub(crate) limits: Limits,
    /// The pool, with the effects of time up to the moment.
    pub(crate) state: PoolState,
}

/// An event in a sentence.
#[derive(Clone, Debug)]
pub(crate) struct ToldEvent {
    pub(crate) position: u64,
    pub(crate) version: u64,
    pub(crate) event: &'static str,
    pub(crate) keypackage_ref: Option<KeyPackageRef>,
    pub(crate) command: CommandId,
    pub(crate) sentence: String,
}

/// The settings that a server has recorded, each with its position.
#[derive(Debug)]
pub(crate) struct RecordedSettings(Vec<(u64, RuleSettings)>);

impl RecordedSettings {
    pub(crate) fn read(log: &dyn EventLog) -> Result<Self, ReadError> {
        let mut settings = Vec::new();
        for_each(log, &StreamId::Server, |record| {
            if let Event::Configured(configured) = record.envelope.event {
                settings.push((record.seq, configured));
            }
            true
        })?;
        Ok(Self(settings))
    }

    /// The limits at a position of the log.
    pub(crate) fn at(&self, position: u64) -> Limits {
        let latest = self.0.iter().rev().find(|(recorded, _)| *recorded <= position);
        latest.map_or(Limits::STANDARD, |(_, settings)| Limits::of(settings))
    }
}

/// The stories of a pool's packages while its history is told.
#[derive(Debug)]
pub(crate) struct Storyteller<'a> {
    settings: &'a RecordedSettings,
    packages: BTreeMap<KeyPackageRef, PackageStory>,
}

impl<'a> Storyteller<'a> {
    pub(crate) const fn new(settings: &'a RecordedSettings) -> Self {
        Self { settings, packages: BTreeMap::new() }
    }

    /// Takes in the next record of the history, and tells it.
    pub(crate) fn tell(&mut self, record: &Record) -> ToldEvent {
        let envelope = &record.envelope;
        let keypackage_ref = envelope.event.keypackage_ref().cloned();
        let sentence = match &keypackage_ref {
            Some(of) => {
                let story = self.packages.entry(of.clone()).or_default();
                story.set_grace(self.settings.at(record.seq).grace);
                story.tell(envelope)
            }
            None => device_sentence(envelope),
        };
        ToldEvent {
            position: record.seq,
            version: envelope.version,
            event: envelope.event.name(),
            keypackage_ref,
            command: envelope.command,
            sentence,
        }
    }

    /// The story of a package.
    pub(crate) fn story(&self, of: &KeyPackageRef) -> Option<&PackageStory> {
        self.packages.get(of)
    }
}

impl History {
    /// Reads a pool's history; `None` if it has none. Without a chosen event the end is chosen.
    pub(crate) fn read(
        source: &dyn PageSource,
        pool: &PoolId,
        chosen: Option<u64>,
    ) -> Result<Option<Self>, ReadError> {
        let (log, stream) = (source.log(), StreamId::Pool(pool.clone()));
        let settings = RecordedSettings::read(log)?;
        let whole = log.stream_head(&stream)?.version;
        let len = whole.min(HISTORY_EVENTS_MAX);
        let version = chosen.unwrap_or(len).clamp(1, len.max(1));
        let (mut state, mut then, mut told) = (PoolState::default(), None, Vec::new());
        let mut teller = Storyteller::new(&settings);
        for_each(log, &stream, |record| {
            let envelope = &record.envelope;
            // The lifecycle was checked when the event was appended: a log that breaks it does not open.
            let _ = state.evolve(&envelope.event, envelope.at);
            let event = teller.tell(record);
            if envelope.version.abs_diff(version) <= TOLD_AROUND {
                told.push(event);
            }
            if envelope.version == version {
                let limits = settings.at(record.seq);
                then = Some(PoolMoment::of(version, &state, envelope.at, limits));
            }
            envelope.version < len
        })?;
        let now = PoolMoment::of(len, &state, source.now(), source.limits());
        Ok(then.map(|then| Self {
            pool: pool.clone(),
            len,
            is_cut: len < whole,
            chosen: if chosen.is_some() { then } else { now.clone() },
            now,
            told,
        }))
    }
}

impl History {
    /// Reads a pool now, and its last events; `None` if it has no history. One that is too long to be folded is not:
    /// packages that are over are counted only then.
    pub(crate) fn end(source: &dyn PageSource, pool: &PoolId) -> Result<Option<Self>, ReadError> {
        let (log, stream) = (source.log(), StreamId::Pool(pool.clone()));
        let len = log.stream_head(&stream)?.version;
        if len <= FOLDED_NOW_MAX {
            return Self::read(source, pool, None);
        }
        let Some(state) = source.pool(pool) else { return Ok(None) };
        let settings = RecordedSettings::read(log)?;
        let mut teller = Storyteller::new(&settings);
        let before = len.saturating_sub(PAGE_EVENTS as u64);
        let records = log.read_stream(&stream, before, PAGE_EVENTS)?;
        let mut told: Vec<_> = records.iter().map(|record| teller.tell(record)).collect();
        told.retain(|event| event.version.abs_diff(len) <= TOLD_AROUND);
        let now = PoolMoment::of(len, &state, source.now(), source.limits());
        Ok(Some(Self { pool: pool.clone(), len, is_cut: true, chosen: now.clone(), now, told }))
    }
}

impl PoolMoment {
    fn of(version: u64, state: &PoolState, at: Timestamp, limits: Limits) -> Self {
        Self { version, at, limits, state: state.settled(at, &limits) }
    }
}

/// Reads a history from its first record on, until there are no more or `next` returns false.
pub(crate) fn for_each(
    log: &dyn EventLog,
    stream: &StreamId,
    mut next: impl FnMut(&Record) -> bool,
) -> Result<(), ReadError> {
    let mut after = 0;
    loop {
        let records = log.read_stream(stream, after, PAGE_EVENTS)?;
        let Some(last) = records.last() else { return Ok(()) };
        after = last.envelope.version;
        if !records.iter().all(&mut next) {
            return Ok(());
        }
    }
}
