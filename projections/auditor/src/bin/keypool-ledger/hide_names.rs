//! `hide-names`: a copy of a data directory whose log names users and devices by pseudonyms.

use std::{collections::HashMap, fs, io, path::Path};

use keypool_auditor::source::{Source, SourceKind};
use keypool_ledger::{
    NameHider, Record, StreamHead, StreamId, codec,
    log::{BoxError, seal},
};
use serde_json::json;

use crate::{
    FINE,
    import::FrameWriter,
    input::try_read,
    output::{Out, ToolError},
    restore::{KEY, ended_ledger, ended_ledgers},
};

/// Copies a data directory to a new one, with pseudonyms in the places of names. Each record keeps its position; the
/// names stand behind the last one. The ledger so far ends, and its key and last checkpoint are kept as its proof.
pub(crate) fn hide_names(from: &Path, to: &Path, out: &mut Out) -> Result<u8, ToolError> {
    if Source::open(from)?.kind() != SourceKind::Data {
        let what = "is no data directory of a server that has stopped";
        return Err(ToolError::usage(format!("{} {what}", from.display())));
    }
    let mut journal = FrameWriter::create(to)?;
    let mut heads: HashMap<StreamId, StreamHead> = HashMap::new();
    let mut hider = NameHider::default();
    let mut last_seq = 0;
    let unfit = |seq: u64, error: BoxError| {
        ToolError::usage(format!("record {seq} cannot be copied: {error}"))
    };
    try_read(from, &mut |raw, mut envelope| {
        let unfit = |error: BoxError| unfit(raw.seq, error);
        // The envelope has names again, as far as the log still has them.
        if codec::decode(raw.envelope_bytes).is_ok_and(|it| it.schema != codec::SCHEMA) {
            return Err(ToolError::usage("the log hides names already"));
        }
        let mut payload = raw.payload.to_vec();
        hider.hide(&mut envelope, &mut payload).map_err(|error| unfit(error.into()))?;
        let head = heads.entry(envelope.stream.clone()).or_default();
        envelope.prev = head.hash;
        envelope.schema = codec::schema_of(&envelope.stream, &envelope.event);
        let envelope_bytes = codec::encode(&envelope).map_err(|error| unfit(error.into()))?;
        let record = Record { seq: raw.seq, envelope, envelope_bytes, payload };
        *head = record.stream_head();
        last_seq = raw.seq;
        journal.append(record)
    })?;
    for write in hider.names().into_iter().flat_map(|batch| batch.writes) {
        let mut head = StreamHead::default();
        for new in write.events {
            last_seq += 1;
            let sealed = seal(last_seq, &write.stream, head, new);
            let record = sealed.map_err(|error| unfit(last_seq, error.into()))?;
            head = record.stream_head();
            journal.append(record)?;
        }
    }
    let n_records = journal.finish()?;
    copy_ended_ledgers(from, to).map_err(ToolError::file(to))?;
    let next =
        "the first start on it begins another ledger: --accept-new-ledger --ledger-name NAME";
    out.say(
        || format!("{n_records} records copied to {}, without names; {next}", to.display()),
        || json!({ "records": n_records, "directory": to }),
    )?;
    Ok(FINE)
}

/// Copies the proofs of the ledgers that have ended, the one that ends now included.
fn copy_ended_ledgers(from: &Path, to: &Path) -> io::Result<()> {
    let copied = |from: &Path, to: &Path| -> io::Result<()> {
        fs::create_dir(to)?;
        for file in [KEY, "checkpoint"] {
            if from.join(file).exists() {
                fs::copy(from.join(file), to.join(file))?;
            }
        }
        Ok(())
    };
    let mut n_ended = 0;
    for folder in ended_ledgers(from) {
        copied(&from.join(&folder), &to.join(&folder))?;
        n_ended += 1;
    }
    copied(from, &to.join(ended_ledger(n_ended + 1)))
}
