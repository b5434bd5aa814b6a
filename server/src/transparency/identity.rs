//! The key that signs, and its name: made at the first start, the same for ever.
//!
//! A new key stands in a file of another name until the first checkpoint is stored. So where the
//! key is found there was a checkpoint, and one that is gone is missed.

use std::path::{Path, PathBuf};

use keypool_transparency::NoteSigner;

use super::{LedgerError, Places, durable::Durable};

/// The key of a ledger, as it is on the disk.
pub(super) struct LedgerIdentity {
    /// The key.
    pub(super) signer: NoteSigner,
    /// Whether it has signed a checkpoint that was stored.
    pub(super) has_signed: bool,
    file: Durable,
}

/// Makes the key of a ledger before the first record of its log is written.
///
/// `records` are those the log has. `accepts_new` says that the operator wants a new key for them if there is none.
///
/// # Errors
///
/// Returns a [`LedgerError`] if there are records and no key, or if the key is not the ledger's. No key was made then.
pub(crate) fn prepare_identity(
    places: &Places,
    (asked, usual): (Option<&str>, &str),
    records: u64,
    accepts_new: bool,
) -> Result<(), LedgerError> {
    let is_there = |path: &Path| Durable::at(path).load().map(|text| text.is_some());
    let has_files =
        is_there(&places.key)? || is_there(&candidate(places))? || is_there(&places.checkpoint)?;
    if 0 < records && !has_files && !accepts_new {
        return Err(LedgerError::NoKey { key: places.key.clone(), records });
    }
    LedgerIdentity::open(places, asked, usual).map(drop)
}

impl LedgerIdentity {
    /// Reads the key, or makes one where there is neither a key nor a checkpoint.
    ///
    /// `asked` is the name the operator has set, `usual` that of a new ledger otherwise.
    pub(super) fn open(
        places: &Places,
        asked: Option<&str>,
        usual: &str,
    ) -> Result<Self, LedgerError> {
        for (path, has_signed) in [(places.key.clone(), true), (candidate(places), false)] {
            let file = Durable::at(&path);
            if let Some(text) = file.load()? {
                let signer = NoteSigner::from_secret_text(text.trim());
                let signer = signer.map_err(|_| LedgerError::Key(path))?;
                check_name(&signer, asked)?;
                return Ok(Self { signer, has_signed, file });
            }
        }
        if Durable::at(&places.checkpoint).load()?.is_some() {
            let (key, file) = (places.key.clone(), places.checkpoint.clone());
            return Err(LedgerError::KeyMissing { key, file });
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(LedgerError::Random)?;
        let name = asked.unwrap_or(usual);
        let signer = NoteSigner::new(name, &secret);
        let signer = signer.map_err(|_| LedgerError::Name(name.to_owned()))?;
        let file = Durable::at(&candidate(places));
        file.store(&format!("{}\n", signer.to_secret_text()))?;
        Ok(Self { signer, has_signed: false, file })
    }

    /// Notes that a checkpoint is stored: from now on the two belong together.
    pub(super) fn confirm(self, places: &Places) -> Result<NoteSigner, LedgerError> {
        if !self.has_signed {
            self.file.rename(&places.key)?;
        }
        Ok(self.signer)
    }
}

/// The name of the key that a file holds.
pub(super) fn name_in(file: &Durable) -> Result<String, LedgerError> {
    let signer = NoteSigner::from_secret_text(file.load()?.unwrap_or_default().trim());
    let signer = signer.map_err(|_| LedgerError::Key(file.path().to_owned()))?;
    Ok(signer.public().name().to_owned())
}

fn candidate(places: &Places) -> PathBuf {
    places.key.with_extension("key.new")
}

fn check_name(signer: &NoteSigner, asked: Option<&str>) -> Result<(), LedgerError> {
    let public = signer.public();
    match asked {
        Some(asked) if asked != public.name() => {
            let (kept, asked) = (public.name().to_owned(), asked.to_owned());
            Err(LedgerError::Renamed { kept, asked })
        }
        Some(_) | None => Ok(()),
    }
}
