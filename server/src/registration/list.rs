//! The operator's list: which keys may register for which devices.

use std::collections::BTreeSet;

use keypool_ledger::{PoolId, SignatureKey};

/// The operator's list of devices and the keys that may register for them.
#[derive(Debug, Default)]
pub(crate) struct AllowList(BTreeSet<(PoolId, Vec<u8>)>);

impl AllowList {
    /// Reads lines of `user device keyid`. Empty ones, and those that begin with `#`, say nothing. A device
    /// may stand there with several keys.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut entries = BTreeSet::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            entries.insert(entry(line).map_err(|message| (number, message))?);
        }
        Ok(Self(entries))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn has(&self, pool: &PoolId, key: &SignatureKey) -> bool {
        self.0.contains(&(pool.clone(), key.as_bytes().to_vec()))
    }
}

fn entry(line: &str) -> Result<(PoolId, Vec<u8>), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [user, device, keyid] = words[..] else {
        return Err(format!("expected `user device keyid`, found {} words", words.len()));
    };
    let pool = PoolId::new(user, device).map_err(|error| error.to_string())?;
    let key: Option<SignatureKey> = keyid.parse().ok();
    match key.filter(|key| key.as_bytes().len() == 32) {
        Some(key) => Ok((pool, key.as_bytes().to_vec())),
        None => Err(format!("{keyid:?} is not the base64url of an Ed25519 public key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";

    #[test]
    fn a_list_has_what_stands_in_it_and_a_wrong_line_is_named() {
        let text = format!("# who may come\n\nalice main {KEY}\n  bob\tphone  {KEY}\n");
        let list = AllowList::parse(&text).unwrap();
        let key: SignatureKey = KEY.parse().unwrap();
        let other = SignatureKey::new(&[7; 32]).unwrap();
        let has = |pool: &str, key| list.has(&pool.parse().unwrap(), key);
        assert_eq!(list.len(), 2);
        assert!(has("alice", &key) && has("bob/phone", &key));
        assert!(!has("bob", &key) && !has("alice/phone", &key) && !has("alice", &other));

        let wrong = |line: &str| AllowList::parse(&format!("alice main {KEY}\n{line}\n"));
        let said: Vec<String> =
            ["alice main", "al/ice main KEY", "alice main AAAA", "alice main a=b"]
                .iter()
                .map(|line| {
                    let (number, message) = wrong(line).unwrap_err();
                    format!("{number}: {message}")
                })
                .collect();
        insta::assert_snapshot!(said.join("\n"), @r#"
        2: expected `user device keyid`, found 2 words
        2: user "al/ice" is not valid: 1 to 128 characters of A-Z a-z 0-9 . _ @ : + -
        2: "AAAA" is not the base64url of an Ed25519 public key
        2: "a=b" is not the base64url of an Ed25519 public key
        "#);
    }
}
