//! `log`: the events of a source, a line each.

use std::{collections::VecDeque, path::PathBuf, thread, time::Duration};

use clap::{Args, builder::PossibleValuesParser};
use keypool_auditor::{
    names::StreamName,
    source::{Source, SourceKind},
};
use keypool_ledger::{EventEnvelope, PoolId, StreamId, Timestamp};
use keypool_projections::timeline;
use serde_json::{Value, json};

use crate::{
    FINE,
    input::try_read_after,
    kinds::event_kinds,
    output::{Out, ToolError, one_line, time},
    times::{parse_now, tell_future},
};

/// The events that `log` lists: those that every option admits.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    source: PathBuf,
    /// Only those of one pool
    #[arg(long, value_name = "USER/DEVICE")]
    pool: Option<PoolId>,
    /// Only from this record on
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    from: u64,
    /// Only those recorded at this time or later, as in `yesterday 06:30` (UTC)
    #[arg(long, value_name = "TIME", value_parser = parse_now)]
    since: Option<Timestamp>,
    /// Only those recorded at this time or earlier, as in `2 hours ago`
    #[arg(long, value_name = "TIME", value_parser = parse_now, conflicts_with = "follow")]
    until: Option<Timestamp>,
    /// Only those of these kinds, with commas between them
    #[arg(long, value_name = "KIND", value_delimiter = ',',
          value_parser = PossibleValuesParser::new(event_kinds()))]
    event: Vec<String>,
    /// Only the last so many of them
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
    /// Keep asking a server for more, until interrupted
    #[arg(long)]
    follow: bool,
    /// How long to wait before a server is asked again, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1, requires = "follow",
          value_parser = clap::value_parser!(u64).range(1..))]
    interval_s: u64,
}

impl LogArgs {
    /// Refuses options that admit no event of any log.
    fn check(&self, source: &Source) -> Result<(), ToolError> {
        if self.follow && source.kind() != SourceKind::Server {
            let what = format!("{} does not grow while it is read", source.kind().words());
            return Err(ToolError::usage(format!("{what}; only a server can be followed")));
        }
        match (self.since, self.until) {
            (Some(since), Some(until)) if until < since => Err(ToolError::usage(format!(
                "--until {} is before --since {}: no event is between them",
                time(until),
                time(since)
            ))),
            _ => Ok(()),
        }
    }

    fn admits(&self, envelope: &EventEnvelope) -> bool {
        self.pool.as_ref().is_none_or(|pool| concerns(&envelope.stream, pool))
            && self.since.is_none_or(|since| since <= envelope.at)
            && self.until.is_none_or(|until| envelope.at <= until)
            && (self.event.is_empty()
                || self.event.iter().any(|kind| kind == envelope.event.name()))
    }
}

/// Lists the events; with `--follow`, asks a server again and again for those that come.
pub(crate) fn log(args: &LogArgs, out: &mut Out) -> Result<u8, ToolError> {
    let source = Source::open(&args.source)?;
    args.check(&source)?;
    let before = args.from.saturating_sub(1);
    let (mut last, latest) = match args.tail {
        Some(length) => list_last(length, (&source, before), args, out)?,
        None => list((&source, before), args, out)?,
    };
    for asked in [args.since, args.until].into_iter().flatten() {
        tell_future(asked, latest);
    }
    if !args.follow {
        return Ok(FINE);
    }
    loop {
        out.flush()?;
        thread::sleep(Duration::from_secs(args.interval_s));
        (last, _) = list((&source, last), args, out)?;
    }
}

/// The position of the last record that was read, and the latest time of all.
type ReadEnd = (u64, Timestamp);

/// Lists the admitted events after a record.
fn list(after: (&Source, u64), args: &LogArgs, out: &mut Out) -> Result<ReadEnd, ToolError> {
    admitted(after, args, &mut |seq, envelope| say(seq, &envelope, out))
}

/// Lists the last admitted events after a record.
fn list_last(
    length: usize,
    after: (&Source, u64),
    args: &LogArgs,
    out: &mut Out,
) -> Result<ReadEnd, ToolError> {
    let mut kept = VecDeque::new();
    let end = admitted(after, args, &mut |seq, envelope| {
        kept.push_back((seq, envelope));
        if length < kept.len() {
            kept.pop_front();
        }
        Ok(())
    })?;
    kept.iter().try_for_each(|(seq, envelope)| say(*seq, envelope, out))?;
    Ok(end)
}

/// Reads a source after a record, and hands on the events that the options admit.
fn admitted(
    (source, after): (&Source, u64),
    args: &LogArgs,
    visit: &mut dyn FnMut(u64, EventEnvelope) -> Result<(), ToolError>,
) -> Result<ReadEnd, ToolError> {
    let (mut last, mut latest) = (after, Timestamp::default());
    try_read_after(source, after, &mut |raw, envelope| {
        last = raw.seq;
        latest = latest.max(envelope.at);
        if args.admits(&envelope) { visit(raw.seq, envelope) } else { Ok(()) }
    })?;
    Ok((last, latest))
}

fn say(seq: u64, envelope: &EventEnvelope, out: &mut Out) -> Result<(), ToolError> {
    out.say(|| line(seq, envelope), || object(seq, envelope))
}

/// Whether a history is a pool's or its device's mailbox.
fn concerns(stream: &StreamId, pool: &PoolId) -> bool {
    matches!(stream, StreamId::Pool(of) | StreamId::Mailbox(of) if of == pool)
}

/// A record on one line.
pub(crate) fn line(seq: u64, envelope: &EventEnvelope) -> String {
    let EventEnvelope { stream, at, event, .. } = envelope;
    let of = event.keypackage_ref().map(|of| format!("{} ", of.short())).unwrap_or_default();
    let detail = timeline([envelope], None).pop().map(|moment| moment.detail).unwrap_or_default();
    let (at, stream, kind) = (time(*at), StreamName(stream), event.name());
    let line = format!("{seq:>6}  {at}  {stream}  {kind}  {of}{detail}");
    one_line(line.trim_end()).into_owned()
}

/// A record as an object: all that it says.
pub(crate) fn object(seq: u64, envelope: &EventEnvelope) -> Value {
    let mut object = serde_json::to_value(envelope).unwrap_or_default();
    if let Some(fields) = object.as_object_mut() {
        fields.insert("seq".to_owned(), json!(seq));
    }
    object
}
