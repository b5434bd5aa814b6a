//! `prune`: a log as one file, without payloads that ended long ago.

use std::{ops::ControlFlow, path::Path, time::Duration};

use keypool_projections::retention::Retention;
use serde_json::json;

use crate::{
    FINE,
    export::write,
    input::read,
    output::{Out, ToolError},
};

/// Writes the log into one file, without payloads that ended long ago.
pub(crate) fn prune(
    path: &Path,
    file: &Path,
    keep_days: u32,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let (mut retention, mut before) = (Retention::default(), 0_u64);
    read(path, &mut |raw, envelope| {
        before = before.saturating_add(raw.payload.len() as u64);
        retention.see(raw.seq, &envelope, !raw.payload.is_empty());
        ControlFlow::Continue(())
    })?;
    let without = retention.prunable(Duration::from_hours(24 * u64::from(keep_days)));
    let manifest = write(path, file, &without)?;
    let (records, root, gone) = (manifest.records, &manifest.root, without.len());
    let bytes = before.saturating_sub(manifest.payload_bytes);
    out.say(
        || {
            format!(
                "{records} records written to {}, without {gone} payloads of packages and messages that \
                 are over ({bytes} of {before} bytes)\nhead {records}:{root}",
                file.display()
            )
        },
        || json!({ "manifest": manifest, "pruned": gone, "pruned_bytes": bytes }),
    )?;
    Ok(FINE)
}
