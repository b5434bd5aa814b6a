//! The biography of a package, a reservation, a request or a record.

use std::collections::BTreeSet;

use keypool_api::RefusedRequest;
use keypool_ledger::{
    CommandId, Key, KeyPackageRef, PoolId, ReadError, Record, ReservationId, StreamId,
    log::{find_command, find_reservation, read_record},
};
use keypool_projections::PoolState;

use crate::{
    history::{RecordedSettings, Storyteller, ToldEvent},
    source::PageSource,
};

/// How many records of a request are told, and how many packages of it have their lives told.
const REQUEST_MAX: (usize, usize) = (200, 8);

/// The life of a package.
#[derive(Debug)]
pub(crate) struct PackageLife {
    pub(crate) keypackage_ref: KeyPackageRef,
    pub(crate) pool: PoolId,
    pub(crate) told: Vec<ToldEvent>,
    /// Whether it may still be handed out or used.
    pub(crate) is_live: bool,
    /// How the package, or the reservation that was looked for, stands at the end.
    pub(crate) end: String,
}

/// The effects of a request.
#[derive(Debug)]
pub(crate) struct Effects {
    pub(crate) command: CommandId,
    /// The records it wrote that are about no package, and their histories.
    pub(crate) others: Vec<(StreamId, ToldEvent)>,
    /// How many records it wrote in all.
    pub(crate) len: usize,
    pub(crate) lives: Vec<PackageLife>,
}

/// The things in the log that a text names.
#[derive(Debug, Default)]
pub(crate) struct Biographies {
    pub(crate) lives: Vec<PackageLife>,
    pub(crate) requests: Vec<Effects>,
    /// Refusals of a request, which the log does not hold.
    pub(crate) refusals: Vec<RefusedRequest>,
}

impl Biographies {
    /// Finds everything that a text names in full: in the log a package by its reference, a reservation or a request
    /// by its id, a record by its position; otherwise a refused request by its `X-Request-Id`.
    pub(crate) fn find(source: &dyn PageSource, text: &str) -> Result<Self, ReadError> {
        let teller = BiographyReader { source, settings: RecordedSettings::read(source.log())? };
        let mut found = Self::default();
        if let Ok(position) = text.parse()
            && let Some(record) = read_record(source.log(), position)?
        {
            found.requests.extend(teller.effects(record.envelope.command)?);
        }
        if let Ok(of) = text.parse() {
            found.lives.extend(teller.life(&of, None)?);
        }
        if let Ok(id) = text.parse::<ReservationId>()
            && let Some(made) = find_reservation(source.log(), id, 0)?
            && let Some(of) = made.envelope.event.keypackage_ref()
        {
            found.lives.extend(teller.life(of, Some(id))?);
        }
        if let Ok(command) = text.parse() {
            found.requests.extend(teller.effects(command)?);
        }
        if found.is_empty() {
            found.refusals = source.refusals_of(text);
        }
        Ok(found)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.lives.is_empty() && self.requests.is_empty() && self.refusals.is_empty()
    }
}

struct BiographyReader<'a> {
    source: &'a dyn PageSource,
    settings: RecordedSettings,
}

impl BiographyReader<'_> {
    /// The life of a package; `None` if the log does not know it.
    fn life(
        &self,
        of: &KeyPackageRef,
        claim: Option<ReservationId>,
    ) -> Result<Option<PackageLife>, ReadError> {
        let records = self.source.log().find(Key::Package(of), 0, usize::MAX)?;
        let pool = records.first().and_then(|first| first.envelope.stream.pool()).cloned();
        let Some(pool) = pool else { return Ok(None) };
        let mut teller = Storyteller::new(&self.settings);
        let told = records.iter().map(|record| teller.tell(record)).collect();
        let story = teller.story(of);
        let end = story.map(|story| match claim {
            Some(id) => story.end_of_claim(id),
            None => story.end(of),
        });
        let (keypackage_ref, end) = (of.clone(), end.unwrap_or_default());
        let package = PoolState::of_package(&records).ok();
        let is_live = package.is_some_and(|alone| alone.live().next().is_some());
        Ok(Some(PackageLife { keypackage_ref, pool, told, is_live, end }))
    }

    /// The effects of a request; `None` if it wrote nothing.
    fn effects(&self, command: CommandId) -> Result<Option<Effects>, ReadError> {
        let records: Vec<Record> = find_command(self.source.log(), command, 0)?;
        if records.is_empty() {
            return Ok(None);
        }
        let (mut others, mut packages) = (Vec::new(), BTreeSet::new());
        let mut teller = Storyteller::new(&self.settings);
        for record in records.iter().take(REQUEST_MAX.0) {
            match record.envelope.event.keypackage_ref() {
                Some(of) => drop(packages.insert(of.clone())),
                None => others.push((record.envelope.stream.clone(), teller.tell(record))),
            }
        }
        let mut lives = Vec::new();
        for of in packages.iter().take(REQUEST_MAX.1) {
            lives.extend(self.life(of, None)?);
        }
        Ok(Some(Effects { command, others, len: records.len(), lives }))
    }
}
