//! `info`: an overview of a source.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use keypool_auditor::source::Source;
use keypool_ledger::{PoolId, StreamId, Timestamp};
use keypool_transparency::Tree;
use serde_json::json;

use crate::{
    FINE,
    input::read,
    output::{Out, ToolError, time},
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

/// Prints an overview of a source.
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
