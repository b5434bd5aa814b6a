//! Checks the histories of a journal before an index is built from it, and their chains in a copy of it.

use std::{collections::HashMap, ops::ControlFlow, path::Path};

use super::{
    directory::OpenError,
    entry::{Fingerprint, Fingerprints, IndexKey},
    journal::{JournalReader, RawRecord, new_key},
};
use crate::{Hash, codec};

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

/// After how many records it is asked whether the check goes on.
const CHECKED_AT_ONCE: u64 = 1024;

/// The last version of each history and its chain hash, by a fingerprint of its name.
struct ChainEnds {
    fingerprints: Fingerprints,
    last: HashMap<Fingerprint, (u64, Hash)>,
}

/// Checks the chain of each history and the digest of each payload, beside the hashes of the journal.
/// Returns the position of the last record; `None` if `goes_on`, which is asked now and then, has ended it.
///
/// # Errors
///
/// Returns an [`OpenError`] at the first record that differs from the one that was written.
pub(super) fn check_chains(
    mut journal: JournalReader,
    goes_on: &dyn Fn() -> bool,
) -> Result<Option<u64>, OpenError> {
    let fingerprints = Fingerprints::new(new_key(), Fingerprints::BITS);
    let mut ends = ChainEnds { fingerprints, last: HashMap::new() };
    let (mut last_seq, mut refused) = (Some(0), None);
    journal.visit(&mut |raw| match ends.take(&raw) {
        Ok(()) if raw.seq % CHECKED_AT_ONCE == 0 && !goes_on() => {
            last_seq = None;
            ControlFlow::Break(())
        }
        Ok(()) => {
            last_seq = Some(raw.seq);
            ControlFlow::Continue(())
        }
        Err(error) => {
            refused = Some(error);
            ControlFlow::Break(())
        }
    })?;
    refused.map_or(Ok(last_seq), Err)
}

impl ChainEnds {
    /// Takes the next record of the journal.
    fn take(&mut self, raw: &RawRecord<'_>) -> Result<(), OpenError> {
        let envelope = codec::decode(raw.envelope_bytes).map_err(|err| raw.unreadable(&err))?;
        let (seq, version) = (raw.seq, envelope.version);
        let altered = |what| {
            let offset = usize::try_from(raw.offset).unwrap_or(usize::MAX);
            OpenError::damaged(raw.file, offset, format!("record {seq}: {what}"))
        };
        if !raw.payload.is_empty() && Hash::of(raw.payload) != envelope.payload {
            return Err(altered("its payload has another digest than its envelope says"));
        }
        let history = self.fingerprints.of(IndexKey::Head(&envelope.stream));
        let end = (version, codec::chain_hash(raw.envelope_bytes));
        let before = self.last.insert(history, end).unwrap_or_default();
        if before == (version.wrapping_sub(1), envelope.prev) {
            return Ok(());
        }
        Err(altered("it does not follow the record before it in its history"))
    }
}
