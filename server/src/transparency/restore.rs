//! Going on with an older copy of the data, once the operator has said that the newer one is lost.
//!
//! A published checkpoint cannot be contradicted, so another ledger begins, with a key and a name of its
//! own; the key and checkpoint of the one before are kept beside it as evidence. Packages that are
//! available in the copy may have been handed out in the lost part: all are withdrawn before anyone is
//! served.

use std::{
    fs,
    path::{Path, PathBuf},
};

use keypool_ledger::{EventLog, RevokeReason};
use keypool_projections::{RevokeScope, statement::LedgerId};
use keypool_transparency::NoteSigner;

use super::{LedgerError, Places, durable::Durable, identity};
use crate::keypackage_store::{Idempotency, KeyPackageStore, StoreError};

/// The folder of a ledger that has ended; a number follows.
const EVIDENCE: &str = "ledger-before-";
/// The file of its key in there.
const EVIDENCE_KEY: &str = "checkpoint.key";

impl LedgerError {
    /// Whether the log is another one than was published, as a restored copy is.
    pub(crate) const fn is_restored_copy(&self) -> bool {
        matches!(self, Self::SetBack { .. } | Self::Changed { .. })
    }
}

/// Withdraws every live package of every pool. Returns how many.
///
/// # Errors
///
/// Returns a [`StoreError`] if the log does not take it. Doing it again is harmless.
pub(crate) async fn quarantine<L: EventLog + 'static>(
    store: &KeyPackageStore<L>,
) -> Result<usize, StoreError> {
    let mut withdrawn = 0;
    for pool in store.pools().pools() {
        let reason = RevokeReason::Withdrawn;
        let revoked = store.revoke(&pool, RevokeScope::All, reason, Idempotency::fresh()).await?;
        withdrawn += revoked.refs.len();
    }
    Ok(withdrawn)
}

/// Moves the key and the checkpoint of the ledger that has ended aside. Returns the name of the next one.
///
/// # Errors
///
/// Returns a [`LedgerError`] if a file cannot be read or written. A file that is aside is whole then, and
/// one that is not is where it was.
pub(crate) fn set_aside(places: &Places) -> Result<String, LedgerError> {
    let (key, checkpoint) = (Durable::at(&places.key), Durable::at(&places.checkpoint));
    let name = identity::name_in(&key)?;
    let folder = evidence_folder(places)?;
    for (file, called) in [(&key, EVIDENCE_KEY), (&checkpoint, "checkpoint")] {
        if let Some(text) = file.load()? {
            Durable::at(&folder.join(called)).store(&text)?;
        }
    }
    checkpoint.remove()?;
    key.remove()?;
    Ok(next_name(&name))
}

/// The identities of the ledgers that were set aside, the oldest first. A key that cannot be read is left out.
///
/// # Errors
///
/// Returns a [`LedgerError`] if a file cannot be read.
pub(crate) fn earlier_ledgers(places: &Places) -> Result<Vec<LedgerId>, LedgerError> {
    let data = places.key.parent().map(PathBuf::from).unwrap_or_default();
    let mut earlier = Vec::new();
    for folder in earlier_folders(&data) {
        let text = Durable::at(&folder.join(EVIDENCE_KEY)).load()?.unwrap_or_default();
        let signer = NoteSigner::from_secret_text(text.trim()).ok();
        let key = signer.map(|signer| signer.public().to_string());
        earlier.extend(key.and_then(|key| LedgerId::of_verifier_key(&key)));
    }
    Ok(earlier)
}

/// The folders of the ledgers that were set aside in a data directory, the oldest first.
pub(crate) fn earlier_folders(data: &Path) -> impl Iterator<Item = PathBuf> {
    let folders = (1_u32..).map(move |number| data.join(format!("{EVIDENCE}{number}")));
    folders.take_while(|folder| folder.exists())
}

/// A folder that is not there yet, beside the key.
fn evidence_folder(places: &Places) -> Result<PathBuf, LedgerError> {
    let data = places.key.parent().map(PathBuf::from).unwrap_or_default();
    let mut number = 1_u32;
    let mut folder = data.join(format!("{EVIDENCE}{number}"));
    while folder.exists() {
        number = number.saturating_add(1);
        folder = data.join(format!("{EVIDENCE}{number}"));
    }
    let made = fs::create_dir(&folder);
    made.map_err(|source| LedgerError::Io { path: folder.clone(), source })?;
    Ok(folder)
}

/// `NAME/2` after `NAME`, `NAME/3` after that.
fn next_name(name: &str) -> String {
    let numbered = name
        .rsplit_once('/')
        .and_then(|(name, number)| number.parse::<u32>().ok().map(|number| (name, number)));
    match numbered {
        Some((name, number)) => format!("{name}/{}", number.saturating_add(1)),
        None => format!("{name}/2"),
    }
}

#[cfg(test)]
mod tests {
    use super::next_name;

    #[test]
    fn each_ledger_has_a_number_after_the_first() {
        assert_eq!(next_name("keys.example"), "keys.example/2");
        assert_eq!(next_name("keys.example/2"), "keys.example/3");
        assert_eq!(next_name("keys.example/pools"), "keys.example/pools/2");
    }
}
