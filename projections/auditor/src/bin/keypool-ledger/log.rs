//! `log`: the events of a source, a line each.

use std::{path::Path, thread, time::Duration};

use keypool_auditor::source::{Source, SourceKind};
use keypool_ledger::{EventEnvelope, PoolId, StreamId};
use keypool_projections::timeline;
use serde_json::{Value, json};

use crate::{
    FINE,
    input::try_read_after,
    output::{Out, ToolError, time},
};

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
