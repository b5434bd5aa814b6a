//! Checks the histories of a journal before an index is built from it.

use std::{collections::HashMap, ops::ControlFlow, path::Path};

use super::{
    directory::OpenError,
    index::{Fingerprint, Fingerprints, IndexKey},
    journal::{JournalReader, RawRecord, new_key},
};
use crate::codec::{self, DecodeError};

/// The last version of each history, by a fingerprint of its name.
struct Versions {
    fingerprints: Fingerprints,
    last: HashMap<Fingerprint, u64>,
}

/// Refuses a journal in which two records of one history have the same version.
///
/// Earlier versions of keypool wrote such a record when two names had the same fingerprint. An index
/// of such a journal would serve one of the two histories and hide the other.
///
/// # Errors
///
/// Returns [`OpenError::Contradiction`], or the error of a journal that cannot be read.
pub(super) fn check(journal_dir: &Path) -> Result<(), OpenError> {
    let fingerprints = Fingerprints::new(new_key(), Fingerprints::BITS);
    let mut versions = Versions { fingerprints, last: HashMap::new() };
    let mut refused = None;
    JournalReader::open(journal_dir)?.visit(&mut |raw| match versions.take(&raw) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            refused = Some(error);
            ControlFlow::Break(())
        }
    })?;
    refused.map_or(Ok(()), Err)
}

impl Versions {
    /// Takes the next record of the journal.
    fn take(&mut self, raw: &RawRecord<'_>) -> Result<(), OpenError> {
        let envelope = codec::decode(raw.envelope_bytes).map_err(|err| unreadable(raw, &err))?;
        let (seq, version) = (raw.seq, envelope.version);
        let history = self.fingerprints.of(IndexKey::Head(&envelope.stream));
        let last = self.last.insert(history, version).unwrap_or_default();
        if last < version {
            return Ok(());
        }
        Err(OpenError::Contradiction { stream: envelope.stream, version, seq })
    }
}

/// The error of a record that this version cannot decode.
///
/// The hash of its frame has been checked, so it is what was written: a schema or an event that this
/// version does not know comes from a newer one.
pub(super) fn unreadable(raw: &RawRecord<'_>, error: &DecodeError) -> OpenError {
    let what = match error {
        DecodeError::Newer(_) => error.to_string(),
        DecodeError::Malformed(cause) => format!("this version cannot read its event ({cause})"),
        _ => {
            let offset = usize::try_from(raw.offset).unwrap_or(usize::MAX);
            return OpenError::damaged(raw.file, offset, format!("record {}: {error}", raw.seq));
        }
    };
    OpenError::Newer { file: raw.file.to_owned(), what: format!("record {}: {what}", raw.seq) }
}
