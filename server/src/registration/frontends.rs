//! The frontend keys: the public keys of the app's backend, which signs requests for its users' devices.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{PoisonError, RwLock},
};

use keypool_ledger::SignatureKey;

use super::{RegistrationError, parsed};
use crate::authentication::is_public_key;

/// The frontend keys, by the file that was read last.
#[derive(Debug)]
pub(super) struct Frontends {
    path: Option<PathBuf>,
    keys: RwLock<HashSet<SignatureKey>>,
}

impl Frontends {
    /// The keys of a file that is not read yet; none without a file.
    pub(super) fn at(path: Option<PathBuf>) -> Self {
        Self { path, keys: RwLock::default() }
    }

    /// Reads the file, and changes nothing yet.
    pub(super) fn read(&self) -> Result<HashSet<SignatureKey>, RegistrationError> {
        self.path.as_ref().map_or_else(|| Ok(HashSet::new()), |path| parsed(path, parse))
    }

    /// Puts the keys in the place of those before.
    pub(super) fn replace(&self, keys: HashSet<SignatureKey>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// The number of keys; `None` without a file.
    pub(super) fn count(&self) -> Option<usize> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        self.path.as_ref().map(|_| keys.len())
    }

    /// Whether a key is one of them.
    pub(super) fn has(&self, key: &SignatureKey) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).contains(key)
    }
}

/// Parses one key a line. Empty lines, and those that begin with `#`, are ignored.
fn parse(text: &str) -> Result<HashSet<SignatureKey>, (usize, String)> {
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let key = |(number, line): (usize, &str)| {
        let key = line.parse().ok().filter(is_public_key);
        let wrong = || format!("{line:?} is not the base64url of an Ed25519 public key");
        key.ok_or_else(|| (number, wrong()))
    };
    lines.map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";

    #[test]
    fn a_file_has_a_key_a_line_and_a_wrong_line_is_named() {
        let keys = parse(&format!("# the backend\n\n  {KEY}\n{KEY}\n")).unwrap();
        assert_eq!(keys, HashSet::from([KEY.parse().unwrap()]));
        for wrong in ["AAAA", "a=b", &format!("{KEY} {KEY}")] {
            let message = format!("{wrong:?} is not the base64url of an Ed25519 public key");
            assert_eq!(parse(&format!("{KEY}\n{wrong}\n")).unwrap_err(), (2, message));
        }
    }
}
