//! `show`: all that happened to one thing.

use std::{collections::BTreeSet, ops::ControlFlow, path::Path};

use keypool_auditor::names::StreamName;
use keypool_ledger::{CommandId, Event, EventEnvelope, KeyPackageRef, ReservationId};

use crate::{
    FINE,
    input::read,
    log,
    output::{Out, ToolError, time},
};

/// How many things are told apart before a beginning is called too short.
const CANDIDATES_MAX: usize = 8;

/// Something that has a life in the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thing {
    /// A record.
    Record(u64),
    /// A package.
    Package(KeyPackageRef),
    /// A reservation.
    Reservation(ReservationId),
    /// A request.
    Command(CommandId),
}

impl Thing {
    /// Whether a record is part of its life.
    fn concerns(&self, seq: u64, envelope: &EventEnvelope) -> bool {
        match self {
            Self::Record(wanted) => *wanted == seq,
            Self::Package(of) => envelope.event.keypackage_ref() == Some(of),
            Self::Reservation(id) => reservations(&envelope.event).contains(&Some(*id)),
            Self::Command(id) => envelope.command == *id,
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Record(seq) => format!("record {seq}"),
            Self::Package(of) => format!("package {of}"),
            Self::Reservation(id) => format!("reservation {id}"),
            Self::Command(id) => format!("request {id}"),
        }
    }
}

/// The reservations that an event names.
fn reservations(event: &Event) -> [Option<ReservationId>; 2] {
    match event {
        Event::Reserved { reservation, .. }
        | Event::Renewed { reservation, .. }
        | Event::Released { reservation, .. } => [Some(*reservation), None],
        Event::Spent { reservation, .. } => [*reservation, None],
        Event::Conflict { lost, holds, .. } => [Some(*lost), Some(*holds)],
        _ => [None, None],
    }
}

/// Finds the one thing in a log that a text names or begins.
pub(crate) fn find(path: &Path, what: &str) -> Result<Thing, ToolError> {
    let seq: Option<u64> = what.parse().ok();
    let wanted = what.to_ascii_lowercase();
    let (mut found, mut last) = (BTreeSet::new(), 0);
    read(path, &mut |raw, envelope| {
        last = raw.seq;
        if seq == Some(raw.seq) {
            found = BTreeSet::from([Thing::Record(raw.seq)]);
            return ControlFlow::Break(());
        }
        if found.len() <= CANDIDATES_MAX {
            found.extend(begun(&wanted, &envelope));
        }
        ControlFlow::Continue(())
    })?;
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(thing), None) => Ok(thing),
        (None, _) => Err(ToolError::usage(format!(
            "nothing in the log is named {what}: it has records 1 to {last}, and no package, \
             reservation or request that begins so. A request that was refused leaves no event; ask \
             `explain SOURCE POOL --at TIME` what it met"
        ))),
        (Some(first), Some(second)) => {
            let all = [first, second].into_iter().chain(found).map(|thing| thing.words());
            let all: Vec<String> = all.take(CANDIDATES_MAX).collect();
            let names = all.join("\n  ");
            Err(ToolError::usage(format!("{what} begins several things; say more:\n  {names}")))
        }
    }
}

/// The things that an event names and a text begins.
fn begun(wanted: &str, envelope: &EventEnvelope) -> Vec<Thing> {
    let mut things = Vec::new();
    // Four digits at least, so that a slip does not name half of the log.
    if wanted.len() < 4 {
        return things;
    }
    let of = envelope.event.keypackage_ref();
    if let Some(of) = of.filter(|of| of.to_string().starts_with(wanted)) {
        things.push(Thing::Package(of.clone()));
    }
    for id in reservations(&envelope.event).into_iter().flatten() {
        if id.to_string().starts_with(wanted) {
            things.push(Thing::Reservation(id));
        }
    }
    if envelope.command.to_string().starts_with(wanted) {
        things.push(Thing::Command(envelope.command));
    }
    things
}

/// All records of a thing's life, in order.
pub(crate) fn life(path: &Path, thing: &Thing) -> Result<Vec<(u64, EventEnvelope)>, ToolError> {
    let mut life = Vec::new();
    read(path, &mut |raw, envelope| {
        if thing.concerns(raw.seq, &envelope) {
            life.push((raw.seq, envelope));
        }
        ControlFlow::Continue(())
    })?;
    Ok(life)
}

/// Shows all that happened to one thing.
pub(crate) fn show(path: &Path, what: &str, out: &mut Out) -> Result<u8, ToolError> {
    let thing = find(path, what)?;
    let life = life(path, &thing)?;
    out.line(&thing.words())?;
    for (seq, envelope) in &life {
        out.say(|| log::line(*seq, envelope), || log::object(*seq, envelope))?;
        if matches!(thing, Thing::Record(_)) {
            out.line(&particulars(envelope))?;
        }
    }
    Ok(FINE)
}

/// Everything that a record's envelope says.
fn particulars(envelope: &EventEnvelope) -> String {
    let event = serde_json::to_string_pretty(&envelope.event).unwrap_or_default();
    let EventEnvelope { schema, stream, version, at, command, request, prev, payload, .. } =
        envelope;
    [
        format!("  schema   {schema}"),
        format!("  history  {}, version {version}", StreamName(stream)),
        format!("  at       {}, {} ms", time(*at), at.as_millis()),
        format!("  command  {command}"),
        format!("  request  {request}"),
        format!("  prev     {prev}"),
        format!("  payload  {payload}"),
        format!("  event    {}", event.replace('\n', "\n           ")),
    ]
    .join("\n")
}
