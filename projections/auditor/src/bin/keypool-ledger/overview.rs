//! `info` and `log`: what a source holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    thread,
    time::Duration,
};

use keypool_auditor::source::{Source, SourceKind};
use keypool_ledger::{EventEnvelope, PoolId, StreamId, Timestamp};
use keypool_projections::timeline;
use keypool_transparency::Tree;
use serde_json::{Value, json};

use crate::{
    FINE,
    output::{Out, ToolError, time},
    reading::{read, try_read_after},
};

/// The counts of a whole log.
#[derive(Default)]
struct Counted {
    records: u64,
    payload_bytes: u64,
    span: Option<(Timestamp, Timestamp)>,
    pools: BTreeSet<PoolId>,
    others: BTreeSet<StreamId>,
    events: BTreeMap<&'static str, u64>,
    tree: Tree,
}

/// Says what a source holds.
pub(crate) fn info(path: &Path, out: &mut Out) -> Result<u8, ToolError> {
    let kind = Source::open(path)?.kind().words();
    let mut counted = Counted::default();
    let end = read(path, &mut |raw, envelope| {
        counted.records += 1;
        counted.payload_bytes += raw.payload.len() as u64;
        counted.tree.append(raw.envelope_bytes);
        let first = counted.span.map_or(envelope.at, |(first, _)| first);
        counted.span = Some((first, envelope.at));
        *counted.events.entry(envelope.event.name()).or_default() += 1;
        match envelope.stream {
            StreamId::Pool(pool) => drop(counted.pools.insert(pool)),
            other => drop(counted.others.insert(other)),
        }
        std::ops::ControlFlow::Continue(())
    })?;
    let groups = counted.others.iter().filter(|stream| matches!(stream, StreamId::Group(_)));
    let groups = groups.count();
    let mailboxes = counted.others.len() - groups;
    let (first, last) = counted.span.unwrap_or_default();
    let (size, root) = (counted.tree.size(), counted.tree.root());
    let events = || {
        let words = counted.events.iter().map(|(name, count)| format!("{count} {name}"));
        words.collect::<Vec<_>>().join(", ")
    };
    let lines = || {
        let mut lines = vec![
            format!("source      {kind}"),
            format!("records     {}", counted.records),
            format!("from        {}", time(first)),
            format!("to          {}", time(last)),
            format!(
                "histories   pools {}, groups {groups}, mailboxes {mailboxes}",
                counted.pools.len()
            ),
            format!("events      {}", events()),
            format!("payloads    {} bytes", counted.payload_bytes),
            format!("head        {size}:{root}"),
        ];
        lines.extend(end.manifest.as_ref().map(|m| format!("file hash   {}", m.hash)));
        lines.join("\n")
    };
    let object = || {
        json!({
            "source": kind, "records": counted.records, "from": first, "to": last,
            "pools": counted.pools.len(), "groups": groups, "mailboxes": mailboxes,
            "events": counted.events, "payload_bytes": counted.payload_bytes,
            "head": format!("{size}:{root}"),
        })
    };
    out.say(lines, object)?;
    Ok(FINE)
}

/// Lists the events; with `follow`, asks a server again and again for those that come.
pub(crate) fn log(
    path: &Path,
    pool: Option<&PoolId>,
    from: u64,
    follow: Option<Duration>,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let source = Source::open(path)?;
    if follow.is_some() && source.kind() != SourceKind::Server {
        let what = format!("{} does not grow while it is read", source.kind().words());
        return Err(ToolError::usage(format!("{what}; only a server can be followed")));
    }
    let mut last = from.saturating_sub(1);
    loop {
        try_read_after(&source, last, &mut |raw, envelope| {
            last = raw.seq;
            if pool.is_some_and(|pool| !concerns(&envelope.stream, pool)) {
                return Ok(());
            }
            out.say(|| line(raw.seq, &envelope), || object(raw.seq, &envelope))
        })?;
        let Some(interval) = follow else { return Ok(FINE) };
        out.flush()?;
        thread::sleep(interval);
    }
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
    let line = format!("{seq:>6}  {}  {stream}  {}  {of}{detail}", time(*at), event.name());
    line.trim_end().to_owned()
}

/// A record as an object: all that it says.
pub(crate) fn object(seq: u64, envelope: &EventEnvelope) -> Value {
    let mut object = serde_json::to_value(envelope).unwrap_or_default();
    if let Some(fields) = object.as_object_mut() {
        fields.insert("seq".to_owned(), json!(seq));
    }
    object
}
