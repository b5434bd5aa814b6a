//! Checks the histories of a journal before an index is built from it.

use std::{collections::HashMap, ops::ControlFlow, path::Path};

use super::{
    directory::OpenError,
    entry::{Fingerprint, Fingerprints, IndexKey},
    journal::{JournalReader, RawRecord, new_key},
};
use crate::codec;

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
        let envelope = codec::decode(raw.envelope_bytes).map_err(|err| raw.unreadable(&err))?;
        let (seq, version) = (raw.seq, envelope.version);
        let history = self.fingerprints.of(IndexKey::Head(&envelope.stream));
        let last = self.last.insert(history, version).unwrap_or_default();
        if last < version {
            return Ok(());
        }
        Err(OpenError::Contradiction { stream: envelope.stream, version, seq })
    }
}
